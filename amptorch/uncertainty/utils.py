"""v1.0's place for the helpers of the estimators."""

from amptorch.uncertainty.calibrators import ConformalPrediction, NegativeLeastLikelihoodEstimator
from amptorch.uncertainty.distances import calc_dist
from amptorch.uncertainty.metrics import calc_uncertainty_metrics, calibration_metrics
from amptorch.uncertainty.prepare import (
    prepare_featureNerror_from_trainer,
    prepare_latentNerror_from_trainer,
    split_calibration,
    split_test_calib,
)

__all__ = [
    "ConformalPrediction",
    "NegativeLeastLikelihoodEstimator",
    "calc_dist",
    "calc_uncertainty_metrics",
    "calibration_metrics",
    "prepare_featureNerror_from_trainer",
    "prepare_latentNerror_from_trainer",
    "split_calibration",
    "split_test_calib",
]
