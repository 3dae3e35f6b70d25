"""Calibrators: from how hard a structure is, to intervals that hold a given share of errors."""

import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.stats import chi2

QUANTILES = ("calibrated", "normal")
# Of σ, relative to the root mean square of the errors: what no fit goes below.
SMALLEST = 1e-3


class ConformalPrediction:
    """Make intervals q·d around predictions, from errors e_i at distances d_i > 0 in a calibration
    set.

    With the scores s_i = |e_i| / d_i and n of them, q is the ⌈(n + 1) c⌉-th smallest for the
    confidence c. Whatever the errors look like, a new one that is exchangeable with those of the
    calibration set is then within q·d with a probability of at least c, and of at most
    c + 1/(n + 1) where no two scores are equal (V. Vovk, A. Gammerman, G. Shafer, Algorithmic
    Learning in a Random World, 2005; with distances to training data: Y. Hu et al., Mach. Learn.:
    Sci. Technol. 3, 045028, 2022). Errors that are vectors are measured by their length.

    alpha : the share of errors that `predict` leaves outside, 1 − c, unless it is told otherwise
    scores_ : (n,) the scores, sorted
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = check_share("alpha", alpha)

    def fit(
        self, residuals_calib: ArrayLike, heurestic_uncertainty_calib: ArrayLike
    ) -> "ConformalPrediction":
        """Calibrate on errors (n,) or (n, D) at distances (n,); return the calibrator.

        Raises ValueError where they do not fit together.
        """
        lengths, distances, _ = _checked(residuals_calib, heurestic_uncertainty_calib)
        self.scores_ = np.sort(lengths / distances)
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that were fitted, for `restore`."""
        return {"scores": self.scores_}

    def restore(self, state: Mapping[str, np.ndarray]) -> "ConformalPrediction":
        """Take the arrays of `state`; return the calibrator."""
        self.scores_ = state["scores"]
        return self

    def quantile(self, confidence: float | None = None) -> float:
        """Return q for a confidence, 1 − alpha where None; infinite, with a warning, where n is too
        small for it."""
        return _ranked(self.scores_, 1 - self.alpha if confidence is None else confidence)

    def predict(
        self, heurestic_uncertainty_test: ArrayLike, confidence: float | None = None
    ) -> np.ndarray:
        """Return the half widths (n,) of the intervals at distances (n,), or radii of the spheres
        for vectors. confidence: 1 − alpha where None."""
        return self.quantile(confidence) * np.asarray(heurestic_uncertainty_test, dtype=np.float64)


class NegativeLeastLikelihoodEstimator:
    """Fit normal errors whose standard deviation grows with the distance: σ(d) = s1 + s2 d.

    s1, s2 ≥ 0 minimise the negative logarithm of the likelihood of errors e_i, numbers (D = 1) or
    vectors of D independent components,

        Σ_i [ D ln σ(d_i) + |e_i|² / (2 σ(d_i)²) ] + (n D / 2) ln 2π.

    `predict` gives σ(d), or for a confidence c the interval u = f·σ(d). quantile says what f is:
    "normal", the root of the c-quantile of χ² with D degrees of freedom, which holds as far as
    errors are normal; or "calibrated", the ⌈(n + 1) c⌉-th smallest of |e_i| / σ(d_i), as in
    `ConformalPrediction`, which is true to c for errors of any kind.

    s1_, s2_ : the parameters, in the units of the errors (per unit of distance)
    """

    def __init__(self, quantile: str = "calibrated") -> None:
        if quantile not in QUANTILES:
            raise ValueError(f"quantile must be one of {QUANTILES}, got {quantile!r}")
        self.quantile = quantile

    def fit(
        self,
        calib_y: ArrayLike,
        calib_dist: ArrayLike,
        # v1.0's default; nothing changes the list.
        initParams: Sequence[float] = [5e-08, 4],
    ) -> "NegativeLeastLikelihoodEstimator":
        """Find s1, s2 from errors (n,) or (n, D) at distances (n,); return the calibrator.

        initParams: s1, s2 that the search also starts from, beside some of its own.

        Raises ValueError where they do not fit together or there is nothing to fit.
        """
        lengths, distances, self.dimension_ = _checked(calib_y, calib_dist)
        error, distance = np.sqrt(np.mean(lengths**2) / self.dimension_), distances.mean()
        if len(lengths) < 2 or error == 0:
            raise ValueError(f"{len(lengths)} errors, the mean square {error**2:g}: nothing to fit")
        squares, x = (lengths / error) ** 2, distances / distance

        def loss(parameters):
            sigma = parameters[0] + parameters[1] * x
            value = np.mean(self.dimension_ * np.log(sigma) + squares / (2 * sigma**2))
            slope = self.dimension_ / sigma - squares / sigma**3
            return value, np.array([slope.mean(), (slope * x).mean()])

        # Two parameters, but not convex: from either end, from the middle, and from what was given.
        bounds = [(SMALLEST, None), (0, None)]
        given = np.multiply(_checked_start(initParams), [1, distance]) / error
        starts = ([1, 0], [0.5, 0.5], [SMALLEST, 1], np.maximum(given, [SMALLEST, 0]))
        fits = [minimize(loss, s, jac=True, method="L-BFGS-B", bounds=bounds) for s in starts]
        s1, s2 = min(fits, key=lambda fit: fit.fun).x
        self.s1_, self.s2_ = float(s1 * error), float(s2 * error / distance)
        self.scores_ = np.sort(lengths / self.sigma(distances))
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that were fitted, for `restore`."""
        parameters = np.array([self.s1_, self.s2_, self.dimension_])
        return {"parameters": parameters, "scores": self.scores_}

    def restore(self, state: Mapping[str, np.ndarray]) -> "NegativeLeastLikelihoodEstimator":
        """Take the arrays of `state`; return the calibrator."""
        self.s1_, self.s2_, dimension = state["parameters"].tolist()
        self.dimension_, self.scores_ = int(dimension), state["scores"]
        return self

    def sigma(self, distances: ArrayLike) -> np.ndarray:
        """Return the standard deviations (n,) at distances (n,), of each component where errors
        are vectors."""
        return self.s1_ + self.s2_ * np.asarray(distances, dtype=np.float64)

    def predict(self, test_dist: ArrayLike, confidence: float | None = None) -> np.ndarray:
        """Return the standard deviations σ (n,) at distances (n,); with a confidence, the half
        widths of the intervals, or radii of the spheres for vectors."""
        sigma = self.sigma(test_dist)
        if confidence is None:
            return sigma
        check_share("confidence", confidence)
        if self.quantile == "normal":
            return np.sqrt(chi2.ppf(confidence, self.dimension_)) * sigma
        return _ranked(self.scores_, confidence) * sigma

    def gaussian(self, params: Sequence[float], calib_y: ArrayLike, calib_dist: ArrayLike) -> float:
        """Return the negative logarithm of the likelihood of all errors, with params = [s1, s2]."""
        lengths, distances, dimension = _checked(calib_y, calib_dist)
        s1, s2 = params
        return len(lengths) * normal_loss(lengths, s1 + s2 * distances, dimension)

    def negative_log_likelihood(self, errors: ArrayLike, distances: ArrayLike) -> float:
        """Return the mean negative logarithm of the likelihood of an error."""
        return self.gaussian((self.s1_, self.s2_), errors, distances) / len(np.asarray(errors))


def _ranked(scores, confidence):
    """Return the ⌈(n + 1) c⌉-th smallest of n sorted scores; infinite, with a warning, where n is
    too small."""
    n = len(scores)
    # (n + 1) c is often meant to be an integer and off by rounding.
    rank = ceil((n + 1) * check_share("confidence", confidence) - 1e-9)
    if rank > n:
        message = f"{n} errors are too few for a confidence of {confidence:g}: no interval"
        warnings.warn(message, stacklevel=4)
        return np.inf
    return float(scores[rank - 1])


def normal_loss(lengths: np.ndarray, sigma: np.ndarray, dimension: int) -> float:
    """Return the mean of −ln p of errors of these lengths, of `dimension` normal components."""
    constant = 0.5 * dimension * np.log(2 * np.pi)
    return float(np.mean(dimension * np.log(sigma) + lengths**2 / (2 * sigma**2)) + constant)


def check_share(name: str, value: Any) -> float:
    """Return a number between 0 and 1; ValueError where it is not one."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must be between 0 and 1, such as 0.1 or 0.9, got {value!r}")
    return float(value)


def lengths_of(errors: ArrayLike) -> tuple[np.ndarray, int]:
    """Return the lengths (n,) and D of errors (n,) or (n, D)."""
    errors = np.asarray(errors, dtype=np.float64)
    if errors.ndim == 1:
        return np.abs(errors), 1
    if errors.ndim != 2:
        raise ValueError(f"errors have the shape {errors.shape}; expected (n,) or (n, D)")
    return np.linalg.norm(errors, axis=1), errors.shape[1]


def _checked_start(params):
    if np.shape(params) != (2,) or not np.isfinite(params).all():
        raise ValueError(f"initParams are {params!r}; expected two numbers, s1 and s2")
    return params


def _checked(errors, distances):
    lengths, dimension = lengths_of(errors)
    distances = np.asarray(distances, dtype=np.float64)
    if distances.shape != lengths.shape or not len(lengths):
        raise ValueError(
            f"{len(lengths)} errors and distances of shape {distances.shape}; expected as many "
            "distances as errors, at least one"
        )
    if not np.isfinite(lengths).all():
        raise ValueError(f"error {int(np.argmin(np.isfinite(lengths)))} is not finite")
    bad = ~(np.isfinite(distances) & (distances > 0))
    if bad.any():
        raise ValueError(
            f"distance {int(np.argmax(bad))} is {distances[np.argmax(bad)]}; expected positive "
            "numbers"
        )
    return lengths, distances, dimension
