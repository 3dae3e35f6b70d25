"""Gaussian multipole features, one for each group of components of an order.

Names of other modules are here as in v1.0, for scripts that import them from this path.
"""

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.constants import ATOM_SYMBOL_TO_INDEX_DICT
from amptorch.descriptor.GMP.gmp import GMP
from amptorch.descriptor.util import list_symbols_to_indices

__all__ = [
    "ATOM_SYMBOL_TO_INDEX_DICT",
    "GMP",
    "BaseDescriptor",
    "list_symbols_to_indices",
]
