"""Inner loops of `unordered.py` on the lanes of `lanes.py`: pairs (j, k), each met once."""

import numpy as np

from amptorch.kernels._jit import inlined, inner
from amptorch.kernels.lanes import (
    LANE_ALONG,
    LANE_BETA,
    LANE_COSINE,
    LANE_INVERSE_R,
    LANE_MIX,
    LANE_MIX_SLOPE,
    LANE_POWER,
    LANE_SUM_X,
    LANE_SUM_Y,
    LANE_SUM_Z,
    LANE_W,
    LANE_W_SLOPE,
    LANE_X,
    LANE_Y,
    LANE_Z,
    LANES,
    WIDTH,
    lane,
    lane_groups_of,
    power,
)

# Largest ζ of the functions that `mix_polynomial` serves.
MIX_DEGREE = 4


@inner
def any_power(rows: np.ndarray, lane_groups: int, lam: float, exponent: float, start: int) -> None:
    """Do what `power` does, by a call: it is seldom needed, and long to compile."""
    power(rows, lane_groups, lam, exponent, start)


@inner
def clear_mix(rows: np.ndarray, lane_groups: int, start: int) -> None:
    """Write zeros to LANE_MIX and LANE_MIX_SLOPE."""
    zero = rows.dtype.type(0.0)
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        rows[LANE_MIX * WIDTH + q] = zero
        rows[LANE_MIX_SLOPE * WIDTH + q] = zero


@inner
def mix(
    rows: np.ndarray,
    lane_groups: int,
    weights: np.ndarray,
    function: int,
    lam: float,
    zeta: float,
    start: int,
) -> None:
    """Add function f, with its weight in each lane, to LANE_MIX and LANE_MIX_SLOPE."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        q = lane(start, j)
        gp = weights[function, q] * rows[LANE_POWER * WIDTH + q]
        b = one + lam * rows[LANE_COSINE * WIDTH + q]
        rows[LANE_MIX * WIDTH + q] += gp * b
        rows[LANE_MIX_SLOPE * WIDTH + q] += gp * slope


@inlined
def mix_one(
    rows: np.ndarray,
    lane_groups: int,
    weights: np.ndarray,
    function: int,
    lam: float,
    zeta: float,
    start: int,
) -> None:
    """Write function f alone, with its weight in each lane, to LANE_MIX and LANE_MIX_SLOPE."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    slope = zeta * lam
    if zeta == 1.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            rows[LANE_MIX * WIDTH + q] = weights[function, q] * b
            rows[LANE_MIX_SLOPE * WIDTH + q] = weights[function, q] * slope
    elif zeta == 2.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            gp = weights[function, q] * b
            rows[LANE_MIX * WIDTH + q] = gp * b
            rows[LANE_MIX_SLOPE * WIDTH + q] = gp * slope
    elif zeta == 4.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            gp = weights[function, q] * b * b * b
            rows[LANE_MIX * WIDTH + q] = gp * b
            rows[LANE_MIX_SLOPE * WIDTH + q] = gp * slope
    else:
        clear_mix(rows, lane_groups, start)
        any_power(rows, lane_groups, lam, zeta - one, start)
        mix(rows, lane_groups, weights, function, lam, zeta, start)


@inlined
def mix_polynomial(
    rows: np.ndarray, lane_groups: int, weights: np.ndarray, first: int, start: int = 0
) -> None:
    """Compute LANE_MIX = Σ_m a_m cos^m θ and LANE_MIX_SLOPE, its derivative, with MIX_DEGREE + 1
    coefficients a_m of each lane from row `first` of `weights` on, lowest power first."""
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        c = rows[LANE_COSINE * WIDTH + q]
        d = weights[first + 4, q]
        p = d * c + weights[first + 3, q]
        d = d * c + p
        p = p * c + weights[first + 2, q]
        d = d * c + p
        p = p * c + weights[first + 1, q]
        rows[LANE_MIX_SLOPE * WIDTH + q] = d * c + p
        rows[LANE_MIX * WIDTH + q] = p * c + weights[first, q]


@inlined
def add_values(
    rows: np.ndarray,
    lane_groups: int,
    sums: np.ndarray,
    function: int,
    lam: float,
    zeta: float,
    uk: float,
    source: int,
    start: int = 0,
) -> None:
    """Add u_k w b^ζ of pairs (j, k) to the sum of function f; w is in row `source`."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    if zeta == 1.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            sums[function, q] += b * (uk * rows[source * WIDTH + q])
    elif zeta == 2.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            sums[function, q] += b * b * (uk * rows[source * WIDTH + q])
    elif zeta == 4.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            b *= b
            sums[function, q] += b * b * (uk * rows[source * WIDTH + q])
    else:
        any_power(rows, lane_groups, lam, zeta, start)
        for j in range(m):
            q = lane(start, j)
            wu = uk * rows[source * WIDTH + q]
            sums[function, q] += rows[LANE_POWER * WIDTH + q] * wu


@inlined
def add_slopes(
    rows: np.ndarray,
    lane_groups: int,
    weights: np.ndarray,
    log_slope: int,
    uk: float,
    duk: float,
    inverse_rk: float,
    source: int,
    start: int = 0,
) -> float:
    """Add α of pairs (j, k) to LANE_ALONG and β to LANE_BETA; return the sum over the lanes of the
    α of neighbour k.

    LANE_MIX = Σ g u_j b^ζ and LANE_MIX_SLOPE = Σ g u_j ζλ b^(ζ−1) have the factor of the lane; w
    and dw/ds are in rows `source` and `source + 1`. `weights[log_slope]` is 2 d(ln u_j)/d(r_j²) and
    duk is 2 du_k/d(r_k²), so that here α has all of a pair's gradient that is along r_j, or r_k.
    """
    along = rows.dtype.type(0.0)
    twice = uk + uk
    inverse_rk2 = inverse_rk * inverse_rk
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        p = rows[LANE_MIX * WIDTH + q]
        pw = p * rows[source * WIDTH + q]
        dd = p * (twice * rows[(source + 1) * WIDTH + q])
        b = rows[LANE_MIX_SLOPE * WIDTH + q] * (uk * rows[source * WIDTH + q])
        bc = b * rows[LANE_COSINE * WIDTH + q]
        inverse_r = rows[LANE_INVERSE_R * WIDTH + q]
        rows[LANE_ALONG * WIDTH + q] += (
            weights[log_slope, q] * (uk * pw) + dd - bc * (inverse_r * inverse_r)
        )
        rows[LANE_BETA * WIDTH + q] += b * (inverse_r * inverse_rk) - dd
        along += duk * pw + dd - bc * inverse_rk2
    return along


@inlined
def add_vectors(
    rows: np.ndarray, lane_groups: int, xk: float, yk: float, zk: float, start: int = 0
) -> tuple[float, float, float]:
    """Add β r_k of pairs (j, k) to the sums of the lanes; return Σ β r_j over the lanes."""
    x = rows.dtype.type(0.0)
    y, z = x, x
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        beta = rows[LANE_BETA * WIDTH + q]
        rows[LANE_SUM_X * WIDTH + q] += beta * xk
        rows[LANE_SUM_Y * WIDTH + q] += beta * yk
        rows[LANE_SUM_Z * WIDTH + q] += beta * zk
        x += beta * rows[LANE_X * WIDTH + q]
        y += beta * rows[LANE_Y * WIDTH + q]
        z += beta * rows[LANE_Z * WIDTH + q]
    return x, y, z


@inlined
def ones(rows: np.ndarray, start: int, n: int) -> None:
    """Write w = 1 and dw/ds = 0 for n lanes from `start` on; zero to the end of the group."""
    one, zero = rows.dtype.type(1.0), rows.dtype.type(0.0)
    for j in range(LANES * min(lane_groups_of(n), WIDTH // LANES)):
        q = lane(start, j)
        rows[LANE_W * WIDTH + q] = one if j < n else zero
        rows[LANE_W_SLOPE * WIDTH + q] = zero


@inlined
def fill(rows: np.ndarray, quantity: int, lane_groups: int, value: float, start: int = 0) -> None:
    """Write `value` to all lanes of a quantity."""
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        q = lane(start, j)
        rows[quantity * WIDTH + q] = value
