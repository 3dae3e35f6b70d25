"""v1.0's place for the ASE calculator."""

from amptorch.calculator import AmpTorch

__all__ = ["AmpTorch"]
