"""Symmetry functions and their derivatives, central atom by central atom.

J. Behler, J. Chem. Phys. 134, 074106 (2011); Int. J. Quantum Chem. 115, 1032 (2015).

Four kernels, one for each purpose: G; G and blocks ∂G_i/∂r_a that are kept; Σ_s g_is ∂G_is/∂r_ij
of every pair, from weights g = ∂E/∂G; and J v, the derivative of G along velocities of the atoms.

For a central atom the neighbours within one cutoff are gathered in a row, ordered by element;
radial functions run along it, angular functions over its pairs (`lanes.py`), grouped by η, so that
distances, angles and cutoffs are computed once a group.
"""

import math

import numpy as np

from amptorch.kernels import angular, factors, lanes, moments, unordered
from amptorch.kernels._jit import njit
from amptorch.kernels.cutoffs import Cutoff
from amptorch.kernels.structures import (
    DERIVATIVES,
    DIRECTIONAL,
    N_NEAR_ROWS,
    NEAR_FC,
    NEAR_FC_SLOPE,
    NEAR_INVERSE_R,
    NEAR_R,
    NEAR_R2,
    NEAR_VX,
    NEAR_VY,
    NEAR_VZ,
    NEAR_WEIGHT,
    NEAR_X,
    NEAR_Y,
    NEAR_Z,
    PAIR_GRADIENTS,
    VALUES,
    Angular,
    Blocks,
    Functions,
    NeighborPairs,
    Radial,
    Work,
    block_place,
)


@njit
def count_block_atoms(
    reach: np.ndarray,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    counts: np.ndarray,
    present: np.ndarray,
) -> None:
    """Count what stands within `reach[element of i]` of atoms i = `start:stop`.

    counts[i, e]: distinct atoms of element e other than i; present[i, e]: whether there are any,
    images of i included. Both zeros on entry.
    """
    element, offsets, neighbors, vectors = pairs
    for i in range(start, stop):
        last = i
        reach2 = reach[element[i]] ** 2
        for p in range(offsets[i], offsets[i + 1]):
            a = neighbors[p]
            r2 = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
            if r2 < reach2:
                present[i, element[a]] = 1
                if a != i and a != last:
                    counts[i, element[a]] += 1
                    last = a


@njit
def values(
    functions: Functions, pairs: NeighborPairs, start: int, stop: int, out: np.ndarray
) -> None:
    """Compute G of central atoms `start:stop` into out (N, S), zeros on entry.

    Here and below: functions are the Functions, pairs the NeighborPairs; the element of an atom is
    its place in the order of the features.
    """
    work = _workspace(functions, pairs, start, stop)
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    blocks, none, all_wanted = _nothing(pairs.vectors)
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(VALUES, i, pairs, functions.weight, cutoff, none, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_lanes(VALUES, i, pairs.neighbors, all_wanted, work)
            _radial(VALUES, i, functions.radial, sphere, work, out, blocks, none, none)
            first, last = group_start[sphere], group_start[sphere + 1]
            if first < last:
                unordered.values(i, functions.angular, cutoff, first, last, work, out)


@njit
def derivatives(
    functions: Functions,
    reach: np.ndarray,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    out: np.ndarray,
    blocks: Blocks,
) -> None:
    """Compute G into out (N, S) and ∂G/∂r into blocks, both zeros on entry.

    reach (E,): largest cutoff of each central element, as in `count_block_atoms`.
    """
    work = _workspace(functions, pairs, start, stop)
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    _, none, all_wanted = _nothing(pairs.vectors)
    for i in range(start, stop):
        centre = pairs.element[i]
        _assign_slots(i, reach[centre], pairs, work, blocks)
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(DERIVATIVES, i, pairs, functions.weight, cutoff, none, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_lanes(DERIVATIVES, i, pairs.neighbors, all_wanted, work)
            _radial(DERIVATIVES, i, functions.radial, sphere, work, out, blocks, none, none)
            for group in range(group_start[sphere], group_start[sphere + 1]):
                angular.envelope(functions.angular, cutoff, group, work)
                angular.derivatives(i, functions.angular, cutoff, group, work, out, blocks)


@njit
def pair_gradients(
    functions: Functions,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    wanted: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute Σ_s g_is ∂G_is/∂r_ij into out (P, 3), zeros on entry, from weights g (N, S).

    wanted (N,): pairs of two atoms where it is 0 may be left out; empty: all are wanted.
    """
    work = _workspace(functions, pairs, start, stop)
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    blocks, none, _ = _nothing(pairs.vectors)
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(PAIR_GRADIENTS, i, pairs, functions.weight, cutoff, none, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_lanes(PAIR_GRADIENTS, i, pairs.neighbors, wanted, work)
            _radial(PAIR_GRADIENTS, i, functions.radial, sphere, work, none, blocks, weights, out)
            first, last = group_start[sphere], group_start[sphere + 1]
            if first < last:
                unordered.pair_gradients(
                    i, functions.angular, cutoff, first, last, work, weights, out
                )


@njit
def directional(
    functions: Functions,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    moving: np.ndarray,
    velocities: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute J v, the derivative of G along velocities v (N, 3), into out (N, S), zeros on entry.

    moving (N,): 0 for atoms whose velocity is zero; empty: all may move.
    """
    work = _workspace(functions, pairs, start, stop)
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    blocks, none, _ = _nothing(pairs.vectors)
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(DIRECTIONAL, i, pairs, functions.weight, cutoff, velocities, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_lanes(DIRECTIONAL, i, pairs.neighbors, moving, work)
            _radial(DIRECTIONAL, i, functions.radial, sphere, work, out, blocks, none, none)
            for group in range(group_start[sphere], group_start[sphere + 1]):
                angular.envelope(functions.angular, cutoff, group, work)
                angular.directional(i, functions.angular, cutoff, group, work, out)


@njit
def _cutoff(functions: Functions, sphere: int) -> Cutoff:
    """Return the cutoff function of a sphere of neighbours, one for each radius of a central
    element."""
    angular, radius = functions.angular, functions.cutoffs[sphere]
    inner = angular.cutoff_alpha * radius
    return Cutoff(angular.cutoff_kind, angular.cutoff_gamma, inner, radius)


@njit
def _workspace(functions: Functions, pairs: NeighborPairs, start: int, stop: int) -> Work:
    """Return scratch for central atoms `start:stop`."""
    offsets, vectors = pairs.offsets, pairs.vectors
    n_elements = functions.weight.shape[0]
    capacity = 1
    for i in range(start, stop):
        capacity = max(capacity, offsets[i + 1] - offsets[i])
    # Whole groups of lanes, and one more where a segment begins within a group.
    capacity = lanes.LANES * (lanes.lane_groups_of(capacity) + 1)
    n_shapes = n_groups = n_radial = 1
    group_start, shape_start = functions.group_start, functions.angular.shape_start
    for sphere in range(group_start.shape[0] - 1):
        first, last = group_start[sphere], group_start[sphere + 1]
        n_groups = max(n_groups, last - first)
        n_shapes = max(n_shapes, shape_start[last] - shape_start[first])
    for own in range(functions.radial.start.shape[0] - 1):
        n_radial = max(n_radial, functions.radial.start[own + 1] - functions.radial.start[own])
    dtype = vectors.dtype
    return Work(
        np.zeros((N_NEAR_ROWS, capacity), dtype),
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(capacity, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(capacity, np.int64),
        _aligned(1, lanes.N_LANE_ROWS * lanes.WIDTH, vectors)[0],
        _aligned(n_shapes, lanes.PER_FUNCTION * lanes.WIDTH, vectors),
        _aligned(moments.N_MONOMIALS, lanes.WIDTH, vectors),
        np.empty((n_elements, moments.N_MONOMIALS), dtype),
        np.empty((1, moments.N_MONOMIALS), dtype),
        np.zeros((2 * n_radial + 1, capacity), dtype),
        np.zeros((2 * n_groups, capacity), dtype),
        _aligned(unordered.TABLE_ROWS * n_groups + n_shapes, lanes.WIDTH, vectors),
        np.zeros((n_groups, unordered.N_PLAN), np.int64),
        np.zeros((3, capacity), dtype),
    )


@njit
def _aligned(n_rows: int, n_columns: int, like: np.ndarray) -> np.ndarray:
    """Return zeros of the type of `like`, from the start of a cache line on."""
    size = n_rows * n_columns
    room = np.zeros(size + 64 // like.itemsize, like.dtype)
    first = (64 - int(room.ctypes.data) % 64) // like.itemsize
    return room[first : first + size].reshape((n_rows, n_columns))


@njit
def _nothing(vectors: np.ndarray) -> tuple[Blocks, np.ndarray, np.ndarray]:
    """Return empty blocks, an empty array and empty flags, for what a purpose does not use."""
    integers = np.empty(0, np.int64)
    blocks = Blocks(
        integers,
        np.empty(0, np.int32),
        integers,
        np.empty(0, vectors.dtype),
        integers,
        np.empty((0, 0, 0), np.int64),
    )
    return blocks, np.empty((0, 0), vectors.dtype), np.empty(0, np.int8)


@njit
def _assign_slots(i: int, reach: float, pairs: NeighborPairs, work: Work, blocks: Blocks) -> None:
    """Find the place of each neighbour's atom in the blocks of atom i; images of an atom share
    one."""
    element, offsets, neighbors, vectors = pairs
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements):
        work.segment[e] = 0
    last, slot = i, -1
    for p in range(offsets[i], offsets[i + 1]):
        a = neighbors[p]
        r2 = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
        if a == i or r2 >= reach * reach:
            work.pair_slot[p - offsets[i]] = -1
            continue
        if a != last:
            e = element[a]
            slot = work.segment[e]
            work.segment[e] = slot + 1
            blocks.atoms[blocks.atom_start[i * n_elements + e] + slot] = a
            last = a
        work.pair_slot[p - offsets[i]] = slot


@njit
def _gather(
    mode: int,
    i: int,
    pairs: NeighborPairs,
    weights: np.ndarray,
    cutoff: Cutoff,
    velocities: np.ndarray,
    work: Work,
) -> None:
    """Gather the neighbours of atom i within the cutoff, ordered by element."""
    element, offsets, neighbors, vectors = pairs
    near, segment = work.near, work.segment
    cutoff2 = cutoff.radius * cutoff.radius
    n_elements = segment.shape[0] - 1
    for e in range(n_elements + 1):
        segment[e] = 0
    for p in range(offsets[i], offsets[i + 1]):
        r2 = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
        if r2 < cutoff2:
            segment[element[neighbors[p]] + 1] += 1
    for e in range(n_elements):
        segment[e + 1] += segment[e]
    for p in range(offsets[i], offsets[i + 1]):
        r2 = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
        if r2 < cutoff2:
            e = element[neighbors[p]]
            # segment[e] runs from the start of element e to its end, and is put back below.
            j = segment[e]
            segment[e] = j + 1
            work.pair[j] = p
            if mode == DERIVATIVES:
                work.slot[j] = work.pair_slot[p - offsets[i]]
            near[NEAR_X, j] = vectors[p, 0]
            near[NEAR_Y, j] = vectors[p, 1]
            near[NEAR_Z, j] = vectors[p, 2]
            near[NEAR_R2, j] = r2
            near[NEAR_WEIGHT, j] = weights[e]
            if mode == DIRECTIONAL:
                a = neighbors[p]
                near[NEAR_VX, j] = velocities[a, 0] - velocities[i, 0]
                near[NEAR_VY, j] = velocities[a, 1] - velocities[i, 1]
                near[NEAR_VZ, j] = velocities[a, 2] - velocities[i, 2]
    for e in range(n_elements, 0, -1):
        segment[e] = segment[e - 1]
    segment[0] = 0


@njit
def _cutoff_functions(functions: Angular, cutoff: Cutoff, work: Work) -> None:
    """Compute r, 1/r, the cutoff function and its derivative of the gathered neighbours."""
    near, rows, one = work.near, work.rows, work.near.dtype.type(1.0)
    n = work.segment[work.segment.shape[0] - 1]
    for j in range(n):
        r = math.sqrt(near[NEAR_R2, j])
        near[NEAR_R, j] = r
        near[NEAR_INVERSE_R, j] = one / r
    factor = angular.PairFactor(
        cutoff, functions.cutoff_even != 0, 0, functions.cutoff_terms, False
    )
    for first in range(0, n, lanes.WIDTH):
        m = min(lanes.WIDTH, n - first)
        for j in range(m):
            rows[lanes.LANE_S * lanes.WIDTH + j] = near[NEAR_R2, first + j]
        coefficients = functions.coefficients
        angular.cutoff_of_pairs(rows, 0, m, factor, coefficients, True)
        for j in range(m):
            r = near[NEAR_R, first + j]
            near[NEAR_FC, first + j] = rows[lanes.LANE_F * lanes.WIDTH + j]
            near[NEAR_FC_SLOPE, first + j] = (r + r) * rows[lanes.LANE_F_SLOPE * lanes.WIDTH + j]


@njit
def _choose_lanes(mode: int, i: int, neighbors: np.ndarray, wanted: np.ndarray, work: Work) -> None:
    """Choose which of the gathered neighbours become lanes: those that are wanted, all of them
    where the central atom itself is."""
    segment, chosen, chosen_segment = work.segment, work.chosen, work.chosen_segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    everything = wanted.shape[0] == 0 or wanted[i] != 0
    if not everything and mode == DIRECTIONAL:
        n_chosen = 0
        for j in range(n):
            n_chosen += wanted[neighbors[work.pair[j]]]
        # Each unordered pair of all is then less work than each ordered pair with one of these.
        everything = 2 * n_chosen > n
    n_chosen = 0
    for e in range(n_elements):
        chosen_segment[e] = n_chosen
        for j in range(segment[e], segment[e + 1]):
            if everything or wanted[neighbors[work.pair[j]]] != 0:
                chosen[n_chosen] = j
                n_chosen += 1
    chosen_segment[n_elements] = n_chosen


@njit
def _radial(
    mode: int,
    i: int,
    functions: Radial,
    sphere: int,
    work: Work,
    values: np.ndarray,
    blocks: Blocks,
    weights: np.ndarray,
    pair_gradients: np.ndarray,
) -> None:
    """Compute G1, G2 and G3 of atom i within the cutoff; `mode` says what is written, and where.

    Rows 2f and 2f + 1 of `Work.radial` have h and dh/dr of function f, h(r) fc(r), for every
    neighbour.
    """
    near, table = work.near, work.radial
    n_elements = work.segment.shape[0] - 1
    total = table[table.shape[0] - 1]
    for e in range(n_elements):
        low, high = work.segment[e], work.segment[e + 1]
        if low == high:
            continue
        # The functions of this element, and those of all neighbours.
        for channel in (e, n_elements):
            own = sphere * (n_elements + 1) + channel
            first, last = functions.start[own], functions.start[own + 1]
            if first == last:
                continue
            for k in range(first, last):
                _radial_terms(functions, k, 2 * (k - first), low, high, work)
            if mode == VALUES:
                for k in range(first, last):
                    row, added = 2 * (k - first), near.dtype.type(0.0)
                    for j in range(high - low):
                        q = lanes.lane(low, j)
                        added += table[row, q] * near[NEAR_FC, q]
                    if channel == n_elements:
                        added *= near[NEAR_WEIGHT, low]
                    values[i, functions.feature[k]] += added
                continue
            if mode == PAIR_GRADIENTS:
                for j in range(low, high):
                    total[j] = near.dtype.type(0.0)
                for k in range(first, last):
                    row, weight = 2 * (k - first), weights[i, functions.feature[k]]
                    if channel == n_elements:
                        weight *= near[NEAR_WEIGHT, low]
                    for j in range(high - low):
                        q = lanes.lane(low, j)
                        total[q] += weight * (
                            table[row, q] * near[NEAR_FC_SLOPE, q]
                            + table[row + 1, q] * near[NEAR_FC, q]
                        )
                for j in range(low, high):
                    p, factor = work.pair[j], total[j] * near[NEAR_INVERSE_R, j]
                    pair_gradients[p, 0] += factor * near[NEAR_X, j]
                    pair_gradients[p, 1] += factor * near[NEAR_Y, j]
                    pair_gradients[p, 2] += factor * near[NEAR_Z, j]
                continue
            for place in range(work.chosen_segment[e], work.chosen_segment[e + 1]):
                j = work.chosen[place]
                fc, dfc = near[NEAR_FC, j], near[NEAR_FC_SLOPE, j]
                x, y, z = near[NEAR_X, j], near[NEAR_Y, j], near[NEAR_Z, j]
                if channel == n_elements:
                    fc *= near[NEAR_WEIGHT, j]
                    dfc *= near[NEAR_WEIGHT, j]
                for k in range(first, last):
                    feature, row = functions.feature[k], 2 * (k - first)
                    slope = table[row, j] * dfc + table[row + 1, j] * fc
                    if mode == DIRECTIONAL:
                        along = near[NEAR_VX, j] * x + near[NEAR_VY, j] * y + near[NEAR_VZ, j] * z
                        values[i, feature] += slope * near[NEAR_INVERSE_R, j] * along
                    else:
                        values[i, feature] += table[row, j] * fc
                        if work.slot[j] >= 0:
                            factor = slope * near[NEAR_INVERSE_R, j]
                            at, step = block_place(blocks, i, e, feature)
                            at += 3 * work.slot[j] * step
                            blocks.values[at] += factor * x
                            blocks.values[at + step] += factor * y
                            blocks.values[at + 2 * step] += factor * z


@njit
def _radial_terms(functions: Radial, k: int, row: int, low: int, high: int, work: Work) -> None:
    """Compute h and dh/dr of function k for the neighbours `low:high`."""
    near, table, eta, shift = work.near, work.radial, functions.eta[k], functions.shift[k]
    if functions.kind[k] == 2:
        start = lanes.LANES * (low // lanes.LANES)
        n = lanes.LANES * lanes.lane_groups_of(high - start)
        farthest = near.dtype.type(0.0)
        for j in range(high - low):
            farthest = max(farthest, near[NEAR_R, lanes.lane(low, j)])
        passes = max(factors.passes_of(eta, shift, farthest), 1)
        factors.gaussians(near, NEAR_R, start, n, eta, shift, passes, table, row)
    elif functions.kind[k] == 1:
        for j in range(low, high):
            table[row, j] = near.dtype.type(1.0)
            table[row + 1, j] = near.dtype.type(0.0)
    else:
        for j in range(low, high):
            table[row, j] = math.cos(eta * near[NEAR_R, j])
            table[row + 1, j] = -eta * math.sin(eta * near[NEAR_R, j])
