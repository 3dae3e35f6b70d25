"""ASE calculators."""

import os
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from amptorch.checks import number
from amptorch.distances import warn_of_lonely
from amptorch.ensemble import Ensemble, EnsembleBatch
from amptorch.frames import Frames
from amptorch.loading import load, potential_of
from amptorch.neighbors import VerletList
from amptorch.threads import use_threads


class AmpTorch(Calculator):
    """Energy (eV) and forces (eV/Å) of a trained potential, for ASE's optimisers and dynamics.

    trainer : a `Potential`, an `Ensemble` (its mean), a trained `AtomsTrainer`, or the folder of
        what `amptorch.load` reads
    skin : Å beyond the cutoff up to which neighbours are listed; the list is searched anew only
        when an atom has moved half of it, or the cell or the atoms have changed

    There is no stress. What it has computed is kept until the atoms change: after more training,
    call `reset()` or make another.

    Raises ValueError where skin is no number of at least 0; `calculate`, before any work, where an
    element is not one of the model's.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (as ASE has it)

    def __init__(self, trainer: Any, skin: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        self.trainer = load(trainer) if isinstance(trainer, (str, os.PathLike)) else trainer
        skin = number(minimum=0)("skin", skin)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        self._lonely = False
        if not self.potential.has_forces:
            self.implemented_properties = ["energy", "free_energy"]

    @property
    def potential(self) -> Any:
        """The potential, with the parameters that a trainer has now."""
        return potential_of(self.trainer)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute `results` of the atoms, as ASE asks for them."""
        super().calculate(atoms, properties, system_changes)
        potential = self.potential
        own: Any = self.atoms
        frames = Frames.from_atoms([own], potential.elements)
        with use_threads(potential.threads):
            neighbors = self.neighbors.update(frames)
            if "numbers" in system_changes:
                potential.check_compositions(frames)
                self._lonely = False
            if not self._lonely:
                self._lonely = warn_of_lonely(frames, neighbors, potential.cutoff)
            batch = potential.batch(frames, neighbors)
            self.results = self.evaluated(potential, batch)

    def evaluated(self, potential: Any, batch: Any) -> dict[str, Any]:
        """Return ASE's results for the one frame in `batch`."""
        energies, forces = potential.evaluate(batch)
        results = {"energy": float(energies[0]), "free_energy": float(energies[0])}
        return {**results, "forces": forces} if potential.has_forces else results


class EnsembleCalculator(AmpTorch):
    """ASE calculator of an `Ensemble`: mean energy and forces, and in `results` too
    `energy_uncertainty` (eV) and `forces_uncertainty` (n, 3), eV/Å, the standard deviations."""

    def __init__(self, ensemble: Ensemble, skin: float = 0.3, **kwargs: Any):
        super().__init__(ensemble, skin, **kwargs)
        extra = ["energy_uncertainty"] + ["forces_uncertainty"] * ensemble.has_forces
        self.implemented_properties = [*self.implemented_properties, *extra]

    def evaluated(self, potential: Ensemble, batch: EnsembleBatch) -> dict[str, Any]:
        """Return ASE's results for the one frame in `batch`, and their standard deviations."""
        energy, forces, energy_spread, forces_spread = potential.spread(batch)
        results = {
            "energy": float(energy[0]),
            "free_energy": float(energy[0]),
            "energy_uncertainty": float(energy_spread[0]),
        }
        if not potential.has_forces:
            return results
        return {**results, "forces": forces, "forces_uncertainty": forces_spread}
