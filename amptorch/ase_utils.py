"""v1.0's place for the ASE calculator, and its name before v1.0."""

from amptorch.calculator import AmpTorch
from amptorch.calculator import AmpTorch as AMPtorch

__all__ = ["AMPtorch", "AmpTorch"]
