"""G5 with integer ζ in linear cost, from moments of the neighbour density.

G5 has no factor of r_jk, and (1 + λ r̂_j·r̂_k)^ζ is a polynomial in the components of r̂_j and r̂_k:

    (1 + λ r̂_j·r̂_k)^ζ
        = Σ_m C(ζ, m) λ^m Σ_{a+b+c=m} m!/(a! b! c!) (x_j^a y_j^b z_j^c) (x_k^a y_k^b z_k^c)

so the sum over k is a moment M = Σ_k u_k x_k^a y_k^b z_k^c of each neighbour element, and what is
left is a polynomial h(r̂_j) a lane. Its gradient, with ∇ that of h as a polynomial and t = r̂·∇h, is

    ∂[u h]/∂r_j = 2 du/d(r²) h r_j + (u/r) (∇h − t r̂_j).

The sum contains j = k, where the polynomial is (1 + λ)^ζ; that is taken off.
"""

import math

import numpy as np

from amptorch.kernels import lanes
from amptorch.kernels._jit import inlined, inner
from amptorch.kernels.lanes import (
    LANE_GRADIENT_X,
    LANE_GRADIENT_Y,
    LANE_GRADIENT_Z,
    PER_FUNCTION,
    WIDTH,
)
from amptorch.kernels.structures import (
    NEAR_INVERSE_R,
    NEAR_U,
    NEAR_U_SLOPE,
    NEAR_VX,
    NEAR_VY,
    NEAR_VZ,
    NEAR_X,
    NEAR_Y,
    NEAR_Z,
    Angular,
    Blocks,
    Work,
    block_place,
    channels_of,
)

MAX_ZETA = 6
# What the five sums of `lanes.PER_FUNCTION` are here: h, t and the components of ∇h.
POLYNOMIAL_VALUE, POLYNOMIAL_ALONG, POLYNOMIAL_X, POLYNOMIAL_Y, POLYNOMIAL_Z = range(5)


def _monomial_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the exponents of x^a y^b z^c by degree; each as a product of an earlier one and a
    component; the place of its derivatives; m!/(a! b! c!)."""
    exponents = [
        (a, b, m - a - b)
        for m in range(MAX_ZETA + 1)
        for a in range(m, -1, -1)
        for b in range(m - a, -1, -1)
    ]
    place: dict[tuple[int, ...], int] = {e: k for k, e in enumerate(exponents)}
    factor = np.zeros((len(exponents), 2), dtype=np.int64)
    lower = np.zeros((len(exponents), 3), dtype=np.int64)
    weights = np.zeros(len(exponents))
    for k, e in enumerate(exponents):
        for axis in range(3):
            if e[axis] > 0:
                lower[k, axis] = place[tuple(n - (d == axis) for d, n in enumerate(e))]
                factor[k] = lower[k, axis], axis
        weights[k] = math.factorial(sum(e)) / math.prod(math.factorial(n) for n in e)
    return np.array(exponents), factor, lower, weights


EXPONENTS, FACTOR, LOWER, WEIGHTS = _monomial_tables()
DEGREE = EXPONENTS.sum(axis=1)
N_MONOMIALS = len(EXPONENTS)


@inner
def monomials_up_to(degree: int) -> int:
    """Return the number of monomials of at most this degree."""
    return (degree + 1) * (degree + 2) * (degree + 3) // 6


@inner
def _collected(counts: np.ndarray, functions: Angular, group: int, work: Work) -> int:
    """Collect the moments of a group where they are cheaper than pairs: where they are fewer than
    three times the neighbours (measured). Return the first shape that is left to pairs."""
    first = functions.shape_start[group]
    n_channels = channels_of(functions.kind[group], work)
    n_monomials = n_channels * monomials_up_to(functions.degree[group])
    if n_monomials >= 3 * work.channel[n_channels]:
        return first
    if counts[group] > 0:
        _collect(functions.degree[group], n_channels, work)
    return first + counts[group]


@inner
def _collect(degree: int, n_channels: int, work: Work) -> None:
    """Collect the moments of every channel, up to `degree`."""
    near, monomials, moment, segment = work.near, work.monomials, work.moment, work.channel
    n = segment[n_channels]
    count = monomials_up_to(degree)
    lanes.clear(moment, n_channels, N_MONOMIALS)
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _monomials(near, monomials, first, m, count)
        for e in range(n_channels):
            low, high = max(segment[e], first) - first, min(segment[e + 1] - first, WIDTH)
            for k in range(count):
                total = moment.dtype.type(0.0)
                for j in range(low, high):
                    total += monomials[k, j] * near[NEAR_U, first + j]
                moment[e, k] += total


@inner
def values(
    counts: np.ndarray | None, i: int, functions: Angular, group: int, work: Work, out: np.ndarray
) -> int:
    """Add the functions that moments serve to row i of out, from the moments alone; return the
    first shape that is left to pairs.

    Here and below, counts are `Angular.moments`: where they are None, numba leaves the code out.
    """
    if counts is None:
        return functions.shape_start[group]
    split = _collected(counts, functions, group, work)
    if split == functions.shape_start[group]:
        return split
    moment, polynomial, segment, near = work.moment, work.polynomial, work.channel, work.near
    n_channels = channels_of(functions.kind[group], work)
    half = moment.dtype.type(0.5)
    for b in range(n_channels):
        for s in range(functions.shape_start[group], split):
            lanes.clear(polynomial, 1, N_MONOMIALS)
            scale = functions.scale[s]
            count = _add_polynomial(
                polynomial, moment, b, functions.zeta[s], functions.lam[s], scale
            )
            for a in range(b + 1):
                feature = functions.feature[s, a, b]
                if feature < 0:
                    continue
                total = moment.dtype.type(0.0)
                for k in range(count):
                    total += polynomial[0, k] * moment[a, k]
                if a == b:
                    squares = moment.dtype.type(0.0)
                    for j in range(segment[a], segment[a + 1]):
                        squares += near[NEAR_U, j] * near[NEAR_U, j]
                    total -= scale * _same(functions.zeta[s], functions.lam[s]) * squares
                    total *= half
                out[i, feature] += total
    return split


@inner
def derivatives(
    counts: np.ndarray | None,
    i: int,
    functions: Angular,
    group: int,
    work: Work,
    out: np.ndarray,
    blocks: Blocks,
) -> int:
    """Do what `values` does, and add the derivatives to the blocks."""
    if counts is None:
        return functions.shape_start[group]
    split = values(counts, i, functions, group, work, out)
    if split == functions.shape_start[group]:
        return split
    segment = work.channel
    n_channels = channels_of(functions.kind[group], work)
    n = segment[n_channels]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _monomials(work.near, work.monomials, first, m, monomials_up_to(functions.degree[group]))
        for b in range(n_channels):
            for s in range(functions.shape_start[group], split):
                zeta, lam, scale = functions.zeta[s], functions.lam[s], functions.scale[s]
                lanes.clear(work.polynomial, 1, N_MONOMIALS)
                count = _add_polynomial(work.polynomial, work.moment, b, zeta, lam, scale)
                _evaluate(work.monomials, work.polynomial, work.sums, m, count)
                for a in range(n_channels):
                    feature = functions.feature[s, a, b]
                    if feature < 0:
                        continue
                    low = max(segment[a], first) - first
                    high = min(segment[a + 1] - first, WIDTH)
                    same = scale * _same(zeta, lam) if a == b else zeta - zeta
                    _gradient(work, first, low, high, same)
                    lanes_to_blocks(i, a, n_channels, feature, work, first, blocks)
    return split


@inner
def pair_gradients(
    counts: np.ndarray | None,
    i: int,
    functions: Angular,
    group: int,
    work: Work,
    weights: np.ndarray,
    out: np.ndarray,
) -> int:
    """Add the gradients of the functions that moments serve to those of the pairs, weighted and
    summed into one polynomial an element; return the first shape that is left to pairs."""
    if counts is None:
        return functions.shape_start[group]
    split = _collected(counts, functions, group, work)
    if split == functions.shape_start[group]:
        return split
    rows, segment = work.rows, work.channel
    n_channels = channels_of(functions.kind[group], work)
    n = segment[n_channels]
    count = monomials_up_to(functions.degree[group])
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _monomials(work.near, work.monomials, first, m, count)
        for a in range(n_channels):
            low, high = max(segment[a], first) - first, min(segment[a + 1] - first, WIDTH)
            if low >= high:
                continue
            lanes.clear(work.polynomial, 1, N_MONOMIALS)
            same = rows.dtype.type(0.0)
            for b in range(n_channels):
                for s in range(functions.shape_start[group], split):
                    feature = functions.feature[s, a, b]
                    if feature < 0:
                        continue
                    zeta, lam = functions.zeta[s], functions.lam[s]
                    weight = functions.scale[s] * weights[i, feature]
                    _add_polynomial(work.polynomial, work.moment, b, zeta, lam, weight)
                    if a == b:
                        same += weight * _same(zeta, lam)
            _evaluate(work.monomials, work.polynomial, work.sums, m, count)
            _gradient(work, first, low, high, same)
            for j in range(low, high):
                p = work.pair[first + j]
                out[p, 0] += rows[LANE_GRADIENT_X * WIDTH + j]
                out[p, 1] += rows[LANE_GRADIENT_Y * WIDTH + j]
                out[p, 2] += rows[LANE_GRADIENT_Z * WIDTH + j]
    return split


@inner
def directional(
    counts: np.ndarray | None,
    i: int,
    functions: Angular,
    group: int,
    work: Work,
    out: np.ndarray,
) -> int:
    """Add J v of the functions that moments serve to row i of out; return the first shape that is
    left to pairs."""
    if counts is None:
        return functions.shape_start[group]
    split = _collected(counts, functions, group, work)
    if split == functions.shape_start[group]:
        return split
    near, rows, segment = work.near, work.rows, work.channel
    n_channels = channels_of(functions.kind[group], work)
    n = segment[n_channels]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _monomials(near, work.monomials, first, m, monomials_up_to(functions.degree[group]))
        for b in range(n_channels):
            for s in range(functions.shape_start[group], split):
                zeta, lam, scale = functions.zeta[s], functions.lam[s], functions.scale[s]
                lanes.clear(work.polynomial, 1, N_MONOMIALS)
                count = _add_polynomial(work.polynomial, work.moment, b, zeta, lam, scale)
                _evaluate(work.monomials, work.polynomial, work.sums, m, count)
                for a in range(n_channels):
                    feature = functions.feature[s, a, b]
                    if feature < 0:
                        continue
                    low = max(segment[a], first) - first
                    high = min(segment[a + 1] - first, WIDTH)
                    same = scale * _same(zeta, lam) if a == b else zeta - zeta
                    _gradient(work, first, low, high, same)
                    total = rows.dtype.type(0.0)
                    for j in range(low, high):
                        total += (
                            rows[LANE_GRADIENT_X * WIDTH + j] * near[NEAR_VX, first + j]
                            + rows[LANE_GRADIENT_Y * WIDTH + j] * near[NEAR_VY, first + j]
                            + rows[LANE_GRADIENT_Z * WIDTH + j] * near[NEAR_VZ, first + j]
                        )
                    out[i, feature] += total
    return split


@inner
def _monomials(near: np.ndarray, monomials: np.ndarray, first: int, m: int, count: int) -> None:
    """Compute monomials[k, j] = x^a y^b z^c of the unit vector to neighbour first + j."""
    one = near.dtype.type(1.0)
    for j in range(m):
        monomials[0, j] = one
    for k in range(1, count):
        before, axis = FACTOR[k, 0], FACTOR[k, 1]
        for j in range(m):
            monomials[k, j] = monomials[before, j] * (
                near[NEAR_X + axis, first + j] * near[NEAR_INVERSE_R, first + j]
            )


@inner
def _add_polynomial(
    polynomial: np.ndarray, moment: np.ndarray, e: int, zeta: float, lam: float, weight: float
) -> int:
    """Add weight Σ_k u_k (1 + λ r̂·r̂_k)^ζ over the neighbours of element e, as a polynomial in r̂."""
    degree = int(zeta)
    binomial = polynomial.dtype.type(1.0)
    k = 0
    for m in range(degree + 1):
        for _ in range((m + 1) * (m + 2) // 2):
            polynomial[0, k] += weight * binomial * polynomial.dtype.type(WEIGHTS[k]) * moment[e, k]
            k += 1
        binomial *= lam * polynomial.dtype.type(degree - m) / polynomial.dtype.type(m + 1)
    return k


@inlined
def _same(zeta: float, lam: float) -> float:
    """Return the polynomial at r̂_j = r̂_k."""
    return (1 + lam) ** int(zeta)


@inner
def _evaluate(
    monomials: np.ndarray, polynomial: np.ndarray, sums: np.ndarray, m: int, count: int
) -> None:
    """Compute h, t = r̂·∇h and ∇h of the polynomial in every lane, in the five sums of function
    0."""
    lanes.clear(sums, 1, PER_FUNCTION * WIDTH)
    zero = polynomial.dtype.type(0.0)
    for k in range(count):
        c = polynomial[0, k]
        if c == zero:
            continue
        cm = c * polynomial.dtype.type(DEGREE[k])
        cx = c * polynomial.dtype.type(EXPONENTS[k, 0])
        cy = c * polynomial.dtype.type(EXPONENTS[k, 1])
        cz = c * polynomial.dtype.type(EXPONENTS[k, 2])
        kx, ky, kz = LOWER[k, 0], LOWER[k, 1], LOWER[k, 2]
        for j in range(m):
            sums[0, POLYNOMIAL_VALUE * WIDTH + j] += c * monomials[k, j]
            sums[0, POLYNOMIAL_ALONG * WIDTH + j] += cm * monomials[k, j]
            sums[0, POLYNOMIAL_X * WIDTH + j] += cx * monomials[kx, j]
            sums[0, POLYNOMIAL_Y * WIDTH + j] += cy * monomials[ky, j]
            sums[0, POLYNOMIAL_Z * WIDTH + j] += cz * monomials[kz, j]


@inner
def lanes_to_blocks(
    i: int, channel: int, n_channels: int, feature: int, work: Work, first: int, blocks: Blocks
) -> None:
    """Add the gradients in the lanes of a channel to the blocks of their elements."""
    rows, segment = work.rows, work.segment
    e, end = channel, channel + 1
    if n_channels < segment.shape[0] - 1:
        e, end = 0, segment.shape[0] - 1
    while e < end:
        low, high = max(segment[e], first) - first, min(segment[e + 1] - first, WIDTH)
        if low < high:
            base, step = block_place(blocks, i, e, feature)
            for j in range(low, high):
                slot = work.slot[first + j]
                if slot >= 0:
                    at = base + 3 * slot * step
                    blocks.values[at] += rows[LANE_GRADIENT_X * WIDTH + j]
                    blocks.values[at + step] += rows[LANE_GRADIENT_Y * WIDTH + j]
                    blocks.values[at + 2 * step] += rows[LANE_GRADIENT_Z * WIDTH + j]
        e += 1


@inner
def _gradient(work: Work, first: int, low: int, high: int, same: float) -> None:
    """Compute the gradients of lanes low:high; `same` is what j = k contributes."""
    near, rows, sums = work.near, work.rows, work.sums
    for j in range(low, high):
        u, inverse_r = near[NEAR_U, first + j], near[NEAR_INVERSE_R, first + j]
        du = near[NEAR_U_SLOPE, first + j] + near[NEAR_U_SLOPE, first + j]
        along = (
            du * (sums[0, POLYNOMIAL_VALUE * WIDTH + j] - same * u)
            - u * inverse_r * inverse_r * sums[0, POLYNOMIAL_ALONG * WIDTH + j]
        )
        u *= inverse_r
        rows[LANE_GRADIENT_X * WIDTH + j] = (
            along * near[NEAR_X, first + j] + u * sums[0, POLYNOMIAL_X * WIDTH + j]
        )
        rows[LANE_GRADIENT_Y * WIDTH + j] = (
            along * near[NEAR_Y, first + j] + u * sums[0, POLYNOMIAL_Y * WIDTH + j]
        )
        rows[LANE_GRADIENT_Z * WIDTH + j] = (
            along * near[NEAR_Z, first + j] + u * sums[0, POLYNOMIAL_Z * WIDTH + j]
        )
