"""Gaussian multipole features, one for each order and width.

Names of other modules are here as in v1.0, for scripts that import them from this path.
"""

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.constants import ATOM_SYMBOL_TO_INDEX_DICT
from amptorch.descriptor.GMPOrderNorm.gmp_order_norm import GMPOrderNorm
from amptorch.descriptor.util import list_symbols_to_indices

__all__ = [
    "ATOM_SYMBOL_TO_INDEX_DICT",
    "BaseDescriptor",
    "GMPOrderNorm",
    "list_symbols_to_indices",
]
