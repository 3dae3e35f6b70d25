"""Behler-Parrinello symmetry functions G1-G5."""

from amptorch.descriptor.Gaussian.descriptor_set import GDS, GaussianDescriptorSet
from amptorch.descriptor.Gaussian.gaussian import Gaussian

__all__ = ["GDS", "Gaussian", "GaussianDescriptorSet"]
