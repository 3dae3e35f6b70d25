"""v1.0's place for helpers of the training."""

from amptorch.metrics import to_cpu
from amptorch.trainer.splits import InOrderSplit

__all__ = ["InOrderSplit", "to_cpu"]
