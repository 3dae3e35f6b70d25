"""Behler-Parrinello symmetry functions G1-G5.

Names of other modules are here as in v1.0, for scripts that import them from this path.
"""

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.constants import ATOM_SYMBOL_TO_INDEX_DICT
from amptorch.descriptor.Gaussian.descriptor_set import GDS, GaussianDescriptorSet
from amptorch.descriptor.Gaussian.gaussian import Gaussian
from amptorch.descriptor.util import list_symbols_to_indices

__all__ = [
    "ATOM_SYMBOL_TO_INDEX_DICT",
    "GDS",
    "BaseDescriptor",
    "Gaussian",
    "GaussianDescriptorSet",
    "list_symbols_to_indices",
]
