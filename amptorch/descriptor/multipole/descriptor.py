"""Features that are quadratic in moments of a density: what both schemes are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import count_in_blocks
from amptorch.descriptor.multipole.features import Segment, compile_features
from amptorch.descriptor.multipole.parameters import element_densities, probe_cutoff, setup_hash
from amptorch.descriptor.multipole.radial import radial_table
from amptorch.descriptor.util import symbol_list
from amptorch.kernels import gmp
from amptorch.kernels.gmp_structures import Multipoles, RadialTable
from amptorch.kernels.structures import Blocks, NeighborPairs
from amptorch.rows import offsets_of


class MultipoleDescriptor(BaseDescriptor):
    """Compute Gaussian multipole features of an electron density, the same for all elements.

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

    KERNELS = gmp
    LACKING = "density"
    SETUP = (*BaseDescriptor.SETUP, "densities")

    def __init__(
        self,
        fp_params: Mapping[str, Any],
        elements: Iterable[str],
        segments: list[Segment],
        amplitude: Callable[[float], float],
        kind: Sequence[str],
    ) -> None:
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

    @cached_property
    def _compiled(self) -> tuple[Multipoles, RadialTable]:
        """Return what the kernels need; it is made when it is first used, since many descriptors
        never are."""
        multipoles, channels = compile_features(self._segments, self.cutoff, self._amplitude)
        densities = [self.densities[symbol] for symbol in self.elements]
        return multipoles, radial_table(channels, densities, self.cutoff)

    def calculate_fingerprints(  # type: ignore[override]  # v1.0's order and names
        self, atoms: Any, element: str, calc_derivatives: bool, log: Any = None
    ) -> dict[str, Any]:
        """Return what `BaseDescriptor.calculate_fingerprints` does; nothing is written to `log`."""
        return super().calculate_fingerprints(atoms, element, calc_derivatives)

    def _tables(self) -> tuple[Any, ...]:
        return self._compiled

    def _costs(self, counts: np.ndarray) -> np.ndarray:
        return counts + 1

    def _empty_blocks(
        self, pairs: NeighborPairs, counts: np.ndarray, threads: int | None
    ) -> Blocks:
        """Return blocks of zeros, one an atom: every feature depends on neighbours of any
        element."""
        n = len(pairs.element)
        # A little more than the cutoff: an atom just there, which rounding may put on either side,
        # must find its place. A place that stays empty is the central atom's, with zeros.
        reach = np.array([self.cutoff * (1 + 1e-12)])
        alike = pairs._replace(element=np.zeros(n, dtype=np.int64))
        counts, _ = count_in_blocks(reach, alike, counts + 1, 1, threads)
        atom_start = offsets_of(counts.ravel())
        self.require_memory(8 * 3 * self.n_features * atom_start[-1], n)
        return Blocks(
            atom_start=atom_start,
            atoms=np.repeat(np.arange(n, dtype=np.int32), counts.ravel()),
            value_start=3 * self.n_features * atom_start,
            values=np.zeros(3 * self.n_features * atom_start[-1]),
            kind=np.zeros(n, dtype=np.int64),
            feature_row=np.arange(self.n_features).reshape(1, 1, -1),
        )
