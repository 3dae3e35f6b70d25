"""Neighbour lists in compressed sparse row (CSR) form, built once per frame and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from amptorch.frames import COINCIDENT, Frames, check_coincident
from amptorch.kernels import neighbors as kernels
from amptorch.kernels.forces import scatter_pair_gradients
from amptorch.memory import require_memory
from amptorch.rows import offsets_of, rows_between
from amptorch.threads import run_chunks

# Pairs that are searched without asking what memory there is, which takes as long as a small frame.
FEW_PAIRS = 1e6
# Pairs whose vectors take longer, on one core, than it takes to wake another.
WORTH_THREADS = 1e5
# Memory of a pair in a list, and of the copies while it grows.
PAIR_BYTES = 100


@dataclass(frozen=True)
class NeighborList:
    """Hold all ordered pairs of atoms nearer than `cutoff` (Å) in a sequence of frames.

    The neighbours of atom i are entries `offsets[i]:offsets[i+1]`, ordered by atomic number, then
    by index; periodic images of the central atom itself are among them.

    Attributes
    ----------
    offsets : (N+1,) int64
    neighbors : (P,) int32, indices into the N atoms of the frames
    shifts : (P, 3) int32, the cell in which the neighbour stands
    vectors : (P, 3) float64, r_neighbour + shift · cell − r_centre, Å
    """

    cutoff: float
    offsets: np.ndarray
    neighbors: np.ndarray
    shifts: np.ndarray
    vectors: np.ndarray

    @property
    def n_pairs(self) -> int:
        """Return P, the number of pairs."""
        return len(self.neighbors)

    @cached_property
    def counts(self) -> np.ndarray:
        """Return (N,), the number of neighbours of each atom."""
        return np.diff(self.offsets)

    @cached_property
    def centers(self) -> np.ndarray:
        """Return (P,) int64, the central atom of each pair."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def moved(self, frames: Frames) -> NeighborList:
        """Return the same pairs with the vectors of atoms that have moved (same cells or not)."""
        vectors = np.empty_like(self.vectors)

        def fill(start: int, stop: int) -> None:
            kernels.pair_vectors(
                frames.positions,
                frames.cells,
                frames.frame_of_atom,
                self.offsets,
                self.neighbors,
                self.shifts,
                start,
                stop,
                vectors,
            )

        run_chunks(fill, self.counts + 1, None if self.n_pairs > WORTH_THREADS else 1)
        return replace(self, vectors=vectors)

    def add_up(
        self, frames: Frames, pair_gradients: np.ndarray, threads: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient (N, 3) of the energy with respect to the positions, and the virials
        (N, 6) of the atoms, from its gradient (P, 3) with respect to each pair vector: see
        `kernels.forces`."""
        gradient = np.zeros((frames.n_atoms, 3), dtype=pair_gradients.dtype)
        virials = np.empty((frames.n_atoms, 6))

        def add(first: int, last: int) -> None:
            scatter_pair_gradients(
                self.offsets,
                self.neighbors,
                self.vectors,
                pair_gradients,
                frames.offsets[first],
                frames.offsets[last],
                gradient,
                virials,
            )

        run_chunks(add, frames.counts, threads)
        return gradient, virials

    def select(self, frames: Frames, indices: Sequence[int] | np.ndarray) -> NeighborList:
        """Return the neighbour list of `frames.select(indices)`, where this one is that of
        `frames`."""
        indices = np.asarray(indices, dtype=np.int64)
        first, last = frames.offsets[indices], frames.offsets[indices + 1]
        atoms = rows_between(first, last)
        pairs = rows_between(self.offsets[first], self.offsets[last])
        new_first = np.cumsum(last - first) - (last - first)
        moved_by = np.repeat(new_first - first, self.offsets[last] - self.offsets[first])
        return NeighborList(
            cutoff=self.cutoff,
            offsets=offsets_of(self.counts[atoms]),
            neighbors=(self.neighbors[pairs] + moved_by).astype(np.int32),
            shifts=self.shifts[pairs],
            vectors=self.vectors[pairs],
        )


def neighbor_list(frames: Frames, cutoff: float, threads: int | None = None) -> NeighborList:
    """Return the neighbour list of every frame: all pairs with r < `cutoff` (Å).

    All combinations of periodic directions, skewed and tiny cells, molecules without a cell and
    atoms outside the cell. Linear in the number of atoms; frames are spread over `threads`.

    Raises ValueError where `cutoff` is not positive, where the list would not fit into memory, or
    where two atoms of a frame are in one place.
    """
    if not np.isfinite(cutoff) or cutoff <= 0:
        raise ValueError(f"the cutoff must be a positive length in Å, got {cutoff!r}")
    bases, inverses = _bases(frames)
    order = np.lexsort((frames.numbers, frames.frame_of_atom))
    found: dict[int, tuple[Any, ...]] = {}
    most = FEW_PAIRS

    def search(first: int, last: int) -> None:
        found[first] = kernels.search_frames(
            frames.positions,
            bases,
            inverses,
            frames.pbc,
            order,
            frames.offsets,
            first,
            last,
            float(cutoff),
            most,
        )

    run_chunks(search, np.diff(frames.offsets), threads)
    if max(part[5] for part in found.values()) > most:
        _require_memory(sum(part[5] for part in found.values()), frames, cutoff)
        most = np.inf
        run_chunks(search, np.diff(frames.offsets), threads)
    parts = [found[first] for first in sorted(found)]
    offsets = offsets_of(np.concatenate([part[0] for part in parts]))
    neighbors, shifts, vectors = _joined([part[1:4] for part in parts], threads)
    vectors = vectors.reshape(-1, 3)
    if min(part[4] for part in parts) < COINCIDENT**2:
        check_coincident(frames, offsets, neighbors, np.linalg.norm(vectors, axis=1))
    return NeighborList(float(cutoff), offsets, neighbors, shifts.reshape(-1, 3), vectors)


def _require_memory(n_pairs: float, frames: Frames, cutoff: float) -> None:
    """Raise ValueError where a neighbour list of so many pairs does not fit into memory."""
    require_memory(
        PAIR_BYTES * n_pairs,
        f"the neighbour list of {len(frames)} frames, {n_pairs / frames.n_atoms:.3g} neighbours an "
        f"atom within the cutoff of {cutoff:g} Å,",
        "is the cutoff in Å, and are the positions? Else take a shorter one, or fewer frames",
    )


class VerletList:
    """Keep a neighbour list for dynamics, rebuilt only when an atom has moved half the skin.

    Pairs are listed up to cutoff + skin, so until then none nearer than `cutoff` is missing.

    L. Verlet, Phys. Rev. 159, 98 (1967).
    """

    def __init__(self, cutoff: float, skin: float = 1.0) -> None:
        if skin < 0:
            raise ValueError(f"the skin must not be negative, got {skin!r} Å")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.builds = 0
        self._frames: Frames | None = None
        self._list: NeighborList | None = None
        self._nearest = np.inf

    def update(self, frames: Frames) -> NeighborList:
        """Return the neighbour list of `frames`, with pairs up to `cutoff + skin`.

        Raises ValueError where two atoms are in one place.
        """
        if self._list is None or self._stale(frames):
            self._list = neighbor_list(frames, self.cutoff + self.skin)
            self._frames = frames
            self._nearest = float(_distances(self._list).min(initial=np.inf))
            self.builds += 1
        else:
            self._list = self._list.moved(frames)
            # With a wide skin two atoms can meet without a new search, which would find them.
            if self._nearest < self.skin + COINCIDENT:
                found = self._list
                check_coincident(frames, found.offsets, found.neighbors, _distances(found))
        return self._list

    def _stale(self, frames: Frames) -> bool:
        last = self._frames
        if (
            last is None
            or not np.array_equal(frames.numbers, last.numbers)
            or not np.array_equal(frames.offsets, last.offsets)
            or not np.array_equal(frames.pbc, last.pbc)
            or not np.array_equal(frames.cells, last.cells)
        ):
            return True
        displacement2 = ((frames.positions - last.positions) ** 2).sum(axis=1).max()
        return displacement2 >= (0.5 * self.skin) ** 2


def _distances(neighbors: NeighborList) -> np.ndarray:
    """Return the distances (P,), Å, of the pairs."""
    return np.sqrt(np.einsum("pk,pk->p", neighbors.vectors, neighbors.vectors))


def _bases(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells whose non-periodic vectors are replaced by independent ones, and their
    inverses.

    A non-periodic direction needs no cell vector, and what stands there may be zero or parallel to
    another; unit vectors orthogonal to the periodic ones take its place.
    """
    bases = frames.cells.copy()
    for frame in np.flatnonzero(~frames.pbc.all(axis=1)):
        periodic = frames.pbc[frame]
        # The rows of vh beyond the rank of the periodic vectors span what they leave.
        vh = np.linalg.svd(frames.cells[frame][periodic], full_matrices=True)[2]
        bases[frame][~periodic] = vh[periodic.sum() :]
    return bases, np.linalg.inv(bases)


def _joined(parts: list[tuple[np.ndarray, ...]], threads: int | None) -> list[np.ndarray]:
    """Join the arrays of several parts one after the other; copying a gigabyte is worth several
    threads."""
    lengths = np.array([[len(array) for array in part] for part in parts])
    starts = np.cumsum(lengths, axis=0) - lengths
    joined = [
        np.empty(total, array.dtype)
        for total, array in zip(lengths.sum(axis=0), parts[0], strict=True)
    ]

    def copy(first: int, last: int) -> None:
        for k in range(first, last):
            for array, start, whole in zip(parts[k], starts[k], joined, strict=True):
                whole[start : start + len(array)] = array

    run_chunks(copy, lengths.sum(axis=1), threads)
    return joined
