"""Angular symmetry functions of one group (kind, cutoff, η) around one central atom."""

from typing import NamedTuple

from amptorch.kernels import lanes, moments
from amptorch.kernels._jit import njit, spliced
from amptorch.kernels.lanes import PER_FUNCTION, WIDTH
from amptorch.kernels.structures import (
    DU,
    R2,
    RINV,
    VX,
    VY,
    VZ,
    U,
    X,
    Y,
    Z,
    block_place,
)


class _Factor(NamedTuple):
    """What the radial factor of a group needs, as scalars: passing all of `Functions` to a call in
    the innermost loop costs more than the call (reference counts of twenty arrays)."""

    kind: int
    eta: float
    cutoff: float
    cutoff_kind: int
    cutoff_gamma: float
    start: int
    stop: int


@njit
def _factor(f, cutoff, h):
    return _Factor(
        f.kind[h],
        f.eta[h],
        cutoff,
        f.cutoff_kind,
        f.cutoff_gamma,
        f.polynomial[h, 0],
        f.polynomial[h, 1],
    )


@njit
def _moments_first(f, h, work):
    """Shapes of the group before this one are served by moments, which are collected here."""
    n_elements = work.segment.shape[0] - 1
    n = work.segment[n_elements]
    if f.moments[h] == 0 or not moments.pay_off(f.degree[h], n_elements, n):
        return f.shape_start[h]
    moments.collect(f.degree[h], work)
    return f.shape_start[h] + f.moments[h]


@njit
def envelope(f, cutoff, h, work):
    """u = exp(−ηr²) fc(r) and du/d(r²) of every gathered neighbour."""
    row, t, coefficients, factor = work.row, work.t, f.coefficients, _factor(f, cutoff, h)
    n = work.segment[work.segment.shape[0] - 1]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        for j in range(m):
            t[lanes.S * WIDTH + j] = row[R2, first + j]
        _radial_factor(t, lanes.groups_of(m), factor, coefficients)
        for j in range(m):
            row[U, first + j] = t[lanes.W * WIDTH + j]
            row[DU, first + j] = t[lanes.DW * WIDTH + j]


@spliced
def _radial_factor(t, groups, factor, coefficients):
    """W = exp(−ηS) fc(√S) and DW = dW/dS."""
    if factor.stop > factor.start:
        cutoff2 = factor.cutoff * factor.cutoff
        lanes.polynomial(t, groups, cutoff2, coefficients, factor.start, factor.stop)
    else:
        lanes.exact(t, groups, factor.cutoff_kind, factor.cutoff_gamma, factor.eta, factor.cutoff)


@spliced
def _pair_factor(t, groups, factor, coefficients):
    """w and dw/ds of pairs, from S: 1 and 0 for G5."""
    if factor.kind == 4:
        _radial_factor(t, groups, factor, coefficients)
    else:
        lanes.everywhere(t, groups)


@njit
def _load(row, t, lane, first, m):
    """The neighbours `lane[first:first+m]` into the lanes."""
    for j in range(min(m, WIDTH)):
        n = lane[first + j]
        t[lanes.X * WIDTH + j] = row[X, n]
        t[lanes.Y * WIDTH + j] = row[Y, n]
        t[lanes.Z * WIDTH + j] = row[Z, n]
        t[lanes.R2 * WIDTH + j] = row[R2, n]
        t[lanes.RINV * WIDTH + j] = row[RINV, n]
        t[lanes.U * WIDTH + j] = row[U, n]


@njit
def values(i, f, cutoff, h, work, out):
    """Each unordered pair once: lanes j < k."""
    row, t, sums, segment = work.row, work.t, work.sums, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    shapes, end = _moments_first(f, h, work), f.shape_start[h + 1]
    if shapes > f.shape_start[h]:
        moments.values(i, f, h, shapes, work, out)
    if shapes == end:
        return
    zetas, lambdas, scales = f.zeta, f.lam, f.scale
    coefficients, factor = f.coefficients, _factor(f, cutoff, h)
    for first in range(0, n, WIDTH):
        _load(row, t, work.lane, first, min(WIDTH, n - first))
        for b in range(n_elements):
            lanes.clear(sums, end - shapes, WIDTH)
            for k in range(max(segment[b], first + 1), segment[b + 1]):
                m = min(WIDTH, k - first)
                groups = lanes.groups_of(m)
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                lanes.distances(t, groups, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(t, groups, factor, coefficients)
                lanes.products(t, groups, row[RINV, k], row[U, k])
                lanes.drop(t, lanes.WU, m)
                for s in range(shapes, end):
                    lanes.power(t, groups, lambdas[s], zetas[s])
                    lanes.accumulate_value(t, groups, sums, s - shapes)
            # Lanes are ordered by element, so pairs j < k are those with element of j <= b.
            for a in range(b + 1):
                low = max(segment[a], first) - first
                high = min(segment[a + 1] - first, WIDTH)
                for s in range(shapes, end):
                    feature = f.feature[s, a, b]
                    if feature < 0:
                        continue
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += sums[s - shapes, j] * t[lanes.U * WIDTH + j]
                    out[i, feature] += scales[s] * total


@njit
def derivatives(i, f, cutoff, h, work, out, blocks):
    """All ordered pairs: the gradient of a lane's atom is then a sum over k, without scattering."""
    row, t, sums, segment = work.row, work.t, work.sums, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    half = t.dtype.type(0.5)
    shapes, end = _moments_first(f, h, work), f.shape_start[h + 1]
    if shapes > f.shape_start[h]:
        moments.values(i, f, h, shapes, work, out)
        moments.derivatives(i, f, h, shapes, work, blocks)
    if shapes == end:
        return
    zetas, lambdas, scales = f.zeta, f.lam, f.scale
    coefficients, factor = f.coefficients, _factor(f, cutoff, h)
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        groups = lanes.groups_of(m)
        _load(row, t, work.lane, first, m)
        for b in range(n_elements):
            if segment[b] == segment[b + 1]:
                continue
            lanes.clear(sums, end - shapes, PER_FUNCTION * WIDTH)
            for k in range(segment[b], segment[b + 1]):
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                lanes.distances(t, groups, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(t, groups, factor, coefficients)
                lanes.products(t, groups, row[RINV, k], row[U, k])
                for s in range(shapes, end):
                    lam, zeta = lambdas[s], zetas[s]
                    lanes.power(t, groups, lam, zeta - t.dtype.type(1.0))
                    lanes.accumulate_gradient(t, groups, sums, s - shapes, lam, zeta, xk, yk, zk)
            for s in range(shapes, end):
                _finish_gradient(row, t, work.lane, first, m, sums, s - shapes, scales[s])
                for a in range(n_elements):
                    feature = f.feature[s, a, b]
                    if feature < 0:
                        continue
                    low = max(segment[a], first) - first
                    high = min(segment[a + 1] - first, WIDTH)
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += sums[s - shapes, j] * t[lanes.U * WIDTH + j]
                    # Every pair was met from both of its ends.
                    out[i, feature] += half * scales[s] * total
                    base, step = block_place(blocks, i, a, feature)
                    moments.lanes_to_block(work, first, low, high, blocks, base, step)


@njit
def _finish_gradient(row, t, lane, first, m, sums, f, scale):
    """From the sums over k to gradients, in rows S, W, DW of the lanes."""
    for j in range(min(m, WIDTH)):
        u = t[lanes.U * WIDTH + j]
        du = row[DU, lane[first + j]]
        along = scale * ((du + du) * sums[f, j] + u * sums[f, WIDTH + j])
        u *= scale
        t[lanes.S * WIDTH + j] = along * t[lanes.X * WIDTH + j] + u * sums[f, 2 * WIDTH + j]
        t[lanes.W * WIDTH + j] = along * t[lanes.Y * WIDTH + j] + u * sums[f, 3 * WIDTH + j]
        t[lanes.DW * WIDTH + j] = along * t[lanes.Z * WIDTH + j] + u * sums[f, 4 * WIDTH + j]


@njit
def pair_gradients(i, f, cutoff, h, work, weights, out):
    """Functions are summed with their weights before anything else, so five sums serve them all.
    Only the gradients of the wanted neighbours are found; k runs over all."""
    row, t, sums, segment = work.row, work.t, work.sums, work.segment
    lane, lane_segment = work.lane, work.lane_segment
    n_elements = segment.shape[0] - 1
    n = lane_segment[n_elements]
    shapes, end = _moments_first(f, h, work), f.shape_start[h + 1]
    if shapes > f.shape_start[h]:
        moments.pair_gradients(i, f, h, shapes, work, weights, out)
    if shapes == end:
        return
    zetas, lambdas, scales = f.zeta, f.lam, f.scale
    coefficients, factor = f.coefficients, _factor(f, cutoff, h)
    weights_of = work.lane_weights
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        groups = lanes.groups_of(m)
        _load(row, t, lane, first, m)
        lanes.clear(sums, 1, PER_FUNCTION * WIDTH)
        for b in range(n_elements):
            if segment[b] == segment[b + 1]:
                continue
            for s in range(shapes, end):
                for a in range(n_elements):
                    feature = f.feature[s, a, b]
                    weight = t.dtype.type(0.0)
                    if feature >= 0:
                        weight = weights[i, feature] * scales[s]
                    low = max(lane_segment[a], first) - first
                    for j in range(low, min(lane_segment[a + 1] - first, WIDTH)):
                        weights_of[s - shapes, j] = weight
            for k in range(segment[b], segment[b + 1]):
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                lanes.distances(t, groups, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(t, groups, factor, coefficients)
                lanes.products(t, groups, row[RINV, k], row[U, k])
                lanes.clear_mix(t, groups)
                for s in range(shapes, end):
                    lam, zeta = lambdas[s], zetas[s]
                    lanes.power(t, groups, lam, zeta - t.dtype.type(1.0))
                    lanes.mix(t, groups, weights_of, s - shapes, lam, zeta)
                lanes.accumulate_mixed_gradient(t, groups, sums, xk, yk, zk)
        _finish_gradient(row, t, lane, first, m, sums, 0, t.dtype.type(1.0))
        for j in range(m):
            p = work.pair[lane[first + j]]
            out[p, 0] += t[lanes.S * WIDTH + j]
            out[p, 1] += t[lanes.W * WIDTH + j]
            out[p, 2] += t[lanes.DW * WIDTH + j]


@njit
def directional(i, f, cutoff, h, work, out):
    """J v: each unordered pair once, as in `values`. Where only some neighbours move, and not
    the central atom: all ordered pairs of one of them with any k, which then counts as at rest."""
    row, t, sums, segment = work.row, work.t, work.sums, work.segment
    lane, lane_segment = work.lane, work.lane_segment
    n_elements = segment.shape[0] - 1
    n = lane_segment[n_elements]
    ordered = n < segment[n_elements]
    shapes, end = _moments_first(f, h, work), f.shape_start[h + 1]
    if shapes > f.shape_start[h]:
        moments.directional(i, f, h, shapes, work, out)
    if shapes == end:
        return
    zetas, lambdas, scales = f.zeta, f.lam, f.scale
    coefficients, factor = f.coefficients, _factor(f, cutoff, h)
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        groups = lanes.groups_of(m)
        _load(row, t, lane, first, m)
        for j in range(m):
            moving = lane[first + j]
            vx, vy, vz = row[VX, moving], row[VY, moving], row[VZ, moving]
            r_dot_v = row[X, moving] * vx + row[Y, moving] * vy + row[Z, moving] * vz
            du = row[DU, moving]
            t[lanes.VX * WIDTH + j] = vx
            t[lanes.VY * WIDTH + j] = vy
            t[lanes.VZ * WIDTH + j] = vz
            t[lanes.R_DOT_V * WIDTH + j] = r_dot_v
            t[lanes.DELTA_U * WIDTH + j] = (du + du) * r_dot_v
        for b in range(n_elements):
            lanes.clear(sums, end - shapes, WIDTH)
            k_first = segment[b] if ordered else max(segment[b], first + 1)
            for k in range(k_first, segment[b + 1]):
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                uk, vxk, vyk, vzk = row[U, k], row[VX, k], row[VY, k], row[VZ, k]
                if ordered:
                    vxk = vyk = vzk = t.dtype.type(0.0)
                else:
                    m = min(WIDTH, k - first)
                    groups = lanes.groups_of(m)
                r_dot_vk = xk * vxk + yk * vyk + zk * vzk
                delta_uk = (row[DU, k] + row[DU, k]) * r_dot_vk
                lanes.distances(t, groups, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(t, groups, factor, coefficients)
                lanes.directional_products(
                    t, groups, xk, yk, zk, row[RINV, k], uk, vxk, vyk, vzk, delta_uk, r_dot_vk
                )
                lanes.drop(t, lanes.WU, m)
                lanes.drop(t, lanes.WUC, m)
                for s in range(shapes, end):
                    lam, zeta = lambdas[s], zetas[s]
                    lanes.power(t, groups, lam, zeta - t.dtype.type(1.0))
                    lanes.accumulate_directional(t, groups, sums, s - shapes, lam, zeta)
            for a in range(n_elements if ordered else b + 1):
                low = max(lane_segment[a], first) - first
                high = min(lane_segment[a + 1] - first, WIDTH)
                for s in range(shapes, end):
                    feature = f.feature[s, a, b]
                    if feature < 0:
                        continue
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += sums[s - shapes, j]
                    out[i, feature] += scales[s] * total
