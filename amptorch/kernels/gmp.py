"""Gaussian multipole features and their derivatives, central atom by central atom.

X. Lei, A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022).

Every feature is a quadratic form, or the root of one, of moments of the atoms around i, i included,

    A_cm = Σ_j ρ_c(r_ij²) Y_lm(r_ij),

with solid harmonics Y (`harmonics.py`) and radial functions ρ (`gmp_radial.py`). With B = ∂F/∂A the
derivative of a feature is that of a function of one neighbour alone, with s = r_j² and
h_c = Σ_m B_cm Y_lm(r_j),

    ∂F/∂r_j = Σ_c ∂/∂r_j [ρ_c h_c] = Σ_c ρ_c ∇h_c + 2 (dρ_c/ds) h_c r_j,

so that everything is linear in the number of neighbours. ∇h is a combination of the 2l−1 harmonics
of order l − 1 with coefficients that are computed once an atom, and h = r·∇h / l.

Loops run over lanes: the central atom and its neighbours, in the order of the neighbour list. Four
kernels, one for each purpose: see `symmetry_functions.py`.
"""

import math

import numpy as np

from amptorch.kernels._jit import inlined, inner, njit
from amptorch.kernels.gmp_radial import radial_functions
from amptorch.kernels.gmp_structures import (
    ATOM_R2,
    ATOM_VX,
    ATOM_VY,
    ATOM_VZ,
    ATOM_X,
    ATOM_Y,
    ATOM_Z,
    CHUNK,
    GROUP,
    N_ATOM_ROWS,
    ROOT,
    SIGNED,
    TILE,
    Features,
    Moments,
    Multipoles,
    MultipoleWork,
    RadialTable,
    Tiles,
)
from amptorch.kernels.harmonics import gradient_coefficients, solid_harmonics
from amptorch.kernels.structures import Blocks, NeighborPairs

# A root of less than this, relative to the moments it would be without cancellation, is rounding.
ROUNDING = 1e-26


@njit
def values(
    multipoles: Multipoles,
    table: RadialTable,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    out: np.ndarray,
) -> None:
    """Compute F of central atoms `start:stop` into out (N, S).

    Here and below: multipoles are the Multipoles, table the RadialTable, pairs the NeighborPairs;
    the element of an atom is its place in the table.
    """
    work = _workspace(multipoles, table, pairs.offsets, start, stop)
    none = np.empty((0, 3))
    for i in range(start, stop):
        n = _gather(False, i, multipoles.cutoff, pairs, none, work)
        _moments(False, multipoles, table, n, work)
        _features(False, i, multipoles.features, multipoles.moments, work, out)


@njit
def derivatives(
    multipoles: Multipoles,
    table: RadialTable,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    out: np.ndarray,
    blocks: Blocks,
) -> None:
    """Compute F into out (N, S) and ∂F/∂r into blocks (zeros on entry), one for all elements."""
    work = _workspace(multipoles, table, pairs.offsets, start, stop)
    none = np.empty((0, 3))
    for i in range(start, stop):
        n = _gather(False, i, multipoles.cutoff, pairs, none, work)
        _assign_slots(i, pairs.neighbors, n, work, blocks)
        _moments(True, multipoles, table, n, work)
        _features(True, i, multipoles.features, multipoles.moments, work, out)
        for chunk in range(_chunks(n)):
            m = min(CHUNK, n - chunk * CHUNK)
            for tile in range(multipoles.tiles.order.shape[0]):
                _tile_gradients(multipoles.tiles, tile, chunk, m, work)
                _add_to_block(multipoles.tiles, tile, i, work.slot[chunk], m, work.lanes, blocks)


@njit
def pair_gradients(
    multipoles: Multipoles,
    table: RadialTable,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    wanted: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute Σ_s g_is ∂F_is/∂r_ij into out (P, 3), zeros on entry, from weights g (N, S).

    wanted (N,): pairs of two atoms where it is 0 are left out; empty: all are wanted.
    """
    work = _workspace(multipoles, table, pairs.offsets, start, stop)
    none = np.empty((0, 3))
    unused = np.empty_like(weights[:1])
    for i in range(start, stop):
        n = _gather(False, i, multipoles.cutoff, pairs, none, work)
        _moments(True, multipoles, table, n, work)
        _features(True, 0, multipoles.features, multipoles.moments, work, unused)
        _weigh(multipoles.tiles, weights, i, work)
        n = _keep_wanted(i, wanted, pairs.neighbors, n, work)
        for chunk in range(_chunks(n)):
            m = min(CHUNK, n - chunk * CHUNK)
            for tile in range(multipoles.tiles.order.shape[0]):
                _tile_gradients(multipoles.tiles, tile, chunk, m, work)
                _add_to_pairs(
                    multipoles.tiles.n_columns[tile], work.pair[chunk], m, work.lanes, out
                )


@njit
def directional(
    multipoles: Multipoles,
    table: RadialTable,
    pairs: NeighborPairs,
    start: int,
    stop: int,
    moving: np.ndarray,
    velocities: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute J v, the derivative of F along velocities v (N, 3), into out (N, S), zeros on entry.

    moving (N,): 0 for atoms whose velocity is zero; empty: all may move.
    """
    work = _workspace(multipoles, table, pairs.offsets, start, stop)
    unused = np.empty_like(out[:1])
    for i in range(start, stop):
        n = _gather(True, i, multipoles.cutoff, pairs, velocities, work)
        _moments(True, multipoles, table, n, work)
        _features(True, 0, multipoles.features, multipoles.moments, work, unused)
        n = _keep_wanted(i, moving, pairs.neighbors, n, work)
        for chunk in range(_chunks(n)):
            m = min(CHUNK, n - chunk * CHUNK)
            for tile in range(multipoles.tiles.order.shape[0]):
                _tile_gradients(multipoles.tiles, tile, chunk, m, work)
                _add_directional(multipoles.tiles, tile, i, work.near[chunk], m, work.lanes, out)


@inner
def _chunks(n: int) -> int:
    """Return the number of chunks that hold n lanes."""
    return (n + CHUNK - 1) // CHUNK


@inner
def _workspace(
    multipoles: Multipoles, table: RadialTable, offsets: np.ndarray, start: int, stop: int
) -> MultipoleWork:
    """Return scratch for central atoms `start:stop`."""
    most = 1
    for i in range(start, stop):
        most = max(most, offsets[i + 1] - offsets[i] + 1)
    chunks = _chunks(most)
    return MultipoleWork(
        np.zeros((chunks, N_ATOM_ROWS, CHUNK)),
        np.zeros((chunks, CHUNK), np.int64),
        np.zeros((chunks, CHUNK), np.int64),
        np.zeros((chunks, CHUNK), np.int64),
        np.zeros((chunks, table.n_channels, CHUNK)),
        np.zeros((chunks, table.n_channels, CHUNK)),
        np.zeros((chunks, (multipoles.order + 1) ** 2, CHUNK)),
        np.zeros((2 * GROUP, table.n_channels)),
        np.zeros(multipoles.n_moments),
        np.zeros(table.n_channels),
        np.zeros(multipoles.n_derivatives),
        np.zeros((3, 2 * multipoles.order + 1)),
        np.zeros((3 * TILE, CHUNK)),
    )


@inner
def _gather(
    moving: bool,
    i: int,
    cutoff: float,
    pairs: NeighborPairs,
    velocities: np.ndarray,
    work: MultipoleWork,
) -> int:
    """Gather atom i and its neighbours within the cutoff as lanes; return their number."""
    element, offsets, neighbors, vectors = pairs
    near = work.near
    for q in range(N_ATOM_ROWS):
        near[0, q, 0] = 0.0
    work.pair[0, 0] = work.slot[0, 0] = -1
    work.element[0, 0] = element[i]
    n = 1
    for p in range(offsets[i], offsets[i + 1]):
        x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
        r2 = x * x + y * y + z * z
        if r2 < cutoff * cutoff:
            a = neighbors[p]
            chunk, j = n // CHUNK, n % CHUNK
            near[chunk, ATOM_X, j], near[chunk, ATOM_Y, j], near[chunk, ATOM_Z, j] = x, y, z
            near[chunk, ATOM_R2, j] = r2
            work.pair[chunk, j] = p
            work.element[chunk, j] = element[a]
            if moving:
                near[chunk, ATOM_VX, j] = velocities[a, 0] - velocities[i, 0]
                near[chunk, ATOM_VY, j] = velocities[a, 1] - velocities[i, 1]
                near[chunk, ATOM_VZ, j] = velocities[a, 2] - velocities[i, 2]
            n += 1
    return n


@inner
def _assign_slots(
    i: int, neighbors: np.ndarray, n: int, work: MultipoleWork, blocks: Blocks
) -> None:
    """Find the place of each lane's atom in the block of atom i; images of an atom share one."""
    last, slot = i, -1
    for k in range(1, n):
        chunk, j = k // CHUNK, k % CHUNK
        a = neighbors[work.pair[chunk, j]]
        if a == i:
            work.slot[chunk, j] = -1
            continue
        if a != last:
            slot += 1
            blocks.atoms[blocks.atom_start[i] + slot] = a
            last = a
        work.slot[chunk, j] = slot


@inner
def _keep_wanted(
    i: int, wanted: np.ndarray, neighbors: np.ndarray, n: int, work: MultipoleWork
) -> int:
    """Move the lanes of wanted atoms together, once the moments are there; returns their number.

    All are kept where the central atom is wanted, since its own derivative is minus their sum.
    """
    if wanted.shape[0] == 0 or wanted[i] != 0:
        return n
    kept = 0
    for k in range(1, n):
        chunk, j = k // CHUNK, k % CHUNK
        if wanted[neighbors[work.pair[chunk, j]]] == 0:
            continue
        to, q = kept // CHUNK, kept % CHUNK
        work.pair[to, q] = work.pair[chunk, j]
        for array in (work.near, work.rho, work.slope, work.harmonics):
            for row in range(array.shape[1]):
                array[to, row, q] = array[chunk, row, j]
        kept += 1
    return kept


@inner
def _moments(
    with_slope: bool, multipoles: Multipoles, table: RadialTable, n: int, work: MultipoleWork
) -> None:
    """Compute the moments of lanes 0 to n − 1, and what they would be without cancellation."""
    work.moment[:] = 0.0
    work.size[:] = 0.0
    for chunk in range(_chunks(n)):
        m = min(CHUNK, n - chunk * CHUNK)
        near, rho, harmonics = work.near[chunk], work.rho[chunk], work.harmonics[chunk]
        slope = work.slope[chunk]
        radial_functions(table, work.element[chunk], near, m, with_slope, work.piece, rho, slope)
        solid_harmonics(near, harmonics, multipoles.order, m)
        _add_moments(multipoles.moments, rho, harmonics, m, work.moment)
        if multipoles.roots:
            _add_sizes(multipoles.moments, rho, near, m, work.size)


@inner
def _add_moments(
    moments: Moments, rho: np.ndarray, harmonics: np.ndarray, m: int, out: np.ndarray
) -> None:
    """Add what lanes 0 to m − 1 contribute to the moments."""
    for g in range(moments.order.shape[0]):
        order, count = moments.order[g], moments.n_channels[g]
        for k in range(count):
            channel = moments.channel[g] + k
            for row in range(order * order, (order + 1) * (order + 1)):
                total = 0.0
                for j in range(m):
                    total += rho[channel, j] * harmonics[row, j]
                out[moments.start[g] + (row - order * order) * count + k] += total


@inner
def _add_sizes(
    moments: Moments, rho: np.ndarray, near: np.ndarray, m: int, out: np.ndarray
) -> None:
    """Add Σ_j ρ² r^(2l) of lanes 0 to m − 1."""
    for g in range(moments.order.shape[0]):
        for channel in range(moments.channel[g], moments.channel[g] + moments.n_channels[g]):
            total = 0.0
            for j in range(m):
                total += rho[channel, j] ** 2 * near[ATOM_R2, j] ** moments.order[g]
            out[channel] += total


@inner
def _features(
    with_derivatives: bool,
    i: int,
    features: Features,
    moments: Moments,
    work: MultipoleWork,
    out: np.ndarray,
) -> None:
    """Compute row i of out from the moments; with_derivatives, B too."""
    moment, derivative = work.moment, work.derivative
    if with_derivatives:
        derivative[:] = 0.0
    for g in range(features.kind.shape[0]):
        signed = features.kind[g] == SIGNED
        for k in range(features.n_columns[g]):
            value = 0.0
            for q in range(features.components[g], features.components[g + 1]):
                first, last = features.entries[q], features.entries[q + 1]
                component = 0.0
                for e in range(first, last):
                    component += features.coefficient[e] * moment[features.entry_moment[e] + k]
                value += component if signed else component * component
                if with_derivatives:
                    factor = 1.0 if signed else 2.0 * component
                    for e in range(first, last):
                        derivative[features.entry_term[e] + k] += factor * features.coefficient[e]
            if features.kind[g] == ROOT:
                square, value = value, math.sqrt(value)
                if with_derivatives:
                    size = 0.0
                    for u in range(features.terms[g], features.terms[g + 1]):
                        size += (
                            features.term_scale[u]
                            * work.size[moments.channel[features.term_moment[u]] + k]
                        )
                    # The derivative of the root of nothing is defined as nothing.
                    factor = 0.5 / value if square > ROUNDING * size else 0.0
                    for u in range(features.terms[g], features.terms[g + 1]):
                        for m in range(2 * moments.order[features.term_moment[u]] + 1):
                            derivative[features.term_start[u] + m * features.n_columns[g] + k] *= (
                                factor
                            )
            out[i, features.first[g] + k] = value


@inner
def _weigh(tiles: Tiles, weights: np.ndarray, i: int, work: MultipoleWork) -> None:
    """Multiply B of every feature by its weight."""
    for tile in range(tiles.order.shape[0]):
        for m in range(2 * tiles.order[tile] + 1):
            row = tiles.start[tile] + m * tiles.step[tile]
            for q in range(tiles.n_columns[tile]):
                work.derivative[row + q] *= weights[i, tiles.feature[tile] + q]


@inner
def _tile_gradients(tiles: Tiles, tile: int, chunk: int, m: int, work: MultipoleWork) -> None:
    """Compute ∂/∂r [ρ h] of the columns of a tile in lanes 0 to m − 1 of a chunk."""
    near, y, lanes = work.near[chunk], work.harmonics[chunk], work.lanes
    rho, slope = work.rho[chunk], work.slope[chunk]
    order, e = tiles.order[tile], work.gradient
    row = (order - 1) * (order - 1)
    for q in range(tiles.n_columns[tile]):
        channel, start = tiles.channel[tile] + q, tiles.start[tile] + q
        if order == 0:
            _spherical(work.derivative[start], slope, channel, near, q, m, lanes)
            continue
        gradient_coefficients(work.derivative, start, tiles.step[tile], order, e)
        for j in range(m):
            w = y[row, j]
            lanes[q, j] = e[0, 0] * w
            lanes[TILE + q, j] = e[1, 0] * w
            lanes[2 * TILE + q, j] = e[2, 0] * w
        for k in range(1, 2 * order - 1, 2):
            _add_two_harmonics(e, k, y, row, q, m, lanes)
        _times_radial(rho, slope, channel, 2.0 / order, near, q, m, lanes)


@inlined
def _spherical(
    b: float, slope: np.ndarray, channel: int, near: np.ndarray, q: int, m: int, lanes: np.ndarray
) -> None:
    """Compute the gradient of order 0: 2 b (dρ/ds) r."""
    for j in range(m):
        radial = 2.0 * b * slope[channel, j]
        lanes[q, j] = radial * near[ATOM_X, j]
        lanes[TILE + q, j] = radial * near[ATOM_Y, j]
        lanes[2 * TILE + q, j] = radial * near[ATOM_Z, j]


@inlined
def _add_two_harmonics(
    e: np.ndarray, k: int, y: np.ndarray, row: int, q: int, m: int, lanes: np.ndarray
) -> None:
    """Add the terms of harmonics k and k + 1 to ∇h."""
    x0, y0, z0 = e[0, k], e[1, k], e[2, k]
    x1, y1, z1 = e[0, k + 1], e[1, k + 1], e[2, k + 1]
    for j in range(m):
        c, s = y[row + k, j], y[row + k + 1, j]
        lanes[q, j] += x0 * c + x1 * s
        lanes[TILE + q, j] += y0 * c + y1 * s
        lanes[2 * TILE + q, j] += z0 * c + z1 * s


@inlined
def _times_radial(
    rho: np.ndarray,
    slope: np.ndarray,
    channel: int,
    two_over_order: float,
    near: np.ndarray,
    q: int,
    m: int,
    lanes: np.ndarray,
) -> None:
    """Turn ∇h into ρ ∇h + 2 (dρ/ds) h r with h = r·∇h / l."""
    for j in range(m):
        gx, gy, gz = lanes[q, j], lanes[TILE + q, j], lanes[2 * TILE + q, j]
        rx, ry, rz = near[ATOM_X, j], near[ATOM_Y, j], near[ATOM_Z, j]
        w = rho[channel, j]
        radial = two_over_order * slope[channel, j] * (gx * rx + gy * ry + gz * rz)
        lanes[q, j] = w * gx + radial * rx
        lanes[TILE + q, j] = w * gy + radial * ry
        lanes[2 * TILE + q, j] = w * gz + radial * rz


@inner
def _add_to_block(
    tiles: Tiles, tile: int, i: int, slots: np.ndarray, m: int, lanes: np.ndarray, blocks: Blocks
) -> None:
    """Add the gradients of a tile to the block of atom i."""
    n_features = blocks.feature_row.shape[2]
    count = tiles.n_columns[tile]
    for j in range(m):
        if slots[j] >= 0:
            at = blocks.value_start[i] + 3 * slots[j] * n_features + tiles.feature[tile]
            for axis in range(3):
                for q in range(count):
                    blocks.values[at + q] += lanes[axis * TILE + q, j]
                at += n_features


@inner
def _add_to_pairs(
    count: int, pairs: np.ndarray, m: int, lanes: np.ndarray, out: np.ndarray
) -> None:
    """Add the gradients of all columns of a tile to those of the pairs."""
    for q in range(1, count):
        for axis in range(3):
            for j in range(m):
                lanes[axis * TILE, j] += lanes[axis * TILE + q, j]
    for j in range(m):
        if pairs[j] >= 0:
            out[pairs[j], 0] += lanes[0, j]
            out[pairs[j], 1] += lanes[TILE, j]
            out[pairs[j], 2] += lanes[2 * TILE, j]


@inner
def _add_directional(
    tiles: Tiles, tile: int, i: int, near: np.ndarray, m: int, lanes: np.ndarray, out: np.ndarray
) -> None:
    """Add the gradients of a tile times the relative velocities to row i of out."""
    for q in range(tiles.n_columns[tile]):
        total = 0.0
        for j in range(m):
            total += (
                lanes[q, j] * near[ATOM_VX, j]
                + lanes[TILE + q, j] * near[ATOM_VY, j]
                + lanes[2 * TILE + q, j] * near[ATOM_VZ, j]
            )
        out[i, tiles.feature[tile] + q] += total
