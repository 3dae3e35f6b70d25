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

from typing import NamedTuple

import numpy as np

from amptorch.kernels._jit import inlined, inner

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
# The cutoff function F and dF/ds of a pair, which all functions within a cutoff share, and 1/r_jk.
LANE_F, LANE_F_SLOPE, LANE_INVERSE_RJK = range(23, 26)
N_LANE_ROWS = 26
# Rows that are used again under another name. Once all pairs are summed: the gradient with respect
# to r_j. In directional derivatives: what b^ζ and b^(ζ−1) are multiplied by.
LANE_GRADIENT_X, LANE_GRADIENT_Y, LANE_GRADIENT_Z = LANE_S, LANE_W, LANE_W_SLOPE
LANE_POWER_FACTOR, LANE_LOWER_FACTOR = LANE_UW, LANE_UW_COSINE_PER_R2
# In `unordered.pair_gradients`: β of a pair, and the sums over k of α and of β r_k of a lane.
LANE_BETA = LANE_UW
LANE_ALONG, LANE_SUM_X, LANE_SUM_Y, LANE_SUM_Z = LANE_VX, LANE_VY, LANE_VZ, LANE_DELTA_U

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
def lane(start: int, j: int) -> int:
    """Return start + j, in a form that the compiler knows is not negative: an index that might be
    keeps a loop scalar."""
    return np.int64(np.uint32(start) + np.uint32(j))


@inlined
def drop(rows: np.ndarray, quantity: int, m: int) -> None:
    """Write zero for lanes from m to the end of its group."""
    zero = rows.dtype.type(0.0)
    for j in range(m, LANES * lane_groups_of(m)):
        rows[quantity * WIDTH + j] = zero


@inner
def clear(array: np.ndarray, n_rows: int, width: int) -> None:
    """Write zeros to the first `width` columns of the first rows."""
    zero = array.dtype.type(0.0)
    for row in range(n_rows):
        for q in range(width):
            array[row, q] = zero


@inlined
def distances(
    rows: np.ndarray,
    lane_groups: int,
    xk: float,
    yk: float,
    zk: float,
    r2k: float,
    inverse_rk: float,
    start: int = 0,
) -> None:
    """Compute LANE_S = r_jk² and LANE_COSINE = cosθ_ijk; here and below from lane `start` on."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    for j in range(m):
        q = lane(start, j)
        dot = (
            rows[LANE_X * WIDTH + q] * xk
            + rows[LANE_Y * WIDTH + q] * yk
            + rows[LANE_Z * WIDTH + q] * zk
        )
        rows[LANE_S * WIDTH + q] = rows[LANE_R2 * WIDTH + q] + r2k - (dot + dot)
        rows[LANE_COSINE * WIDTH + q] = dot * (rows[LANE_INVERSE_R * WIDTH + q] * inverse_rk)


@inlined
def everywhere(rows: np.ndarray, lane_groups: int) -> None:
    """Write w = 1 for G5, 0 for an atom with itself."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one, zero, same = rows.dtype.type(1.0), rows.dtype.type(0.0), rows.dtype.type(SAME_ATOM)
    for j in range(m):
        rows[LANE_W * WIDTH + j] = one if rows[LANE_S * WIDTH + j] > same else zero
        rows[LANE_W_SLOPE * WIDTH + j] = zero


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
def power(rows: np.ndarray, lane_groups: int, lam: float, exponent: float, start: int = 0) -> None:
    """Compute LANE_POWER = (1 + λc)^exponent, by multiplication where the exponent is an
    integer."""
    m = LANES * min(lane_groups, WIDTH // LANES)
    one = rows.dtype.type(1.0)
    if exponent == 0.0:
        for j in range(m):
            q = lane(start, j)
            rows[LANE_POWER * WIDTH + q] = one
    elif exponent == 1.0:
        for j in range(m):
            q = lane(start, j)
            rows[LANE_POWER * WIDTH + q] = one + lam * rows[LANE_COSINE * WIDTH + q]
    elif exponent == 2.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            rows[LANE_POWER * WIDTH + q] = b * b
    elif exponent == 4.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            b *= b
            rows[LANE_POWER * WIDTH + q] = b * b
    elif exponent == 3.0:
        for j in range(m):
            q = lane(start, j)
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            rows[LANE_POWER * WIDTH + q] = b * b * b
    elif exponent == int(exponent):
        remaining = int(exponent)
        for j in range(m):
            q = lane(start, j)
            rows[LANE_POWER * WIDTH + q] = one
            b = one + lam * rows[LANE_COSINE * WIDTH + q]
            rows[LANE_SQUARE * WIDTH + q] = b
        while remaining > 0:
            if remaining & 1:
                for j in range(m):
                    q = lane(start, j)
                    rows[LANE_POWER * WIDTH + q] *= rows[LANE_SQUARE * WIDTH + q]
            remaining >>= 1
            if remaining > 0:
                for j in range(m):
                    q = lane(start, j)
                    rows[LANE_SQUARE * WIDTH + q] *= rows[LANE_SQUARE * WIDTH + q]
    else:
        zero = rows.dtype.type(0.0)
        for j in range(m):
            q = lane(start, j)
            # Rounding can put 1 + λc a little below zero.
            b = max(one + lam * rows[LANE_COSINE * WIDTH + q], zero)
            rows[LANE_POWER * WIDTH + q] = b**exponent


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
