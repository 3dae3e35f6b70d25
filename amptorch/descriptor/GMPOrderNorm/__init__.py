"""Gaussian multipole features, one for each order and width."""

from amptorch.descriptor.GMPOrderNorm.gmp_order_norm import GMPOrderNorm

__all__ = ["GMPOrderNorm"]
