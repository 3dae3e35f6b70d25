"""Contractions with derivatives: Jᵀg and J v, from blocks that are kept or from pair gradients.

J = ∂G/∂r is kept as blocks (features, atoms, 3) of a central atom and its neighbours of one element
(`structures.Blocks`). Derivatives with respect to the central atom are minus the sum of the others
(moving all atoms together changes nothing), so they are never stored.
"""

import numpy as np

from amptorch.kernels._jit import njit


@njit
def scatter_pair_gradients(offsets, neighbors, pair_gradients, start, stop, gradient):
    """Gradient of the energy (N, 3) from that of each pair vector (P, 3), for atoms `start:stop`.

    g_ij pulls on the neighbour, −g_ij on the central atom; atoms `start:stop` must be whole frames.
    """
    for i in range(start, stop):
        x = y = z = pair_gradients.dtype.type(0.0)
        for p in range(offsets[i], offsets[i + 1]):
            j = neighbors[p]
            x += pair_gradients[p, 0]
            y += pair_gradients[p, 1]
            z += pair_gradients[p, 2]
            gradient[j, 0] += pair_gradients[p, 0]
            gradient[j, 1] += pair_gradients[p, 1]
            gradient[j, 2] += pair_gradients[p, 2]
        gradient[i, 0] -= x
        gradient[i, 1] -= y
        gradient[i, 2] -= z


@njit
def contract_blocks(
    blocks,
    feature_start,
    features,
    frame_offsets,
    frame_ids,
    out_offsets,
    first,
    last,
    g,
    out,
):
    """out = Jᵀg for frames `frame_ids[first:last]`.

    Row `out_offsets[k]` of g (n, S) and out (n, 3), zeros on entry, is the first atom of
    `frame_ids[k]`. Features of block (c, e) are `features[feature_start[kind, e] : …[c, e + 1]]`.
    """
    n_elements = feature_start.shape[1] - 1
    total = np.zeros(3 * _largest_block(blocks, n_elements, frame_offsets, frame_ids, first, last))
    for k in range(first, last):
        atom0 = frame_offsets[frame_ids[k]]
        shift = out_offsets[k] - atom0
        for i in range(atom0, frame_offsets[frame_ids[k] + 1]):
            kind = blocks.kind[i]
            row = i + shift
            for e in range(n_elements):
                b = i * n_elements + e
                low, n_atoms = blocks.atom_start[b], blocks.atom_start[b + 1] - blocks.atom_start[b]
                if n_atoms == 0:
                    continue
                start, stop = feature_start[kind, e], feature_start[kind, e + 1]
                width = 3 * n_atoms
                at = blocks.value_start[b]
                for q in range(width):
                    total[q] = 0.0
                # Four features a pass: the sums are read and written a quarter as often.
                f = start
                while f + 4 <= stop:
                    w0, w1 = g[row, features[f]], g[row, features[f + 1]]
                    w2, w3 = g[row, features[f + 2]], g[row, features[f + 3]]
                    part = blocks.values[at : at + 4 * width]
                    for q in range(width):
                        total[q] += (
                            w0 * part[q]
                            + w1 * part[width + q]
                            + w2 * part[2 * width + q]
                            + w3 * part[3 * width + q]
                        )
                    at += 4 * width
                    f += 4
                while f < stop:
                    w0 = g[row, features[f]]
                    part = blocks.values[at : at + width]
                    for q in range(width):
                        total[q] += w0 * part[q]
                    at += width
                    f += 1
                for a in range(n_atoms):
                    other = blocks.atoms[low + a] + shift
                    for axis in range(3):
                        out[other, axis] += total[3 * a + axis]
                        out[row, axis] -= total[3 * a + axis]


@njit
def apply_blocks(
    blocks,
    feature_start,
    features,
    frame_offsets,
    frame_ids,
    out_offsets,
    first,
    last,
    v,
    out,
):
    """out = J v for frames `frame_ids[first:last]`; v (n, 3), out (n, S), zeros on entry."""
    n_elements = feature_start.shape[1] - 1
    along = np.zeros(3 * _largest_block(blocks, n_elements, frame_offsets, frame_ids, first, last))
    for k in range(first, last):
        atom0 = frame_offsets[frame_ids[k]]
        shift = out_offsets[k] - atom0
        for i in range(atom0, frame_offsets[frame_ids[k] + 1]):
            kind = blocks.kind[i]
            row = i + shift
            for e in range(n_elements):
                b = i * n_elements + e
                low, n_atoms = blocks.atom_start[b], blocks.atom_start[b + 1] - blocks.atom_start[b]
                width = 3 * n_atoms
                for a in range(n_atoms):
                    other = blocks.atoms[low + a] + shift
                    for axis in range(3):
                        along[3 * a + axis] = v[other, axis] - v[row, axis]
                at = blocks.value_start[b]
                for f in range(feature_start[kind, e], feature_start[kind, e + 1]):
                    part = blocks.values[at : at + width]
                    s = 0.0
                    for q in range(width):
                        s += part[q] * along[q]
                    out[row, features[f]] += s
                    at += width


@njit
def block_triplets(
    blocks, feature_start, features, n_features, atom0, atom1, rows, columns, values
):
    """J of one frame (atoms `atom0:atom1`) as triplets ordered by row, then column.

    row = atom · n_features + feature, column = 3 · atom' + axis; zeros are left out. Returns their
    number; the output arrays must have room for the central atom and all entries of the blocks.
    """
    n_elements = feature_start.shape[1] - 1
    count = 0
    for i in range(atom0, atom1):
        kind = blocks.kind[i]
        first = blocks.atom_start[i * n_elements]
        others = blocks.atoms[first : blocks.atom_start[(i + 1) * n_elements]]
        n = others.shape[0]
        keys = np.empty(n + 1, dtype=np.int64)
        for k in range(n):
            keys[k] = others[k]
        keys[n] = i
        order = np.argsort(keys)
        dense = np.zeros((n_features, n + 1, 3))
        for e in range(n_elements):
            b = i * n_elements + e
            low = blocks.atom_start[b] - first
            n_atoms = blocks.atom_start[b + 1] - blocks.atom_start[b]
            at = blocks.value_start[b]
            for q in range(feature_start[kind, e], feature_start[kind, e + 1]):
                for a in range(n_atoms):
                    for axis in range(3):
                        dense[features[q], low + a, axis] = blocks.values[at]
                        dense[features[q], n, axis] -= blocks.values[at]
                        at += 1
        for f in range(n_features):
            for k in order:
                for axis in range(3):
                    if dense[f, k, axis] != 0.0:
                        rows[count] = (i - atom0) * n_features + f
                        columns[count] = 3 * (keys[k] - atom0) + axis
                        values[count] = dense[f, k, axis]
                        count += 1
    return count


@njit
def _largest_block(blocks, n_elements, frame_offsets, frame_ids, first, last):
    largest = 0
    for k in range(first, last):
        start, stop = frame_offsets[frame_ids[k]], frame_offsets[frame_ids[k] + 1]
        for b in range(start * n_elements, stop * n_elements):
            largest = max(largest, blocks.atom_start[b + 1] - blocks.atom_start[b])
    return largest
