"""Cutoff functions and Gaussians of many distances at once, on the lanes of `lanes.py`.

A symmetry function has w(s) = exp(−η(r − Rs)²) fc(r), s = r². Here fc is F, and `damp` multiplies
it by the exponential, or by what of it is not in F already.

The cosine: fc = p², p(s) = cos(π√s/2Rc), an entire function of s: eight terms reach rounding error,
and spare a square root, a cosine, a sine and a division. Those of the other cutoff functions that
are smooth in r are series in r. The rest is computed by the formula (`exact`).

The exponential: e^−y = (e^−z)^16, or ^256, with z up to 0.4, where ten terms are enough. Errors are
2e-14 and 1e-13 of the value. Where y is above 102.4 it counts as that: e^−102 is 3e-45.
"""

import math
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from amptorch.kernels._jit import inlined, inner
from amptorch.kernels.cutoffs import Cutoff, cutoff_function
from amptorch.kernels.lanes import (
    LANE_F,
    LANE_F_SLOPE,
    LANE_INVERSE_RJK,
    LANE_POWER,
    LANE_S,
    LANE_W,
    LANE_W_SLOPE,
    LANES,
    SAME_ATOM,
    WIDTH,
    lane,
    lane_groups_of,
)

# The middle of the range of z, and the largest exponents of one power of 16 and of two.
_MIDDLE = 0.2
ONE_PASS = 2 * _MIDDLE * 16
TWO_PASSES = 2 * _MIDDLE * 256
# Terms of p(s); and what number of terms a series in r is a multiple of.
EVEN_TERMS = 8
STEP_TERMS = 4


def _exponential() -> list[float]:
    """Return the coefficients of e^−(v + _MIDDLE) for |v| ≤ _MIDDLE, lowest power first."""
    interpolate: Any = chebyshev.chebinterpolate
    fitted = interpolate(lambda x: np.exp(-_MIDDLE * (x + 1.0)), 30)[:10]
    return (chebyshev.cheb2poly(fitted) / _MIDDLE ** np.arange(10)).tolist()


_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9 = _exponential()


@inner
def passes_of(eta: float, shift: float, radius: float) -> int:
    """Return the number of powers of 16 that exp(−η(r − Rs)²) takes for r up to `radius`; 0 where
    η is 0."""
    if eta == 0.0:
        return 0
    farthest = max(abs(shift), abs(radius - shift))
    return 1 if eta * farthest * farthest <= ONE_PASS else 2


@inlined
def _power_16(z: float, like: np.ndarray) -> float:
    """Return e^−16z for z from 0 to 0.4."""
    v = z - like.dtype.type(_MIDDLE)
    e = like.dtype.type(_E9)
    e = e * v + like.dtype.type(_E8)
    e = e * v + like.dtype.type(_E7)
    e = e * v + like.dtype.type(_E6)
    e = e * v + like.dtype.type(_E5)
    e = e * v + like.dtype.type(_E4)
    e = e * v + like.dtype.type(_E3)
    e = e * v + like.dtype.type(_E2)
    e = e * v + like.dtype.type(_E1)
    return _power(e * v + like.dtype.type(_E0))


@inlined
def _power(e: float) -> float:
    """Return e^16."""
    e *= e
    e *= e
    e *= e
    return e * e


@inner
def gaussians(
    near: np.ndarray,
    distance: int,
    start: int,
    n: int,
    eta: float,
    shift: float,
    passes: int,
    table: np.ndarray,
    row: int,
) -> None:
    """Compute exp(−η(r − Rs)²) and its derivative with respect to r, into `table[row]` and the row
    after it, for n neighbours from `start` on, a multiple of LANES each; `near[distance]` has the
    r. `passes` are those of `passes_of`."""
    largest = near.dtype.type(TWO_PASSES)
    scale = near.dtype.type(1.0 / 16.0 if passes == 1 else 1.0 / 256.0)
    for j in range(LANES * (n // LANES)):
        q = lane(start, j)
        d = near[distance, q] - shift
        e = _power_16(min(eta * d * d, largest) * scale, near)
        table[row, q] = e if passes == 1 else _power(e)
    for j in range(LANES * (n // LANES)):
        q = lane(start, j)
        table[row + 1, q] = -(eta + eta) * (near[distance, q] - shift) * table[row, q]


@inlined
def inverse_distances(rows: np.ndarray, start: int, lane_groups: int) -> None:
    """Compute LANE_INVERSE_RJK = 1/√s; zero for an atom with itself.

    In single precision and one step of Newton's method, which leaves an error of 2e-14 and takes
    half the time.
    """
    zero, same = rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    half, three_halves = rows.dtype.type(0.5), rows.dtype.type(1.5)
    one = np.float32(1.0)
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        s = rows[LANE_S * WIDTH + q]
        y = rows.dtype.type(one / math.sqrt(np.float32(max(s, same))))
        y = y * (three_halves - half * s * y * y)
        rows[LANE_INVERSE_RJK * WIDTH + q] = y if s > same else zero


@inlined
def even(
    rows: np.ndarray,
    start: int,
    n: int,
    cutoff2: float,
    coefficients: np.ndarray,
    first: int,
    slopes: bool,
) -> None:
    """Compute LANE_F = p² and, with `slopes`, LANE_F_SLOPE = dF/ds, by Horner's rule in
    x = 2s/Rc² − 1 with EVEN_TERMS coefficients, highest power first.

    Here and in the next two: zero outside the cutoff, and beyond lane start + n.
    """
    one, zero, same = rows.dtype.type(1.0), rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    scale = (one + one) / cutoff2
    scale_twice = scale + scale
    c0, c1, c2 = coefficients[first], coefficients[first + 1], coefficients[first + 2]
    c3, c4, c5 = coefficients[first + 3], coefficients[first + 4], coefficients[first + 5]
    c6, c7 = coefficients[first + 6], coefficients[first + 7]
    for j in range(LANES * min(lane_groups_of(n), WIDTH // LANES)):
        q = lane(start, j)
        s = rows[LANE_S * WIDTH + q]
        x = scale * s - one
        p = c0 * x + c1
        if slopes:
            d = c0 * x + p
            p = p * x + c2
            d = d * x + p
            p = p * x + c3
            d = d * x + p
            p = p * x + c4
            d = d * x + p
            p = p * x + c5
            d = d * x + p
            p = p * x + c6
            d = d * x + p
            p = p * x + c7
            p = p if (s < cutoff2) and (s > same) and (j < n) else zero
            rows[LANE_F_SLOPE * WIDTH + q] = scale_twice * p * d
        else:
            p = p * x + c2
            p = p * x + c3
            p = p * x + c4
            p = p * x + c5
            p = p * x + c6
            p = p * x + c7
            p = p if (s < cutoff2) and (s > same) and (j < n) else zero
        rows[LANE_F * WIDTH + q] = p * p


@inner
def in_r(
    rows: np.ndarray,
    start: int,
    n: int,
    cutoff: Cutoff,
    coefficients: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Compute LANE_INVERSE_RJK, LANE_F and LANE_F_SLOPE = dF/ds, by a series in r.

    Its variable runs from −1 at the inner radius to 1 at Rc. It has STEP_TERMS coefficients or a
    multiple, highest power first.
    """
    inverse_distances(rows, start, lane_groups_of(n))
    m = LANES * min(lane_groups_of(n), WIDTH // LANES)
    one, zero, same = rows.dtype.type(1.0), rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    inner = rows.dtype.type(cutoff.inner)
    radius = rows.dtype.type(cutoff.radius)
    cutoff2, scale = radius * radius, (one + one) / (radius - inner)
    half_scale = one / (radius - inner)
    for j in range(m):
        q = lane(start, j)
        rows[LANE_F * WIDTH + q] = zero
        rows[LANE_F_SLOPE * WIDTH + q] = zero
    while first < last:
        c0, c1 = coefficients[first], coefficients[first + 1]
        c2, c3 = coefficients[first + 2], coefficients[first + 3]
        for j in range(m):
            q = lane(start, j)
            r = rows[LANE_S * WIDTH + q] * rows[LANE_INVERSE_RJK * WIDTH + q]
            x = max(scale * (r - inner) - one, -one)
            w = rows[LANE_F * WIDTH + q]
            d = rows[LANE_F_SLOPE * WIDTH + q]
            d = d * x + w
            w = w * x + c0
            d = d * x + w
            w = w * x + c1
            d = d * x + w
            w = w * x + c2
            rows[LANE_F_SLOPE * WIDTH + q] = d * x + w
            rows[LANE_F * WIDTH + q] = w * x + c3
        first += STEP_TERMS
    for j in range(m):
        q = lane(start, j)
        s = rows[LANE_S * WIDTH + q]
        inverse_r = rows[LANE_INVERSE_RJK * WIDTH + q]
        w = rows[LANE_F * WIDTH + q]
        d = rows[LANE_F_SLOPE * WIDTH + q] * (half_scale * inverse_r)
        # dF/dr = 0 up to the inner radius.
        beyond = s * inverse_r > inner
        inside = (s < cutoff2) and (s > same) and (j < n)
        rows[LANE_F * WIDTH + q] = w if inside else zero
        rows[LANE_F_SLOPE * WIDTH + q] = d if inside and beyond else zero


@inner
def exact(rows: np.ndarray, start: int, n: int, cutoff: Cutoff) -> None:
    """Compute LANE_INVERSE_RJK, LANE_F and LANE_F_SLOPE from the formula itself."""
    inverse_distances(rows, start, lane_groups_of(n))
    cutoff2 = cutoff.radius * cutoff.radius
    for j in range(LANES * min(lane_groups_of(n), WIDTH // LANES)):
        q = start + j
        s = rows[LANE_S * WIDTH + q]
        rows[LANE_F * WIDTH + q] = 0.0
        rows[LANE_F_SLOPE * WIDTH + q] = 0.0
        if SAME_ATOM < s < cutoff2 and j < n:
            r = math.sqrt(s)
            fc, slope = cutoff_function(cutoff, r)
            rows[LANE_F * WIDTH + q] = fc
            rows[LANE_F_SLOPE * WIDTH + q] = 0.5 * slope / r


@inlined
def damp(
    rows: np.ndarray,
    start: int,
    lane_groups: int,
    eta: float,
    shift: float,
    passes: int,
) -> None:
    """Compute LANE_W = exp(−η(√s − Rs)²) F and LANE_W_SLOPE = dw/ds, from LANE_F and LANE_F_SLOPE.
    With a shift, LANE_INVERSE_RJK must be there."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    largest = rows.dtype.type(TWO_PASSES)
    scale = rows.dtype.type(1.0 / 16.0 if passes == 1 else 1.0 / 256.0)
    if shift != 0.0:
        _damp_shifted(rows, start, lane_groups, eta, shift, passes)
    elif passes == 1:
        for j in range(m):
            q = lane(start, j)
            y = min(eta * rows[LANE_S * WIDTH + q], largest)
            e = _power_16(y * scale, rows)
            f = rows[LANE_F * WIDTH + q]
            d = rows[LANE_F_SLOPE * WIDTH + q]
            rows[LANE_W_SLOPE * WIDTH + q] = e * (d - eta * f)
            rows[LANE_W * WIDTH + q] = e * f
    else:
        for j in range(m):
            q = lane(start, j)
            y = min(eta * rows[LANE_S * WIDTH + q], largest)
            e = _power(_power_16(y * scale, rows))
            f = rows[LANE_F * WIDTH + q]
            d = rows[LANE_F_SLOPE * WIDTH + q]
            rows[LANE_W_SLOPE * WIDTH + q] = e * (d - eta * f)
            rows[LANE_W * WIDTH + q] = e * f


@inner
def _damp_shifted(
    rows: np.ndarray,
    start: int,
    lane_groups: int,
    eta: float,
    shift: float,
    passes: int,
) -> None:
    """Do what `damp` does with a shift."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    largest, one = rows.dtype.type(TWO_PASSES), rows.dtype.type(1.0)
    scale = rows.dtype.type(1.0 / 16.0 if passes == 1 else 1.0 / 256.0)
    for j in range(m):
        q = lane(start, j)
        r = rows[LANE_S * WIDTH + q] * rows[LANE_INVERSE_RJK * WIDTH + q]
        y = min(eta * (r - shift) * (r - shift), largest)
        rows[LANE_POWER * WIDTH + q] = _power_16(y * scale, rows)
    if passes > 1:
        for j in range(m):
            q = lane(start, j)
            at = LANE_POWER * WIDTH + q
            rows[at] = _power(rows[at])
    for j in range(m):
        q = lane(start, j)
        e = rows[LANE_POWER * WIDTH + q]
        f = rows[LANE_F * WIDTH + q]
        d = rows[LANE_F_SLOPE * WIDTH + q]
        slope = eta * (one - shift * rows[LANE_INVERSE_RJK * WIDTH + q])
        rows[LANE_W_SLOPE * WIDTH + q] = e * (d - slope * f)
        rows[LANE_W * WIDTH + q] = e * f


@inlined
def undamped(rows: np.ndarray, lane_groups: int) -> None:
    """Copy LANE_F and LANE_F_SLOPE to LANE_W and LANE_W_SLOPE."""
    for q in range(LANES * min(lane_groups, WIDTH // LANES)):
        rows[LANE_W * WIDTH + q] = rows[LANE_F * WIDTH + q]
        rows[LANE_W_SLOPE * WIDTH + q] = rows[LANE_F_SLOPE * WIDTH + q]
