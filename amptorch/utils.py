"""v1.0's place for helpers of the training."""

from amptorch.metrics import target_extractor
from amptorch.training.net import to_tensor
from amptorch.training.splits import InOrderSplit
from amptorch.v1.compat import check_memory, save_normalizers, train_end_load_best_loss

__all__ = [
    "InOrderSplit",
    "check_memory",
    "save_normalizers",
    "target_extractor",
    "to_tensor",
    "train_end_load_best_loss",
]
