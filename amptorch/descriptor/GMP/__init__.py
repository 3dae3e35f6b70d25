"""Gaussian multipole features, one for each group of components of an order."""

from amptorch.descriptor.GMP.gmp import GMP

__all__ = ["GMP"]
