"""Angular symmetry functions of one group (kind, cutoff, η) around one central atom."""

from typing import NamedTuple

import numpy as np

from amptorch.kernels import factors, lanes, moments
from amptorch.kernels._jit import inner, spliced
from amptorch.kernels.cutoffs import Cutoff
from amptorch.kernels.lanes import (
    LANE_DELTA_U,
    LANE_F,
    LANE_F_SLOPE,
    LANE_GRADIENT_X,
    LANE_GRADIENT_Y,
    LANE_GRADIENT_Z,
    LANE_INVERSE_R,
    LANE_INVERSE_RJK,
    LANE_LOWER_FACTOR,
    LANE_POWER_FACTOR,
    LANE_R2,
    LANE_R_DOT_V,
    LANE_S,
    LANE_U,
    LANE_VX,
    LANE_VY,
    LANE_VZ,
    LANE_W,
    LANE_W_SLOPE,
    LANE_X,
    LANE_Y,
    LANE_Z,
    LANES,
    PER_FUNCTION,
    SUM_ALPHA,
    SUM_BETA_X,
    SUM_BETA_Y,
    SUM_BETA_Z,
    SUM_VALUE,
    WIDTH,
)
from amptorch.kernels.structures import (
    NEAR_FC,
    NEAR_FC_SLOPE,
    NEAR_INVERSE_R,
    NEAR_R2,
    NEAR_U,
    NEAR_U_SLOPE,
    NEAR_VX,
    NEAR_VY,
    NEAR_VZ,
    NEAR_WEIGHT,
    NEAR_X,
    NEAR_Y,
    NEAR_Z,
    WEIGHTED,
    Angular,
    Blocks,
    Work,
    channels_of,
)


class PairFactor(NamedTuple):
    """Hold what the cutoff function of pairs needs, as scalars: passing all of `Functions` to a
    call in the innermost loop costs more than the call (reference counts of twenty arrays)."""

    cutoff: Cutoff
    even: bool
    start: int
    stop: int
    shifted: bool


@inner
def factor_of(functions: Angular, cutoff: Cutoff, first_group: int, last_group: int) -> PairFactor:
    """Return the `PairFactor` of groups within one cutoff."""
    shifted = False
    for group in range(first_group, last_group):
        shifted |= functions.shift[group] != 0.0
    return PairFactor(
        cutoff,
        functions.cutoff_even != 0,
        functions.polynomial[first_group, 0],
        functions.polynomial[first_group, 1],
        shifted,
    )


@inner
def envelope(functions: Angular, cutoff: Cutoff, group: int, work: Work) -> None:
    """Compute u = exp(−η(r − Rs)²) fc(r) and du/d(r²) of every gathered neighbour, times its weight
    where the group is weighted; sort the neighbours into the channels of the group."""
    near, rows = work.near, work.rows
    eta, shift = functions.eta[group], functions.shift[group]
    passes = factors.passes_of(eta, shift, cutoff.radius)
    half = near.dtype.type(0.5)
    # Not a literal, of which numba would compile a version of its own.
    start = np.int64(0)
    n = work.segment[work.segment.shape[0] - 1]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        for j in range(m):
            rows[LANE_S * WIDTH + j] = near[NEAR_R2, first + j]
            rows[LANE_INVERSE_RJK * WIDTH + j] = near[NEAR_INVERSE_R, first + j]
            rows[LANE_F * WIDTH + j] = near[NEAR_FC, first + j]
            rows[LANE_F_SLOPE * WIDTH + j] = (
                half * near[NEAR_FC_SLOPE, first + j] * near[NEAR_INVERSE_R, first + j]
            )
        if passes > 0:
            factors.damp(rows, start, lanes.lane_groups_of(m), eta, shift, passes)
        else:
            factors.undamped(rows, lanes.lane_groups_of(m))
        for j in range(m):
            near[NEAR_U, first + j] = rows[LANE_W * WIDTH + j]
            near[NEAR_U_SLOPE, first + j] = rows[LANE_W_SLOPE * WIDTH + j]
    for e in range(work.segment.shape[0]):
        work.channel[e], work.chosen_channel[e] = work.segment[e], work.chosen_segment[e]
    if functions.kind[group] > WEIGHTED:
        work.channel[1], work.chosen_channel[1] = n, work.chosen_segment[work.segment.shape[0] - 1]
        for j in range(n):
            near[NEAR_U, j] *= near[NEAR_WEIGHT, j]
            near[NEAR_U_SLOPE, j] *= near[NEAR_WEIGHT, j]


@spliced
def cutoff_of_pairs(
    rows: np.ndarray,
    start: int,
    n: int,
    factor: PairFactor,
    coefficients: np.ndarray,
    slopes: bool,
) -> None:
    """Compute LANE_F and LANE_F_SLOPE of n lanes from `start` on, from LANE_S, zero beyond;
    without `slopes`, the latter may be left out."""
    if factor.stop == factor.start:
        factors.exact(rows, start, n, factor.cutoff)
    elif factor.even:
        cutoff2 = factor.cutoff.radius * factor.cutoff.radius
        factors.even(rows, start, n, cutoff2, coefficients, factor.start, slopes)
        if factor.shifted:
            factors.inverse_distances(rows, start, lanes.lane_groups_of(n))
    else:
        factors.in_r(
            rows,
            start,
            n,
            factor.cutoff,
            coefficients,
            factor.start,
            factor.stop,
        )


class _Damping(NamedTuple):
    """Hold what the exponential of pairs needs, and the kind of the group."""

    kind: int
    eta: float
    shift: float
    passes: int


@inner
def _damping(functions: Angular, cutoff: Cutoff, group: int) -> _Damping:
    eta, shift = functions.left[group], functions.shift[group]
    passes = factors.passes_of(eta, shift, cutoff.radius)
    return _Damping(functions.kind[group], eta, shift, passes)


@spliced
def _pair_factor(
    rows: np.ndarray,
    lane_groups: int,
    factor: PairFactor,
    damping: _Damping,
    coefficients: np.ndarray,
) -> None:
    """Compute w and dw/ds of pairs, from LANE_S: 1 and 0 for G5."""
    if damping.kind == 4 or damping.kind == WEIGHTED + 4:
        start = np.int64(0)
        cutoff_of_pairs(rows, start, LANES * lane_groups, factor, coefficients, True)
        if damping.passes > 0:
            eta, shift, passes = damping.eta, damping.shift, damping.passes
            factors.damp(rows, start, lane_groups, eta, shift, passes)
        else:
            factors.undamped(rows, lane_groups)
    else:
        lanes.everywhere(rows, lane_groups)


@inner
def load(near: np.ndarray, rows: np.ndarray, chosen: np.ndarray, first: int, m: int) -> None:
    """Copy the neighbours `chosen[first:first+m]` into the lanes."""
    for j in range(min(m, WIDTH)):
        n = chosen[first + j]
        rows[LANE_X * WIDTH + j] = near[NEAR_X, n]
        rows[LANE_Y * WIDTH + j] = near[NEAR_Y, n]
        rows[LANE_Z * WIDTH + j] = near[NEAR_Z, n]
        rows[LANE_R2 * WIDTH + j] = near[NEAR_R2, n]
        rows[LANE_INVERSE_R * WIDTH + j] = near[NEAR_INVERSE_R, n]
        rows[LANE_U * WIDTH + j] = near[NEAR_U, n]


@spliced
def derivatives(
    i: int,
    functions: Angular,
    cutoff: Cutoff,
    group: int,
    work: Work,
    out: np.ndarray,
    blocks: Blocks,
) -> None:
    """Add G of a group to row i of out, and its derivatives to the blocks. All ordered pairs are
    met: the gradient of a lane's atom is then a sum over k, without scattering."""
    near, rows, sums, segment = work.near, work.rows, work.sums, work.channel
    n_channels = channels_of(functions.kind[group], work)
    n = segment[n_channels]
    half = rows.dtype.type(0.5)
    shapes = moments.derivatives(functions.moments, i, functions, group, work, out, blocks)
    end = functions.shape_start[group + 1]
    if shapes == end:
        return
    zetas, lambdas, scales = functions.zeta, functions.lam, functions.scale
    coefficients, factor = functions.coefficients, factor_of(functions, cutoff, group, group + 1)
    damping = _damping(functions, cutoff, group)
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        lane_groups = lanes.lane_groups_of(m)
        load(near, rows, work.chosen, first, m)
        for b in range(n_channels):
            if segment[b] == segment[b + 1]:
                continue
            lanes.clear(sums, end - shapes, PER_FUNCTION * WIDTH)
            for k in range(segment[b], segment[b + 1]):
                xk, yk, zk = near[NEAR_X, k], near[NEAR_Y, k], near[NEAR_Z, k]
                lanes.distances(
                    rows, lane_groups, xk, yk, zk, near[NEAR_R2, k], near[NEAR_INVERSE_R, k]
                )
                _pair_factor(rows, lane_groups, factor, damping, coefficients)
                lanes.products(rows, lane_groups, near[NEAR_INVERSE_R, k], near[NEAR_U, k])
                for s in range(shapes, end):
                    lam, zeta = lambdas[s], zetas[s]
                    lanes.power(rows, lane_groups, lam, zeta - rows.dtype.type(1.0))
                    lanes.accumulate_gradient(
                        rows, lane_groups, sums, s - shapes, lam, zeta, xk, yk, zk
                    )
            for s in range(shapes, end):
                _finish_gradient(near, rows, work.chosen, first, m, sums, s - shapes, scales[s])
                for a in range(n_channels):
                    feature = functions.feature[s, a, b]
                    if feature < 0:
                        continue
                    low = max(segment[a], first) - first
                    high = min(segment[a + 1] - first, WIDTH)
                    total = rows.dtype.type(0.0)
                    for j in range(low, high):
                        total += sums[s - shapes, j] * rows[LANE_U * WIDTH + j]
                    # Every pair was met from both of its ends.
                    out[i, feature] += half * scales[s] * total
                    moments.lanes_to_blocks(i, a, n_channels, feature, work, first, blocks)


@inner
def _finish_gradient(
    near: np.ndarray,
    rows: np.ndarray,
    chosen: np.ndarray,
    first: int,
    m: int,
    sums: np.ndarray,
    function: int,
    scale: float,
) -> None:
    """Turn the sums over k into the gradients of the lanes."""
    for j in range(min(m, WIDTH)):
        u = rows[LANE_U * WIDTH + j]
        du = near[NEAR_U_SLOPE, chosen[first + j]]
        along = scale * (
            (du + du) * sums[function, SUM_VALUE * WIDTH + j]
            + u * sums[function, SUM_ALPHA * WIDTH + j]
        )
        u *= scale
        rows[LANE_GRADIENT_X * WIDTH + j] = (
            along * rows[LANE_X * WIDTH + j] + u * sums[function, SUM_BETA_X * WIDTH + j]
        )
        rows[LANE_GRADIENT_Y * WIDTH + j] = (
            along * rows[LANE_Y * WIDTH + j] + u * sums[function, SUM_BETA_Y * WIDTH + j]
        )
        rows[LANE_GRADIENT_Z * WIDTH + j] = (
            along * rows[LANE_Z * WIDTH + j] + u * sums[function, SUM_BETA_Z * WIDTH + j]
        )


@spliced
def directional(
    i: int, functions: Angular, cutoff: Cutoff, group: int, work: Work, out: np.ndarray
) -> None:
    """Add J v of a group to row i of out. Each unordered pair is met once, as in `values`. Where
    only some neighbours move, and not the central atom: all ordered pairs of one of them with any
    k, which then counts as at rest."""
    near, rows, sums, segment = work.near, work.rows, work.sums, work.channel
    chosen, chosen_segment = work.chosen, work.chosen_channel
    n_channels = channels_of(functions.kind[group], work)
    n = chosen_segment[n_channels]
    ordered = n < segment[n_channels]
    shapes = moments.directional(functions.moments, i, functions, group, work, out)
    end = functions.shape_start[group + 1]
    if shapes == end:
        return
    zetas, lambdas, scales = functions.zeta, functions.lam, functions.scale
    coefficients, factor = functions.coefficients, factor_of(functions, cutoff, group, group + 1)
    damping = _damping(functions, cutoff, group)
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        lane_groups = lanes.lane_groups_of(m)
        load(near, rows, chosen, first, m)
        for j in range(m):
            moving = chosen[first + j]
            vx, vy, vz = (
                near[NEAR_VX, moving],
                near[NEAR_VY, moving],
                near[NEAR_VZ, moving],
            )
            r_dot_v = (
                near[NEAR_X, moving] * vx + near[NEAR_Y, moving] * vy + near[NEAR_Z, moving] * vz
            )
            du = near[NEAR_U_SLOPE, moving]
            rows[LANE_VX * WIDTH + j] = vx
            rows[LANE_VY * WIDTH + j] = vy
            rows[LANE_VZ * WIDTH + j] = vz
            rows[LANE_R_DOT_V * WIDTH + j] = r_dot_v
            rows[LANE_DELTA_U * WIDTH + j] = (du + du) * r_dot_v
        for b in range(n_channels):
            lanes.clear(sums, end - shapes, WIDTH)
            k_first = segment[b] if ordered else max(segment[b], first + 1)
            for k in range(k_first, segment[b + 1]):
                xk, yk, zk = near[NEAR_X, k], near[NEAR_Y, k], near[NEAR_Z, k]
                uk, inverse_rk = near[NEAR_U, k], near[NEAR_INVERSE_R, k]
                vxk, vyk, vzk = near[NEAR_VX, k], near[NEAR_VY, k], near[NEAR_VZ, k]
                if ordered:
                    vxk = vyk = vzk = rows.dtype.type(0.0)
                else:
                    m = min(WIDTH, k - first)
                    lane_groups = lanes.lane_groups_of(m)
                r_dot_vk = xk * vxk + yk * vyk + zk * vzk
                delta_uk = (near[NEAR_U_SLOPE, k] + near[NEAR_U_SLOPE, k]) * r_dot_vk
                lanes.distances(rows, lane_groups, xk, yk, zk, near[NEAR_R2, k], inverse_rk)
                _pair_factor(rows, lane_groups, factor, damping, coefficients)
                neighbor = lanes.MovingNeighbor(
                    xk, yk, zk, inverse_rk, uk, vxk, vyk, vzk, delta_uk, r_dot_vk
                )
                lanes.directional_products(rows, lane_groups, neighbor)
                lanes.drop(rows, LANE_POWER_FACTOR, m)
                lanes.drop(rows, LANE_LOWER_FACTOR, m)
                for s in range(shapes, end):
                    lam, zeta = lambdas[s], zetas[s]
                    lanes.power(rows, lane_groups, lam, zeta - rows.dtype.type(1.0))
                    lanes.accumulate_directional(rows, lane_groups, sums, s - shapes, lam, zeta)
            for a in range(n_channels if ordered else b + 1):
                low = max(chosen_segment[a], first) - first
                high = min(chosen_segment[a + 1] - first, WIDTH)
                for s in range(shapes, end):
                    feature = functions.feature[s, a, b]
                    if feature < 0:
                        continue
                    total = rows.dtype.type(0.0)
                    for j in range(low, high):
                        total += sums[s - shapes, j]
                    out[i, feature] += scales[s] * total
