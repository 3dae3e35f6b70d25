"""The training loss."""

from torch import nn


class CustomLoss(nn.Module):
    """½ (L_E + force_coefficient · L_F) of scaled energies and forces.

    L_E is the mean over frames of the error of the total energy (not per atom), L_F the mean over
    force components; the error is the squared ("mse") or the absolute difference ("mae"). Without
    predicted forces the loss is ½ L_E. Where only the forces of atoms drawn at random are there
    (`dataset.samplers.drawn_rows`), the mean over these estimates L_F without bias.

    Raises ValueError for another `loss`, or where forces are predicted and none are there to
    compare.
    """

    def __init__(self, force_coefficient=0, loss="mse"):
        super().__init__()
        losses = {"mse": nn.MSELoss, "mae": nn.L1Loss}
        if loss not in losses:
            raise ValueError(f"loss must be 'mse' or 'mae', got {loss!r}")
        self.force_coefficient = force_coefficient
        self.error = losses[loss]()

    def forward(self, prediction, target):
        """Loss of `prediction` (energy, forces) against `target` [energy, forces] or [energy]."""
        energy, forces = prediction
        loss = self.error(energy, target[0])
        if self.force_coefficient and len(forces):
            if len(target) < 2:
                raise ValueError("force_coefficient is not 0, but the frames have no forces")
            loss = loss + self.force_coefficient * self.error(forces, target[1])
        return 0.5 * loss
