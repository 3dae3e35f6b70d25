"""The training loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


class CustomLoss(nn.Module):
    """Compute ½ (L_E + force_coefficient · L_F + stress_coefficient · L_S) of scaled targets.

    L_E is the mean over frames of the error of the total energy, or with `energy_per_atom` of the
    error divided by the number of atoms, L_F the mean over force components, L_S that over the six
    stress components of all frames, 0 in those without a stress. The error is the squared ("mse")
    or the absolute difference ("mae"), or ("huber") the squared one up to a limit δ and
    2 δ |difference| − δ² beyond. δ is `huber_delta` times the median of the absolute differences of
    a batch, one for each of the three, so that it falls as a training goes on.
    Without predicted forces the loss is ½ L_E. Where only the forces of atoms drawn at random are
    there (`dataset.samplers.drawn_rows`), the mean over these estimates L_F without bias. Where
    frames have weights w, all are means of w · error.

    With `energy_per_atom` there is `mean_atoms` (): the mean number of atoms of the training frames
    once a training has begun, 0 before; the Kalman filter takes it as the size of a usual frame.

    Raises ValueError for another `loss`, or where forces are predicted and none are there to
    compare.
    """

    mean_atoms: torch.Tensor

    def __init__(
        self,
        force_coefficient: float = 0,
        loss: str = "mae",
        energy_per_atom: bool = False,
        huber_delta: float = 3.0,
        stress_coefficient: float = 0,
    ) -> None:
        super().__init__()
        losses: dict[str, Callable[..., torch.Tensor]] = {
            "mse": nn.functional.mse_loss,
            "mae": nn.functional.l1_loss,
            "huber": self._huber,
        }
        if loss not in losses:
            raise ValueError(f"loss must be 'mse', 'mae' or 'huber', got {loss!r}")
        self.huber_delta = huber_delta if loss == "huber" else None
        self.force_coefficient = force_coefficient
        self.stress_coefficient = stress_coefficient
        self.error = losses[loss]
        self.energy_per_atom = energy_per_atom
        if energy_per_atom:
            # A buffer, since those are part of the checkpoints.
            self.register_buffer("mean_atoms", torch.zeros((), dtype=torch.float64))

    def forward(
        self,
        prediction: Sequence[torch.Tensor],
        target: Sequence[torch.Tensor],
        counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of `prediction` (energy, forces), with the stress where it is trained
        on, against `target`, which is `Batch.targets`; `counts` (frames,) is `Batch.counts`, which
        `energy_per_atom` needs."""
        energy, forces = prediction[:2]
        expected = target[0]
        if self.energy_per_atom:
            if counts is None:
                raise ValueError("energy_per_atom needs the number of atoms of each frame")
            counts = counts.to(energy.device)
            energy, expected = energy / counts, expected / counts
        of_energy, of_forces = target[2:4] or (None, None)
        loss = self._mean(energy, expected, of_energy)
        if self.force_coefficient and len(forces):
            if len(target) < 2 or len(target[1]) == 0:
                raise ValueError("force_coefficient is not 0, but the frames have no forces")
            of_forces = None if of_forces is None else of_forces[:, None]
            loss = loss + self.force_coefficient * self._mean(forces, target[1], of_forces)
        if self.stress_coefficient and len(target) > 4:
            known = ~torch.isnan(target[4][:, 0])
            if known.any():
                weights = target[2][known][:, None]
                stress = self._mean(prediction[2][known], target[4][known], weights)
                loss = loss + self.stress_coefficient * known.to(loss).mean() * stress
        return 0.5 * loss

    def _huber(
        self, values: torch.Tensor, target: torch.Tensor, reduction: str = "mean"
    ) -> torch.Tensor:
        difference = (values - target).abs()
        limit = (self.huber_delta or 0.0) * difference.detach().median()
        # Where half of the differences are 0 there is no measure of the others.
        inside = torch.minimum(difference, limit) if limit > 0 else difference
        error = inside * (2 * difference - inside)
        return error.mean() if reduction == "mean" else error

    def _mean(
        self, values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        if weights is None:
            return self.error(values, target)
        return (weights * self.error(values, target, reduction="none")).mean()
