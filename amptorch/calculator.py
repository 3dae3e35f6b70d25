"""ASE calculators."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from amptorch.checks import number
from amptorch.distances import warn_of_lonely
from amptorch.ensemble import Ensemble, EnsembleBatch
from amptorch.frames import Frames
from amptorch.loading import load, potential_of
from amptorch.neighbors import VerletList
from amptorch.prediction import AtomicParts, check_stress
from amptorch.threads import use_threads


class AmpTorch(Calculator):
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of a trained potential, for ASE's optimisers
    and dynamics.

    trainer : a `Potential`, an `Ensemble` (its mean), a trained `AtomsTrainer`, or the folder of
        what `amptorch.load` reads
    skin : Å beyond the cutoff up to which neighbours are listed; the list is searched anew only
        when an atom has moved half of it, or the cell or the atoms have changed

    `get_stress()` has ASE's sign (positive under tension) and order (xx, yy, zz, yz, xz, xy), and
    is over the volume of the whole cell, of a slab too. `get_stresses()` (n, 6) and
    `get_potential_energies()` (n,) are the shares of the atoms, which add up to the whole. What it
    has computed is kept until the atoms change: after more training, call `reset()` or make
    another.

    Raises ValueError where skin is no number of at least 0; `calculate`, before any work, where an
    element is not one of the model's, and ASE's PropertyNotImplementedError where the stress is
    asked of atoms without three cell vectors.
    """

    implemented_properties = [  # noqa: RUF012 (as ASE has it)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]

    def __init__(self, trainer: Any, skin: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        self.trainer = load(trainer) if isinstance(trainer, (str, os.PathLike)) else trainer
        skin = number(minimum=0)("skin", skin)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        self._lonely = False
        if not self.potential.has_forces:
            self.implemented_properties = ["energy", "free_energy", "energies"]

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
        if "stress" in properties or "stresses" in properties:
            check_stress(potential, frames)
        with use_threads(potential.threads):
            neighbors = self.neighbors.update(frames)
            if "numbers" in system_changes:
                potential.check_compositions(frames)
                self._lonely = False
            if not self._lonely:
                self._lonely = warn_of_lonely(frames, neighbors, potential.cutoff)
            parts, further = self.evaluated(potential, potential.batch(frames, neighbors))
        energy, volume = float(parts.energies.sum()), frames.volumes[0]
        found: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": parts.energies,
        }
        if potential.has_forces:
            found["forces"] = parts.forces
        if potential.has_forces and not np.isnan(volume):
            found["stresses"] = parts.virials / volume
            found["stress"] = found["stresses"].sum(axis=0)
        self.results = {**found, **further}

    def evaluated(self, potential: Any, batch: Any) -> tuple[AtomicParts, dict[str, Any]]:
        """Return what the atoms of the one frame in `batch` have, and further results by name."""
        return potential.evaluate_atoms(batch), {}


class EnsembleCalculator(AmpTorch):
    """ASE calculator of an `Ensemble`: the means, and in `results` too `energy_uncertainty` (eV)
    and `forces_uncertainty` (n, 3), eV/Å, the standard deviations."""

    def __init__(self, ensemble: Ensemble, skin: float = 0.3, **kwargs: Any):
        super().__init__(ensemble, skin, **kwargs)
        extra = ["energy_uncertainty"] + ["forces_uncertainty"] * ensemble.has_forces
        self.implemented_properties = [*self.implemented_properties, *extra]

    def evaluated(
        self, potential: Ensemble, batch: EnsembleBatch
    ) -> tuple[AtomicParts, dict[str, Any]]:
        """Return what the atoms of the one frame in `batch` have, and the standard deviations."""
        parts, energy_spread, forces_spread = potential.spread_atoms(batch)
        further: dict[str, Any] = {"energy_uncertainty": float(energy_spread[0])}
        if potential.has_forces:
            further["forces_uncertainty"] = forces_spread
        return parts, further
