"""How far predictions can be trusted: intervals that hold a stated share of the errors."""

from amptorch.uncertainty.bootstrap import train_ensemble
from amptorch.uncertainty.ensemble import Ensemble
from amptorch.uncertainty.estimators import (
    ConformalPredictionFeatureSpace,
    ConformalPredictionLatentSpace,
    EnsembleSDEstimator,
    NegativeLeastLikelihoodFeatureSpace,
    NegativeLeastLikelihoodLatentSpace,
)
from amptorch.uncertainty.metrics import calc_uncertainty_metrics, calibration_plot

__all__ = [
    "ConformalPredictionFeatureSpace",
    "ConformalPredictionLatentSpace",
    "Ensemble",
    "EnsembleSDEstimator",
    "NegativeLeastLikelihoodFeatureSpace",
    "NegativeLeastLikelihoodLatentSpace",
    "calc_uncertainty_metrics",
    "calibration_plot",
    "train_ensemble",
]
