"""Angular symmetry functions of one group (kind, cutoff, η) around one central atom."""

from amptorch.kernels import lanes
from amptorch.kernels._jit import njit
from amptorch.kernels.lanes import ACCUMULATOR, PER_FUNCTION, WIDTH
from amptorch.kernels.structures import (
    DERIVATIVES, DU, PAIR_GRADIENTS, R2, RINV, VALUES, VX, VY, VZ, U, X, Y, Z,
    block_index,
)


@njit
def scratch_size(n_shapes):
    """Length of the scratch array for groups of up to `n_shapes` shapes."""
    return (ACCUMULATOR + PER_FUNCTION * max(n_shapes, 1) + n_shapes) * WIDTH


@njit
def group(mode, i, centre, f, q, h, work, values, blocks, weights, pair_gradients):
    """Group h of cutoff q of atom i, whose neighbours have been gathered in `work`."""
    _envelope(f, q, h, work)
    if mode == VALUES:
        _values(i, f, q, h, work, values)
    elif mode == DERIVATIVES:
        _derivatives(i, centre, f, q, h, work, values, blocks)
    elif mode == PAIR_GRADIENTS:
        _contraction(i, f, q, h, work, weights, pair_gradients)
    else:
        _directional(i, f, q, h, work, values)


@njit
def _envelope(f, q, h, work):
    """u = exp(−ηr²) fc(r) and du/d(r²) of every gathered neighbour."""
    row, t = work.row, work.t
    n = work.segment[work.segment.shape[0] - 1]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        for j in range(m):
            t[lanes.S * WIDTH + j] = row[R2, first + j]
        _radial_factor(f, q, h, t, m)
        for j in range(m):
            row[U, first + j] = t[lanes.W * WIDTH + j]
            row[DU, first + j] = t[lanes.DW * WIDTH + j]


@njit
def _radial_factor(f, q, h, t, m):
    """W = exp(−ηS) fc(√S) and DW = dW/dS."""
    cutoff = f.cutoffs[q]
    start, stop = f.group_polynomial[h, 0], f.group_polynomial[h, 1]
    if stop > start:
        lanes.polynomial(t, m, cutoff * cutoff, f.coefficients, start, stop)
    else:
        lanes.exact(t, m, f.cutoff_kind, f.cutoff_gamma, f.group_eta[h], cutoff)


@njit
def _pair_factor(f, q, h, t, m):
    """w and dw/ds of pairs, from S: 1 and 0 for G5."""
    if f.group_kind[h] == 4:
        _radial_factor(f, q, h, t, m)
    else:
        lanes.everywhere(t, m)


@njit
def _load(row, t, first, m):
    """Neighbours `first:first+m` into the lanes."""
    for j in range(min(m, WIDTH)):
        t[lanes.X * WIDTH + j] = row[X, first + j]
        t[lanes.Y * WIDTH + j] = row[Y, first + j]
        t[lanes.Z * WIDTH + j] = row[Z, first + j]
        t[lanes.R2 * WIDTH + j] = row[R2, first + j]
        t[lanes.RINV * WIDTH + j] = row[RINV, first + j]
        t[lanes.U * WIDTH + j] = row[U, first + j]


@njit
def _values(i, f, q, h, work, values):
    """Each unordered pair once: lanes j < k."""
    row, t, segment = work.row, work.t, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    shapes, end = f.shape_start[h], f.shape_start[h + 1]
    for first in range(0, n, WIDTH):
        _load(row, t, first, min(WIDTH, n - first))
        for b in range(n_elements):
            lanes.clear(t, ACCUMULATOR, end - shapes)
            for k in range(max(segment[b], first + 1), segment[b + 1]):
                m = min(WIDTH, k - first)
                lanes.distances(t, m, row[X, k], row[Y, k], row[Z, k], row[R2, k], row[RINV, k])
                _pair_factor(f, q, h, t, m)
                lanes.products(t, m, row[RINV, k], row[U, k])
                for s in range(shapes, end):
                    lanes.power(t, m, f.shape_lambda[s], f.shape_zeta[s])
                    lanes.accumulate_value(t, m, ACCUMULATOR + s - shapes)
            # Lanes are ordered by element, so pairs j < k are those with element of j <= b.
            for a in range(b + 1):
                low = max(segment[a], first) - first
                high = min(segment[a + 1] - first, WIDTH)
                for s in range(shapes, end):
                    feature = f.shape_feature[s, a, b]
                    if feature < 0:
                        continue
                    at = (ACCUMULATOR + s - shapes) * WIDTH
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += t[at + j] * t[lanes.U * WIDTH + j]
                    values[i, feature] += f.shape_scale[s] * total


@njit
def _derivatives(i, centre, f, q, h, work, values, blocks):
    """All ordered pairs: the gradient of a lane's atom is then a sum over k, without scattering."""
    row, t, segment = work.row, work.t, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    half = t.dtype.type(0.5)
    shapes, end = f.shape_start[h], f.shape_start[h + 1]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _load(row, t, first, m)
        for b in range(n_elements):
            if segment[b] == segment[b + 1]:
                continue
            lanes.clear(t, ACCUMULATOR, PER_FUNCTION * (end - shapes))
            for k in range(segment[b], segment[b + 1]):
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                lanes.distances(t, m, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(f, q, h, t, m)
                lanes.products(t, m, row[RINV, k], row[U, k])
                for s in range(shapes, end):
                    lam, zeta = f.shape_lambda[s], f.shape_zeta[s]
                    lanes.power(t, m, lam, zeta - t.dtype.type(1.0))
                    lanes.accumulate_gradient(
                        t, m, ACCUMULATOR + PER_FUNCTION * (s - shapes), lam, zeta, xk, yk, zk
                    )
            for s in range(shapes, end):
                at = ACCUMULATOR + PER_FUNCTION * (s - shapes)
                _finish_gradient(row, t, first, m, at, f.shape_scale[s])
                for a in range(n_elements):
                    feature = f.shape_feature[s, a, b]
                    if feature < 0:
                        continue
                    low = max(segment[a], first) - first
                    high = min(segment[a + 1] - first, WIDTH)
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += t[at * WIDTH + j] * t[lanes.U * WIDTH + j]
                    # Every pair was met from both of its ends.
                    values[i, feature] += half * f.shape_scale[s] * total
                    base = block_index(f, blocks, i, centre, a, feature, 0)
                    _add_to_block(work, t, first, low, high, blocks, base)


@njit
def _finish_gradient(row, t, first, m, at, scale):
    """From the sums over k to gradients, in rows S, W, DW of the lanes."""
    start = at * WIDTH
    for j in range(min(m, WIDTH)):
        u = t[lanes.U * WIDTH + j]
        du = row[DU, first + j]
        along = scale * ((du + du) * t[start + j] + u * t[start + WIDTH + j])
        u *= scale
        t[lanes.S * WIDTH + j] = along * t[lanes.X * WIDTH + j] + u * t[start + 2 * WIDTH + j]
        t[lanes.W * WIDTH + j] = along * t[lanes.Y * WIDTH + j] + u * t[start + 3 * WIDTH + j]
        t[lanes.DW * WIDTH + j] = along * t[lanes.Z * WIDTH + j] + u * t[start + 4 * WIDTH + j]


@njit
def _add_to_block(work, t, first, low, high, blocks, base):
    for j in range(low, high):
        slot = work.slot[first + j]
        if slot >= 0:
            blocks.values[base + 3 * slot] += t[lanes.S * WIDTH + j]
            blocks.values[base + 3 * slot + 1] += t[lanes.W * WIDTH + j]
            blocks.values[base + 3 * slot + 2] += t[lanes.DW * WIDTH + j]


@njit
def _contraction(i, f, q, h, work, weights, pair_gradients):
    """Functions are summed with their weights before anything else, so five sums serve them all."""
    row, t, segment = work.row, work.t, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    shapes, end = f.shape_start[h], f.shape_start[h + 1]
    weight_row = ACCUMULATOR + PER_FUNCTION
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _load(row, t, first, m)
        lanes.clear(t, ACCUMULATOR, PER_FUNCTION)
        for b in range(n_elements):
            if segment[b] == segment[b + 1]:
                continue
            for s in range(shapes, end):
                at = (weight_row + s - shapes) * WIDTH
                for a in range(n_elements):
                    feature = f.shape_feature[s, a, b]
                    weight = t.dtype.type(0.0)
                    if feature >= 0:
                        weight = weights[i, feature] * f.shape_scale[s]
                    low = max(segment[a], first) - first
                    for j in range(low, min(segment[a + 1] - first, WIDTH)):
                        t[at + j] = weight
            for k in range(segment[b], segment[b + 1]):
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                lanes.distances(t, m, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(f, q, h, t, m)
                lanes.products(t, m, row[RINV, k], row[U, k])
                lanes.clear(t, lanes.MIX, 2)
                for s in range(shapes, end):
                    lam, zeta = f.shape_lambda[s], f.shape_zeta[s]
                    lanes.power(t, m, lam, zeta - t.dtype.type(1.0))
                    lanes.mix(t, m, weight_row + s - shapes, lam, zeta)
                lanes.accumulate_mixed_gradient(t, m, xk, yk, zk)
        _finish_gradient(row, t, first, m, ACCUMULATOR, t.dtype.type(1.0))
        for j in range(m):
            p = work.pair[first + j]
            pair_gradients[p, 0] += t[lanes.S * WIDTH + j]
            pair_gradients[p, 1] += t[lanes.W * WIDTH + j]
            pair_gradients[p, 2] += t[lanes.DW * WIDTH + j]


@njit
def _directional(i, f, q, h, work, values):
    """J v: each unordered pair once, as in `_values`."""
    row, t, segment = work.row, work.t, work.segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    shapes, end = f.shape_start[h], f.shape_start[h + 1]
    for first in range(0, n, WIDTH):
        m = min(WIDTH, n - first)
        _load(row, t, first, m)
        for j in range(m):
            vx, vy, vz = row[VX, first + j], row[VY, first + j], row[VZ, first + j]
            r_dot_v = row[X, first + j] * vx + row[Y, first + j] * vy + row[Z, first + j] * vz
            du = row[DU, first + j]
            t[lanes.VX * WIDTH + j] = vx
            t[lanes.VY * WIDTH + j] = vy
            t[lanes.VZ * WIDTH + j] = vz
            t[lanes.R_DOT_V * WIDTH + j] = r_dot_v
            t[lanes.DELTA_U * WIDTH + j] = (du + du) * r_dot_v
        for b in range(n_elements):
            lanes.clear(t, ACCUMULATOR, end - shapes)
            for k in range(max(segment[b], first + 1), segment[b + 1]):
                m = min(WIDTH, k - first)
                xk, yk, zk = row[X, k], row[Y, k], row[Z, k]
                vxk, vyk, vzk = row[VX, k], row[VY, k], row[VZ, k]
                r_dot_vk = xk * vxk + yk * vyk + zk * vzk
                delta_uk = (row[DU, k] + row[DU, k]) * r_dot_vk
                lanes.distances(t, m, xk, yk, zk, row[R2, k], row[RINV, k])
                _pair_factor(f, q, h, t, m)
                lanes.directional_products(
                    t, m, xk, yk, zk, row[RINV, k], row[U, k], vxk, vyk, vzk, delta_uk, r_dot_vk
                )
                for s in range(shapes, end):
                    lam, zeta = f.shape_lambda[s], f.shape_zeta[s]
                    lanes.power(t, m, lam, zeta - t.dtype.type(1.0))
                    lanes.accumulate_directional(t, m, ACCUMULATOR + s - shapes, lam, zeta)
            for a in range(b + 1):
                low = max(segment[a], first) - first
                high = min(segment[a + 1] - first, WIDTH)
                for s in range(shapes, end):
                    feature = f.shape_feature[s, a, b]
                    if feature < 0:
                        continue
                    at = (ACCUMULATOR + s - shapes) * WIDTH
                    total = t.dtype.type(0.0)
                    for j in range(low, high):
                        total += t[at + j]
                    values[i, feature] += f.shape_scale[s] * total
