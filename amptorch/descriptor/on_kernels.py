"""The base of descriptors on numba kernels: their inputs, and a method for each kernel."""

from abc import abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.descriptor.derivatives import strain_matrices
from amptorch.frames import Frames, element_table
from amptorch.kernels.structures import Blocks, NeighborPairs
from amptorch.kernels.symmetry_functions import count_block_atoms
from amptorch.neighbors import NeighborList
from amptorch.rows import checked_rows, row_flags
from amptorch.threads import run_chunks


class KernelDescriptor(BaseDescriptor):
    """Compute fingerprints and derivatives by four kernels.

    A subclass sets `elements`, `cutoff` and `num_descriptors` in its constructor, then calls
    `_know_elements`, and has

    KERNELS : the module with the kernels `values`, `derivatives`, `pair_gradients`, `directional`
    LACKING : what an element that is not in `elements` has not, for the error
    dtype : the type that the kernels compute in
    has_moments : see `Gaussian`; of symmetry functions alone
    """

    KERNELS: ModuleType
    LACKING: str
    dtype = np.dtype(np.float64)
    has_moments: bool = False

    def values(
        self, frames: Frames, neighbors: NeighborList | None = None, threads: int | None = None
    ) -> np.ndarray:
        """Return the fingerprints G (N, S)."""
        pairs, counts = self._inputs(self.KERNELS.values, frames, neighbors, threads)
        values = self._zeros(frames.n_atoms, self.n_features)
        self._run(self.KERNELS.values, self._tables(), pairs, counts, threads, values)
        return values

    def values_and_derivatives(
        self,
        frames: Frames,
        neighbors: NeighborList | None = None,
        dtype: np.dtype | type = np.float64,
        threads: int | None = None,
    ) -> tuple[np.ndarray, DerivativeBlocks]:
        """Return the fingerprints G (N, S) and their DerivativeBlocks, stored as `dtype`."""
        pairs, counts = self._inputs(self.KERNELS.derivatives, frames, neighbors, threads)
        blocks = self._empty_blocks(pairs, counts, threads)
        values = self._zeros(frames.n_atoms, self.n_features)
        tables = self._derivative_tables()
        self._run(self.KERNELS.derivatives, tables, pairs, counts, threads, values, blocks)
        derivatives = DerivativeBlocks(blocks, self.n_features, frames.offsets)
        return values, derivatives.astype(dtype)

    def pair_gradients(
        self,
        frames: Frames,
        g: np.ndarray,
        neighbors: NeighborList | None = None,
        threads: int | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return Σ_s g_is ∂G_is/∂r_ij (P, 3) of each pair of the neighbour list, from g (N, S);
        with `rows`, of the pairs with one of these atoms at least."""
        kernel = self.KERNELS.pair_gradients
        pairs, counts = self._inputs(kernel, frames, neighbors, threads)
        g = checked_rows(g, (frames.n_atoms, self.n_features), self.dtype)
        gradients = self._zeros(len(pairs.neighbors), 3)
        wanted = row_flags(rows, frames.n_atoms)
        self._run(kernel, self._tables(), pairs, counts, threads, wanted, g, gradients)
        return gradients

    def jvp(
        self,
        frames: Frames,
        v: np.ndarray,
        neighbors: NeighborList | None = None,
        threads: int | None = None,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return J v (N, S) for v (N, 3); with `rows`, v (len(rows), 3) moves those atoms alone,
        and `strain` (F, 6) strains the frames beside: see `BaseDescriptor.jvp`."""
        kernel = self.KERNELS.directional
        pairs, counts = self._inputs(kernel, frames, neighbors, threads)
        v = checked_rows(v, (frames.n_atoms if rows is None else len(rows), 3), self.dtype)
        if rows is not None:
            given, v = v, self._zeros(frames.n_atoms, 3)
            v[rows] = given
        moving = row_flags(rows, frames.n_atoms)
        if strain is not None:
            moving = row_flags(None, frames.n_atoms)
            pairs, v = _strained(frames, pairs, v, checked_rows(strain, (len(frames), 6)))
        values = self._zeros(frames.n_atoms, self.n_features)
        self._run(kernel, self._tables(), pairs, counts, threads, moving, v, values)
        return values

    def calculate_fingerprints(  # type: ignore[override]  # v1.0's order and names
        self, atoms: Any, element: str, calc_derivatives: bool, log: Any = None
    ) -> dict[str, Any]:
        """Return the fingerprints of the atoms of one element, as
        `BaseDescriptor.calculate_fingerprints` does.

        Nothing is written to `log`, which v1.0 asks for.
        """
        return super().calculate_fingerprints(atoms, element, calc_derivatives)

    @abstractmethod
    def _tables(self) -> tuple[Any, ...]:
        """Return what every kernel takes before the pairs."""

    def _derivative_tables(self) -> tuple[Any, ...]:
        """Return what the kernel `derivatives` takes before the pairs."""
        return self._tables()

    def _scratch(self, neighbors: int) -> tuple[Any, ...]:
        """Return the scratch that a kernel takes after the atoms, for at most so many
        neighbours."""
        return ()

    @abstractmethod
    def _costs(self, counts: np.ndarray) -> np.ndarray:
        """Return what an atom with each number of neighbours costs, relative to the others."""

    @abstractmethod
    def _empty_blocks(
        self, pairs: NeighborPairs, counts: np.ndarray, threads: int | None
    ) -> Blocks:
        """Return Blocks with zeros for the derivatives with respect to these pairs; counts (N,) are
        the numbers of neighbours."""

    def _know_elements(self) -> None:
        """Make the table of the places of `elements`."""
        self._element_table = element_table(self.elements)

    def _inputs(
        self,
        kernel: Callable[..., None],
        frames: Frames,
        neighbors: NeighborList | None,
        threads: int | None,
    ) -> tuple[NeighborPairs, np.ndarray]:
        """Return what a kernel takes of frames and neighbour list, and (N,), the number of
        neighbours of each atom.

        Raises ValueError that names an atom whose element the descriptor does not know, or what
        `neighbors` raises.
        """
        elements = self._element_table[frames.numbers]
        if elements.min() < 0:
            frame, atom = frames.place(int(np.argmin(elements)))
            raise ValueError(
                f"frame {frame}, atom {atom}: this element has no {self.LACKING}; "
                f"the descriptor knows {self.elements}"
            )
        # A kernel that has run in this process has been compiled.
        if neighbors is not None or getattr(kernel, "signatures", True):
            listed = self.neighbors(frames, neighbors, threads)
        else:
            from amptorch.descriptor.ahead import compiled_beside

            with compiled_beside(kernel, self.has_moments):
                listed = self.neighbors(frames, neighbors, threads)
        vectors = np.ascontiguousarray(listed.vectors, dtype=self.dtype)
        return NeighborPairs(elements, listed.offsets, listed.neighbors, vectors), listed.counts

    def _run(
        self,
        kernel: Callable[..., None],
        tables: tuple[Any, ...],
        pairs: NeighborPairs,
        counts: np.ndarray,
        threads: int | None,
        *arrays: Any,
    ) -> None:
        """Run a kernel over all central atoms."""

        def run(start: int, stop: int) -> None:
            scratch = self._scratch(int(counts[start:stop].max(initial=0)))
            kernel(*tables, pairs, start, stop, *scratch, *arrays)

        run_chunks(run, self._costs(counts), threads)

    @staticmethod
    def _count_block_atoms(
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

    def _zeros(self, *shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=self.dtype)


def _strained(
    frames: Frames, pairs: NeighborPairs, v: np.ndarray, strain: np.ndarray
) -> tuple[NeighborPairs, np.ndarray]:
    """Return pairs whose neighbours are atoms of their own, and velocities (N + P, 3) of all.

    What a strain does to a pair depends on the image of the neighbour, and not on its atom alone;
    so each neighbour gets a velocity of its own.
    """
    n = frames.n_atoms
    ends = v[pairs.neighbors]
    starts = pairs.offsets[frames.offsets]
    for first, last, matrix in zip(starts, starts[1:], strain_matrices(strain), strict=False):
        ends[first:last] += pairs.vectors[first:last] @ matrix.astype(v.dtype)
    own = pairs._replace(
        element=np.concatenate([pairs.element, pairs.element[pairs.neighbors]]),
        neighbors=np.arange(n, n + len(ends), dtype=pairs.neighbors.dtype),
    )
    return own, np.concatenate([v, ends])
