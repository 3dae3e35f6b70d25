"""Symmetry functions and their derivatives, central atom by central atom.

J. Behler, J. Chem. Phys. 134, 074106 (2011); Int. J. Quantum Chem. 115, 1032 (2015).

Four kernels, one for each purpose: G; G and blocks ∂G_i/∂r_a that are kept; Σ_s g_is ∂G_is/∂r_ij
of every pair, from weights g = ∂E/∂G; and J v, the derivative of G along velocities of the atoms.

For a central atom the neighbours within one cutoff are gathered in a row, ordered by element;
radial functions run along it, angular functions over its pairs (`lanes.py`), grouped by η, so that
distances, angles and cutoffs are computed once a group.
"""

import math
from typing import NamedTuple

import numpy as np

from amptorch.kernels import angular, lanes, moments, radial, unordered
from amptorch.kernels._jit import inner, njit
from amptorch.kernels.cutoffs import Cutoff
from amptorch.kernels.structures import (
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
    Angular,
    Blocks,
    Functions,
    NeighborPairs,
    Work,
)


class Sizes(NamedTuple):
    """Hold what a `workspace` has room for, besides neighbours: the most in one sphere."""

    elements: int
    groups: int
    shapes: int
    radial: int
    monomials: int


def sizes_of(functions: Functions) -> Sizes:
    """Return what a `workspace` for these functions needs."""
    shape_start, group_start = functions.angular.shape_start, functions.group_start

    def most(start: np.ndarray) -> int:
        return int(np.diff(start).max(initial=1))

    return Sizes(
        elements=len(functions.weight),
        groups=most(group_start),
        shapes=most(shape_start[group_start]),
        radial=most(functions.radial.start),
        monomials=1 if functions.angular.moments is None else moments.N_MONOMIALS,
    )


def workspace(sizes: Sizes, neighbors: int, dtype: np.dtype) -> Work:
    """Return scratch of one thread, for central atoms with at most so many neighbours."""
    n_elements, n_groups, n_shapes, n_radial, n_monomials = sizes
    # Whole groups of lanes, and one more where a segment begins within a group.
    capacity = lanes.LANES * (-(-max(neighbors, 1) // lanes.LANES) + 1)

    def integers(n: int) -> np.ndarray:
        return np.zeros(n, dtype=np.int64)

    def rows(n: int, width: int) -> np.ndarray:
        return np.zeros((n, width), dtype=dtype)

    def aligned(n: int, width: int) -> np.ndarray:
        # From the start of a cache line on.
        room = np.zeros(n * width + 64 // dtype.itemsize, dtype=dtype)
        first = (-room.__array_interface__["data"][0] % 64) // dtype.itemsize
        return room[first : first + n * width].reshape(n, width)

    return Work(
        near=rows(N_NEAR_ROWS, capacity),
        pair=integers(capacity),
        slot=integers(capacity),
        segment=integers(n_elements + 1),
        chosen=integers(capacity),
        chosen_segment=integers(n_elements + 1),
        channel=integers(n_elements + 1),
        chosen_channel=integers(n_elements + 1),
        pair_slot=integers(capacity),
        rows=aligned(1, lanes.N_LANE_ROWS * lanes.WIDTH)[0],
        sums=aligned(n_shapes, lanes.PER_FUNCTION * lanes.WIDTH),
        monomials=aligned(n_monomials, lanes.WIDTH),
        moment=rows(n_elements, n_monomials),
        polynomial=rows(1, n_monomials),
        radial=rows(2 * n_radial + 1, capacity),
        envelope=rows(2 * n_groups, capacity),
        table=aligned(unordered.TABLE_ROWS * n_groups + n_shapes, lanes.WIDTH),
        plan=integers(n_groups * unordered.N_PLAN).reshape(n_groups, unordered.N_PLAN),
        pull=rows(3, capacity),
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
    functions: Functions,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    work: Work,
    out: np.ndarray,
) -> None:
    """Compute G of central atoms `start:stop` into out (N, S), zeros on entry.

    Here and below: functions are the Functions, pairs the NeighborPairs, work a `workspace`; the
    element of an atom is its place in the order of the features.
    """
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(i, pairs, functions.weight, cutoff, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_all(work)
            radial.values(i, functions.radial, sphere, work, out)
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
    work: Work,
    out: np.ndarray,
    blocks: Blocks,
) -> None:
    """Compute G into out (N, S) and ∂G/∂r into blocks, both zeros on entry.

    reach (E,): largest cutoff of each central element, as in `count_block_atoms`.
    """
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    for i in range(start, stop):
        centre = pairs.element[i]
        _assign_slots(i, reach[centre], pairs, work, blocks)
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(i, pairs, functions.weight, cutoff, work)
            for j in range(work.segment[work.segment.shape[0] - 1]):
                work.slot[j] = work.pair_slot[work.pair[j] - pairs.offsets[i]]
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_all(work)
            radial.derivatives(i, functions.radial, sphere, work, out, blocks)
            for group in range(group_start[sphere], group_start[sphere + 1]):
                angular.envelope(functions.angular, cutoff, group, work)
                angular.derivatives(i, functions.angular, cutoff, group, work, out, blocks)


@njit
def pair_gradients(
    functions: Functions,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    work: Work,
    wanted: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute Σ_s g_is ∂G_is/∂r_ij into out (P, 3), zeros on entry, from weights g (N, S).

    wanted (N,): pairs of two atoms where it is 0 may be left out; empty: all are wanted.
    """
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(i, pairs, functions.weight, cutoff, work)
            _cutoff_functions(functions.angular, cutoff, work)
            _choose_wanted(i, pairs.neighbors, wanted, 1.0, work)
            radial.pair_gradients(i, functions.radial, sphere, work, weights, out)
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
    work: Work,
    moving: np.ndarray,
    velocities: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute J v, the derivative of G along velocities v (N, 3), into out (N, S), zeros on entry.

    moving (N,): 0 for atoms whose velocity is zero; empty: all may move.
    """
    cutoff_start, group_start = functions.cutoff_start, functions.group_start
    for i in range(start, stop):
        centre = pairs.element[i]
        for sphere in range(cutoff_start[centre], cutoff_start[centre + 1]):
            cutoff = _cutoff(functions, sphere)
            _gather(i, pairs, functions.weight, cutoff, work)
            _velocities(i, pairs.neighbors, velocities, work)
            _cutoff_functions(functions.angular, cutoff, work)
            # Each unordered pair of all is less work than each ordered pair with one of these.
            _choose_wanted(i, pairs.neighbors, moving, 0.5, work)
            radial.directional(i, functions.radial, sphere, work, out)
            for group in range(group_start[sphere], group_start[sphere + 1]):
                angular.envelope(functions.angular, cutoff, group, work)
                angular.directional(i, functions.angular, cutoff, group, work, out)


@inner
def _cutoff(functions: Functions, sphere: int) -> Cutoff:
    """Return the cutoff function of a sphere of neighbours, one for each radius of a central
    element."""
    angular, radius = functions.angular, functions.cutoffs[sphere]
    inner = angular.cutoff_alpha * radius
    return Cutoff(angular.cutoff_kind, angular.cutoff_gamma, inner, radius)


@inner
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


@inner
def _gather(i: int, pairs: NeighborPairs, weights: np.ndarray, cutoff: Cutoff, work: Work) -> None:
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
            near[NEAR_X, j] = vectors[p, 0]
            near[NEAR_Y, j] = vectors[p, 1]
            near[NEAR_Z, j] = vectors[p, 2]
            near[NEAR_R2, j] = r2
            near[NEAR_WEIGHT, j] = weights[e]
    for e in range(n_elements, 0, -1):
        segment[e] = segment[e - 1]
    segment[0] = 0


@inner
def _velocities(i: int, neighbors: np.ndarray, velocities: np.ndarray, work: Work) -> None:
    """Gather the velocities of the neighbours relative to atom i."""
    near = work.near
    for j in range(work.segment[work.segment.shape[0] - 1]):
        a = neighbors[work.pair[j]]
        near[NEAR_VX, j] = velocities[a, 0] - velocities[i, 0]
        near[NEAR_VY, j] = velocities[a, 1] - velocities[i, 1]
        near[NEAR_VZ, j] = velocities[a, 2] - velocities[i, 2]


@inner
def _cutoff_functions(functions: Angular, cutoff: Cutoff, work: Work) -> None:
    """Compute r, 1/r, the cutoff function and its derivative of the gathered neighbours."""
    near, rows, one = work.near, work.rows, work.near.dtype.type(1.0)
    n = work.segment[work.segment.shape[0] - 1]
    for j in range(n):
        r = math.sqrt(near[NEAR_R2, j])
        near[NEAR_R, j] = r
        near[NEAR_INVERSE_R, j] = one / r
    # Not a literal, of which numba would compile a version of its own.
    start = np.int64(0)
    factor = angular.PairFactor(
        cutoff, functions.cutoff_even != 0, 0, functions.cutoff_terms, False
    )
    for first in range(0, n, lanes.WIDTH):
        m = min(lanes.WIDTH, n - first)
        for j in range(m):
            rows[lanes.LANE_S * lanes.WIDTH + j] = near[NEAR_R2, first + j]
        coefficients = functions.coefficients
        angular.cutoff_of_pairs(rows, start, m, factor, coefficients, True)
        for j in range(m):
            r = near[NEAR_R, first + j]
            near[NEAR_FC, first + j] = rows[lanes.LANE_F * lanes.WIDTH + j]
            near[NEAR_FC_SLOPE, first + j] = (r + r) * rows[lanes.LANE_F_SLOPE * lanes.WIDTH + j]


@inner
def _choose_all(work: Work) -> None:
    """Choose all gathered neighbours as lanes."""
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements + 1):
        work.chosen_segment[e] = work.segment[e]
    for j in range(work.segment[n_elements]):
        work.chosen[j] = j


@inner
def _choose_wanted(
    i: int, neighbors: np.ndarray, wanted: np.ndarray, most: float, work: Work
) -> None:
    """Choose the gathered neighbours that are wanted as lanes; all of them where the central atom
    itself is, or more than the part `most` of them are."""
    segment, chosen, chosen_segment = work.segment, work.chosen, work.chosen_segment
    n_elements = segment.shape[0] - 1
    if wanted.shape[0] == 0 or wanted[i] != 0:
        _choose_all(work)
        return
    n_chosen = 0
    for e in range(n_elements):
        chosen_segment[e] = n_chosen
        for j in range(segment[e], segment[e + 1]):
            if wanted[neighbors[work.pair[j]]] != 0:
                chosen[n_chosen] = j
                n_chosen += 1
    chosen_segment[n_elements] = n_chosen
    if n_chosen > most * segment[n_elements]:
        _choose_all(work)
