"""Define the scheme `gmpordernorm`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amptorch.checks import boolean, known_keys, mapping
from amptorch.descriptor.multipole.descriptor import MultipoleDescriptor
from amptorch.descriptor.multipole.features import Segment
from amptorch.descriptor.multipole.parameters import (
    TAIL,
    check_fp_params,
    default_cutoff,
    element_densities,
    length,
    listed,
    order_number,
)
from amptorch.descriptor.util import symbol_list

KEYS = (
    "MCSHs",
    "MCSHs_detailed_list",
    "cutoff",
    "square",
    "solid_harmonics",
    "atom_gaussians",
    "densities",
)


class GMPOrderNorm(MultipoleDescriptor):
    """Compute Gaussian multipole features, the norm of all components of an order.

    X. Lei, A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022). With the density of an atom
    Σ_g B_g exp(−β_g r²), A = (σ√(2π))⁻³ and α = 1/(2σ²),

        w_l(j) = Σ_g A B_g (π/(α+β_g))^{3/2} exp[−αβ_g r_j²/(α+β_g)] (β_g/(α+β_g))^l
        F(l, σ) = l! (2l−1)!! Σ_jk w_l(j) w_l(k) r_j^l r_k^l P_l(cosθ_jk)

    over all atoms within the cutoff, the central atom included.

    Parameters
    ----------
    MCSHs : dict, `fp_params`
        "MCSHs" : {"orders": [l, ...], "sigmas": [Å, ...]}, features ordered by order, then sigma,
        or "MCSHs_detailed_list" : [{"order": l, "sigmas": [Å, ...]}, ...]
        "cutoff" : Å; where the widest probe has fallen to 1e-8 if it is not given
        "square" : True; the root of F where False, with derivatives 0 where F is 0
        "solid_harmonics" : True; surface harmonics (powers of r² are 1) where False
        "atom_gaussians" : {symbol: path of a text file with columns B and β, or rows [B, β]}
        "densities" : where they are from without "atom_gaussians": "v1", those of AMPTorch v1.0, or
        "valence", the package's own
    elements : list of chemical symbols

    Raises ValueError or TypeError that names the key or the element.
    """

    def __init__(self, MCSHs: Mapping[str, Any], elements: Iterable[str]) -> None:
        check_fp_params(MCSHs, KEYS)
        self.descriptor_type = "GMPOrderNorm"
        square = boolean("fp_params['square']", MCSHs.get("square", True))
        solid = boolean("fp_params['solid_harmonics']", MCSHs.get("solid_harmonics", True))
        segments = [
            Segment(order, sigmas, solid=solid, square=square)
            for order, sigmas in _orders_and_sigmas(MCSHs)
        ]
        kind = ("gmpordernorm", "square" if square else "root", "solid" if solid else "surface")
        super().__init__(MCSHs, elements, segments, probe_amplitude, kind)

    def default_cutoff(self, threshold: float = TAIL) -> float:
        """Return where the widest probe has fallen to `threshold`, Å, whatever cutoff was given;
        see `multipole.parameters.default_cutoff`."""
        sigmas = [sigma for segment in self._segments for sigma in segment.sigmas]
        return default_cutoff(sigmas, threshold)

    def load_pseudo_densities(self, elements: Iterable[str]) -> dict[str, np.ndarray]:
        """Return {symbol: (G, 2) array of B (Å⁻³) and β (Å⁻²)} of `elements`, from where this
        descriptor has its densities. Raises ValueError that names an element without one."""
        return element_densities(self.MCSHs, symbol_list(elements))


def probe_amplitude(sigma: float) -> float:
    """Return A = (σ√(2π))⁻³ of a probe that is normalised in three dimensions."""
    return (sigma * np.sqrt(2 * np.pi)) ** -3


def _orders_and_sigmas(fp_params: Mapping[str, Any]) -> list[tuple[int, tuple[float, ...]]]:
    """Return [(order, sigmas)] of either form."""
    common, detailed = fp_params.get("MCSHs"), fp_params.get("MCSHs_detailed_list")
    if (common is None) == (detailed is None):
        raise ValueError("fp_params needs one of 'MCSHs' and 'MCSHs_detailed_list'")
    if common is not None:
        where = "fp_params['MCSHs']"
        known_keys(where, common, ["orders", "sigmas"])
        sigmas = listed(f"{where}['sigmas']", common.get("sigmas", ()), length)
        orders = listed(f"{where}['orders']", common.get("orders", ()), order_number)
        return [(order, sigmas) for order in orders]
    entries = listed("fp_params['MCSHs_detailed_list']", detailed, mapping)
    result = []
    for place, entry in enumerate(entries):
        where = f"fp_params['MCSHs_detailed_list'][{place}]"
        known_keys(where, entry, ["order", "sigmas"])
        order = order_number(f"{where}['order']", entry.get("order"))
        result.append((order, listed(f"{where}['sigmas']", entry.get("sigmas", ()), length)))
    return result
