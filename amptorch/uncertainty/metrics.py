"""Measure how uncertainties agree with errors: coverage, calibration, sharpness, and a plot."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import chi2, spearmanr

from amptorch.uncertainty.calibrators import lengths_of, normal_loss

LEVELS = tuple(round(0.01 * k, 2) for k in range(1, 100))
# The share of a normal distribution within one standard deviation.
ONE_SIGMA = 0.6827


def calc_uncertainty_metrics(list_epa: ArrayLike, uncertainty: ArrayLike) -> tuple[float, float]:
    """Return v1.0's pair: the share of errors beyond their uncertainty, and the mean uncertainty.

    list_epa (n,): errors, such as those of energies per atom, eV; uncertainty (n,): half widths, in
    the same unit. The first, the calibration, should be alpha where they are intervals for the
    confidence 1 − alpha, and 0.32 where they are standard deviations of normal errors; of two
    calibrated estimates, that of the smaller mean (the sharper one) says more.

    Raises ValueError where the shapes differ. For more see `calibration_metrics`.
    """
    lengths, uncertainty = np.abs(list_epa), np.asarray(uncertainty, dtype=np.float64)
    if lengths.ndim != 1 or lengths.shape != uncertainty.shape or not len(lengths):
        raise ValueError(
            f"uncertainties of shape {uncertainty.shape} for errors of shape {lengths.shape}; "
            "expected (n,) for both, n at least one"
        )
    return float(np.mean(lengths > uncertainty)), float(uncertainty.mean())


def calibration_metrics(
    errors: ArrayLike, uncertainties: ArrayLike, levels: Sequence[float] = LEVELS
) -> dict:
    """Return how well uncertainties describe errors.

    errors (n,), or (n, D) for vectors, which are measured by their length. uncertainties: standard
    deviations (n,) of normal errors (of each component, for vectors); or half widths (L, n) of the
    intervals with the confidences `levels` (L,), ascending.

    Returns a dictionary:

    - levels, coverage (L,): confidences c, and shares p(c) of the errors that are within
    - calibration_error: √(mean over levels of (p − c)²); largest_deviation: max |p − c|
    - miscalibration_area: ∫ |p(c) − c| dc from 0 to 1, at worst 0.5
    - sharpness: mean half width at the level nearest to 0.68, where a normal distribution has one
      standard deviation; in the unit of the errors. Of two calibrated estimates the sharper one
      (the smaller number) says more
    - rank_correlation: Spearman's, of |error| and half width at that level; 0 where all widths are
      the same
    - negative_log_likelihood: mean −ln p of the errors; with standard deviations alone

    (V. Kuleshov, N. Fenner, S. Ermon, ICML 2018; K. Tran et al., Mach. Learn.: Sci. Technol. 1,
    025006, 2020.) Raises ValueError where the shapes do not fit.
    """
    lengths, dimension = lengths_of(errors)
    c = np.asarray(levels, dtype=np.float64)
    given = np.asarray(uncertainties, dtype=np.float64)
    deviations = given.ndim == 1
    half_widths = np.sqrt(chi2.ppf(c, dimension))[:, None] * given if deviations else given
    if half_widths.shape != (len(c), len(lengths)) or not half_widths.size:
        raise ValueError(
            f"uncertainties of shape {given.shape} for {len(lengths)} errors; expected "
            f"({len(lengths)},), or ({len(c)}, {len(lengths)}) for {len(c)} levels"
        )
    coverage = (lengths <= half_widths).mean(axis=1)
    difference = np.abs(coverage - c)
    typical = half_widths[np.argmin(np.abs(c - ONE_SIGMA))]
    found = {
        "levels": c,
        "coverage": coverage,
        "calibration_error": float(np.sqrt(np.mean(difference**2))),
        "largest_deviation": float(difference.max()),
        "miscalibration_area": _area(c, coverage - c),
        "sharpness": float(typical.mean()),
        "rank_correlation": _rank_correlation(lengths, typical),
    }
    if deviations:
        found["negative_log_likelihood"] = normal_loss(lengths, given, dimension)
    return found


def calibration_plot(path: str | os.PathLike[str], metrics: Mapping[str, Mapping]) -> None:
    """Write a PNG of coverage against confidence to `path`.

    metrics: a dict from names to what `calibration_metrics` gives. No display is needed.
    """
    figure = Figure(figsize=(4.8, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color="0.4", lw=0.8)
    for name, found in metrics.items():
        label = f"{name}: area {found['miscalibration_area']:.3f}"
        axes.plot([0, *found["levels"], 1], [0, *found["coverage"], 1], label=label)
    axes.set(xlabel="confidence", ylabel="errors within the interval", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False, fontsize="small")
    figure.savefig(path, format="png", dpi=150)


def _area(levels, difference):
    """Return ∫ |difference| over 0..1, where it is zero at either end and linear between levels."""
    x, y = np.concatenate(([0], levels, [1])), np.concatenate(([0], difference, [0]))
    a, b = y[:-1], y[1:]
    # Where the sign changes, two triangles.
    crossing = a * b < 0
    both = np.abs(a) + np.abs(b)
    heights = np.where(crossing, (a**2 + b**2) / np.where(both > 0, both, 1), both)
    return float((np.diff(x) * heights).sum() / 2)


def _rank_correlation(lengths, widths):
    # Widths may be infinite.
    if len(lengths) < 2 or any((values == values[0]).all() for values in (lengths, widths)):
        return 0.0
    return float(spearmanr(lengths, widths).statistic)
