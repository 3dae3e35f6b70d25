"""Vectorised inner loops of the angular symmetry functions, on lanes of neighbours.

For a central atom i and a neighbour k, the loops here run over lanes j = other neighbours. A lane
quantity is one row of a scratch array: quantity Q of lane j is `rows[Q * WIDTH + j]`. One array
with rows at constant distances is what lets LLVM prove that rows do not overlap, so that every loop
becomes packed instructions without a run-time check; separate arrays leave scalar code (measured:
8 times slower).

With c = cosθ_ijk, s = r_jk², b = 1 + λc, a pair term of G4 is

    T = b^ζ u_j u_k w(s),      u = exp(−ηr²) fc(r),      w(s) = exp(−ηs) fc(√s),

w = 1 for G5. Its gradient is a combination of r_j and r_k (vectors from i):

    ∂T/∂r_j = b^ζ u_k w ∂u_j/∂r_j + u_j (α r_j + β r_k)
    β = u_k [ζλ b^(ζ−1) w / (r_j r_k) − 2 b^ζ w'],   α = u_k [2 b^ζ w' − ζλ b^(ζ−1) w c / r_j²]

All literals are written in the type of the lanes: a float64 literal among float32 lanes would turn
the whole expression into float64.
"""

import math
from typing import NamedTuple

import numpy as np

from amptorch.kernels._jit import inlined, njit
from amptorch.kernels.cutoffs import Cutoff, cutoff_function

# A row is a whole number of cache lines (64 bytes) in both precisions, so that no vector straddles
# two of them, and not a power of two, so that rows do not fall into the same places of the cache:
# together twice as fast as rows of 128 in an array that starts anywhere.
WIDTH = 144
# Loops run over whole groups of 8 lanes, so that no scalar remainder is left (a third of the time
# with 95 neighbours); lanes beyond the last neighbour hold old finite numbers that nobody reads.
LANES = 8

# Rows of the lanes, one for each quantity.
# Neighbours j: vector from i, r², 1/r, u_j; for directional derivatives also the relative
# velocity, δu_j = ∇u_j·v_j, and r_j·v_j.
LANE_X, LANE_Y, LANE_Z, LANE_R2, LANE_INVERSE_R, LANE_U = range(6)
LANE_VX, LANE_VY, LANE_VZ, LANE_DELTA_U, LANE_R_DOT_V = range(6, 11)
# Pairs (j, k): s, w, dw/ds, cosθ, and u_k times w, w/(r_j r_k), w cosθ/r_j², 2 dw/ds.
LANE_S, LANE_W, LANE_W_SLOPE, LANE_COSINE = range(11, 15)
LANE_UW, LANE_UW_PER_RR, LANE_UW_COSINE_PER_R2, LANE_UW_SLOPE_TWICE = range(15, 19)
# b^(ζ−1) and squares of b on the way there; mixed b^ζ and its derivative.
LANE_POWER, LANE_SQUARE, LANE_MIX, LANE_MIX_SLOPE = range(19, 23)
N_LANE_ROWS = 23
# Rows that are used again under another name. Once all pairs are summed: the gradient with respect
# to r_j. In directional derivatives: what b^ζ and b^(ζ−1) are multiplied by.
LANE_GRADIENT_X, LANE_GRADIENT_Y, LANE_GRADIENT_Z = LANE_S, LANE_W, LANE_W_SLOPE
LANE_POWER_FACTOR, LANE_LOWER_FACTOR = LANE_UW, LANE_UW_COSINE_PER_R2

# Sums over k stand in an array of their own, a row a function with five times WIDTH columns: value,
# α, β r_k. (A row of the lanes whose number is known only at run time would keep the loops scalar.)
SUM_VALUE, SUM_ALPHA, SUM_BETA_X, SUM_BETA_Y, SUM_BETA_Z = range(5)
PER_FUNCTION = 5

# Pairs nearer than 1e-4 Å are an atom with itself.
SAME_ATOM = 1e-8


@inlined
def lane_groups_of(n: int) -> int:
    """Return the number of groups of lanes that hold n neighbours."""
    return (n + LANES - 1) // LANES


@inlined
def drop(rows: np.ndarray, quantity: int, m: int) -> None:
    """Write zero for lanes from m to the end of its group."""
    zero = rows.dtype.type(0.0)
    for j in range(m, LANES * lane_groups_of(m)):
        rows[quantity * WIDTH + j] = zero


@njit
def clear(array: np.ndarray, n_rows: int, width: int) -> None:
    """Write zeros to the first `width` columns of the first rows."""
    zero = array.dtype.type(0.0)
    for row in range(n_rows):
        for q in range(width):
            array[row, q] = zero


@inlined
def clear_mix(rows: np.ndarray, lane_groups: int) -> None:
    """Write zeros to LANE_MIX and LANE_MIX_SLOPE."""
    zero = rows.dtype.type(0.0)
    for j in range(LANES * min(lane_groups, WIDTH // LANES)):
        rows[LANE_MIX * WIDTH + j] = zero
        rows[LANE_MIX_SLOPE * WIDTH + j] = zero


@inlined
def distances(
    rows: np.ndarray,
    lane_groups: int,
    xk: float,
    yk: float,
    zk: float,
    r2k: float,
    inverse_rk: float,
) -> None:
    """Compute LANE_S = r_jk² and LANE_COSINE = cosθ_ijk."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        dot = (
            rows[LANE_X * WIDTH + j] * xk
            + rows[LANE_Y * WIDTH + j] * yk
            + rows[LANE_Z * WIDTH + j] * zk
        )
        rows[LANE_S * WIDTH + j] = rows[LANE_R2 * WIDTH + j] + r2k - (dot + dot)
        rows[LANE_COSINE * WIDTH + j] = dot * (rows[LANE_INVERSE_R * WIDTH + j] * inverse_rk)


@inlined
def everywhere(rows: np.ndarray, lane_groups: int) -> None:
    """Write w = 1 for G5, 0 for an atom with itself."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one, zero, same = rows.dtype.type(1.0), rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    for j in range(m):
        rows[LANE_W * WIDTH + j] = one if rows[LANE_S * WIDTH + j] > same else zero
        rows[LANE_W_SLOPE * WIDTH + j] = zero


@inlined
def polynomial(
    rows: np.ndarray,
    lane_groups: int,
    cutoff2: float,
    coefficients: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Compute LANE_W = w(s) and LANE_W_SLOPE = dw/ds by Horner's rule in x = 2s/Rc² − 1; zero
    outside the cutoff.

    At least 12 coefficients, highest power first, 12 plus a multiple of 4: those above the lowest
    twelve take a pass for each four.
    """
    m = LANES * min(lane_groups, WIDTH // LANES)
    one, zero, same = rows.dtype.type(1.0), rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    scale = (one + one) / cutoff2
    for j in range(m):
        rows[LANE_W * WIDTH + j] = zero
        rows[LANE_W_SLOPE * WIDTH + j] = zero
    while stop - start > 12:
        c0, c1 = coefficients[start], coefficients[start + 1]
        c2, c3 = coefficients[start + 2], coefficients[start + 3]
        for j in range(m):
            x = scale * rows[LANE_S * WIDTH + j] - one
            w = rows[LANE_W * WIDTH + j]
            d = rows[LANE_W_SLOPE * WIDTH + j]
            d = d * x + w
            w = w * x + c0
            d = d * x + w
            w = w * x + c1
            d = d * x + w
            w = w * x + c2
            rows[LANE_W_SLOPE * WIDTH + j] = d * x + w
            rows[LANE_W * WIDTH + j] = w * x + c3
        start += 4
    c0, c1, c2 = coefficients[start], coefficients[start + 1], coefficients[start + 2]
    c3, c4, c5 = coefficients[start + 3], coefficients[start + 4], coefficients[start + 5]
    c6, c7, c8 = coefficients[start + 6], coefficients[start + 7], coefficients[start + 8]
    c9, c10, c11 = coefficients[start + 9], coefficients[start + 10], coefficients[start + 11]
    for j in range(m):
        s = rows[LANE_S * WIDTH + j]
        x = scale * s - one
        w = rows[LANE_W * WIDTH + j]
        d = rows[LANE_W_SLOPE * WIDTH + j] * x + w
        w = w * x + c0
        d = d * x + w
        w = w * x + c1
        d = d * x + w
        w = w * x + c2
        d = d * x + w
        w = w * x + c3
        d = d * x + w
        w = w * x + c4
        d = d * x + w
        w = w * x + c5
        d = d * x + w
        w = w * x + c6
        d = d * x + w
        w = w * x + c7
        d = d * x + w
        w = w * x + c8
        d = d * x + w
        w = w * x + c9
        d = d * x + w
        w = w * x + c10
        d = d * x + w
        w = w * x + c11
        inside = one if (s < cutoff2) and (s > same) else zero
        rows[LANE_W * WIDTH + j] = inside * w
        rows[LANE_W_SLOPE * WIDTH + j] = inside * scale * d


@inlined
def products(rows: np.ndarray, lane_groups: int, inverse_rk: float, uk: float) -> None:
    """Compute u_k times w, w/(r_j r_k), w c/r_j² and 2 dw/ds."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        wu = rows[LANE_W * WIDTH + j] * uk
        inverse_r = rows[LANE_INVERSE_R * WIDTH + j]
        dwu = rows[LANE_W_SLOPE * WIDTH + j] * uk
        rows[LANE_UW * WIDTH + j] = wu
        rows[LANE_UW_PER_RR * WIDTH + j] = wu * (inverse_r * inverse_rk)
        rows[LANE_UW_COSINE_PER_R2 * WIDTH + j] = (
            wu * rows[LANE_COSINE * WIDTH + j] * (inverse_r * inverse_r)
        )
        rows[LANE_UW_SLOPE_TWICE * WIDTH + j] = dwu + dwu


@inlined
def power(rows: np.ndarray, lane_groups: int, lam: float, exponent: float) -> None:
    """Compute LANE_POWER = (1 + λc)^exponent, by multiplication where the exponent is an
    integer."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    if exponent == 0.0:
        for j in range(m):
            rows[LANE_POWER * WIDTH + j] = one
    elif exponent == 1.0:
        for j in range(m):
            rows[LANE_POWER * WIDTH + j] = one + lam * rows[LANE_COSINE * WIDTH + j]
    elif exponent == 2.0:
        for j in range(m):
            b = one + lam * rows[LANE_COSINE * WIDTH + j]
            rows[LANE_POWER * WIDTH + j] = b * b
    elif exponent == 4.0:
        for j in range(m):
            b = one + lam * rows[LANE_COSINE * WIDTH + j]
            b *= b
            rows[LANE_POWER * WIDTH + j] = b * b
    elif exponent == 3.0:
        for j in range(m):
            b = one + lam * rows[LANE_COSINE * WIDTH + j]
            rows[LANE_POWER * WIDTH + j] = b * b * b
    elif exponent == int(exponent):
        remaining = int(exponent)
        for j in range(m):
            rows[LANE_POWER * WIDTH + j] = one
            rows[LANE_SQUARE * WIDTH + j] = one + lam * rows[LANE_COSINE * WIDTH + j]
        while remaining > 0:
            if remaining & 1:
                for j in range(m):
                    rows[LANE_POWER * WIDTH + j] *= rows[LANE_SQUARE * WIDTH + j]
            remaining >>= 1
            if remaining > 0:
                for j in range(m):
                    rows[LANE_SQUARE * WIDTH + j] *= rows[LANE_SQUARE * WIDTH + j]
    else:
        zero = rows.dtype.type(0.0)
        for j in range(m):
            # Rounding can put 1 + λc a little below zero.
            b = max(one + lam * rows[LANE_COSINE * WIDTH + j], zero)
            rows[LANE_POWER * WIDTH + j] = b**exponent


@inlined
def accumulate_gradient(
    rows: np.ndarray,
    lane_groups: int,
    sums: np.ndarray,
    function: int,
    lam: float,
    zeta: float,
    xk: float,
    yk: float,
    zk: float,
) -> None:
    """Add pairs (j, k) to the five sums of function f."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        p1 = rows[LANE_POWER * WIDTH + j]
        p = p1 * (one + lam * rows[LANE_COSINE * WIDTH + j])
        d = p1 * slope
        pw = p * rows[LANE_UW_SLOPE_TWICE * WIDTH + j]
        beta = d * rows[LANE_UW_PER_RR * WIDTH + j] - pw
        sums[function, SUM_VALUE * WIDTH + j] += p * rows[LANE_UW * WIDTH + j]
        sums[function, SUM_ALPHA * WIDTH + j] += pw - d * rows[LANE_UW_COSINE_PER_R2 * WIDTH + j]
        sums[function, SUM_BETA_X * WIDTH + j] += beta * xk
        sums[function, SUM_BETA_Y * WIDTH + j] += beta * yk
        sums[function, SUM_BETA_Z * WIDTH + j] += beta * zk


@inlined
def accumulate_mixed_gradient(
    rows: np.ndarray, lane_groups: int, sums: np.ndarray, xk: float, yk: float, zk: float
) -> None:
    """Add pairs (j, k) to the five sums of the weighted sum of all functions, LANE_MIX = Σ g b^ζ
    and LANE_MIX_SLOPE = Σ g ζλ b^(ζ−1)."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        p = rows[LANE_MIX * WIDTH + j]
        d = rows[LANE_MIX_SLOPE * WIDTH + j]
        pw = p * rows[LANE_UW_SLOPE_TWICE * WIDTH + j]
        beta = d * rows[LANE_UW_PER_RR * WIDTH + j] - pw
        sums[0, SUM_VALUE * WIDTH + j] += p * rows[LANE_UW * WIDTH + j]
        sums[0, SUM_ALPHA * WIDTH + j] += pw - d * rows[LANE_UW_COSINE_PER_R2 * WIDTH + j]
        sums[0, SUM_BETA_X * WIDTH + j] += beta * xk
        sums[0, SUM_BETA_Y * WIDTH + j] += beta * yk
        sums[0, SUM_BETA_Z * WIDTH + j] += beta * zk


@inlined
def mix(
    rows: np.ndarray, lane_groups: int, weights: np.ndarray, function: int, lam: float, zeta: float
) -> None:
    """Add function f, with its weight in each lane, to LANE_MIX and LANE_MIX_SLOPE."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        gp = weights[function, j] * rows[LANE_POWER * WIDTH + j]
        rows[LANE_MIX * WIDTH + j] += gp * (one + lam * rows[LANE_COSINE * WIDTH + j])
        rows[LANE_MIX_SLOPE * WIDTH + j] += gp * slope


@inlined
def accumulate_value(rows: np.ndarray, lane_groups: int, sums: np.ndarray, function: int) -> None:
    """Add u_k w b^ζ of pairs (j, k) to the sum; LANE_POWER holds b^ζ."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        sums[function, j] += rows[LANE_POWER * WIDTH + j] * rows[LANE_UW * WIDTH + j]


class MovingNeighbor(NamedTuple):
    """Hold neighbour k of the pairs (j, k) in `directional_products`: what the lanes hold of the
    j."""

    x: float
    y: float
    z: float
    inverse_r: float
    u: float
    vx: float
    vy: float
    vz: float
    delta_u: float
    r_dot_v: float


@inlined
def directional_products(rows: np.ndarray, lane_groups: int, k: MovingNeighbor) -> None:
    """Compute LANE_POWER_FACTOR and LANE_LOWER_FACTOR in the derivative of T along v.

    δT = b^ζ [w' δs u_j u_k + w δ(u_j u_k)] + ζλ b^(ζ−1) w u_j u_k δc
    """
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        inverse_r = rows[LANE_INVERSE_R * WIDTH + j]
        uj = rows[LANE_U * WIDTH + j]
        r_dot_v = rows[LANE_R_DOT_V * WIDTH + j]
        delta_dot = (
            rows[LANE_VX * WIDTH + j] * k.x
            + rows[LANE_VY * WIDTH + j] * k.y
            + rows[LANE_VZ * WIDTH + j] * k.z
            + rows[LANE_X * WIDTH + j] * k.vx
            + rows[LANE_Y * WIDTH + j] * k.vy
            + rows[LANE_Z * WIDTH + j] * k.vz
        )
        half_delta_s = r_dot_v + k.r_dot_v - delta_dot
        delta_c = delta_dot * (inverse_r * k.inverse_r) - rows[LANE_COSINE * WIDTH + j] * (
            r_dot_v * inverse_r * inverse_r + k.r_dot_v * k.inverse_r * k.inverse_r
        )
        w = rows[LANE_W * WIDTH + j]
        dw = rows[LANE_W_SLOPE * WIDTH + j]
        rows[LANE_POWER_FACTOR * WIDTH + j] = (dw + dw) * half_delta_s * uj * k.u + w * (
            rows[LANE_DELTA_U * WIDTH + j] * k.u + uj * k.delta_u
        )
        rows[LANE_LOWER_FACTOR * WIDTH + j] = w * uj * k.u * delta_c


@inlined
def accumulate_directional(
    rows: np.ndarray, lane_groups: int, sums: np.ndarray, function: int, lam: float, zeta: float
) -> None:
    """Add δT of pairs (j, k) to the sum; LANE_POWER holds b^(ζ−1)."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        b = one + lam * rows[LANE_COSINE * WIDTH + j]
        sums[function, j] += rows[LANE_POWER * WIDTH + j] * (
            b * rows[LANE_POWER_FACTOR * WIDTH + j] + slope * rows[LANE_LOWER_FACTOR * WIDTH + j]
        )


@njit
def exact(rows: np.ndarray, lane_groups: int, eta: float, shift: float, cutoff: Cutoff) -> None:
    """Compute LANE_W = exp(−η(√s − Rs)²) fc(√s) and LANE_W_SLOPE, its derivative, from the formula
    itself; zero outside the cutoff."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    cutoff2 = cutoff.radius * cutoff.radius
    for j in range(m):
        s = rows[LANE_S * WIDTH + j]
        rows[LANE_W * WIDTH + j] = 0.0
        rows[LANE_W_SLOPE * WIDTH + j] = 0.0
        if SAME_ATOM < s < cutoff2:
            r = math.sqrt(s)
            fc, slope = cutoff_function(cutoff, r)
            d = r - shift
            damping = math.exp(-eta * d * d)
            rows[LANE_W * WIDTH + j] = damping * fc
            rows[LANE_W_SLOPE * WIDTH + j] = damping * (0.5 * slope - eta * d * fc) / r
