"""Cutoff functions and Gaussians in lanes against their formulas."""

import numpy as np
import pytest

from amptorch.descriptor.Gaussian.functions import CUTOFFS, cutoff_series
from amptorch.kernels import factors, lanes
from amptorch.kernels._jit import njit
from amptorch.kernels.cutoffs import Cutoff, cutoff_function
from amptorch.kernels.lanes import LANE_F, LANE_INVERSE_RJK, LANE_S, LANE_W, WIDTH
from amptorch.kernels.symmetry_functions import NEAR_R

RADIUS = 6.0
# Distances (Å) from a hydrogen molecule to beyond the cutoff.
R = np.linspace(0.5, 6.5, WIDTH)
INSIDE = R < RADIUS
PARAMETERS = [
    *(("cosine", alpha) for alpha in (0.0, 0.4)),
    *(("polynomial", gamma) for gamma in (2.0, 4.0, 9.0, 3.4)),
    *((name, 0.0) for name in ("hard", "tanh", "tanh_scaled")),
    *((name, alpha) for name in ("exp", "poly1", "poly2", "poly3", "poly4") for alpha in (0, 0.3)),
]


@njit
def all_factors(rows, even, cutoff, coefficients, eta, shift):
    """F of LANE_S in LANE_F, and w in LANE_W."""
    groups = WIDTH // lanes.LANES
    if len(coefficients) == 0:
        factors.exact(rows, 0, WIDTH, cutoff)
    elif even:
        factors.even(rows, 0, WIDTH, cutoff.radius**2, coefficients, 0, True)
        factors.inverse_distances(rows, 0, groups)
    else:
        factors.in_r(rows, 0, WIDTH, cutoff, coefficients, 0, len(coefficients))
    passes = factors.passes_of(eta, shift, cutoff.radius)
    factors.damp(rows, 0, groups, eta, shift, max(passes, 1))


def computed(name, parameter, eta=0.0, shift=0.0):
    """Rows of the lanes (N_LANE_ROWS, WIDTH), and fc and dfc/dr by the formula."""
    amp = name == "polynomial"
    inner = 0.0 if amp else parameter * RADIUS
    cutoff = Cutoff(CUTOFFS[name], parameter if amp else 0.0, inner, RADIUS)
    rows = np.zeros((1, lanes.N_LANE_ROWS * WIDTH))[0]
    rows[LANE_S * WIDTH : (LANE_S + 1) * WIDTH] = R**2
    even, coefficients = cutoff_series(name, parameter)
    all_factors(rows, even, cutoff, np.array(coefficients, dtype=np.float64), eta, shift)
    exact = np.array([cutoff_function(cutoff, r) if r < RADIUS else (0.0, 0.0) for r in R])
    return rows.reshape(-1, WIDTH), *exact.T


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_cutoff_functions(name, parameter):
    rows, fc, slope = computed(name, parameter)
    np.testing.assert_allclose(
        rows[LANE_INVERSE_RJK], 1 / R, rtol=1e-13
    )  # 1e-13: the start of its step is the processor's own
    np.testing.assert_allclose(rows[LANE_F], fc, rtol=0, atol=1e-12)
    largest = max(np.abs(slope).max(), 0.1)
    np.testing.assert_allclose(rows[LANE_F + 1] * 2 * R, slope, rtol=0, atol=1e-11 * largest)
    assert not rows[LANE_F][~INSIDE].any()


def test_only_what_is_not_smooth_is_computed_by_its_formula():
    missing = {case for case in PARAMETERS if not cutoff_series(*case)[1]}
    assert missing == {("polynomial", 3.4), ("exp", 0), ("exp", 0.3)}


@pytest.mark.parametrize("shift", [0.0, 2.5, -1.0])
@pytest.mark.parametrize("eta", [0.001, 0.15, 0.5, 3.0, 40.0])
def test_gaussians_of_pairs(eta, shift):
    rows, fc, slope = computed("cosine", 0.0, eta, shift)
    d = R - shift
    gaussian = np.exp(-np.minimum(eta * d * d, factors.TWO_PASSES))
    np.testing.assert_allclose(rows[LANE_W], gaussian * fc, rtol=1e-12, atol=1e-14)
    expected = gaussian * (slope - 2 * eta * d * fc) / (2 * R)
    atol = 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(rows[LANE_W + 1], expected, rtol=1e-12, atol=atol)


@njit
def radial_gaussians(near, eta, shift, table):
    passes = max(factors.passes_of(eta, shift, 6.5), 1)
    factors.gaussians(near, NEAR_R, 0, near.shape[1], eta, shift, passes, table, 0)


@pytest.mark.parametrize("shift", [0.0, 2.5, 6.0])
@pytest.mark.parametrize("eta", [0.0, 0.01, 1.0, 300.0])
def test_gaussians_of_neighbours(eta, shift):
    near, table = np.zeros((NEAR_R + 1, WIDTH)), np.zeros((2, WIDTH))
    near[NEAR_R] = R
    radial_gaussians(near, eta, shift, table)
    exponent = np.minimum(eta * (R - shift) ** 2, factors.TWO_PASSES)
    np.testing.assert_allclose(table[0], np.exp(-exponent), rtol=3e-13)
    np.testing.assert_allclose(table[1], -2 * eta * (R - shift) * table[0], rtol=1e-13)
    assert (exponent > 100).any() == (eta == 300.0)
