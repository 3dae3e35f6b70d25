"""Uncertainties through ASE's calculator."""

from typing import Any

from amptorch.calculator import AmpTorch
from amptorch.prediction import AtomicParts


class UncertaintyCalculator(AmpTorch):
    """Calculate energies and forces with uncertainties for ASE, by a calibrated estimator.

    `results` hold what those of `AmpTorch` do, and `energy_uncertainty` (eV) and
    `forces_uncertainty` (n,), eV/Å: the error is at most that large with the given confidence
    (1 − `estimator.alpha` where None), see `UncertaintyEstimator.predict`. skin: as of `AmpTorch`.

    Raises ValueError where the estimator is not calibrated.
    """

    def __init__(
        self, estimator: Any, confidence: float | None = None, skin: float = 0.3, **kwargs: Any
    ) -> None:
        self.estimator, self.confidence = estimator, estimator.check(confidence)
        super().__init__(estimator.model, skin, **kwargs)
        extra = ["energy_uncertainty"] + ["forces_uncertainty"] * self.potential.has_forces
        self.implemented_properties = [*self.implemented_properties, *extra]

    def evaluated(self, potential: Any, batch: Any) -> tuple[AtomicParts, dict[str, Any]]:
        """Return what the atoms of the one frame of a batch have, and the uncertainties."""
        observed = self.estimator.evaluated(potential, batch)
        energy, forces = self.estimator.half_widths(observed, self.confidence)
        further = {"energy_uncertainty": float(energy[0] * observed.counts[0])}
        if self.potential.has_forces:
            further["forces_uncertainty"] = forces
        return observed.parts, further
