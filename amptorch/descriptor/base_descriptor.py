"""The path of v1.0 to the base of all descriptors."""

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.util import get_hash, list_symbols_to_indices, validate_image

__all__ = ["BaseDescriptor", "get_hash", "list_symbols_to_indices", "validate_image"]
