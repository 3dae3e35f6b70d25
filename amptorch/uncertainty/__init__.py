"""Say how far predictions can be trusted: intervals that hold a stated share of the errors."""

from amptorch.ensemble import Ensemble
from amptorch.uncertainty.bootstrap import train_ensemble
from amptorch.uncertainty.calibrators import ConformalPrediction, NegativeLeastLikelihoodEstimator
from amptorch.uncertainty.distances import calc_dist
from amptorch.uncertainty.estimators import (
    ConformalPredictionFeatureSpace,
    ConformalPredictionLatentSpace,
    EnsembleSDEstimator,
    NegativeLeastLikelihoodFeatureSpace,
    NegativeLeastLikelihoodLatentSpace,
)
from amptorch.uncertainty.metrics import (
    calc_uncertainty_metrics,
    calibration_metrics,
    calibration_plot,
)
from amptorch.uncertainty.prepare import (
    prepare_featureNerror_from_trainer,
    prepare_latentNerror_from_trainer,
    split_calibration,
    split_test_calib,
)

__all__ = [
    "ConformalPrediction",
    "ConformalPredictionFeatureSpace",
    "ConformalPredictionLatentSpace",
    "Ensemble",
    "EnsembleSDEstimator",
    "NegativeLeastLikelihoodEstimator",
    "NegativeLeastLikelihoodFeatureSpace",
    "NegativeLeastLikelihoodLatentSpace",
    "calc_dist",
    "calc_uncertainty_metrics",
    "calibration_metrics",
    "calibration_plot",
    "prepare_featureNerror_from_trainer",
    "prepare_latentNerror_from_trainer",
    "split_calibration",
    "split_test_calib",
    "train_ensemble",
]
