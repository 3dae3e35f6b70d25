"""A repulsive pair potential under the network, for distances that no training frame has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from amptorch.data.batch import AtomicParts
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, neighbor_list

# e²/(4πε₀), eV Å.
COULOMB = 14.399645
# Screening function φ(x) = Σ c exp(−d x), and screening length, Å, of charges 1.
FACTORS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])
LENGTH, POWER = 0.46850, 0.23


@dataclass(frozen=True)
class Repulsion:
    """Compute the screened nuclear repulsion of Ziegler, Biersack and Littmark ("ZBL").

    E = Σ_{i<j} Z_i Z_j e²/(4πε₀ r) φ(r/a) s(r), with a = 0.4685 Å / (Z_i^0.23 + Z_j^0.23). J. F.
    Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Matter (1985). s goes
    from 1 to 0 between `inner` and `outer` times the sum of the covalent radii, as
    1 − 10 t³ + 15 t⁴ − 6 t⁵, so that forces and their slopes have no step.
    """

    inner: float
    outer: float

    @classmethod
    def of(cls, setting: Mapping[str, Any] | None) -> Repulsion | None:
        """Return the one that `model.repulsion` asks for, or None."""
        return None if setting is None else cls(setting["inner"], setting["outer"])

    def reach(self, numbers: Sequence[int] | np.ndarray) -> float:
        """Return the largest distance, Å, at which atoms of these numbers repel each other."""
        return 2 * self.outer * float(covalent_radii[np.asarray(numbers)].max())

    def check(self, numbers: Sequence[int] | np.ndarray, cutoff: float) -> None:
        """Raise ValueError where it reaches beyond the cutoff, Å, of the neighbour lists."""
        if self.reach(numbers) > cutoff:
            largest = chemical_symbols[numbers[int(np.argmax(covalent_radii[np.asarray(numbers)]))]]
            raise ValueError(
                f"model.repulsion reaches {self.reach(numbers):.2f} Å for {largest}, beyond the "
                f"cutoff of the fingerprints of {cutoff:g} Å: give a smaller outer than "
                f"{self.outer:g}"
            )

    def pairs(
        self, first: np.ndarray, second: np.ndarray, r: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (P,), eV, and their slopes (P,), eV/Å, of pairs of atoms with atomic
        numbers `first` and `second` at distances r (P,), Å."""
        energy, slope = np.zeros((2, len(r)))
        radii = covalent_radii[first] + covalent_radii[second]
        near = np.flatnonzero(r < self.outer * radii)
        r, radii, first, second = r[near], radii[near], first[near], second[near]
        x = r / LENGTH * (first**POWER + second**POWER)
        terms = FACTORS * np.exp(-DECAYS * x[:, None])
        screening, steepness = terms.sum(axis=1), (terms * -DECAYS).sum(axis=1) * x / r
        bare = COULOMB * first * second / r
        t = np.clip((r / radii - self.inner) / (self.outer - self.inner), 0, 1)
        switch = 1 - t**3 * (10 - 15 * t + 6 * t**2)
        falling = -30 * t**2 * (1 - t) ** 2 / (radii * (self.outer - self.inner))
        energy[near] = bare * screening * switch
        slope[near] = bare * ((steepness - screening / r) * switch + screening * falling)
        return energy, slope

    def of_pairs(self, frames: Frames, neighbors: NeighborList) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (N,) of the atoms, half of each of their pairs, and the gradient
        (P, 3) of all energies with respect to each pair vector."""
        r = np.linalg.norm(neighbors.vectors, axis=1)
        numbers = frames.numbers
        energy, slope = self.pairs(numbers[neighbors.centers], numbers[neighbors.neighbors], r)
        energies = np.bincount(neighbors.centers, energy / 2, minlength=frames.n_atoms)
        return energies, (slope / (2 * r))[:, None] * neighbors.vectors

    def parts(self, frames: Frames, neighbors: NeighborList) -> AtomicParts:
        """Return energies, forces and virials of the atoms."""
        energies, gradients = self.of_pairs(frames, neighbors)
        gradient, virials = neighbors.add_up(frames, gradients)
        return AtomicParts(energies, -gradient, virials)

    def without(self, frames: Frames, neighbors: NeighborList | None = None) -> Frames:
        """Return the frames with labels less the repulsion, which is what a network learns."""
        if neighbors is None:
            neighbors = neighbor_list(frames, self.reach(np.unique(frames.numbers)))
        parts = self.parts(frames, neighbors)
        first = frames.offsets[:-1]
        changes: dict[str, Any] = {}
        if frames.energies is not None:
            changes["energies"] = frames.energies - np.add.reduceat(parts.energies, first)
        if frames.forces is not None:
            changes["forces"] = frames.forces - parts.forces
        if frames.stress is not None:
            virials = np.add.reduceat(parts.virials, first)
            changes["stress"] = frames.stress - virials / frames.volumes[:, None]
        return replace(frames, **changes)
