"""Symmetry functions G1-G5 and their derivatives, central atom by central atom.

J. Behler, J. Chem. Phys. 134, 074106 (2011); Int. J. Quantum Chem. 115, 1032 (2015).

Four kernels, one for each purpose: G; G and blocks ∂G_i/∂r_a that are kept; Σ_s g_is ∂G_is/∂r_ij
of every pair, from weights g = ∂E/∂G; and J v, the derivative of G along velocities of the atoms.

For a central atom the neighbours within one cutoff are gathered in a row, ordered by element;
radial functions run along it, angular functions over its pairs (`lanes.py`), grouped by η, so that
distances, angles and cutoffs are computed once a group.
"""

import math

import numpy as np

from amptorch.kernels import angular, lanes, moments
from amptorch.kernels._jit import njit
from amptorch.kernels.cutoffs import cutoff_function
from amptorch.kernels.structures import (
    DERIVATIVES,
    DFC,
    DIRECTIONAL,
    FC,
    N_FIELDS,
    PAIR_GRADIENTS,
    R2,
    RINV,
    VALUES,
    VX,
    VY,
    VZ,
    Blocks,
    R,
    Work,
    X,
    Y,
    Z,
    block_place,
)


@njit
def count_block_atoms(reach, element, offsets, neighbors, vectors, start, stop, counts, present):
    """What stands within `reach[element of i]` of atoms i = `start:stop`.

    counts[i, e]: distinct atoms of element e other than i; present[i, e]: whether there are any,
    images of i included. Both zeros on entry.
    """
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
def values(f, element, offsets, neighbors, vectors, start, stop, out):
    """G of central atoms `start:stop` into out (N, S), zeros on entry.

    Here and below: element (N,) is the position of each atom's element in the order of the
    features; offsets, neighbors, vectors are the neighbour list; f the Functions.
    """
    work = _workspace(f, offsets, vectors, start, stop)
    kind, gamma = f.angular.cutoff_kind, f.angular.cutoff_gamma
    blocks, none, all_wanted = _nothing(vectors)
    for i in range(start, stop):
        centre = element[i]
        for q in range(f.cutoff_start[centre], f.cutoff_start[centre + 1]):
            cutoff = f.cutoffs[q]
            _gather(
                VALUES, i, cutoff, kind, gamma, element, offsets, neighbors, vectors, none, work
            )
            _choose_lanes(VALUES, i, neighbors, all_wanted, work)
            _radial(VALUES, i, f.radial, q, work, out, blocks, none, none)
            for h in range(f.group_start[q], f.group_start[q + 1]):
                angular.envelope(f.angular, cutoff, h, work)
                angular.values(i, f.angular, cutoff, h, work, out)


@njit
def derivatives(f, reach, element, offsets, neighbors, vectors, start, stop, out, blocks):
    """G into out (N, S) and ∂G/∂r into blocks, both zeros on entry.

    reach (E,): largest cutoff of each central element, as in `count_block_atoms`.
    """
    work = _workspace(f, offsets, vectors, start, stop)
    kind, gamma = f.angular.cutoff_kind, f.angular.cutoff_gamma
    _, none, all_wanted = _nothing(vectors)
    for i in range(start, stop):
        centre = element[i]
        _assign_slots(i, reach[centre], element, offsets, neighbors, vectors, work, blocks)
        for q in range(f.cutoff_start[centre], f.cutoff_start[centre + 1]):
            cutoff = f.cutoffs[q]
            _gather(
                DERIVATIVES,
                i,
                cutoff,
                kind,
                gamma,
                element,
                offsets,
                neighbors,
                vectors,
                none,
                work,
            )
            _choose_lanes(DERIVATIVES, i, neighbors, all_wanted, work)
            _radial(DERIVATIVES, i, f.radial, q, work, out, blocks, none, none)
            for h in range(f.group_start[q], f.group_start[q + 1]):
                angular.envelope(f.angular, cutoff, h, work)
                angular.derivatives(i, f.angular, cutoff, h, work, out, blocks)


@njit
def pair_gradients(f, element, offsets, neighbors, vectors, start, stop, wanted, weights, out):
    """Σ_s g_is ∂G_is/∂r_ij into out (P, 3), zeros on entry, from weights g (N, S).

    wanted (N,): pairs of two atoms where it is 0 may be left out; empty: all are wanted.
    """
    work = _workspace(f, offsets, vectors, start, stop)
    kind, gamma = f.angular.cutoff_kind, f.angular.cutoff_gamma
    blocks, none, _ = _nothing(vectors)
    for i in range(start, stop):
        centre = element[i]
        for q in range(f.cutoff_start[centre], f.cutoff_start[centre + 1]):
            cutoff = f.cutoffs[q]
            _gather(
                PAIR_GRADIENTS,
                i,
                cutoff,
                kind,
                gamma,
                element,
                offsets,
                neighbors,
                vectors,
                none,
                work,
            )
            _choose_lanes(PAIR_GRADIENTS, i, neighbors, wanted, work)
            _radial(PAIR_GRADIENTS, i, f.radial, q, work, none, blocks, weights, out)
            for h in range(f.group_start[q], f.group_start[q + 1]):
                angular.envelope(f.angular, cutoff, h, work)
                angular.pair_gradients(i, f.angular, cutoff, h, work, weights, out)


@njit
def directional(f, element, offsets, neighbors, vectors, start, stop, moving, velocities, out):
    """J v, the derivative of G along velocities v (N, 3), into out (N, S), zeros on entry.

    moving (N,): 0 for atoms whose velocity is zero; empty: all may move.
    """
    work = _workspace(f, offsets, vectors, start, stop)
    kind, gamma = f.angular.cutoff_kind, f.angular.cutoff_gamma
    blocks, none, _ = _nothing(vectors)
    for i in range(start, stop):
        centre = element[i]
        for q in range(f.cutoff_start[centre], f.cutoff_start[centre + 1]):
            cutoff = f.cutoffs[q]
            _gather(
                DIRECTIONAL,
                i,
                cutoff,
                kind,
                gamma,
                element,
                offsets,
                neighbors,
                vectors,
                velocities,
                work,
            )
            _choose_lanes(DIRECTIONAL, i, neighbors, moving, work)
            _radial(DIRECTIONAL, i, f.radial, q, work, out, blocks, none, none)
            for h in range(f.group_start[q], f.group_start[q + 1]):
                angular.envelope(f.angular, cutoff, h, work)
                angular.directional(i, f.angular, cutoff, h, work, out)


@njit
def _workspace(f, offsets, vectors, start, stop):
    """Scratch for central atoms `start:stop`."""
    n_elements = f.n_elements
    capacity = 1
    for i in range(start, stop):
        capacity = max(capacity, offsets[i + 1] - offsets[i])
    n_shapes = 1
    shape_start = f.angular.shape_start
    for h in range(shape_start.shape[0] - 1):
        n_shapes = max(n_shapes, shape_start[h + 1] - shape_start[h])
    dtype = vectors.dtype
    return Work(
        np.empty((N_FIELDS, capacity), dtype),
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(capacity, np.int64),
        np.empty(n_elements + 1, np.int64),
        np.empty(capacity, np.int64),
        _aligned(1, lanes.N_ROWS * lanes.WIDTH, vectors)[0],
        _aligned(n_shapes, lanes.PER_FUNCTION * lanes.WIDTH, vectors),
        _aligned(n_shapes, lanes.WIDTH, vectors),
        _aligned(moments.N_MONOMIALS, lanes.WIDTH, vectors),
        np.empty((n_elements, moments.N_MONOMIALS), dtype),
        np.empty((1, moments.N_MONOMIALS), dtype),
    )


@njit
def _aligned(n_rows, n_columns, like):
    """Zeros of the type of `like`, from the start of a cache line on."""
    size = n_rows * n_columns
    room = np.zeros(size + 64 // like.itemsize, like.dtype)
    first = (64 - int(room.ctypes.data) % 64) // like.itemsize
    return room[first : first + size].reshape((n_rows, n_columns))


@njit
def _nothing(vectors):
    """Empty blocks, an empty array and empty flags, for what a purpose does not use."""
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
def _assign_slots(i, reach, element, offsets, neighbors, vectors, work, blocks):
    """Place of each neighbour's atom in the blocks of atom i; images of an atom share one."""
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
def _gather(mode, i, cutoff, kind, gamma, element, offsets, neighbors, vectors, velocities, work):
    """Neighbours of atom i within the cutoff, ordered by element."""
    row, segment = work.row, work.segment
    cutoff2 = cutoff * cutoff
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
            row[X, j], row[Y, j], row[Z, j] = vectors[p, 0], vectors[p, 1], vectors[p, 2]
            row[R2, j] = r2
            r = math.sqrt(r2)
            row[R, j] = r
            row[RINV, j] = row.dtype.type(1.0) / r
            fc, slope = cutoff_function(kind, gamma, r, cutoff)
            row[FC, j], row[DFC, j] = fc, slope
            if mode == DIRECTIONAL:
                a = neighbors[p]
                row[VX, j] = velocities[a, 0] - velocities[i, 0]
                row[VY, j] = velocities[a, 1] - velocities[i, 1]
                row[VZ, j] = velocities[a, 2] - velocities[i, 2]
    for e in range(n_elements, 0, -1):
        segment[e] = segment[e - 1]
    segment[0] = 0


@njit
def _choose_lanes(mode, i, neighbors, wanted, work):
    """Which of the gathered neighbours become lanes: those that are wanted, all of them where the
    central atom itself is."""
    segment, lane, lane_segment = work.segment, work.lane, work.lane_segment
    n_elements = segment.shape[0] - 1
    n = segment[n_elements]
    everything = wanted.shape[0] == 0 or wanted[i] != 0
    if not everything and mode == DIRECTIONAL:
        chosen = 0
        for j in range(n):
            chosen += wanted[neighbors[work.pair[j]]]
        # Each unordered pair of all is then less work than each ordered pair with one of these.
        everything = 2 * chosen > n
    chosen = 0
    for e in range(n_elements):
        lane_segment[e] = chosen
        for j in range(segment[e], segment[e + 1]):
            if everything or wanted[neighbors[work.pair[j]]] != 0:
                lane[chosen] = j
                chosen += 1
    lane_segment[n_elements] = chosen


@njit
def _radial(mode, i, f, q, work, values, blocks, weights, pair_gradients):
    """G1, G2 and G3 of atom i within cutoff q; `mode` says what is written, and where."""
    row = work.row
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements):
        first, last = f.start[q * n_elements + e], f.start[q * n_elements + e + 1]
        if first == last:
            continue
        for place in range(work.lane_segment[e], work.lane_segment[e + 1]):
            j = work.lane[place]
            r, fc, dfc = row[R, j], row[FC, j], row[DFC, j]
            x, y, z = row[X, j], row[Y, j], row[Z, j]
            total = row.dtype.type(0.0)
            for k in range(first, last):
                eta, feature = f.eta[k], f.feature[k]
                if f.kind[k] == 2:
                    d = r - f.shift[k]
                    gaussian = math.exp(-eta * d * d)
                    value = gaussian * fc
                    slope = gaussian * (dfc - (eta + eta) * d * fc)
                elif f.kind[k] == 1:
                    value, slope = fc, dfc
                else:
                    cosine = math.cos(eta * r)
                    value = cosine * fc
                    slope = cosine * dfc - eta * math.sin(eta * r) * fc
                if mode == DIRECTIONAL:
                    along = row[VX, j] * x + row[VY, j] * y + row[VZ, j] * z
                    values[i, feature] += slope * row[RINV, j] * along
                elif mode == PAIR_GRADIENTS:
                    total += weights[i, feature] * slope
                else:
                    values[i, feature] += value
                    if mode == DERIVATIVES and work.slot[j] >= 0:
                        factor = slope * row[RINV, j]
                        at, step = block_place(blocks, i, e, feature)
                        at += 3 * work.slot[j] * step
                        blocks.values[at] += factor * x
                        blocks.values[at + step] += factor * y
                        blocks.values[at + 2 * step] += factor * z
            if mode == PAIR_GRADIENTS:
                p = work.pair[j]
                total *= row[RINV, j]
                pair_gradients[p, 0] += total * x
                pair_gradients[p, 1] += total * y
                pair_gradients[p, 2] += total * z
