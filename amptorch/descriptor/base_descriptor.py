"""The path of v1.0 to the base of all descriptors."""

from amptorch.descriptor.base import BaseDescriptor

__all__ = ["BaseDescriptor"]
