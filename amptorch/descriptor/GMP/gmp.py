"""Define the scheme `gmp`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amptorch.checks import known_keys, mapping, number
from amptorch.descriptor.multipole.descriptor import MultipoleDescriptor
from amptorch.descriptor.multipole.features import Segment, groups_of
from amptorch.descriptor.multipole.parameters import (
    check_fp_params,
    length,
    listed,
    order_number,
)

KEYS = ("MCSHs", "cutoff", "atom_gaussians", "densities")


class GMP(MultipoleDescriptor):
    """Compute Gaussian multipole features, each group of components of an order on its own.

    X. Lei, A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022). The components of order l are those
    of a Cartesian tensor, x^a y^b z^c with a + b + c = l; a group holds those whose exponents are
    permutations of each other, and groups are counted from 1 in falling order: (2,0,0), (1,1,0). A
    feature is the root of the sum of the squares of its components, each the moment of the density
    with a surface harmonic times a Gaussian A exp(−αr²), A = 1/(σ√(2π)), α = 1/(2σ²), and its
    derivatives are 0 where it is 0.

    A group of one component, such as (0,0,0) or (1,1,1), is that component with its sign, as in
    v1.0. Features of an order above 1 change when all is rotated; those of `GMPOrderNorm` do not.

    Parameters
    ----------
    MCSHs : dict, `fp_params`
        "MCSHs" : {"0": {"groups": [1], "sigmas": [Å, ...]}, "1": ...}, a key for each order;
        features are ordered by order, group, sigma
        "cutoff", "atom_gaussians", "densities" : as in `GMPOrderNorm`
    elements : list of chemical symbols

    Raises ValueError or TypeError that names the key or the element.
    """

    def __init__(self, MCSHs: Mapping[str, Any], elements: Iterable[str]) -> None:
        check_fp_params(MCSHs, KEYS)
        self.descriptor_type = "GMP"
        segments = _segments(MCSHs.get("MCSHs"))
        super().__init__(MCSHs, elements, segments, probe_amplitude, kind=("gmp",))


def probe_amplitude(sigma: float) -> float:
    """Return A = 1/(σ√(2π)), as v1.0 has it here."""
    return 1 / (sigma * np.sqrt(2 * np.pi))


def _segments(given: Any) -> list[Segment]:
    where = "fp_params['MCSHs']"
    given = mapping(where, given)
    orders = {order_number(f"{where} key", key): entry for key, entry in given.items()}
    if not orders:
        raise ValueError(f"{where} is empty; give at least one order")
    if len(orders) < len(given):
        raise ValueError(f"{where} has an order twice: {list(given)}")
    segments = []
    for order, entry in sorted(orders.items()):
        inside = f"{where}[{order}]"
        known_keys(inside, entry, ["groups", "sigmas"])
        groups = groups_of(order)
        group_number = number(minimum=1, maximum=len(groups), integer=True)
        sigmas = listed(f"{inside}['sigmas']", entry.get("sigmas", ()), length)
        for group in listed(f"{inside}['groups']", entry.get("groups", ()), group_number):
            segments.append(
                Segment(order, sigmas, group=groups[group - 1], solid=False, square=False)
            )
    return segments
