"""Derivatives of fingerprints, kept in blocks or recomputed; their interface: `derivatives.py`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from amptorch.descriptor.derivatives import FrameIds, SparseMatrix
from amptorch.frames import Frames
from amptorch.kernels import forces as kernels
from amptorch.kernels.structures import Blocks, NeighborPairs
from amptorch.kernels.symmetry_functions import count_block_atoms
from amptorch.kernels.triplets import write_triplets
from amptorch.neighbors import NeighborList
from amptorch.rows import checked_rows, offsets_of, row_places, rows_between
from amptorch.threads import run_chunks

if TYPE_CHECKING:
    from amptorch.descriptor.base import BaseDescriptor

Runs: TypeAlias = "list[tuple[DerivativeBlocks, np.ndarray]]"

# Bytes, on x86-64 and on ARM with pages of 4 kB.
HUGE_PAGE = 1 << 21


class KeptDerivatives(ABC):
    """Contract derivatives that lie in one or in several DerivativeBlocks."""

    n_features: int

    @abstractmethod
    def runs(self, frame_ids: FrameIds) -> tuple[Runs, np.ndarray]:
        """Return ([(DerivativeBlocks, frames within it)], number of atoms of each frame):
        `frame_ids` in their order, as runs of frames that are in the same blocks."""

    def vjp(
        self,
        frame_ids: FrameIds,
        g: np.ndarray,
        rows: np.ndarray | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """Return Jᵀg (n, 3) for g (n, S); with `rows`, (len(rows), 3) for those atoms alone."""
        return self._vjp(*self.runs(frame_ids), g, rows, threads)

    def _vjp(
        self,
        runs: Runs,
        counts: np.ndarray,
        g: np.ndarray,
        rows: np.ndarray | None,
        threads: int | None = None,
    ) -> np.ndarray:
        """Return what `vjp` does, for frames whose `runs` are known."""
        n_atoms = counts.sum()
        place, n_rows = row_places(rows, n_atoms)
        g = checked_rows(g, (n_atoms, self.n_features))
        out = np.zeros((n_rows, 3))
        _contract(kernels.contract_blocks, runs, counts, place, g, out, threads)
        return out

    def jvp(
        self,
        frame_ids: FrameIds,
        v: np.ndarray,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """Return J v (n, S) for v (n, 3); with `rows`, v (len(rows), 3) moves those atoms alone,
        and `strain` (frames, 6) strains the frames beside, where `strains` are kept."""
        runs, counts = self.runs(frame_ids)
        place, n_rows = row_places(rows, counts.sum())
        v = checked_rows(v, (n_rows, 3))
        out = np.zeros((counts.sum(), self.n_features))
        _contract(kernels.apply_blocks, runs, counts, place, v, out, threads)
        if strain is not None:
            of_atoms = np.repeat(checked_rows(strain, (len(counts), 6)), counts, axis=0)
            for strains, atoms in _strains(runs, counts):
                out[atoms] += (strains @ of_atoms[atoms, :, None])[:, :, 0]
        return out

    def vjp_and_virials(
        self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Jᵀg as `vjp` does, and ∂E/∂ε (frames, 6), where `strains` are kept."""
        runs, counts = self.runs(frame_ids)
        of_atoms = np.zeros((counts.sum(), 6))
        for strains, atoms in _strains(runs, counts):
            of_atoms[atoms] = (g[atoms, None, :] @ strains)[:, 0]
        virials = np.add.reduceat(of_atoms, offsets_of(counts)[:-1])
        return self._vjp(runs, counts, g, rows), virials

    def parts(
        self, frame_ids: FrameIds
    ) -> Iterator[tuple[DerivativeBlocks, np.ndarray, np.ndarray]]:
        """Yield what a device takes: (blocks, frames within them, their atoms' rows in the
        batch)."""
        runs, counts = self.runs(frame_ids)
        starts, first = offsets_of(counts), 0
        for blocks, local in runs:
            yield blocks, local, np.arange(starts[first], starts[first + len(local)])
            first += len(local)


class DerivativeBlocks(KeptDerivatives):
    """Keep derivatives: for each atom and element, an array (neighbours, 3, features).

    Only features that involve the neighbour's element, only other atoms (images of one atom folded
    together); what a central atom's own displacement does is minus the sum of the rest.

    Parameters
    ----------
    blocks : kernels.structures.Blocks
    n_features : int
    frame_offsets : (F+1,) first atom of each frame
    strains : (N, S, 6) derivatives along strains, see `BaseDescriptor.strain_derivatives`, or None
    """

    def __init__(
        self,
        blocks: Blocks,
        n_features: int,
        frame_offsets: np.ndarray,
        strains: np.ndarray | None = None,
    ) -> None:
        self.blocks = blocks
        self.n_features = n_features
        self.strains = strains
        self.frame_offsets = np.asarray(frame_offsets, dtype=np.int64)
        # Features of each kind and neighbour element, one after the other.
        stands = blocks.feature_row >= 0
        ends = np.cumsum(stands.sum(axis=2).ravel()).reshape(stands.shape[:2])
        firsts = ends - stands.sum(axis=2)
        self._feature_start = np.column_stack((firsts[:, 0], ends)).astype(np.int64)
        self._features = np.nonzero(stands)[2].astype(np.int64)

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames."""
        return len(self.blocks.kind)

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the values."""
        return self.blocks.values.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays whose size grows with the number of atoms."""
        strains = 0 if self.strains is None else self.strains.nbytes
        return sum(array.nbytes for array in self.blocks) - self.blocks.feature_row.nbytes + strains

    def runs(self, frame_ids: FrameIds) -> tuple[Runs, np.ndarray]:
        """Return one run, that of all `frame_ids`, and the number of atoms of each frame."""
        frame_ids = np.asarray(frame_ids, dtype=np.int64)
        counts = self.frame_offsets[frame_ids + 1] - self.frame_offsets[frame_ids]
        return [(self, frame_ids)], counts

    def contract(
        self,
        kernel: Callable[..., None],
        frame_ids: np.ndarray,
        chunk: tuple[int, int],
        offsets: np.ndarray,
        place: np.ndarray,
        given: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Call `kernel` of `kernels.forces` for the frames `frame_ids[chunk[0]:chunk[1]]`."""
        kernel(
            self.blocks,
            self._feature_start,
            self._features,
            self.frame_offsets,
            frame_ids,
            offsets,
            *chunk,
            place,
            given,
            out,
        )

    def features_of_blocks(self, atoms: np.ndarray) -> list[np.ndarray]:
        """Return the features of each block of the atoms: a list of arrays, element after
        element."""
        kinds = [
            np.split(self._features[s[0] : s[-1]], s[1:-1] - s[0]) for s in self._feature_start
        ]
        return [features for kind in self.blocks.kind[atoms] for features in kinds[kind]]

    def sparse(self, frame: int, index_dtype: np.dtype | type = np.int64) -> SparseMatrix:
        """Return J of one frame as (indices (2, n), values (n,), size), ordered, zeros left out.

        The indices are row = atom · n_features + feature and column = 3 · atom' + axis, as in
        AMPTorch v1.0. Raises ValueError where they do not fit `index_dtype`.
        """
        start, stop = self.frame_offsets[frame], self.frame_offsets[frame + 1]
        n, n_elements = stop - start, self.blocks.feature_row.shape[1]
        size = np.array([n * self.n_features, 3 * n])
        if size.max() > np.iinfo(index_dtype).max:
            raise ValueError(f"{size.max()} rows of derivatives do not fit {np.dtype(index_dtype)}")
        first, last = self.blocks.value_start[[start * n_elements, stop * n_elements]]
        values, indices = _triplets(last - first + 3 * size[0], index_dtype)
        count = write_triplets(
            self.blocks,
            self._feature_start,
            self._features,
            self.n_features,
            start,
            stop,
            *indices,
            values,
        )
        return indices[:, :count], values[:count], size

    def sparse_frames(
        self, index_dtype: np.dtype | type = np.int64, threads: int | None = None
    ) -> list[SparseMatrix]:
        """Return `sparse` of every frame."""
        matrices: dict[int, SparseMatrix] = {}

        def fill(start: int, stop: int) -> None:
            for frame in range(start, stop):
                matrices[frame] = self.sparse(frame, index_dtype)

        run_chunks(fill, np.diff(self.frame_offsets), threads)
        return [matrices[frame] for frame in range(len(matrices))]

    def astype(self, dtype: np.dtype | type) -> DerivativeBlocks:
        """Return the same with values of another type."""
        blocks = self.blocks._replace(values=self.blocks.values.astype(dtype, copy=False))
        strains = None if self.strains is None else self.strains.astype(dtype, copy=False)
        return DerivativeBlocks(blocks, self.n_features, self.frame_offsets, strains)

    @classmethod
    def concatenate(cls, parts: Iterable[DerivativeBlocks]) -> DerivativeBlocks:
        """Return the blocks of several sequences of frames as those of one sequence."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        atoms = offsets_of([part.n_atoms for part in parts])
        entries = offsets_of([len(part.blocks.atoms) for part in parts])
        values = offsets_of([len(part.blocks.values) for part in parts])
        kinds = Kinds()
        blocks = Blocks(
            atom_start=_join([p.blocks.atom_start for p in parts], entries),
            atoms=np.concatenate(
                [p.blocks.atoms + first for p, first in zip(parts, atoms, strict=False)],
                dtype=np.int32,
                casting="same_kind",
            ),
            value_start=_join([p.blocks.value_start for p in parts], values),
            values=np.concatenate([p.blocks.values for p in parts]),
            kind=np.concatenate([kinds.add(p.blocks.feature_row)[p.blocks.kind] for p in parts]),
            feature_row=kinds.feature_row,
        )
        found = [part.strains for part in parts if part.strains is not None]
        strains = np.concatenate(found) if len(found) == len(parts) else None
        frame_offsets = _join([p.frame_offsets for p in parts], atoms)
        return cls(blocks, parts[0].n_features, frame_offsets, strains)


class Kinds:
    """Collect the kinds of atoms of several `Blocks`, each of them once: with many elements the
    table of which features stand in which block is large."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, feature_row: np.ndarray) -> np.ndarray:
        """Return (kinds,) numbers, in the table of all, of the kinds of one
        `Blocks.feature_row`."""
        numbers = np.empty(len(feature_row), dtype=np.int64)
        for k, row in enumerate(feature_row):
            digest = hashlib.blake2b(np.ascontiguousarray(row).data).digest()
            numbers[k] = self._number.setdefault(digest, len(self._rows))
            if numbers[k] == len(self._rows):
                # Not a view, which would keep the whole table that it is of.
                self._rows.append(row.copy())
        return numbers

    @property
    def feature_row(self) -> np.ndarray:
        """Return the table of all, (kinds, elements, features)."""
        return np.stack(self._rows) if self._rows else np.empty((0, 1, 1), np.int64)


def count_in_blocks(
    reach: np.ndarray,
    pairs: NeighborPairs,
    costs: np.ndarray,
    n_elements: int,
    threads: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (counts, present), each (N, E), of `kernels.symmetry_functions.count_block_atoms`.

    costs (N,): what each atom costs, relative to the others.
    """
    n = len(pairs.element)
    counts = np.zeros((n, n_elements), dtype=np.int64)
    present = np.zeros((n, n_elements), dtype=np.int8)

    def count(start: int, stop: int) -> None:
        count_block_atoms(reach, pairs, start, stop, counts, present)

    run_chunks(count, costs, threads)
    return counts, present


def feature_rows(stands: np.ndarray) -> np.ndarray:
    """Return `Blocks.feature_row` (kinds, E, S) of which features stand in which blocks."""
    # In place: with many elements this table is large.
    rows = np.empty(stands.shape, dtype=np.int64)
    np.cumsum(stands, axis=2, out=rows)
    rows -= 1
    rows[~stands] = -1
    return rows


class RecomputedDerivatives:
    """Contract derivatives that are never kept, on the fly from positions and neighbour lists.

    descriptor: a BaseDescriptor; frames, neighbors: the data set and its neighbour list.
    """

    def __init__(self, descriptor: BaseDescriptor, frames: Frames, neighbors: NeighborList) -> None:
        self.descriptor = descriptor
        self.frames = frames
        self.neighbors = neighbors

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames."""
        return self.frames.n_atoms

    @property
    def n_features(self) -> int:
        """Return S, the length of a fingerprint."""
        return self.descriptor.n_features

    def vjp(self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return Jᵀg (n, 3) for g (n, S); with `rows`, (len(rows), 3) for those atoms alone."""
        frames, neighbors = self._select(frame_ids)
        return self.descriptor.vjp(frames, g, neighbors, rows=rows)

    def jvp(
        self,
        frame_ids: FrameIds,
        v: np.ndarray,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return J v (n, S) for v (n, 3); with `rows`, v (len(rows), 3) moves those atoms alone,
        and `strain` (frames, 6) strains the frames beside."""
        frames, neighbors = self._select(frame_ids)
        return self.descriptor.jvp(frames, v, neighbors, rows=rows, strain=strain)

    def vjp_and_virials(
        self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Jᵀg as `vjp` does, and ∂E/∂ε (frames, 6); all pairs count, whatever `rows` is."""
        frames, neighbors = self._select(frame_ids)
        gradient, virials = self.descriptor.vjp_and_virials(frames, g, neighbors)
        of_frames = np.add.reduceat(virials, frames.offsets[:-1])
        return gradient if rows is None else gradient[rows], of_frames

    def _select(self, frame_ids: FrameIds) -> tuple[Frames, NeighborList]:
        if np.array_equal(frame_ids, np.arange(len(self.frames))):
            return self.frames, self.neighbors
        return self.frames.select(frame_ids), self.neighbors.select(self.frames, frame_ids)


def _strains(runs: Runs, counts: np.ndarray) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield (strain derivatives (k, S, 6), their atoms' rows in the batch) of each of `runs`."""
    starts, first = offsets_of(counts), 0
    for blocks, local in runs:
        if blocks.strains is None:
            raise ValueError("no derivatives along strains are kept here; they make stresses")
        last = first + len(local)
        offsets = blocks.frame_offsets
        rows = rows_between(offsets[local], offsets[local + 1])
        yield blocks.strains[rows], slice(starts[first], starts[last])
        first = last


def _contract(
    kernel: Callable[..., None],
    runs: Runs,
    counts: np.ndarray,
    place: np.ndarray,
    given: np.ndarray,
    out: np.ndarray,
    threads: int | None,
) -> None:
    """Call `kernel` for all frames of `runs`; those of several blocks share the threads."""
    local = np.concatenate([frame_ids for _, frame_ids in runs])
    ends = np.cumsum([len(frame_ids) for _, frame_ids in runs])
    offsets = offsets_of(counts)

    def run(first: int, last: int) -> None:
        start = 0
        for (blocks, _), stop in zip(runs, ends, strict=True):
            if first < stop and start < last:
                chunk = max(first, start), min(last, stop)
                blocks.contract(kernel, local, chunk, offsets, place, given, out)
            start = stop

    run_chunks(run, counts, threads)


def _triplets(room: int, index_dtype: np.dtype | type) -> tuple[np.ndarray, np.ndarray]:
    """Return empty values (room,) and indices (2, room) in one piece of memory of their own.

    A large piece begins where a huge page does: numpy asks the system for such pages from 4 MB on,
    and a page fault for each 2 MB is some hundred times fewer than one for each 4 kB.
    """
    n_bytes = room * (8 + 2 * np.dtype(index_dtype).itemsize)
    aligned = n_bytes >= 2 * HUGE_PAGE
    memory = np.empty(n_bytes + HUGE_PAGE * aligned, dtype=np.uint8)
    start = -memory.ctypes.data % HUGE_PAGE if aligned else 0
    memory = memory[start : start + n_bytes]
    return memory[: 8 * room].view(np.float64), memory[8 * room :].view(index_dtype).reshape(2, -1)


def _join(arrays: list[np.ndarray], shifts: np.ndarray) -> np.ndarray:
    """Join offset arrays one after the other, each shifted, the shared ends written once."""
    body = [array[:-1] + shift for array, shift in zip(arrays, shifts, strict=False)]
    return np.concatenate([*body, [arrays[-1][-1] + shifts[len(arrays) - 1]]]).astype(np.int64)
