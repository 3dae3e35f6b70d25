"""The base of all descriptors: fingerprints of frames, and contractions with their derivatives."""

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from threading import get_ident
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.descriptor.derivatives import SparseMatrix, strained_pairs
from amptorch.descriptor.store import FingerprintStore
from amptorch.frames import Frames, element_table, symbol_numbers
from amptorch.kernels.structures import Blocks, NeighborPairs
from amptorch.memory import require_memory
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.rows import checked_rows, row_flags
from amptorch.threads import num_threads, run_chunks

# Atoms a thread described in one go by `prepare_fingerprints`: enough work to share, while what is
# between is still in the caches and its memory, used again and again, costs no page faults.
CHUNK = 1500
STORE = "processed/fingerprints.sqlite"
MEMORY_ADVICE = (
    "keep no derivatives (dataset.derivatives: recompute), take fewer frames or fewer functions (a "
    "GaussianDescriptorSet has chosen pairs of elements alone), or those that are as many for any "
    "number of elements: G2W and G4W, or fp_scheme 'gmpordernorm'"
)

logger = logging.getLogger(__name__)


class BaseDescriptor(ABC):
    """Map frames to fingerprints G (N, S), one row an atom, S = `n_features`.

    Attributes
    ----------
    elements : list of chemical symbols; their order numbers the networks and orders the features
    cutoff : float, the largest cutoff, Å
    num_descriptors : {symbol: int}; shorter rows are padded with zeros on the right
    descriptor_type : str, the name of the class
    descriptor_setup : {symbol: array}, a row of parameters for each feature
    descriptor_setup_hash : str, names the set-up
    SETUP : names of the attributes that `save_descriptor_setup` writes
    KERNELS : the module with the kernels `values`, `derivatives`, `pair_gradients`, `directional`
    LACKING : what an element that is not in `elements` has not, for the error
    dtype : the type that the kernels compute in
    has_moments : see `Gaussian`; of symmetry functions alone

    A subclass sets `elements`, `cutoff` and `num_descriptors` in its constructor, and says what the
    kernels are given and where derivatives lie.

    `neighbors` is everywhere a NeighborList of the frames with at least this cutoff; one is made
    where it is not given.
    """

    elements: list[str]
    cutoff: float
    num_descriptors: dict[str, int]
    descriptor_type: str
    descriptor_setup: dict[str, np.ndarray]
    descriptor_setup_hash: str
    SETUP: tuple[str, ...] = (
        "descriptor_type",
        "elements",
        "cutoff",
        "descriptor_setup",
        "descriptor_setup_hash",
    )
    KERNELS: ModuleType
    LACKING: str
    dtype = np.dtype(np.float64)
    has_moments: bool = False

    @property
    def n_features(self) -> int:
        """Return S, the length of a fingerprint."""
        return max(self.num_descriptors.values())

    def feature_name(self, symbol: str, column: int) -> str:
        """Return words for a feature of the atoms of an element."""
        return f"feature {column}"

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

    def with_strains(
        self,
        frames: Frames,
        neighbors: NeighborList | None = None,
        dtype: np.dtype | type = np.float64,
        threads: int | None = None,
    ) -> tuple[np.ndarray, DerivativeBlocks]:
        """Return what `values_and_derivatives` does, the blocks with their `strains`."""
        neighbors = self.neighbors(frames, neighbors, threads)
        values, blocks = self.values_and_derivatives(frames, neighbors, dtype, threads)
        blocks.strains = self.strain_derivatives(frames, neighbors, dtype, threads)
        return values, blocks

    def pair_gradients(
        self,
        frames: Frames,
        g: np.ndarray,
        neighbors: NeighborList | None = None,
        threads: int | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return Σ_s g_is ∂G_is/∂r_ij (P, 3) for each pair of the neighbour list, from g (N, S).

        With `rows` (numbers of atoms), for those pairs alone of which one atom at least is among
        them: what their forces need. The others may be zero.

        With g = ∂E/∂G this is the gradient of the energy with respect to each pair vector: forces
        and the strain derivative Σ g_ij ⊗ r_ij follow, and nothing of the size of J is formed.
        """
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
        """Return J v (N, S), the derivative of G along displacements v (N, 3) of the atoms; with
        `rows`, v (len(rows), 3) moves those atoms alone.

        With `strain` (F, 6) each frame is strained beside: its pair vectors r change by ε r. It is
        in Voigt's order, with the usual (engineering) shears: εyz = strain[:, 3] / 2.
        """
        kernel = self.KERNELS.directional
        pairs, counts = self._inputs(kernel, frames, neighbors, threads)
        v = checked_rows(v, (frames.n_atoms if rows is None else len(rows), 3), self.dtype)
        if rows is not None:
            given, v = v, self._zeros(frames.n_atoms, 3)
            v[rows] = given
        moving = row_flags(rows, frames.n_atoms)
        if strain is not None:
            moving = row_flags(None, frames.n_atoms)
            pairs, v = strained_pairs(frames, pairs, v, checked_rows(strain, (len(frames), 6)))
        values = self._zeros(frames.n_atoms, self.n_features)
        self._run(kernel, self._tables(), pairs, counts, threads, moving, v, values)
        return values

    def strain_derivatives(
        self,
        frames: Frames,
        neighbors: NeighborList | None = None,
        dtype: np.dtype | type = np.float64,
        threads: int | None = None,
    ) -> np.ndarray:
        """Return the derivatives (N, S, 6) of G along each of the six strains of `jvp`."""
        neighbors = self.neighbors(frames, neighbors, threads)
        derivatives = np.empty((frames.n_atoms, self.n_features, 6), dtype=dtype)
        still = np.zeros((frames.n_atoms, 3))
        for component in range(6):
            strain = np.zeros((len(frames), 6))
            strain[:, component] = 1.0
            moved = self.jvp(frames, still, neighbors, threads, strain=strain)
            derivatives[:, :, component] = moved
        return derivatives

    def vjp(
        self,
        frames: Frames,
        g: np.ndarray,
        neighbors: NeighborList | None = None,
        threads: int | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return Jᵀg (N, 3) = ∂E/∂r where g = ∂E/∂G (N, S); forces are its negative. With `rows`,
        (len(rows), 3) for those atoms alone."""
        gradient, _ = self.vjp_and_virials(frames, g, neighbors, threads, rows)
        return gradient if rows is None else gradient[rows]

    def vjp_and_virials(
        self,
        frames: Frames,
        g: np.ndarray,
        neighbors: NeighborList | None = None,
        threads: int | None = None,
        rows: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Jᵀg (N, 3) as `vjp` does, and the virial (N, 6) of each atom: its share of the
        derivative ∂E/∂ε of the energy with respect to the strain, where g = ∂E/∂G (N, S).

        The share of atom i is the symmetric part of Σ_j g_ij ⊗ r_ij, over the pairs whose central
        atom it is, in Voigt's order xx, yy, zz, yz, xz, xy. With `rows`, the gradient is right for
        those atoms alone, and the virials are not.
        """
        neighbors = self.neighbors(frames, neighbors, threads)
        pairs = self.pair_gradients(frames, g, neighbors, threads, rows)
        return neighbors.add_up(frames, pairs, threads)

    def neighbors(
        self, frames: Frames, neighbors: NeighborList | None = None, threads: int | None = None
    ) -> NeighborList:
        """Return `neighbors`, checked, or a new neighbour list of `frames`.

        Raises ValueError where its cutoff is shorter than the descriptor's, or it is not a list of
        these frames.
        """
        if neighbors is None:
            return neighbor_list(frames, self.cutoff, threads)
        if neighbors.cutoff < self.cutoff:
            raise ValueError(
                f"the neighbour list reaches {neighbors.cutoff} Å, the descriptor {self.cutoff} Å"
            )
        if len(neighbors.offsets) != frames.n_atoms + 1:
            raise ValueError(
                f"the neighbour list is one of {len(neighbors.offsets) - 1} atoms, "
                f"the frames have {frames.n_atoms}"
            )
        return neighbors

    def require_memory(self, n_bytes: float, n_atoms: int) -> None:
        """Raise ValueError where there are no `n_bytes` of memory for the derivatives of
        `n_atoms`."""
        require_memory(
            n_bytes,
            f"derivatives of {n_atoms} atoms by {self.n_features} functions for "
            f"{len(self.elements)} elements",
            MEMORY_ADVICE,
        )

    def prepare_fingerprints(
        self,
        images: Iterable[Atoms],
        calc_derivatives: bool = False,
        save_fps: bool | str | os.PathLike[str] = False,
        verbose: bool = False,
        cores: int | None = None,
        log: logging.Logger | None = None,
    ) -> list[dict[str, Any]]:
        """Return the fingerprints of a list of ase.Atoms, one dict an image, as AMPTorch v1.0
        returns them.

        Parameters
        ----------
        calc_derivatives : bool, with `descriptor_primes`
        save_fps : bool or path
            Keep values in an SQLite file and take from it what is there already: True is
            `processed/fingerprints.sqlite` in the working directory. Derivatives are not kept, they
            are quicker to compute than to read.
        verbose : bool, show a progress bar
        cores : int, threads to use; all cores where None
        log : a logging.Logger that is told how many images were described

        Returns
        -------
        list of dict
            `atomic_numbers`, `num_atoms`, `descriptors` (n_atoms, S), `num_descriptors`
            {symbol: int}, and `descriptor_primes` {"row", "col", "val", "size"}: the matrix
            (n_atoms · S, 3 n_atoms) of dG/dr, row = atom · S + feature, col = 3 · atom' + axis,
            ordered by row, then col, which are int32 as in v1.0.
        """
        prepared = []
        for frames, values, derivatives in self.described(
            images, calc_derivatives, save_fps, verbose, cores, np.int32
        ):
            numbers = np.split(frames.numbers, frames.offsets[1:-1])
            for k, rows in enumerate(np.split(values, frames.offsets[1:-1])):
                entry = {
                    "atomic_numbers": numbers[k].copy(),
                    "num_atoms": len(rows),
                    "descriptors": rows.copy(),
                    "num_descriptors": dict(self.num_descriptors),
                }
                if derivatives is not None:
                    (row, col), val, size = derivatives[k]
                    entry["descriptor_primes"] = {"row": row, "col": col, "val": val, "size": size}
                prepared.append(entry)
        (log or logger).info("described %d images", len(prepared))
        return prepared

    def described(
        self,
        images: Iterable[Atoms],
        derivatives: bool,
        save_fps: bool | str | os.PathLike[str],
        verbose: bool,
        threads: int | None,
        index_dtype: np.dtype | type = np.int64,
    ) -> Iterator[tuple[Frames, np.ndarray, list[SparseMatrix] | None]]:
        """Yield the fingerprints of a list of ase.Atoms, a few images at a time.

        Yields (Frames, values (N, S), a list of `DerivativeBlocks.sparse` of each frame or None);
        arguments as in `prepare_fingerprints`, which makes dicts of it. All images are checked
        before the first is described.
        """
        images = list(images)
        store = None
        if save_fps and not derivatives:
            store = FingerprintStore(STORE if save_fps is True else save_fps)
        frames = Frames.from_atoms(images, self.elements)
        chunk = frames.offsets[:-1] // (CHUNK * num_threads(threads))
        chunks = np.split(np.arange(len(frames)), np.flatnonzero(np.diff(chunk)) + 1)
        with tqdm(total=len(frames), desc="fingerprints", disable=not verbose, unit="frame") as bar:
            for indices in chunks:
                part, matrices = frames.select(indices), None
                if derivatives:
                    values, blocks = self.values_and_derivatives(part, threads=threads)
                    matrices = blocks.sparse_frames(index_dtype, threads)
                    if indices[0] == 0:
                        # What is kept of the others, if they are like these.
                        taken = sum(a.nbytes for matrix in matrices for a in matrix)
                        others = len(frames) / len(part) - 1
                        self.require_memory(taken * others, frames.n_atoms)
                elif store is not None:
                    known = [images[k] for k in indices]
                    values = store.values(self, part, known, threads=threads)
                else:
                    values = self.values(part, threads=threads)
                yield part, values, matrices
                bar.update(len(part))

    def calculate_fingerprints(
        self, image: Atoms, params_set: str, calculate_derivatives: bool = True
    ) -> dict[str, Any]:
        """Return the fingerprints of the atoms of one element in one ase.Atoms.

        `params_set` is the element's symbol: its parameters are in `descriptor_setup`. Returns the
        rows of these atoms of what `prepare_fingerprints` gives, as such a dict, and `indices`, the
        places of the atoms in the image: `descriptors` (n, S), and with `calculate_derivatives`
        `descriptor_primes`, the matrix (n · S, 3 n_atoms). Raises ValueError for an element that
        the descriptor does not know.
        """
        if params_set not in self.elements:
            raise ValueError(f"element {params_set!r} is not one of {self.elements}")
        (whole,) = self.prepare_fingerprints([image], calculate_derivatives)
        indices = np.flatnonzero(whole["atomic_numbers"] == symbol_numbers([params_set])[0])
        result = {
            "indices": indices,
            "atomic_numbers": whole["atomic_numbers"][indices],
            "num_atoms": len(indices),
            "descriptors": whole["descriptors"][indices],
            "num_descriptors": {params_set: self.num_descriptors[params_set]},
        }
        if calculate_derivatives:
            primes, n_features = whole["descriptor_primes"], self.n_features
            atom, feature = np.divmod(primes["row"], n_features)
            kept = np.isin(atom, indices)
            result["descriptor_primes"] = {
                "row": np.searchsorted(indices, atom[kept]) * n_features + feature[kept],
                "col": primes["col"][kept],
                "val": primes["val"][kept],
                "size": np.array([len(indices) * n_features, primes["size"][1]]),
            }
        return result

    def prepare_descriptor_parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters of each feature, `descriptor_setup`, which the constructor has
        made."""
        return self.descriptor_setup

    def get_descriptor_setup_hash(self) -> str:
        """Return the name of the set-up, `descriptor_setup_hash`."""
        return self.descriptor_setup_hash

    def save_descriptor_setup(self, filename: str | os.PathLike[str]) -> None:
        """Write the attributes named in `SETUP` to a JSON file; OSError where it cannot be."""
        setup = {name: getattr(self, name) for name in self.SETUP}
        with open(filename, "w", encoding="utf8") as file:
            json.dump(setup, file, indent=1, default=np.ndarray.tolist)

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

    @cached_property
    def _element_table(self) -> np.ndarray:
        return element_table(self.elements)

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

        most = int(counts.max(initial=0))
        scratches: dict[int, tuple[Any, ...]] = {}

        def run(start: int, stop: int) -> None:
            # To make it takes Python 0.1 ms, in which no other thread runs.
            scratch = scratches.get(get_ident())
            if scratch is None:
                scratch = scratches[get_ident()] = self._scratch(most)
            kernel(*tables, pairs, start, stop, *scratch, *arrays)

        run_chunks(run, self._costs(counts), threads)

    def _zeros(self, *shape: int) -> np.ndarray:
        return np.zeros(shape, self.dtype)
