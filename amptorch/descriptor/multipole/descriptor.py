"""Features that are quadratic in moments of a density: what both schemes are made of."""

from functools import cached_property
from itertools import chain

import numpy as np

from amptorch.descriptor.base import BaseDescriptor, atom_flags
from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.descriptor.multipole.features import compile_features
from amptorch.descriptor.multipole.parameters import element_densities, probe_cutoff, setup_hash
from amptorch.descriptor.multipole.radial import radial_table
from amptorch.descriptor.util import symbol_list
from amptorch.frames import symbol_numbers
from amptorch.kernels import gmp as kernels
from amptorch.kernels.structures import Blocks
from amptorch.kernels.symmetry_functions import count_block_atoms
from amptorch.threads import run_chunks


class MultipoleDescriptor(BaseDescriptor):
    """Gaussian multipole features of an electron density, the same for all elements.

    X. Lei, A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022).

    Parameters
    ----------
    fp_params : dict of which "cutoff" (Å; nothing smooths the features there), "atom_gaussians" and
        "densities" are read here
    elements : list of chemical symbols
    segments : list of features.Segment, in the order of the features
    amplitude : A of the normalised probe from its sigma
    kind : words that the hash of the set-up begins with

    Attribute: `densities`, {symbol: (G, 2) array of B (Å⁻³) and β (Å⁻²)}, Σ_g B_g exp(−β_g r²).

    Raises what `probe_cutoff` and `element_densities` raise.
    """

    SETUP = (*BaseDescriptor.SETUP, "densities")

    def __init__(self, fp_params, elements, segments, amplitude, kind):
        self.MCSHs = fp_params
        self.elements = symbol_list(elements)
        self.cutoff = probe_cutoff(fp_params, [sigma for s in segments for sigma in s.sigmas])
        self.densities = element_densities(fp_params, self.elements)
        self._segments = segments
        self._amplitude = amplitude
        rows = [
            (segment.order, *(segment.group or ()), sigma)
            for segment in segments
            for sigma in segment.sigmas
        ]
        self.descriptor_setup = {symbol: np.array(rows, np.float64) for symbol in self.elements}
        self.num_descriptors = {symbol: len(rows) for symbol in self.elements}
        gaussians = [(symbol, *rows.flat) for symbol, rows in self.densities.items()]
        self.descriptor_setup_hash = setup_hash(
            *kind, self.cutoff, *chain(*rows), *chain(*gaussians)
        )
        numbers = symbol_numbers(self.elements)
        self._element_of_number = np.full(max(numbers) + 1, -1, dtype=np.int64)
        self._element_of_number[numbers] = np.arange(len(numbers))

    def values(self, frames, neighbors=None, threads=None):
        """Fingerprints G (N, S)."""
        neighbors, elements = self._inputs(frames, neighbors, threads)
        values = np.empty((frames.n_atoms, self.n_features))
        self._run(kernels.values, neighbors, threads, elements, values)
        return values

    def values_and_derivatives(self, frames, neighbors=None, dtype=np.float64, threads=None):
        """Fingerprints G (N, S) and their DerivativeBlocks, stored as `dtype`."""
        neighbors, elements = self._inputs(frames, neighbors, threads)
        blocks = self._empty_blocks(neighbors, threads)
        values = np.empty((frames.n_atoms, self.n_features))
        self._run(kernels.derivatives, neighbors, threads, elements, values, blocks)
        return values, DerivativeBlocks(blocks, self.n_features, frames.offsets).astype(dtype)

    def pair_gradients(self, frames, g, neighbors=None, threads=None, rows=None):
        """Σ_s g_is ∂G_is/∂r_ij (P, 3) for each pair of the neighbour list, from g (N, S); with
        `rows`, for the pairs with one of these atoms at least."""
        neighbors, elements = self._inputs(frames, neighbors, threads)
        g = _checked(g, (frames.n_atoms, self.n_features))
        pairs = np.zeros((neighbors.n_pairs, 3))
        wanted = atom_flags(rows, frames.n_atoms)
        self._run(kernels.pair_gradients, neighbors, threads, elements, wanted, g, pairs)
        return pairs

    def jvp(self, frames, v, neighbors=None, threads=None, rows=None):
        """J v (N, S) for v (N, 3); with `rows`, v (len(rows), 3) moves those atoms alone."""
        neighbors, elements = self._inputs(frames, neighbors, threads)
        v = _checked(v, (frames.n_atoms if rows is None else len(rows), 3))
        if rows is not None:
            given, v = v, np.zeros((frames.n_atoms, 3))
            v[rows] = given
        moving = atom_flags(rows, frames.n_atoms)
        values = np.zeros((frames.n_atoms, self.n_features))
        self._run(kernels.directional, neighbors, threads, elements, moving, v, values)
        return values

    def calculate_fingerprints(self, atoms, element, calc_derivatives, log=None):
        """Fingerprints of the atoms of one element; see `BaseDescriptor.calculate_fingerprints`.
        Nothing is written to `log`, which v1.0 asks for."""
        return super().calculate_fingerprints(atoms, element, calc_derivatives)

    @cached_property
    def _compiled(self):
        """What the kernels need; made when it is first used, since many descriptors never are."""
        multipoles, channels = compile_features(self._segments, self.cutoff, self._amplitude)
        densities = [self.densities[symbol] for symbol in self.elements]
        return multipoles, radial_table(channels, densities, self.cutoff)

    def _inputs(self, frames, neighbors, threads):
        known = frames.numbers < len(self._element_of_number)
        elements = self._element_of_number[np.where(known, frames.numbers, 0)]
        if elements.min() < 0:
            frame, atom = frames.place(int(np.argmin(elements)))
            raise ValueError(
                f"frame {frame}, atom {atom}: this element has no density; "
                f"the descriptor knows {self.elements}"
            )
        return self.neighbors(frames, neighbors, threads), elements

    def _run(self, kernel, neighbors, threads, elements, *arrays):
        functions, table = self._compiled

        def run(start, stop):
            kernel(
                functions,
                table,
                elements,
                neighbors.offsets,
                neighbors.neighbors,
                neighbors.vectors,
                start,
                stop,
                *arrays,
            )

        run_chunks(run, neighbors.counts + 1, threads)

    def _empty_blocks(self, neighbors, threads):
        """Blocks of zeros, one an atom: every feature depends on neighbours of any element."""
        n = len(neighbors.counts)
        counts = np.zeros((n, 1), dtype=np.int64)
        # A little more than the cutoff: an atom just there, which rounding may put on either side,
        # must find its place. A place that stays empty is the central atom's, with zeros.
        reach = np.array([self.cutoff * (1 + 1e-12)])

        def count(start, stop):
            count_block_atoms(
                reach,
                np.zeros(n, dtype=np.int64),
                neighbors.offsets,
                neighbors.neighbors,
                neighbors.vectors,
                start,
                stop,
                counts,
                np.zeros((n, 1), dtype=np.int8),
            )

        run_chunks(count, neighbors.counts + 1, threads)
        atom_start = np.concatenate(([0], np.cumsum(counts.ravel()))).astype(np.int64)
        self.require_memory(8 * 3 * self.n_features * atom_start[-1], n)
        return Blocks(
            atom_start=atom_start,
            atoms=np.repeat(np.arange(n, dtype=np.int32), counts.ravel()),
            value_start=3 * self.n_features * atom_start,
            values=np.zeros(3 * self.n_features * atom_start[-1]),
            kind=np.zeros(n, dtype=np.int64),
            feature_row=np.arange(self.n_features).reshape(1, 1, -1),
        )


def _checked(array, shape):
    array = np.ascontiguousarray(array, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
    return array
