"""v1.0's import path of the scalers; its checkpoints name them by it."""

from amptorch.preprocessing.corrections import AtomicCorrectionScaler
from amptorch.preprocessing.scalers import FeatureScaler, TargetScaler
from amptorch.preprocessing.sparse import sparse_block_diag

__all__ = ["AtomicCorrectionScaler", "FeatureScaler", "TargetScaler", "sparse_block_diag"]
