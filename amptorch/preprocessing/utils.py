"""v1.0's import path of the scalers; its checkpoints name them by it."""

from amptorch.preprocessing.corrections import AtomicCorrectionScaler
from amptorch.preprocessing.scalers import FeatureScaler, TargetScaler

__all__ = ["AtomicCorrectionScaler", "FeatureScaler", "TargetScaler"]
