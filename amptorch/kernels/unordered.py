"""Angular symmetry functions of all groups within a cutoff, each pair of neighbours met once.

For the values, and for the gradients of the pairs from weights g. The distance r_jk, the angle and
the cutoff function of a pair (j, k) serve all groups; each group has its η, and of the lanes j only
those whose element it knows together with that of k.

With P = Σ g 2^(1−ζ) b^ζ, the sum over the functions of a group, and T = P u_j u_k w as in lanes.py,

    ∂T/∂r_j = α_j r_j + β r_k,    ∂T/∂r_k = α_k r_k + β r_j
    β   = u_j u_k [P' w/(r_j r_k) − 2 P w']
    α_j = u_k [P w 2 du_j/d(r_j²) + u_j (2 P w' − P' w c/r_j²)],    α_k likewise

so that a pair gives the gradients of both its neighbours: those of the lanes are summed in lanes,
that of k over the lanes.
"""

import numpy as np

from amptorch.kernels import factors, lanes, moments, pair_loops
from amptorch.kernels._jit import inlined, inner, spliced
from amptorch.kernels.angular import (
    PairFactor,
    cutoff_of_pairs,
    envelope,
    factor_of,
    load,
)
from amptorch.kernels.cutoffs import Cutoff
from amptorch.kernels.lanes import (
    LANE_ALONG,
    LANE_BETA,
    LANE_F,
    LANE_SUM_X,
    LANE_SUM_Y,
    LANE_SUM_Z,
    LANE_W,
    LANE_X,
    LANE_Y,
    LANE_Z,
    LANES,
    WIDTH,
)
from amptorch.kernels.pair_loops import MIX_DEGREE
from amptorch.kernels.structures import (
    NEAR_FC,
    NEAR_FC_SLOPE,
    NEAR_INVERSE_R,
    NEAR_R,
    NEAR_R2,
    NEAR_U,
    NEAR_U_SLOPE,
    NEAR_X,
    NEAR_Y,
    NEAR_Z,
    WEIGHTED,
    Angular,
    Work,
    channels_of,
)

# How a group is treated, `Work.plan`: its first function that moments do not serve; its first row
# in `Work.table`; whether its functions are one polynomial in cosθ; the powers of its exponential;
# the lanes, from low to high, whose elements it knows together with the present one.
PLAN_SHAPE, PLAN_ROW, PLAN_POLYNOMIAL, PLAN_PASSES, PLAN_LOW, PLAN_HIGH = range(6)
N_PLAN = 6
# Rows of a group in `Work.table`: 2 d(ln u)/d(r²), then its polynomial, or the weight of each of
# its functions.
TABLE_ROWS = 2 + MIX_DEGREE


@spliced
def values(
    i: int,
    functions: Angular,
    cutoff: Cutoff,
    first_group: int,
    last_group: int,
    work: Work,
    out: np.ndarray,
) -> None:
    """Add G of the groups `first_group:last_group` to row i of out."""
    near, rows, sums, segment, plan = work.near, work.rows, work.sums, work.segment, work.plan
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    for group in range(first_group, last_group):
        envelope(functions, cutoff, group, work)
        shapes = moments.values(functions.moments, i, functions, group, work, out)
        _keep(functions, cutoff, group, group - first_group, shapes, work)
    kinds, left, shifts = functions.kind, functions.left, functions.shift
    zetas, lambdas, shape_start = functions.zeta, functions.lam, functions.shape_start
    coefficients, envelope_of = functions.coefficients, work.envelope
    factor = factor_of(functions, cutoff, first_group, last_group)
    first_shape = shape_start[first_group]
    for first in range(0, n, WIDTH):
        load(near, rows, work.chosen, first, min(WIDTH, n - first))
        for e in range(n_elements):
            if segment[e] == segment[e + 1]:
                continue
            low, high = _ranges(functions, first_group, last_group, e, first, work)
            if low >= high:
                continue
            n_shapes = shape_start[last_group] - first_shape
            lanes.clear(sums, n_shapes, LANES * lanes.lane_groups_of(high))
            for k in range(max(segment[e], first + 1), segment[e + 1]):
                m = min(high, k - first)
                if m <= low:
                    continue
                _pairs(rows, near, k, factor, coefficients, low, m, False)
                for group in range(first_group, last_group):
                    h = group - first_group
                    shapes, end = plan[h, PLAN_SHAPE], shape_start[group + 1]
                    top = min(m, plan[h, PLAN_HIGH])
                    if top <= plan[h, PLAN_LOW]:
                        continue
                    start = _start(plan[h, PLAN_LOW])
                    lane_groups = lanes.lane_groups_of(top - start)
                    uk = envelope_of[2 * h, k]
                    kind, eta, shift = kinds[group], left[group], shifts[group]
                    in_place = _factor_of_group(
                        rows, kind, eta, shift, plan[h, PLAN_PASSES], start, lane_groups, top
                    )
                    for s in range(shapes, end):
                        lam, zeta, q = lambdas[s], zetas[s], s - first_shape
                        if in_place:
                            pair_loops.add_values(
                                rows, lane_groups, sums, q, lam, zeta, uk, LANE_F, start
                            )
                        else:
                            pair_loops.add_values(
                                rows, lane_groups, sums, q, lam, zeta, uk, LANE_W, start
                            )
            for group in range(first_group, last_group):
                _add_sums(i, functions, group, first_group, e, first, work, out)


@inner
def _add_sums(
    i: int,
    functions: Angular,
    group: int,
    first_group: int,
    e: int,
    first: int,
    work: Work,
    out: np.ndarray,
) -> None:
    """Add the sums of the lanes to row i of out, for pairs whose second neighbour is of element
    e."""
    h, sums = group - first_group, work.sums
    n_channels = channels_of(functions.kind[group], work)
    b = e if functions.kind[group] < WEIGHTED else 0
    n = work.segment[work.segment.shape[0] - 1]
    for s in range(work.plan[h, PLAN_SHAPE], functions.shape_start[group + 1]):
        for a in range(b + 1):
            feature = functions.feature[s, a, b]
            if feature < 0:
                continue
            low, high = work.segment[a] - first, work.segment[a + 1] - first
            if n_channels == 1:
                low, high = 0, n - first
            low, high = max(low, 0), min(high, WIDTH)
            total = sums.dtype.type(0.0)
            for j in range(low, high):
                total += (
                    sums[s - functions.shape_start[first_group], j]
                    * work.envelope[2 * h, first + j]
                )
            out[i, feature] += functions.scale[s] * total


@spliced
def pair_gradients(
    i: int,
    functions: Angular,
    cutoff: Cutoff,
    first_group: int,
    last_group: int,
    work: Work,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add the gradients of the groups `first_group:last_group` to those of the pairs.

    Lanes are the wanted neighbours. Of two wanted ones the pair is met once; a pair with one that
    is not is met from the wanted one.
    """
    near, rows, segment, plan, pull = work.near, work.rows, work.segment, work.plan, work.pull
    chosen = work.chosen
    n_elements = segment.shape[0] - 1
    n = work.chosen_segment[n_elements]
    row = 0
    for group in range(first_group, last_group):
        envelope(functions, cutoff, group, work)
        shapes = moments.pair_gradients(functions.moments, i, functions, group, work, weights, out)
        h = group - first_group
        _keep(functions, cutoff, group, h, shapes, work)
        plan[h, PLAN_ROW] = row
        row += 1 + max(MIX_DEGREE + 1, functions.shape_start[group + 1] - shapes)
    kinds, left, shifts = functions.kind, functions.left, functions.shift
    zetas, lambdas, shape_start = functions.zeta, functions.lam, functions.shape_start
    coefficients, envelope_of = functions.coefficients, work.envelope
    factor = factor_of(functions, cutoff, first_group, last_group)
    table = work.table
    zero, one = rows.dtype.type(0.0), rows.dtype.type(1.0)
    for k in range(segment[n_elements]):
        pull[0, k] = zero
        pull[1, k] = zero
        pull[2, k] = zero
    for first in range(0, n, WIDTH):
        width = min(WIDTH, n - first)
        load(near, rows, chosen, first, width)
        all_groups = lanes.lane_groups_of(width)
        pair_loops.fill(rows, LANE_ALONG, all_groups, zero)
        pair_loops.fill(rows, LANE_SUM_X, all_groups, zero)
        pair_loops.fill(rows, LANE_SUM_Y, all_groups, zero)
        pair_loops.fill(rows, LANE_SUM_Z, all_groups, zero)
        place = 0
        for e in range(n_elements):
            if segment[e] == segment[e + 1]:
                continue
            low, high = _ranges(functions, first_group, last_group, e, first, work)
            for group in range(first_group, last_group):
                _fill_table(i, functions, group, first_group, e, first, work, weights)
            for k in range(segment[e], segment[e + 1]):
                m = high
                if place < n and chosen[place] == k:
                    m = min(high, place - first)
                    place += 1
                if m <= low:
                    continue
                _pairs(rows, near, k, factor, coefficients, low, m, True)
                inverse_rk, along = near[NEAR_INVERSE_R, k], zero
                for group in range(first_group, last_group):
                    h = group - first_group
                    top = min(m, plan[h, PLAN_HIGH])
                    if top <= plan[h, PLAN_LOW]:
                        continue
                    start = _start(plan[h, PLAN_LOW])
                    lane_groups = lanes.lane_groups_of(top - start)
                    uk, duk = envelope_of[2 * h, k], envelope_of[2 * h + 1, k]
                    kind, eta, shift = kinds[group], left[group], shifts[group]
                    in_place = _factor_of_group(
                        rows, kind, eta, shift, plan[h, PLAN_PASSES], start, lane_groups, top
                    )
                    log_slope = plan[h, PLAN_ROW]
                    if plan[h, PLAN_POLYNOMIAL]:
                        pair_loops.mix_polynomial(rows, lane_groups, table, log_slope + 1, start)
                    else:
                        s = plan[h, PLAN_SHAPE]
                        pair_loops.mix_one(
                            rows, lane_groups, table, log_slope + 1, lambdas[s], zetas[s], start
                        )
                        for more in range(1, shape_start[group + 1] - s):
                            lam, zeta, q = lambdas[s + more], zetas[s + more], log_slope + 1 + more
                            pair_loops.any_power(rows, lane_groups, lam, zeta - one, start)
                            pair_loops.mix(rows, lane_groups, table, q, lam, zeta, start)
                    if in_place:
                        along += pair_loops.add_slopes(
                            rows,
                            lane_groups,
                            table,
                            log_slope,
                            uk,
                            duk,
                            inverse_rk,
                            LANE_F,
                            start,
                        )
                    else:
                        along += pair_loops.add_slopes(
                            rows,
                            lane_groups,
                            table,
                            log_slope,
                            uk,
                            duk,
                            inverse_rk,
                            LANE_W,
                            start,
                        )
                start = _start(low)
                xk, yk, zk = near[NEAR_X, k], near[NEAR_Y, k], near[NEAR_Z, k]
                lane_groups = lanes.lane_groups_of(m - start)
                x, y, z = pair_loops.add_vectors(rows, lane_groups, xk, yk, zk, start)
                pull[0, k] += along * xk + x
                pull[1, k] += along * yk + y
                pull[2, k] += along * zk + z
        for j in range(width):
            k, along = chosen[first + j], rows[LANE_ALONG * WIDTH + j]
            pull[0, k] += along * rows[LANE_X * WIDTH + j] + rows[LANE_SUM_X * WIDTH + j]
            pull[1, k] += along * rows[LANE_Y * WIDTH + j] + rows[LANE_SUM_Y * WIDTH + j]
            pull[2, k] += along * rows[LANE_Z * WIDTH + j] + rows[LANE_SUM_Z * WIDTH + j]
    for k in range(segment[n_elements]):
        p = work.pair[k]
        out[p, 0] += pull[0, k]
        out[p, 1] += pull[1, k]
        out[p, 2] += pull[2, k]


@inner
def _keep(functions: Angular, cutoff: Cutoff, group: int, h: int, shapes: int, work: Work) -> None:
    """Keep u and 2 du/d(r²) of all gathered neighbours and how the group is treated."""
    near, plan = work.near, work.plan
    for j in range(work.segment[work.segment.shape[0] - 1]):
        work.envelope[2 * h, j] = near[NEAR_U, j]
        work.envelope[2 * h + 1, j] = near[NEAR_U_SLOPE, j] + near[NEAR_U_SLOPE, j]
    end = functions.shape_start[group + 1]
    short = end - shapes > 1
    for s in range(shapes, end):
        zeta = functions.zeta[s]
        short &= zeta <= MIX_DEGREE and zeta == int(zeta)
    plan[h, PLAN_SHAPE] = shapes
    plan[h, PLAN_POLYNOMIAL] = short
    plan[h, PLAN_PASSES] = factors.passes_of(
        functions.left[group], functions.shift[group], cutoff.radius
    )


@inner
def _ranges(
    functions: Angular, first_group: int, last_group: int, e: int, first: int, work: Work
) -> tuple[int, int]:
    """Find the lanes of each group, from low to high, whose elements it knows together with e;
    return those of all groups."""
    plan, segment = work.plan, work.chosen_segment
    n_elements = segment.shape[0] - 1
    lowest, highest = WIDTH, 0
    for group in range(first_group, last_group):
        h = group - first_group
        low, high = WIDTH, 0
        end = functions.shape_start[group + 1]
        if functions.kind[group] > WEIGHTED:
            if plan[h, PLAN_SHAPE] < end:
                low, high = 0, min(segment[n_elements] - first, WIDTH)
        else:
            for a in range(n_elements):
                begin, stop = max(segment[a] - first, 0), min(segment[a + 1] - first, WIDTH)
                if begin >= stop:
                    continue
                for s in range(plan[h, PLAN_SHAPE], end):
                    if functions.feature[s, a, e] >= 0:
                        low, high = min(low, begin), max(high, stop)
                        break
        plan[h, PLAN_LOW], plan[h, PLAN_HIGH] = low, high
        if low < high:
            lowest, highest = min(lowest, low), max(highest, high)
    return lowest, highest


@inner
def _fill_table(
    i: int,
    functions: Angular,
    group: int,
    first_group: int,
    e: int,
    first: int,
    work: Work,
    weights: np.ndarray,
) -> None:
    """Write the rows of a group in `Work.table`, for pairs whose second neighbour is of element e:
    the logarithmic slope of u_j, and u_j times the polynomial or the weights of its functions."""
    h, table, near, chosen = group - first_group, work.table, work.near, work.chosen
    low, high = work.plan[h, PLAN_LOW], work.plan[h, PLAN_HIGH]
    if low >= high:
        return
    row, shapes = work.plan[h, PLAN_ROW], work.plan[h, PLAN_SHAPE]
    end = functions.shape_start[group + 1]
    zero = table.dtype.type(0.0)
    eta, shift = functions.eta[group], functions.shift[group]
    for j in range(low, high):
        k = chosen[first + j]
        slope = zero
        if near[NEAR_FC, k] > zero:
            slope = near[NEAR_FC_SLOPE, k] / near[NEAR_FC, k] * near[NEAR_INVERSE_R, k]
        eta_r = eta * (near[NEAR_R, k] - shift)
        table[row, j] = slope - (eta_r + eta_r) * near[NEAR_INVERSE_R, k]
    start = _start(low)
    stop = LANES * lanes.lane_groups_of(high)
    polynomial = work.plan[h, PLAN_POLYNOMIAL]
    n_rows = MIX_DEGREE + 1 if polynomial else end - shapes
    for q in range(row + 1, row + 1 + n_rows):
        for j in range(start, stop):
            table[q, j] = zero
    weighted = functions.kind[group] > WEIGHTED
    b = 0 if weighted else e
    for a in range(channels_of(functions.kind[group], work)):
        begin = low if weighted else max(work.chosen_segment[a] - first, low)
        after = high if weighted else min(work.chosen_segment[a + 1] - first, high)
        if begin >= after:
            continue
        for s in range(shapes, end):
            feature = functions.feature[s, a, b]
            if feature < 0:
                continue
            weight = weights[i, feature] * functions.scale[s]
            if polynomial:
                # (1 + λc)^ζ = Σ_m C(ζ, m) λ^m c^m.
                degree, lam = int(functions.zeta[s]), functions.lam[s]
                for m in range(degree + 1):
                    for j in range(begin, after):
                        table[row + 1 + m, j] += weight * work.envelope[2 * h, chosen[first + j]]
                    weight *= lam * table.dtype.type(degree - m) / table.dtype.type(m + 1)
            else:
                for j in range(begin, after):
                    u = work.envelope[2 * h, chosen[first + j]]
                    table[row + 1 + s - shapes, j] = weight * u


@inlined
def _start(low: int) -> int:
    """Return the first lane of the group that lane `low` is in."""
    return LANES * (low // LANES)


@spliced
def _pairs(
    rows: np.ndarray,
    near: np.ndarray,
    k: int,
    factor: PairFactor,
    coefficients: np.ndarray,
    low: int,
    m: int,
    slopes: bool,
) -> None:
    """Compute distances, angles and the cutoff function of pairs (j, k) for lanes j from low to m;
    zero beyond m."""
    start = _start(low)
    lane_groups = lanes.lane_groups_of(m - start)
    lanes.distances(
        rows,
        lane_groups,
        near[NEAR_X, k],
        near[NEAR_Y, k],
        near[NEAR_Z, k],
        near[NEAR_R2, k],
        near[NEAR_INVERSE_R, k],
        start,
    )
    cutoff_of_pairs(rows, start, m - start, factor, coefficients, slopes)
    if slopes:
        pair_loops.fill(rows, LANE_BETA, lane_groups, rows.dtype.type(0.0), start)


@spliced
def _factor_of_group(
    rows: np.ndarray,
    kind: int,
    eta: float,
    shift: float,
    passes: int,
    start: int,
    lane_groups: int,
    top: int,
) -> bool:
    """Compute LANE_W and its slope of a group; tell whether they are those in LANE_F, and not
    written."""
    in_place = False
    if kind % WEIGHTED == 5:
        pair_loops.ones(rows, start, top - start)
    elif passes == 0:
        in_place = True
    else:
        factors.damp(rows, start, lane_groups, eta, shift, passes)
    return in_place
