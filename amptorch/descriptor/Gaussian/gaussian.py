"""The descriptor of Behler-Parrinello symmetry functions."""

import numpy as np

from amptorch.descriptor.base import BaseDescriptor, atom_flags
from amptorch.descriptor.blocks import DerivativeBlocks, feature_rows
from amptorch.descriptor.Gaussian.functions import compile_functions, elements_of_features
from amptorch.descriptor.Gaussian.setup import (
    cutoff_function,
    cutoff_parameters,
    descriptor_setup,
    setup_hash,
)
from amptorch.descriptor.util import symbol_list
from amptorch.frames import Frames, symbol_numbers
from amptorch.kernels import symmetry_functions as kernels
from amptorch.kernels.structures import Blocks
from amptorch.threads import run_chunks


class Gaussian(BaseDescriptor):
    """Symmetry functions G1-G5 with cosine or polynomial cutoff.

    J. Behler, J. Chem. Phys. 134, 074106 (2011); Int. J. Quantum Chem. 115, 1032 (2015).

        G1_i = Σ_j fc(r_ij)
        G2_i = Σ_j exp[−η (r_ij − Rs)²] fc(r_ij)
        G3_i = Σ_j cos(κ r_ij) fc(r_ij)
        G4_i = 2^(1−ζ) Σ_{j<k} (1 + λ cosθ_ijk)^ζ exp[−η (r_ij² + r_ik² + r_jk²)]
               fc(r_ij) fc(r_ik) fc(r_jk)
        G5_i = the same without r_jk

    Parameters
    ----------
    Gs : dict or GaussianDescriptorSet
        The functions of each element: see `Gaussian.setup.descriptor_setup`.
    elements : list of chemical symbols
    cutoff_func : "cosine" or "polynomial"; or both arguments in one, the configuration's
        `cutoff_params`, such as {"cutoff_func": "Polynomial", "gamma": 2.0}; cosine where None
    gamma : number above 0, of the polynomial cutoff alone
    dtype : numpy.float64 or numpy.float32, the type the kernels compute in

    Raises ValueError or TypeError that names the element and the key of `Gs` that is wrong.
    """

    SETUP = (*BaseDescriptor.SETUP, "cutoff_params")

    def __init__(self, Gs, elements, cutoff_func="cosine", gamma=None, dtype=np.float64):
        self.descriptor_type = "Gaussian"
        self.Gs = Gs
        self.elements = symbol_list(elements)
        # A descriptor set has its own cutoff function, which was hashed with its functions.
        given = getattr(Gs, "cutoff_params", None)
        self.cutoff_params = dict(given or cutoff_parameters(cutoff_func, gamma))
        self.descriptor_setup = descriptor_setup(Gs, self.elements)
        self.descriptor_setup_hash = setup_hash(self.descriptor_setup, self.cutoff_params)
        self.num_descriptors = {symbol: len(rows) for symbol, rows in self.descriptor_setup.items()}
        self.cutoff = float(max(rows[:, 3].max() for rows in self.descriptor_setup.values()))
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype is {dtype!r}, expected float64 or float32")
        numbers = symbol_numbers(self.elements)
        self._functions = compile_functions(
            self.descriptor_setup, numbers, cutoff_function(self.cutoff_params), self.dtype
        )
        self._depends = elements_of_features(self.descriptor_setup, numbers)
        tables = [table.tobytes() for table in self._depends]
        self._table = np.array([tables.index(table) for table in tables])
        self._reach = np.array([rows[:, 3].max() for rows in self.descriptor_setup.values()])
        self._element_of_number = np.full(max(numbers) + 1, -1, dtype=np.int64)
        self._element_of_number[numbers] = np.arange(len(numbers))

    def values(self, frames: Frames, neighbors=None, threads=None):
        """Fingerprints G (N, S)."""
        neighbors, elements, vectors = self._inputs(frames, neighbors, threads)
        values = self._zeros(frames.n_atoms, self.n_features)
        self._run(kernels.values, neighbors, threads, elements, vectors, values)
        return values

    def values_and_derivatives(self, frames, neighbors=None, dtype=np.float64, threads=None):
        """Fingerprints G (N, S) and their DerivativeBlocks, stored as `dtype`."""
        neighbors, elements, vectors = self._inputs(frames, neighbors, threads)
        blocks = self._empty_blocks(elements, neighbors, vectors, threads)
        values = self._zeros(frames.n_atoms, self.n_features)

        def derivatives(functions, *arguments):
            kernels.derivatives(functions, self._reach, *arguments)

        self._run(derivatives, neighbors, threads, elements, vectors, values, blocks)
        derivatives = DerivativeBlocks(blocks, self.n_features, frames.offsets)
        return values, derivatives.astype(dtype)

    def pair_gradients(self, frames, g, neighbors=None, threads=None, rows=None):
        """Σ_s g_is ∂G_is/∂r_ij (P, 3) for each pair of the neighbour list, from g (N, S); with
        `rows`, for the pairs with one of these atoms at least."""
        neighbors, elements, vectors = self._inputs(frames, neighbors, threads)
        g = self._checked(g, (frames.n_atoms, self.n_features))
        pairs = self._zeros(neighbors.n_pairs, 3)
        wanted = atom_flags(rows, frames.n_atoms)
        self._run(kernels.pair_gradients, neighbors, threads, elements, vectors, wanted, g, pairs)
        return pairs

    def jvp(self, frames, v, neighbors=None, threads=None, rows=None):
        """J v (N, S) for v (N, 3); with `rows`, v (len(rows), 3) moves those atoms alone."""
        neighbors, elements, vectors = self._inputs(frames, neighbors, threads)
        v = self._checked(v, (frames.n_atoms if rows is None else len(rows), 3))
        if rows is not None:
            given, v = v, self._zeros(frames.n_atoms, 3)
            v[rows] = given
        moving = atom_flags(rows, frames.n_atoms)
        values = self._zeros(frames.n_atoms, self.n_features)
        self._run(kernels.directional, neighbors, threads, elements, vectors, moving, v, values)
        return values

    def calculate_fingerprints(self, atoms, element, calc_derivatives, log=None):
        """Fingerprints of the atoms of one element; see `BaseDescriptor.calculate_fingerprints`.
        Nothing is written to `log`, which v1.0 asks for."""
        return super().calculate_fingerprints(atoms, element, calc_derivatives)

    def _inputs(self, frames, neighbors, threads):
        neighbors = self.neighbors(frames, neighbors, threads)
        vectors = np.ascontiguousarray(neighbors.vectors, dtype=self.dtype)
        return neighbors, self._elements(frames), vectors

    def _run(self, kernel, neighbors, threads, elements, vectors, *arrays):
        """Run a kernel over all central atoms; pairs of neighbours are what takes the time."""

        def run(start, stop):
            kernel(
                self._functions,
                elements,
                neighbors.offsets,
                neighbors.neighbors,
                vectors,
                start,
                stop,
                *arrays,
            )

        run_chunks(run, neighbors.counts.astype(np.float64) ** 2 + 1, threads)

    def _empty_blocks(self, elements, neighbors, vectors, threads):
        n, n_elements = len(elements), len(self.elements)
        counts = np.zeros((n, n_elements), dtype=np.int64)
        present = np.zeros((n, n_elements), dtype=np.int8)

        def count(start, stop):
            kernels.count_block_atoms(
                self._reach,
                elements,
                neighbors.offsets,
                neighbors.neighbors,
                vectors,
                start,
                stop,
                counts,
                present,
            )

        run_chunks(count, neighbors.counts + 1, threads)
        # Atoms whose features depend on the same elements, with the same ones around, are one kind.
        # One element after the other keeps the numbers small, and is many times faster than
        # comparing rows.
        kind = self._table[elements]
        for e in range(n_elements):
            _, some_atom, kind = np.unique(
                2 * kind + present[:, e], return_index=True, return_inverse=True
            )
        # A feature is there where all elements that it depends on are.
        table = 8 * len(some_atom) * n_elements * self.n_features
        # Half as much again, for what it is made of.
        self.require_memory(1.5 * table, n)
        depends = self._depends[elements[some_atom]]
        absent = present[some_atom][:, None, :] == 0
        stands = (depends & ~(depends & absent).any(axis=2, keepdims=True)).transpose(0, 2, 1)
        atom_start = np.concatenate(([0], np.cumsum(counts.ravel())))
        sizes = 3 * counts * stands.sum(axis=2)[kind]
        value_start = np.concatenate(([0], np.cumsum(sizes.ravel())))
        self.require_memory(self.dtype.itemsize * value_start[-1], n)
        return Blocks(
            atom_start=atom_start.astype(np.int64),
            atoms=np.empty(atom_start[-1], dtype=np.int32),
            value_start=value_start.astype(np.int64),
            values=self._zeros(value_start[-1]),
            kind=kind.astype(np.int64),
            feature_row=feature_rows(stands),
        )

    def _elements(self, frames):
        """(N,) position of each atom's element in `elements`; ValueError where it is not there."""
        known = frames.numbers < len(self._element_of_number)
        elements = self._element_of_number[np.where(known, frames.numbers, 0)]
        if elements.min() < 0:
            frame, atom = frames.place(int(np.argmin(elements)))
            raise ValueError(
                f"frame {frame}, atom {atom}: this element has no symmetry functions; "
                f"the descriptor knows {self.elements}"
            )
        return elements

    def _checked(self, array, shape):
        array = np.ascontiguousarray(array, dtype=self.dtype)
        if array.shape != shape:
            raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
        return array

    def _zeros(self, *shape):
        return np.zeros(shape, dtype=self.dtype)
