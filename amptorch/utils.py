"""v1.0's place for helpers of the training."""

from amptorch.metrics import target_extractor
from amptorch.trainer.compat import check_memory, save_normalizers, train_end_load_best_loss
from amptorch.trainer.net import to_tensor
from amptorch.trainer.splits import InOrderSplit

__all__ = [
    "InOrderSplit",
    "check_memory",
    "save_normalizers",
    "target_extractor",
    "to_tensor",
    "train_end_load_best_loss",
]
