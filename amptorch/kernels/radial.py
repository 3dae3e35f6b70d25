"""Radial symmetry functions within one cutoff around one central atom.

Rows 2f and 2f + 1 of `Work.radial` have h and dh/dr of function f, h(r) fc(r), for every neighbour.
Channel e < E has the functions of neighbours of element e, channel E those of all, with their
weights.
"""

import math

import numpy as np

from amptorch.kernels import factors, lanes
from amptorch.kernels._jit import inner
from amptorch.kernels.structures import (
    NEAR_FC,
    NEAR_FC_SLOPE,
    NEAR_INVERSE_R,
    NEAR_R,
    NEAR_VX,
    NEAR_VY,
    NEAR_VZ,
    NEAR_WEIGHT,
    NEAR_X,
    NEAR_Y,
    NEAR_Z,
    Blocks,
    Radial,
    Work,
    block_place,
)


@inner
def values(i: int, functions: Radial, sphere: int, work: Work, out: np.ndarray) -> None:
    """Add G1, G2 and G3 to row i of out."""
    near, table = work.near, work.radial
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements):
        low, high = work.segment[e], work.segment[e + 1]
        for channel in (e, n_elements):
            first, last = _terms(functions, sphere, channel, low, high, work)
            for k in range(first, last):
                row, added = 2 * (k - first), near.dtype.type(0.0)
                for j in range(high - low):
                    q = lanes.lane(low, j)
                    added += table[row, q] * near[NEAR_FC, q]
                if channel == n_elements:
                    added *= near[NEAR_WEIGHT, low]
                out[i, functions.feature[k]] += added


@inner
def derivatives(
    i: int, functions: Radial, sphere: int, work: Work, out: np.ndarray, blocks: Blocks
) -> None:
    """Do what `values` does, and add the derivatives to the blocks."""
    near, table = work.near, work.radial
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements):
        low, high = work.segment[e], work.segment[e + 1]
        for channel in (e, n_elements):
            first, last = _terms(functions, sphere, channel, low, high, work)
            for j in range(low, high):
                fc, dfc = near[NEAR_FC, j], near[NEAR_FC_SLOPE, j]
                x, y, z = near[NEAR_X, j], near[NEAR_Y, j], near[NEAR_Z, j]
                if channel == n_elements:
                    fc *= near[NEAR_WEIGHT, j]
                    dfc *= near[NEAR_WEIGHT, j]
                for k in range(first, last):
                    feature, row = functions.feature[k], 2 * (k - first)
                    out[i, feature] += table[row, j] * fc
                    if work.slot[j] >= 0:
                        factor = table[row, j] * dfc + table[row + 1, j] * fc
                        factor *= near[NEAR_INVERSE_R, j]
                        at, step = block_place(blocks, i, e, feature)
                        at += 3 * work.slot[j] * step
                        blocks.values[at] += factor * x
                        blocks.values[at + step] += factor * y
                        blocks.values[at + 2 * step] += factor * z


@inner
def pair_gradients(
    i: int, functions: Radial, sphere: int, work: Work, weights: np.ndarray, out: np.ndarray
) -> None:
    """Add the gradients of G1, G2 and G3 to those of the pairs."""
    near, table = work.near, work.radial
    n_elements = work.segment.shape[0] - 1
    total = table[table.shape[0] - 1]
    for e in range(n_elements):
        low, high = work.segment[e], work.segment[e + 1]
        for channel in (e, n_elements):
            first, last = _terms(functions, sphere, channel, low, high, work)
            if first == last:
                continue
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
                out[p, 0] += factor * near[NEAR_X, j]
                out[p, 1] += factor * near[NEAR_Y, j]
                out[p, 2] += factor * near[NEAR_Z, j]


@inner
def directional(i: int, functions: Radial, sphere: int, work: Work, out: np.ndarray) -> None:
    """Add J v of G1, G2 and G3 to row i of out, of the neighbours that are
    lanes."""
    near, table = work.near, work.radial
    n_elements = work.segment.shape[0] - 1
    for e in range(n_elements):
        low, high = work.segment[e], work.segment[e + 1]
        for channel in (e, n_elements):
            first, last = _terms(functions, sphere, channel, low, high, work)
            for place in range(work.chosen_segment[e], work.chosen_segment[e + 1]):
                j = work.chosen[place]
                fc, dfc = near[NEAR_FC, j], near[NEAR_FC_SLOPE, j]
                if channel == n_elements:
                    fc *= near[NEAR_WEIGHT, j]
                    dfc *= near[NEAR_WEIGHT, j]
                along = (
                    near[NEAR_VX, j] * near[NEAR_X, j]
                    + near[NEAR_VY, j] * near[NEAR_Y, j]
                    + near[NEAR_VZ, j] * near[NEAR_Z, j]
                ) * near[NEAR_INVERSE_R, j]
                for k in range(first, last):
                    row = 2 * (k - first)
                    slope = table[row, j] * dfc + table[row + 1, j] * fc
                    out[i, functions.feature[k]] += slope * along


@inner
def _terms(
    functions: Radial, sphere: int, channel: int, low: int, high: int, work: Work
) -> tuple[int, int]:
    """Compute h and dh/dr of the functions of a channel for the neighbours `low:high`; return the
    first function and the one after the last, the same without neighbours."""
    own = sphere * work.segment.shape[0] + channel
    first, last = functions.start[own], functions.start[own + 1]
    if low == high:
        return first, first
    for k in range(first, last):
        _term(functions, k, 2 * (k - first), low, high, work)
    return first, last


@inner
def _term(functions: Radial, k: int, row: int, low: int, high: int, work: Work) -> None:
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
