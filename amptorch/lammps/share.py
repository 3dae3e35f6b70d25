"""Compute one process's share of energy, forces and virial: that of its own central atoms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from amptorch.ensemble import Ensemble, groups_of
from amptorch.extrapolation import farthest
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, VerletList
from amptorch.potential import Potential


class SharedList(VerletList):
    """Keep the pairs of one process's central atoms in the one frame of a running simulation.

    rank, size : number of this process, and of all

    The atoms `first:last` are this process's; all processes together have each atom once, and
    about equally many pairs. The pairs stay listed while the box changes a little, as it does in
    every step at constant pressure.
    """

    def __init__(self, cutoff: float, skin: float, rank: int = 0, size: int = 1) -> None:
        super().__init__(cutoff, skin)
        self.rank = rank
        self.size = size
        self.first = self.last = 0

    def update(self, frames: Frames) -> NeighborList:
        """Return the list of pairs up to `cutoff + skin` whose central atom is one of
        `first:last`; the other atoms of `frames` have none."""
        builds = self.builds
        found = super().update(frames)
        if self.builds > builds:
            found = self._list = self._own(found)
        return found

    def unwrapped(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
        """Return `positions` (N, 3), each in that periodic image where the atom has moved least
        since pairs were searched: LAMMPS puts atoms that leave the box in on the other side."""
        last = self._frames
        if last is None or len(positions) != last.n_atoms:
            return positions
        inverse = np.linalg.inv(cell)
        moved = (positions - self._carried(last, cell)) @ inverse
        return positions - np.rint(moved * pbc) @ cell

    def _own(self, found: NeighborList) -> NeighborList:
        if self.size == 1:
            self.first, self.last = 0, len(found.counts)
            return found
        work = np.cumsum(found.counts + 1)
        bounds = np.searchsorted(work, np.linspace(0, work[-1], self.size + 1), side="right")
        self.first, self.last = (int(bound) for bound in bounds[self.rank : self.rank + 2])
        start, stop = found.offsets[self.first], found.offsets[self.last]
        return replace(
            found,
            offsets=np.clip(found.offsets, start, stop) - start,
            neighbors=found.neighbors[start:stop].copy(),
            shifts=found.shifts[start:stop].copy(),
            vectors=found.vectors[start:stop].copy(),
        )

    def _stale(self, frames: Frames) -> bool:
        last = self._frames
        if (
            last is None
            or not np.array_equal(frames.numbers, last.numbers)
            or not np.array_equal(frames.pbc, last.pbc)
        ):
            return True
        cell = frames.cells[0]
        # A box that is stretched by D takes a pair that was not listed, and so farther apart than
        # cutoff + skin, no nearer than its smallest singular value times that.
        stretch = np.linalg.solve(last.cells[0], cell)
        smallest = np.linalg.svd(stretch, compute_uv=False)[-1]
        moved = np.linalg.norm(frames.positions - self._carried(last, cell), axis=1).max()
        return bool(smallest * (self.cutoff + self.skin) - 2 * moved <= self.cutoff)

    @staticmethod
    def _carried(last: Frames, cell: np.ndarray) -> np.ndarray:
        """Return the positions of `last`, moved with the box to `cell`."""
        if np.array_equal(cell, last.cells[0]):
            return last.positions
        return last.positions @ np.linalg.solve(last.cells[0], cell)


class Shares(NamedTuple):
    """Hold what some atoms of a frame of N atoms have; the sums over all atoms are the frame's.

    energies (k,) : of each member, eV, without `Members.means`
    forces (N, 3) : of the mean, on all atoms, eV/Å
    virial (3, 3) : of the mean, −Σ r_ij ⊗ ∂E/∂r_ij, eV
    of_atoms (N, 7) : energies of the mean, and strain derivatives, as of `AtomicParts`, eV; 0 for
        all other atoms
    far (1,) : number of atoms that are too far from the training atoms
    """

    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray
    of_atoms: np.ndarray
    far: np.ndarray

    @classmethod
    def zeros(cls, k: int, n: int) -> "Shares":
        """Return those of no atoms."""
        return cls(*(np.zeros(shape) for shape in ((k,), (n, 3), (3, 3), (n, 7), (1,))))


class Members:
    """Evaluate a potential, or an ensemble, on some of the atoms of one frame.

    members, weights : the potentials, and what each has of the mean
    means (k,) : eV, what each member gives a frame however many atoms it has
    """

    def __init__(self, model: Potential | Ensemble) -> None:
        self.members: Sequence[Any] = getattr(model, "members", [model])
        self.weights = np.asarray(getattr(model, "weights", [1.0]))
        self.means = np.array([member.mean for member in self.members])
        self._groups = groups_of(self.members)

    def evaluate(self, frames: Frames, pairs: NeighborList, first: int, last: int) -> Shares:
        """Return what atoms `first:last` of the one frame have, `pairs` being theirs."""
        result = Shares.zeros(len(self.members), frames.n_atoms)
        if first == last:
            return result
        own = replace(
            frames,
            numbers=frames.numbers[first:last],
            positions=frames.positions[first:last],
            offsets=np.array([0, last - first]),
        )
        slopes: Any = None
        found = []
        for group in self._groups:
            descriptor = self.members[group[0]].descriptor
            values = descriptor.values(frames, pairs)
            gradient = np.zeros_like(values, dtype=np.float64)
            for k in group:
                member = self.members[k]
                # The list only says that there are derivatives: they are contracted here, once.
                batch = member.batch_of(own, pairs, values[first:last])
                found.append(member.extrapolation(batch))
                energies, of_member = member.atomic_gradient(batch)
                energies = energies - member.mean / (last - first)
                self._add(result, k, energies, slice(first, last))
                gradient[first:last] += self.weights[k] * of_member
            of_group = descriptor.pair_gradients(frames, gradient, pairs)
            # The largest of all arrays here: no copy where there is one descriptor.
            slopes = of_group if slopes is None else slopes + of_group
        for k, member in enumerate(self.members):
            if member.repulsion is not None:
                energies, of_pairs = member.repulsion.of_pairs(frames, pairs)
                self._add(result, k, energies, slice(None))
                slopes += self.weights[k] * of_pairs
        known = [one for one in found if one is not None]
        if len(known) == len(self.members):
            result.far[0] = len(farthest(known).beyond())
        gradient, result.of_atoms[:, 1:] = pairs.add_up(frames, slopes)
        result.forces[:] = -gradient
        return result._replace(virial=-(pairs.vectors.T @ slopes))

    def _add(self, result: Shares, k: int, energies: np.ndarray, atoms: slice) -> None:
        result.energies[k] += energies.sum()
        result.of_atoms[atoms, 0] += self.weights[k] * energies
