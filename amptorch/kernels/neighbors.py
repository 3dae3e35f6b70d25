"""Neighbour search: ghost atoms in a Cartesian grid of bins, linear in the number of atoms.

Atoms are wrapped into the cell along periodic directions, copied wherever an image can lie within
the cutoff of an atom (ghosts), and sorted into bins of about half the cutoff, x fastest, so that
the candidates of an atom are a few contiguous runs.

Everything is a plain loop: numba compiles loops several times faster than array expressions, and
these kernels stand between a new user and the first fingerprint.
"""

import math

import numpy as np

from amptorch.kernels._jit import inner, njit

# More bins than this per ghost atom only cost memory (atoms far apart in a large empty box).
_BINS_PER_GHOST = 4
# Neighbours an atom that arrays have room for before they are made longer.
_ROOM = 128


@njit
def expected_pairs(
    positions: np.ndarray, basis: np.ndarray, inverse: np.ndarray, pbc: np.ndarray, cutoff: float
) -> float:
    """Return the number of pairs in the list of one frame, as if atoms were spread evenly over what
    they, and their images within the cutoff, take up; arguments as of `search_frames`, of one
    frame."""
    n = positions.shape[0]
    images = 1.0
    volume = abs(
        basis[0, 0] * (basis[1, 1] * basis[2, 2] - basis[1, 2] * basis[2, 1])
        + basis[0, 1] * (basis[1, 2] * basis[2, 0] - basis[1, 0] * basis[2, 2])
        + basis[0, 2] * (basis[1, 0] * basis[2, 1] - basis[1, 1] * basis[2, 0])
    )
    for axis in range(3):
        if pbc[axis]:
            face = 0.0
            for k in range(3):
                face += inverse[k, axis] * inverse[k, axis]
            images *= 1.0 + 2.0 * cutoff * math.sqrt(face)
            continue
        low, high = np.inf, -np.inf
        for i in range(n):
            s = 0.0
            for k in range(3):
                s += positions[i, k] * inverse[k, axis]
            low, high = min(low, s), max(high, s)
        volume *= high - low
    sphere = 4.0 / 3.0 * math.pi * cutoff * cutoff * cutoff
    inside = sphere / (volume * images) if volume * images > sphere else 1.0
    return n * (n * images) * inside


@njit
def search_frames(
    positions: np.ndarray,
    bases: np.ndarray,
    inverses: np.ndarray,
    pbc: np.ndarray,
    order: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    cutoff: float,
    most: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Search the neighbours of all atoms of frames `first:last`.

    Arguments stand one by one: with the three of the cells in a NamedTuple a call took 3.5 µs more,
    5 % of what a molecule of three atoms takes.

    Parameters
    ----------
    positions : (N, 3) of all frames, concatenated; frame f holds atoms `offsets[f]:offsets[f+1]`.
    bases, inverses : (F, 3, 3)
        Cells, with independent vectors in the directions that are not periodic, and their inverses.
    pbc : (F, 3)
    order : (N,)
        The atoms of each frame in the order in which they shall stand in neighbour lists.
    cutoff : float
        Pairs with r < cutoff are listed, periodic images of the central atom itself included.
    most : float
        Nothing is searched where more pairs than this are to be expected.

    Returns
    -------
    counts (n_atoms of the range,), neighbors (P,) indices into the N atoms, shifts (3 P,), vectors
    (3 P,), the smallest distance squared, and the expected number of pairs.
    """
    n_atoms = offsets[last] - offsets[first]
    expected = 0.0
    for frame in range(first, last):
        own = positions[offsets[frame] : offsets[frame + 1]]
        expected += expected_pairs(own, bases[frame], inverses[frame], pbc[frame], cutoff)
    if expected > most:
        nothing, none = np.empty(0, dtype=np.int32), np.empty(0)
        return np.zeros(n_atoms, dtype=np.int64), nothing, nothing, none, np.inf, expected
    counts = np.zeros(n_atoms, dtype=np.int64)
    neighbors = np.empty(_ROOM * (n_atoms + 1), dtype=np.int32)
    shifts = np.empty(3 * neighbors.shape[0], dtype=np.int32)
    vectors = np.empty(3 * neighbors.shape[0])
    nearest = np.inf
    n_pairs = 0
    for frame in range(first, last):
        start = offsets[frame]
        n = offsets[frame + 1] - start
        local = start - offsets[first]
        basis = bases[frame]
        found, found_shifts = _search(
            positions[start : start + n],
            basis,
            inverses[frame],
            pbc[frame],
            cutoff,
            counts[local : local + n],
        )
        starts = np.empty(n, dtype=np.int64)
        cursor = np.empty(n, dtype=np.int64)
        total = 0
        for i in range(n):
            starts[i] = total
            cursor[i] = n_pairs + total
            total += counts[local + i]
        while n_pairs + total > neighbors.shape[0]:
            neighbors = _longer(neighbors)
            shifts = _longer(shifts)
            vectors = _longer(vectors)
        # Each pair is found from both ends, so writing down the reverse of every pair gives the
        # same list; doing so in the wanted order of the centres sorts every list on the way.
        for k in range(start, start + n):
            j = order[k] - start
            for pair in range(starts[j], starts[j] + counts[local + j]):
                i = found[pair]
                slot = cursor[i]
                cursor[i] = slot + 1
                neighbors[slot] = start + j
                a = -found_shifts[3 * pair]
                b = -found_shifts[3 * pair + 1]
                c = -found_shifts[3 * pair + 2]
                shifts[3 * slot] = a
                shifts[3 * slot + 1] = b
                shifts[3 * slot + 2] = c
                r2 = 0.0
                for axis in range(3):
                    d = positions[start + j, axis] - positions[start + i, axis]
                    d += a * basis[0, axis] + b * basis[1, axis] + c * basis[2, axis]
                    vectors[3 * slot + axis] = d
                    r2 += d * d
                nearest = min(nearest, r2)
        n_pairs += total
    return (
        counts,
        neighbors[:n_pairs],
        shifts[: 3 * n_pairs],
        vectors[: 3 * n_pairs],
        nearest,
        expected,
    )


@njit
def pair_vectors(
    positions: np.ndarray,
    cells: np.ndarray,
    frame_of_atom: np.ndarray,
    offsets: np.ndarray,
    neighbors: np.ndarray,
    shifts: np.ndarray,
    start: int,
    stop: int,
    vectors: np.ndarray,
) -> None:
    """Compute vectors[p] = r_neighbour + shift · cell − r_centre for the pairs of atoms
    `start:stop`."""
    for centre in range(start, stop):
        cell = cells[frame_of_atom[centre]]
        for p in range(offsets[centre], offsets[centre + 1]):
            other = neighbors[p]
            for axis in range(3):
                vectors[p, axis] = (
                    positions[other, axis]
                    - positions[centre, axis]
                    + shifts[p, 0] * cell[0, axis]
                    + shifts[p, 1] * cell[1, axis]
                    + shifts[p, 2] * cell[2, axis]
                )


@inner
def _search(
    positions: np.ndarray,
    basis: np.ndarray,
    inverse: np.ndarray,
    pbc: np.ndarray,
    cutoff: float,
    counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Search the neighbours in one frame, unordered: return neighbors (P,), shifts (3 P,); fills
    counts (n,)."""
    n = positions.shape[0]
    wrapped, wraps, ghosts, ghost_atom, ghost_shift = _ghosts(
        positions, basis, inverse, pbc, cutoff
    )
    low, width, shape, bin_start, x, y, z, ghost_order = _bins(ghosts, cutoff)
    neighbors = np.empty(_ROOM * (n + 1), dtype=np.int32)
    shifts = np.empty(3 * neighbors.shape[0], dtype=np.int32)
    cutoff2 = cutoff * cutoff
    n_pairs = 0
    lower = np.empty(3, dtype=np.int64)
    upper = np.empty(3, dtype=np.int64)
    for i in range(n):
        xi, yi, zi = wrapped[i, 0], wrapped[i, 1], wrapped[i, 2]
        for axis in range(3):
            lower[axis] = max(0, math.floor((wrapped[i, axis] - cutoff - low[axis]) / width))
            upper[axis] = min(
                shape[axis] - 1, math.floor((wrapped[i, axis] + cutoff - low[axis]) / width)
            )
        before = n_pairs
        for bz in range(lower[2], upper[2] + 1):
            for by in range(lower[1], upper[1] + 1):
                row = (bz * shape[1] + by) * shape[0]
                begin = bin_start[row + lower[0]]
                end = bin_start[row + upper[0] + 1]
                while n_pairs + end - begin > neighbors.shape[0]:
                    neighbors = _longer(neighbors)
                    shifts = _longer(shifts)
                for k in range(begin, end):
                    dx, dy, dz = x[k] - xi, y[k] - yi, z[k] - zi
                    if dx * dx + dy * dy + dz * dz < cutoff2:
                        g = ghost_order[k]
                        a = ghost_shift[g, 0] + wraps[i, 0]
                        b = ghost_shift[g, 1] + wraps[i, 1]
                        c = ghost_shift[g, 2] + wraps[i, 2]
                        if ghost_atom[g] != i or a != 0 or b != 0 or c != 0:
                            neighbors[n_pairs] = ghost_atom[g]
                            shifts[3 * n_pairs] = a
                            shifts[3 * n_pairs + 1] = b
                            shifts[3 * n_pairs + 2] = c
                            n_pairs += 1
        counts[i] = n_pairs - before
    return neighbors, shifts


@inner
def _ghosts(
    positions: np.ndarray, basis: np.ndarray, inverse: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return wrapped positions, the wraps taken off, and every image that may lie within the
    cutoff.

    The shift of a ghost is relative to the position as given, so that
    ghost = positions[atom] + shift · cell, and wrapped = positions − wraps · cell.
    """
    n = positions.shape[0]
    wrapped = np.empty((n, 3))
    wraps = np.zeros((n, 3), dtype=np.int32)
    fractional = np.empty((n, 3))
    # Fractional coordinates within which a ghost can have a neighbour among the wrapped atoms:
    # their range, widened by the cutoff over the distance between the cell's faces.
    low = np.full(3, np.inf)
    high = np.full(3, -np.inf)
    for i in range(n):
        for axis in range(3):
            wrapped[i, axis] = positions[i, axis]
        for axis in range(3):
            s = 0.0
            for k in range(3):
                s += positions[i, k] * inverse[k, axis]
            if pbc[axis]:
                wrap = math.floor(s)
                s -= wrap
                wraps[i, axis] = wrap
                for k in range(3):
                    wrapped[i, k] -= wrap * basis[axis, k]
            fractional[i, axis] = s
            low[axis] = min(low[axis], s)
            high[axis] = max(high[axis], s)
    for axis in range(3):
        face = 0.0
        for k in range(3):
            face += inverse[k, axis] * inverse[k, axis]
        # A little more, to keep an image that rounding puts just outside.
        margin = cutoff * math.sqrt(face) * (1.0 + 1e-12) + 1e-12
        low[axis] -= margin
        high[axis] += margin
    lowest = np.zeros((n, 3), dtype=np.int64)
    highest = np.zeros((n, 3), dtype=np.int64)
    n_ghosts = 0
    for i in range(n):
        images = 1
        for axis in range(3):
            if pbc[axis]:
                lowest[i, axis] = math.ceil(low[axis] - fractional[i, axis])
                highest[i, axis] = math.floor(high[axis] - fractional[i, axis])
                images *= highest[i, axis] - lowest[i, axis] + 1
        n_ghosts += images
    ghosts = np.empty((n_ghosts, 3))
    ghost_atom = np.empty(n_ghosts, dtype=np.int32)
    ghost_shift = np.empty((n_ghosts, 3), dtype=np.int32)
    g = 0
    for i in range(n):
        for a in range(lowest[i, 0], highest[i, 0] + 1):
            for b in range(lowest[i, 1], highest[i, 1] + 1):
                for c in range(lowest[i, 2], highest[i, 2] + 1):
                    for k in range(3):
                        ghosts[g, k] = (
                            wrapped[i, k] + a * basis[0, k] + b * basis[1, k] + c * basis[2, k]
                        )
                    ghost_atom[g] = i
                    ghost_shift[g, 0] = a - wraps[i, 0]
                    ghost_shift[g, 1] = b - wraps[i, 1]
                    ghost_shift[g, 2] = c - wraps[i, 2]
                    g += 1
    return wrapped, wraps, ghosts, ghost_atom, ghost_shift


@inner
def _bins(
    ghosts: np.ndarray, cutoff: float
) -> tuple[
    np.ndarray, float, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray
]:
    """Sort the ghosts by counting into bins of about half the cutoff, x fastest."""
    n = ghosts.shape[0]
    low = np.full(3, np.inf)
    high = np.full(3, -np.inf)
    for g in range(n):
        for axis in range(3):
            low[axis] = min(low[axis], ghosts[g, axis])
            high[axis] = max(high[axis], ghosts[g, axis])
    width = 0.5 * cutoff
    shape = np.ones(3, dtype=np.int64)
    while True:
        n_bins = 1.0
        for axis in range(3):
            n_bins *= math.floor((high[axis] - low[axis]) / width) + 1.0
        if n_bins <= _BINS_PER_GHOST * n + 64:
            break
        width *= 1.5
    for axis in range(3):
        shape[axis] = math.floor((high[axis] - low[axis]) / width) + 1
    bin_of = np.empty(n, dtype=np.int64)
    bin_start = np.zeros(shape[0] * shape[1] * shape[2] + 1, dtype=np.int64)
    cursor = np.zeros(bin_start.shape[0], dtype=np.int64)
    for g in range(n):
        flat = 0
        for axis in range(2, -1, -1):
            index = int((ghosts[g, axis] - low[axis]) / width)
            flat = flat * shape[axis] + min(index, shape[axis] - 1)
        bin_of[g] = flat
        bin_start[flat + 1] += 1
    for b in range(bin_start.shape[0] - 1):
        bin_start[b + 1] += bin_start[b]
        cursor[b + 1] = bin_start[b + 1]
    x, y, z = np.empty(n), np.empty(n), np.empty(n)
    order = np.empty(n, dtype=np.int64)
    for g in range(n):
        slot = cursor[bin_of[g]]
        cursor[bin_of[g]] = slot + 1
        order[slot] = g
        x[slot], y[slot], z[slot] = ghosts[g, 0], ghosts[g, 1], ghosts[g, 2]
    return low, width, shape, bin_start, x, y, z, order


@inner
def _longer(array: np.ndarray) -> np.ndarray:
    """Return a copy with twice the room."""
    bigger = np.empty(2 * array.shape[0], dtype=array.dtype)
    for i in range(array.shape[0]):
        bigger[i] = array[i]
    return bigger
