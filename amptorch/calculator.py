"""ASE calculators."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs

from amptorch.checks import number
from amptorch.distances import warn_of_lonely
from amptorch.ensemble import Ensemble, EnsembleBatch
from amptorch.extrapolation import MARGIN, NOT_KNOWN, Extrapolation, Watch
from amptorch.frames import Frames
from amptorch.loading import load, potential_of
from amptorch.neighbors import VerletList
from amptorch.prediction import AtomicParts, check_stress
from amptorch.threads import blas_threads, use_threads

logger = logging.getLogger(__name__)


# What ASE's own `Calculator` takes.
OF_ASE = {"restart", "ignore_bad_restart_file", "label", "atoms", "directory"}


class AmpTorch(Calculator):
    """Give ASE's optimisers and dynamics the energy (eV), forces (eV/Å) and stress (eV/Å³) of a
    trained potential.

    trainer : a `Potential`, an `Ensemble` (its mean), a trained `AtomsTrainer`, or the folder of
        what `amptorch.load` reads
    skin : Å beyond the cutoff up to which neighbours are listed; the list is searched anew only
        when an atom has moved half of it, or the cell or the atoms have changed
    extrapolation : "warn", "raise" (an `ExtrapolationError`) or "ignore" where atoms are farther
        from those of the training than 1 + `extrapolation_margin`; see `amptorch.extrapolation`

    Attributes: `extrapolation`, how far the atoms are that were asked last, an `Extrapolation`, or
    None with "ignore" and where the model does not know; `watch`, which counts.

    `get_stress()` has ASE's sign (positive under tension) and order (xx, yy, zz, yz, xz, xy), and
    is over the volume of the whole cell, of a slab too. `get_stresses()` (n, 6) and
    `get_potential_energies()` (n,) are the shares of the atoms, which add up to the whole. What it
    has computed is kept until the atoms change: after more training, call `reset()` or make
    another. Each thread needs a calculator of its own, as with all of ASE's; they can share a
    potential.

    Raises TypeError for an option of another name or what is no trained potential, and ValueError
    for a value that none of them has; `calculate`, before any work, where an element is not one of
    the model's, and ASE's PropertyNotImplementedError where the stress is asked of atoms without
    three cell vectors.
    """

    implemented_properties = [  # noqa: RUF012 (as ASE has it)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]

    def __init__(
        self,
        trainer: Any,
        skin: float = 0.3,
        extrapolation: str = "warn",
        extrapolation_margin: float = MARGIN,
        **kwargs: Any,
    ):
        unknown = sorted(set(kwargs) - OF_ASE)
        if unknown:
            raise TypeError(f"{unknown[0]!r} is no option of {type(self).__name__}")
        super().__init__(**kwargs)
        self.watch = Watch(extrapolation, extrapolation_margin)
        self.extrapolation: Extrapolation | None = None
        self._said_unknown = extrapolation == "ignore"
        self.trainer = load(trainer) if isinstance(trainer, (str, os.PathLike)) else trainer
        if not hasattr(self.potential, "cutoff"):
            raise TypeError(
                f"{trainer!r} is no trained potential; give a Potential, an Ensemble, a trained "
                "AtomsTrainer, or the folder of one"
            )
        skin = number(minimum=0)("skin", skin)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        # The atoms of the last calculation.
        self._frames: Frames | None = None
        # Of the lists of neighbours, the last one that was looked at for atoms that are alone.
        self._looked_at, self._lonely = 0, False
        if not self.potential.has_forces:
            self.implemented_properties = ["energy", "free_energy", "energies"]

    @property
    def potential(self) -> Any:
        """Return the potential, with the parameters that a trainer has now."""
        return potential_of(self.trainer)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse to change options; TypeError that names one."""
        if kwargs:
            name = next(iter(kwargs))
            raise TypeError(f"{name!r} of a calculator cannot be changed; make another calculator")
        return super().set()

    def export_properties(self) -> Properties:
        """Return the results that ASE has names for, which `atoms.get_properties` asks for;
        uncertainties are in `results` alone."""
        return Properties({name: x for name, x in self.results.items() if name in all_outputs})

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation, as ASE does, which is slower where
        it is positions alone; charges and magnetic moments, which nothing here depends on, do not
        count."""
        last = self.atoms
        if last is not None and all(
            np.array_equal(getattr(last, name), getattr(atoms, name))
            for name in ("numbers", "pbc", "cell")
        ):
            return [] if np.array_equal(last.positions, atoms.positions) else ["positions"]
        return super().check_state(atoms, tol)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute `results` of the atoms, as ASE asks for them."""
        super().calculate(atoms, properties, system_changes)
        # Where it fails, the results of other atoms are not those of these.
        self.results = {}
        potential = self.potential
        own: Any = self.atoms
        last, self._frames = self._frames, None
        # Everything has changed after `reset`. Otherwise `system_changes` may be those that another
        # calculator, which has this one, has seen.
        if "numbers" in system_changes or (
            last is not None and not np.array_equal(last.numbers, own.numbers)
        ):
            last = None
        if last is not None and _same_cell(last, own):
            frames = last.moved(own.positions)
        else:
            frames = Frames.from_atoms([own], potential.elements)
        self._frames = frames
        if "stress" in properties or "stresses" in properties:
            check_stress(potential, frames)
        with use_threads(potential.threads), blas_threads(1):
            neighbors = self.neighbors.update(frames)
            if last is None:
                potential.check_compositions(frames)
                self._lonely = False
                self.watch.start()
            if not self._lonely and self.neighbors.builds != self._looked_at:
                self._looked_at = self.neighbors.builds
                self._lonely = warn_of_lonely(frames, neighbors, potential.cutoff)
            batch = potential.batch(frames, neighbors)
            self._look(potential, batch)
            parts, further = self.evaluated(potential, batch)
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

    def _look(self, potential: Any, batch: Any) -> None:
        """Find how far the atoms are from those of the training, and do what is asked then."""
        if self.watch.kind == "ignore":
            return
        self.extrapolation = potential.extrapolation(batch)
        if self.extrapolation is not None:
            self.watch(self.extrapolation)
        elif not self._said_unknown:
            self._said_unknown = True
            logger.warning("%s", NOT_KNOWN)

    def evaluated(self, potential: Any, batch: Any) -> tuple[AtomicParts, dict[str, Any]]:
        """Return what the atoms of the one frame in `batch` have, and further results by name."""
        return potential.evaluate_atoms(batch), {}


class EnsembleCalculator(AmpTorch):
    """Give ASE the means of an `Ensemble`, and in `results` the standard deviations too:
    `energy_uncertainty` (eV) and `forces_uncertainty` (n, 3), eV/Å."""

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
            if self.extrapolation is not None:
                spread = np.linalg.norm(forces_spread, axis=1)
                self.extrapolation = replace(self.extrapolation, spread=spread)
        return parts, further


def _same_cell(frames: Frames, atoms: Atoms) -> bool:
    """Tell whether the one frame has the cell and the periodicity of the atoms."""
    return np.array_equal(frames.cells[0], atoms.cell.array) and np.array_equal(
        frames.pbc[0], atoms.pbc
    )
