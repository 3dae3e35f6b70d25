"""v1.0's import path of the scalers; its checkpoints name them by it."""

from amptorch.data.corrections import AtomicCorrectionScaler
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.v1.sparse import sparse_block_diag

__all__ = ["AtomicCorrectionScaler", "FeatureScaler", "TargetScaler", "sparse_block_diag"]
