"""What the extended Kalman filter observes of a batch.

Of each frame: its energy, and `force_observations` projections of its forces. For these the atoms
are dealt into as many groups at random; a group's observation is Σ ±F_c / √(number of components),
with the signs of the errors, so that its error is √(number) times the mean absolute error. A random
projection would hold one component's share of the error; this one holds nearly all of it, as the
reorganized filter of S. Hu et al., AAAI 37, 7910 (2023) makes use of.

The variances follow from the loss: that of the (scaled, total) energy is the unit, that of forces
3 n / `force_coefficient` for a frame of n atoms.
"""

import numpy as np
import torch

from amptorch.model.jacobian import jacobian

MODE = ["sign", 1.0]


def kalman_step(net, batch):
    """One step of `net.optimizer_`, an `EKF`; skorch's {"loss", "y_pred"} from before it."""
    X, targets = batch
    X, targets = X.to(net.device), [target.to(net.device) for target in targets]
    with torch.no_grad():
        prediction = net.infer(X)
        loss = net.get_loss(prediction, targets, X=X, training=True)
    number = net.optimizer_.param_groups[0]["force_observations"]
    coefficient = net.criterion_.force_coefficient
    directions, errors, variances = observations(X, prediction, targets, coefficient, number)

    def closure():
        rows = jacobian(net.module_, X, directions)
        return {p: r.flatten(0, 1) for p, r in rows.items()}, errors, variances

    net.optimizer_.step(closure)
    return {"loss": loss, "y_pred": prediction}


def observations(batch, prediction, targets, coefficient, number):
    """(directions for `jacobian`, errors (m,), variances (m,)), frame after frame, of a batch; m is
    frames · (1 + directions)."""
    energy, forces = prediction
    directions = []
    errors = [targets[0] - energy]
    variances = [torch.ones_like(energy)]
    if coefficient and len(forces):
        counts = torch.bincount(batch.image_idx, minlength=len(batch))
        error = targets[1] - forces
        observed = np.arange(len(batch.image_idx)) if batch.force_rows is None else batch.force_rows
        order = torch.randperm(len(observed)).numpy()
        for part in np.array_split(order, number):
            part = np.sort(part)
            rows = observed[part]
            frames = batch.image_idx[torch.from_numpy(rows).to(forces.device)]
            inside = 3 * torch.bincount(frames, minlength=len(batch))
            part = torch.from_numpy(part).to(forces.device)
            if MODE[0] == "sign":
                v = torch.sign(error[part])
            elif MODE[0] == "error":
                v = error[part]
                norm = (
                    torch.zeros(len(batch), dtype=v.dtype)
                    .index_add(0, frames, (v * v).sum(dim=1))
                    .sqrt()
                )
                v = v / norm[frames, None] * inside.sqrt()[frames, None]
            else:
                v = torch.sign(torch.rand_like(error[part]) - 0.5)
            v = v / inside.to(error.dtype).sqrt()[frames, None]
            total = torch.zeros_like(energy).index_add(0, frames, (v * error[part]).sum(dim=1))
            directions.append((rows, v.double().cpu().numpy()))
            errors.append(total)
            variances.append(MODE[1] * 3 * counts / coefficient)
    return directions, torch.stack(errors, dim=1).flatten(), torch.stack(variances, 1).flatten()
