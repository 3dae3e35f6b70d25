"""Vectorised inner loops of the angular symmetry functions, on lanes of neighbours.

For a central atom i and a neighbour k, the loops here run over lanes j = other neighbours. A lane
quantity is one row of a scratch array: quantity Q of lane j is `t[Q * WIDTH + j]`. One array with
rows at constant distances is what lets LLVM prove that rows do not overlap, so that every loop
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

from amptorch.kernels._jit import inlined, njit
from amptorch.kernels.cutoffs import cutoff_function

# A row is a whole number of cache lines (64 bytes) in both precisions, so that no vector straddles
# two of them, and not a power of two, so that rows do not fall into the same places of the cache:
# together twice as fast as rows of 128 in an array that starts anywhere.
WIDTH = 144
# Loops run over whole groups of 8 lanes, so that no scalar remainder is left (a third of the time
# with 95 neighbours); lanes beyond the last neighbour hold old finite numbers that nobody reads.
LANES = 8

# Neighbours j: vector from i, r², 1/r, u_j; for directional derivatives also the relative
# velocity, δu_j = ∇u_j·v_j, and r_j·v_j.
X, Y, Z, R2, RINV, U, VX, VY, VZ, DELTA_U, R_DOT_V = range(11)
# Pairs (j, k): s, w, dw/ds, cosθ, and u_k times w, w/(r_j r_k), w cosθ/r_j², 2 dw/ds.
S, W, DW, C, WU, WUR, WUC, WPU = range(11, 19)
# b^(ζ−1) and squares of b on the way there; mixed b^ζ and its derivative.
POWER, SQUARE, MIX, DMIX = range(19, 23)
N_ROWS = 23

# Sums over k stand in an array of their own, a row a function with five times WIDTH columns: value,
# α, β r_k. (A row of `t` whose number is known only at run time would keep the loops scalar.)
PER_FUNCTION = 5

# Pairs nearer than 1e-4 Å are an atom with itself.
SAME_ATOM = 1e-8


@inlined
def groups_of(n):
    """Groups of lanes that hold n neighbours."""
    return (n + LANES - 1) // LANES


@inlined
def drop(t, quantity, m):
    """Zero for lanes from m to the end of its group."""
    zero = t.dtype.type(0.0)
    for j in range(m, LANES * groups_of(m)):
        t[quantity * WIDTH + j] = zero


@njit
def clear(array, n_rows, width):
    """Zeros in the first `width` columns of the first rows."""
    zero = array.dtype.type(0.0)
    for row in range(n_rows):
        for q in range(width):
            array[row, q] = zero


@inlined
def clear_mix(t, groups):
    """Zeros in MIX and DMIX."""
    zero = t.dtype.type(0.0)
    for j in range(LANES * min(groups, WIDTH // LANES)):
        t[MIX * WIDTH + j] = zero
        t[DMIX * WIDTH + j] = zero


@inlined
def distances(t, groups, xk, yk, zk, r2k, rinvk):
    """S = r_jk² and C = cosθ_ijk."""
    m = LANES * min(groups, WIDTH // LANES)
    for j in range(m):
        dot = t[X * WIDTH + j] * xk + t[Y * WIDTH + j] * yk + t[Z * WIDTH + j] * zk
        t[S * WIDTH + j] = t[R2 * WIDTH + j] + r2k - (dot + dot)
        t[C * WIDTH + j] = dot * (t[RINV * WIDTH + j] * rinvk)


@inlined
def everywhere(t, groups):
    """w = 1 for G5, 0 for an atom with itself."""
    m = LANES * min(groups, WIDTH // LANES)
    one, zero, same = t.dtype.type(1.0), t.dtype.type(0.0), t.dtype.type(SAME_ATOM)
    for j in range(m):
        t[W * WIDTH + j] = one if t[S * WIDTH + j] > same else zero
        t[DW * WIDTH + j] = zero


@inlined
def polynomial(t, groups, cutoff2, coefficients, start, stop):
    """W = w(S) and DW = dw/ds by Horner's rule in x = 2s/Rc² − 1; zero outside the cutoff.

    At least 12 coefficients, highest power first, 12 plus a multiple of 4: those above the lowest
    twelve take a pass for each four.
    """
    m = LANES * min(groups, WIDTH // LANES)
    one, zero, same = t.dtype.type(1.0), t.dtype.type(0.0), t.dtype.type(SAME_ATOM)
    scale = (one + one) / cutoff2
    for j in range(m):
        t[W * WIDTH + j] = zero
        t[DW * WIDTH + j] = zero
    while stop - start > 12:
        c0, c1 = coefficients[start], coefficients[start + 1]
        c2, c3 = coefficients[start + 2], coefficients[start + 3]
        for j in range(m):
            x = scale * t[S * WIDTH + j] - one
            w = t[W * WIDTH + j]
            d = t[DW * WIDTH + j]
            d = d * x + w
            w = w * x + c0
            d = d * x + w
            w = w * x + c1
            d = d * x + w
            w = w * x + c2
            t[DW * WIDTH + j] = d * x + w
            t[W * WIDTH + j] = w * x + c3
        start += 4
    c0, c1, c2 = coefficients[start], coefficients[start + 1], coefficients[start + 2]
    c3, c4, c5 = coefficients[start + 3], coefficients[start + 4], coefficients[start + 5]
    c6, c7, c8 = coefficients[start + 6], coefficients[start + 7], coefficients[start + 8]
    c9, c10, c11 = coefficients[start + 9], coefficients[start + 10], coefficients[start + 11]
    for j in range(m):
        s = t[S * WIDTH + j]
        x = scale * s - one
        w = t[W * WIDTH + j]
        d = t[DW * WIDTH + j] * x + w
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
        t[W * WIDTH + j] = inside * w
        t[DW * WIDTH + j] = inside * scale * d


@inlined
def products(t, groups, rinvk, uk):
    """u_k times w, w/(r_j r_k), w c/r_j² and 2 dw/ds."""
    m = LANES * min(groups, WIDTH // LANES)
    for j in range(m):
        wu = t[W * WIDTH + j] * uk
        rinv = t[RINV * WIDTH + j]
        dwu = t[DW * WIDTH + j] * uk
        t[WU * WIDTH + j] = wu
        t[WUR * WIDTH + j] = wu * (rinv * rinvk)
        t[WUC * WIDTH + j] = wu * t[C * WIDTH + j] * (rinv * rinv)
        t[WPU * WIDTH + j] = dwu + dwu


@inlined
def power(t, groups, lam, exponent):
    """POWER = (1 + λc)^exponent, by multiplication where the exponent is an integer."""
    m = LANES * min(groups, WIDTH // LANES)
    one = t.dtype.type(1.0)
    if exponent == 0.0:
        for j in range(m):
            t[POWER * WIDTH + j] = one
    elif exponent == 1.0:
        for j in range(m):
            t[POWER * WIDTH + j] = one + lam * t[C * WIDTH + j]
    elif exponent == 2.0:
        for j in range(m):
            b = one + lam * t[C * WIDTH + j]
            t[POWER * WIDTH + j] = b * b
    elif exponent == 4.0:
        for j in range(m):
            b = one + lam * t[C * WIDTH + j]
            b *= b
            t[POWER * WIDTH + j] = b * b
    elif exponent == 3.0:
        for j in range(m):
            b = one + lam * t[C * WIDTH + j]
            t[POWER * WIDTH + j] = b * b * b
    elif exponent == int(exponent):
        remaining = int(exponent)
        for j in range(m):
            t[POWER * WIDTH + j] = one
            t[SQUARE * WIDTH + j] = one + lam * t[C * WIDTH + j]
        while remaining > 0:
            if remaining & 1:
                for j in range(m):
                    t[POWER * WIDTH + j] *= t[SQUARE * WIDTH + j]
            remaining >>= 1
            if remaining > 0:
                for j in range(m):
                    t[SQUARE * WIDTH + j] *= t[SQUARE * WIDTH + j]
    else:
        zero = t.dtype.type(0.0)
        for j in range(m):
            # Rounding can put 1 + λc a little below zero.
            b = max(one + lam * t[C * WIDTH + j], zero)
            t[POWER * WIDTH + j] = b**exponent


@inlined
def accumulate_gradient(t, groups, sums, f, lam, zeta, xk, yk, zk):
    """Add pairs (j, k) to the five sums of function f."""
    m = LANES * min(groups, WIDTH // LANES)
    one = t.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        p1 = t[POWER * WIDTH + j]
        p = p1 * (one + lam * t[C * WIDTH + j])
        d = p1 * slope
        pw = p * t[WPU * WIDTH + j]
        beta = d * t[WUR * WIDTH + j] - pw
        sums[f, j] += p * t[WU * WIDTH + j]
        sums[f, WIDTH + j] += pw - d * t[WUC * WIDTH + j]
        sums[f, 2 * WIDTH + j] += beta * xk
        sums[f, 3 * WIDTH + j] += beta * yk
        sums[f, 4 * WIDTH + j] += beta * zk


@inlined
def accumulate_mixed_gradient(t, groups, sums, xk, yk, zk):
    """The same for the weighted sum of all functions, MIX = Σ g b^ζ and DMIX = Σ g ζλ b^(ζ−1)."""
    m = LANES * min(groups, WIDTH // LANES)
    for j in range(m):
        p = t[MIX * WIDTH + j]
        d = t[DMIX * WIDTH + j]
        pw = p * t[WPU * WIDTH + j]
        beta = d * t[WUR * WIDTH + j] - pw
        sums[0, j] += p * t[WU * WIDTH + j]
        sums[0, WIDTH + j] += pw - d * t[WUC * WIDTH + j]
        sums[0, 2 * WIDTH + j] += beta * xk
        sums[0, 3 * WIDTH + j] += beta * yk
        sums[0, 4 * WIDTH + j] += beta * zk


@inlined
def mix(t, groups, weights, f, lam, zeta):
    """Add function f, with its weight in each lane, to MIX and DMIX."""
    m = LANES * min(groups, WIDTH // LANES)
    one = t.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        gp = weights[f, j] * t[POWER * WIDTH + j]
        t[MIX * WIDTH + j] += gp * (one + lam * t[C * WIDTH + j])
        t[DMIX * WIDTH + j] += gp * slope


@inlined
def accumulate_value(t, groups, sums, f):
    """Add u_k w b^ζ of pairs (j, k) to the sum; POWER holds b^ζ."""
    m = LANES * min(groups, WIDTH // LANES)
    for j in range(m):
        sums[f, j] += t[POWER * WIDTH + j] * t[WU * WIDTH + j]


@inlined
def directional_products(t, groups, xk, yk, zk, rinvk, uk, vxk, vyk, vzk, delta_uk, r_dot_vk):
    """WU and WUC become the factors of b^ζ and b^(ζ−1) in the derivative of T along v.

    δT = b^ζ [w' δs u_j u_k + w δ(u_j u_k)] + ζλ b^(ζ−1) w u_j u_k δc
    """
    m = LANES * min(groups, WIDTH // LANES)
    for j in range(m):
        rinv = t[RINV * WIDTH + j]
        uj = t[U * WIDTH + j]
        r_dot_v = t[R_DOT_V * WIDTH + j]
        delta_dot = (
            t[VX * WIDTH + j] * xk
            + t[VY * WIDTH + j] * yk
            + t[VZ * WIDTH + j] * zk
            + t[X * WIDTH + j] * vxk
            + t[Y * WIDTH + j] * vyk
            + t[Z * WIDTH + j] * vzk
        )
        half_delta_s = r_dot_v + r_dot_vk - delta_dot
        delta_c = delta_dot * (rinv * rinvk) - t[C * WIDTH + j] * (
            r_dot_v * rinv * rinv + r_dot_vk * rinvk * rinvk
        )
        w = t[W * WIDTH + j]
        dw = t[DW * WIDTH + j]
        t[WU * WIDTH + j] = (dw + dw) * half_delta_s * uj * uk + w * (
            t[DELTA_U * WIDTH + j] * uk + uj * delta_uk
        )
        t[WUC * WIDTH + j] = w * uj * uk * delta_c


@inlined
def accumulate_directional(t, groups, sums, f, lam, zeta):
    """Add δT of pairs (j, k) to the sum; POWER holds b^(ζ−1)."""
    m = LANES * min(groups, WIDTH // LANES)
    one = t.dtype.type(1.0)
    slope = zeta * lam
    for j in range(m):
        b = one + lam * t[C * WIDTH + j]
        sums[f, j] += t[POWER * WIDTH + j] * (b * t[WU * WIDTH + j] + slope * t[WUC * WIDTH + j])


@njit
def exact(t, groups, kind, gamma, eta, cutoff):
    """W = w(S) and DW = dw/ds from the formula itself; zero outside the cutoff."""
    m = LANES * min(groups, WIDTH // LANES)
    cutoff2 = cutoff * cutoff
    for j in range(m):
        s = t[S * WIDTH + j]
        t[W * WIDTH + j] = 0.0
        t[DW * WIDTH + j] = 0.0
        if SAME_ATOM < s < cutoff2:
            r = math.sqrt(s)
            fc, slope = cutoff_function(kind, gamma, r, cutoff)
            damping = math.exp(-eta * s)
            t[W * WIDTH + j] = damping * fc
            t[DW * WIDTH + j] = damping * (0.5 * slope / r - eta * fc)
