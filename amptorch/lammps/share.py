"""Compute one process's share of energy, forces and virial: that of its own central atoms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from amptorch.ensemble import Ensemble
from amptorch.frames import Frames
from amptorch.kernels.forces import scatter_pair_gradients
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


class Members:
    """Evaluate a potential, or an ensemble, on some of the atoms of one frame.

    members, weights : the potentials, and what each has of the mean
    means (k,) : eV, what each member gives a frame however many atoms it has
    """

    def __init__(self, model: Potential | Ensemble) -> None:
        self.members: Sequence[Any] = getattr(model, "members", [model])
        self.weights = np.asarray(getattr(model, "weights", [1.0]))
        self.means = np.array([member.mean for member in self.members])
        self._groups: dict[tuple, list[int]] = {}
        for k, member in enumerate(self.members):
            descriptor = member.descriptor
            key = (
                descriptor.descriptor_setup_hash,
                tuple(descriptor.elements),
                descriptor.cutoff,
            )
            self._groups.setdefault(key, []).append(k)

    def evaluate(
        self, frames: Frames, pairs: NeighborList, first: int, last: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the share that atoms `first:last` of the one frame have, `pairs` being theirs.

        Returns each member's energy (k,), eV, without `means`; the mean's forces on all atoms
        (N, 3), eV/Å, and its virial (3, 3), −Σ r_ij ⊗ ∂E/∂r_ij, eV. The sums over all processes
        are those of the frame.
        """
        energies = np.zeros(len(self.members))
        forces = np.zeros((frames.n_atoms, 3))
        if first == last:
            return energies, forces, np.zeros((3, 3))
        own = replace(
            frames,
            numbers=frames.numbers[first:last],
            positions=frames.positions[first:last],
            offsets=np.array([0, last - first]),
        )
        slopes = np.zeros((pairs.n_pairs, 3))
        for group in self._groups.values():
            descriptor = self.members[group[0]].descriptor
            values = descriptor.values(frames, pairs)
            gradient = np.zeros_like(values, dtype=np.float64)
            for k in group:
                member = self.members[k]
                # The list only says that there are derivatives: they are contracted here, once.
                batch = member.batch_of(own, pairs, values[first:last])
                energy, of_member = member.gradient(batch)
                energies[k] = energy[0] - member.mean
                gradient[first:last] += self.weights[k] * of_member
            slopes += descriptor.pair_gradients(frames, gradient, pairs)
        for k, member in enumerate(self.members):
            if member.repulsion is not None:
                of_atoms, of_pairs = member.repulsion.of_pairs(frames, pairs)
                energies[k] += of_atoms.sum()
                slopes += self.weights[k] * of_pairs
        scatter_pair_gradients(
            pairs.offsets,
            pairs.neighbors,
            pairs.vectors,
            slopes,
            0,
            frames.n_atoms,
            forces,
            np.empty((frames.n_atoms, 6)),
        )
        return energies, -forces, -pairs.vectors.T @ slopes
