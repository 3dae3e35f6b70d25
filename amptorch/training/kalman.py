"""Steps of the extended Kalman filter, and what it observes of a batch.

Of each frame: its energy, and `force_observations` projections of its forces. For these the atoms
are dealt into as many groups at random; a group's observation is Σ v_c F_c over its force
components. v points to where the loss falls fastest, so that a step reduces what the loss measures:
with the errors e of these components, v = e / |e|, and the observed error v · e is |e|. With `loss`
"huber" it is v = t e / |√t e| and |√t e|, where t_c = min(1, δ/|e_c|): the pull on the weights, v
times what is observed, is t e, which does not grow beyond the limit δ of the loss.

S. Hu et al., AAAI 37, 7910 (2023), arXiv:2212.06989, project on the signs of the errors, which
reduces their mean absolute value: on the training frames of Project 1 their root mean square was
0.245 eV/Å, not 0.161. With random signs, which leave nearly all of the error unseen, forces were
learnt far more slowly: after 40 s on frames of 164 atoms their errors were 1.2 eV/Å, not 0.55.

Where stresses are trained on, there is one more observation, made in the same way of the six
components of the stress of each frame that has one.

The variances follow from the loss: that of the (scaled, total) energy is the unit, that of forces
3 n / `force_coefficient` for a frame of n atoms, that of a stress 6 / `stress_coefficient`; a
frame's weight divides its variances. With `energy_per_atom` they are (n/N)²,
3 n / (`force_coefficient` N²) and 6 / (`stress_coefficient` N²), where N is the mean number of
atoms of the training frames: for frames of one size those of the loss of total energies. With
"huber" the variance of an energy is multiplied by max(1, |error|/δ).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from amptorch.data.batch import Batch
from amptorch.model.jacobian import Direction, jacobian

if TYPE_CHECKING:
    from amptorch.training.net import PotentialNet


def kalman_step(net: PotentialNet, batch: tuple[Batch, list[torch.Tensor]]) -> dict[str, Any]:
    """Make one step of `net.optimizer_`, an `EKF`.

    Return skorch's {"loss", "y_pred"} as they were before the step.
    """
    X, targets = batch
    X, targets = X.to(net.device), [target.to(net.device) for target in targets]
    with torch.no_grad():
        prediction = net.infer(X)
        loss = net.get_loss(prediction, targets, X=X, training=True)
    number = net.optimizer_.param_groups[0]["force_observations"]
    criterion = net.criterion_
    mean_atoms = float(criterion.mean_atoms) if criterion.energy_per_atom else None
    generator = None if net.random is None else net.random.generator()
    directions, errors, variances = observations(
        X,
        prediction,
        targets,
        criterion.force_coefficient,
        number,
        generator,
        mean_atoms,
        criterion.huber_delta,
        criterion.stress_coefficient,
    )

    def closure() -> tuple[dict[torch.nn.Parameter, torch.Tensor], torch.Tensor, torch.Tensor]:
        rows = jacobian(net.module_, X, directions)
        return {p: r.flatten(0, 1) for p, r in rows.items()}, errors, variances

    net.optimizer_.step(closure)
    return {"loss": loss, "y_pred": prediction}


def observations(
    batch: Batch,
    prediction: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    coefficient: float,
    number: int,
    generator: torch.Generator | None = None,
    mean_atoms: float | None = None,
    huber_delta: float | None = None,
    stress_coefficient: float = 0.0,
) -> tuple[list[Direction], torch.Tensor, torch.Tensor]:
    """Return directions for `jacobian`, errors (m,) and variances (m,) of a batch.

    They come frame after frame; m is frames · (1 + directions). Without forces or `coefficient`
    there are no directions.

    prediction, targets : scaled energies, forces and stresses, as the net gives and is given them
    coefficient, stress_coefficient : of the loss
    number : force observations of each frame
    generator : draws the groups of atoms; None for torch's own
    mean_atoms : mean number of atoms of the training frames where the loss is one of energies per
        atom; None where it is one of total energies
    huber_delta : of the loss "huber"; None for "mse"
    """
    energy, forces = prediction[:2]
    directions: list[Direction] = []
    errors = [targets[0] - energy]
    weights = targets[2] if len(targets) > 2 else torch.ones_like(energy)
    counts, size = batch.counts.to(energy), mean_atoms or 1.0
    of_energy = torch.ones_like(energy) if mean_atoms is None else (counts / size).square()
    if huber_delta is not None:
        of_energy = of_energy / _trust(errors[0] / (counts if mean_atoms else 1), huber_delta)
    variances = [of_energy / weights]
    if coefficient and len(forces):
        difference = targets[1] - forces
        pull, squares = _pull(difference, huber_delta)
        drawn = torch.randperm(len(forces), generator=generator)
        for part in np.array_split(drawn.numpy(), number):
            direction, error = _projection(batch, pull, squares, np.sort(part))
            directions.append(direction)
            errors.append(error)
            variances.append(3 * counts / (coefficient * size**2 * weights))
    if stress_coefficient and batch.volumes is not None:
        difference = torch.nan_to_num(targets[4] - prediction[2])
        pull, squares = _pull(difference, huber_delta)
        errors.append(squares.sum(dim=1).sqrt())
        v = pull / (_not_zero(errors[-1]) * batch.volumes)[:, None]
        u = v.double().cpu().numpy()
        directions.append(Direction(np.zeros(0, dtype=np.int64), np.zeros((0, 3)), u))
        variances.append(6 / (stress_coefficient * size**2 * weights))
    return directions, torch.stack(errors, dim=1).flatten(), torch.stack(variances, 1).flatten()


def _projection(
    batch: Batch, pull: torch.Tensor, squares: torch.Tensor, part: np.ndarray
) -> tuple[Direction, torch.Tensor]:
    """Return (direction, error (frames,)) of an observation of these rows of the forces."""
    rows = part if batch.force_rows is None else batch.force_rows[part]
    frames = batch.image_idx[torch.from_numpy(rows).to(pull.device)]
    places = torch.from_numpy(part).to(pull.device)
    of_frames = pull.new_zeros(len(batch)).index_add(0, frames, squares[places].sum(dim=1))
    error = of_frames.sqrt()
    v = pull[places] / _not_zero(error)[frames, None]
    return Direction(rows, v.double().cpu().numpy()), error


def _pull(errors: torch.Tensor, huber_delta: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return t e and t e², like the errors e; the root of the sum of the latter is what is
    observed."""
    pull = errors if huber_delta is None else errors * _trust(errors, huber_delta)
    return pull, pull * errors


def _not_zero(error: torch.Tensor) -> torch.Tensor:
    """Return 1 for 0: where nothing is wrong there is no direction either."""
    return torch.where(error > 0, error, 1.0)


def _trust(errors: torch.Tensor, huber_delta: float) -> torch.Tensor:
    """Return min(1, δ/|error|), where δ is `huber_delta` times the median of all |error|."""
    size = errors.abs()
    limit = huber_delta * size.median()
    # Where half of the errors are 0 there is no measure of the others.
    return (limit / torch.maximum(size, limit)) if limit > 0 else torch.ones_like(size)
