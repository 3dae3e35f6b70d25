"""Contractions with derivatives: Jᵀg and J v, from blocks that are kept or from pair gradients.

J = ∂G/∂r is kept as blocks (atoms, 3, features) of a central atom and its neighbours of one element
(`structures.Blocks`). Derivatives with respect to the central atom are minus the sum of the others
(moving all atoms together changes nothing), so they are never stored.
"""

from typing import NamedTuple

import numpy as np

from amptorch.kernels._jit import njit
from amptorch.kernels.structures import BlockFeatures, Blocks


class FrameBatch(NamedTuple):
    """Frames of some blocks, and where their atoms stand in the arrays of a batch.

    Row `offsets[k]` of g (n, S) and of place (n,) is the first atom of frame `frame_ids[k]`. place:
    the row of each atom in the array (rows, 3) of gradients or displacements, -1 for atoms that
    have none.
    """

    frame_offsets: np.ndarray  # (F + 1,) first atom of each frame in the blocks
    frame_ids: np.ndarray
    offsets: np.ndarray
    place: np.ndarray


@njit
def scatter_pair_gradients(
    offsets: np.ndarray,
    neighbors: np.ndarray,
    pair_gradients: np.ndarray,
    start: int,
    stop: int,
    gradient: np.ndarray,
) -> None:
    """Add up the gradient of the energy (N, 3) from that of each pair vector (P, 3), for atoms
    `start:stop`.

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
    blocks: Blocks,
    features: BlockFeatures,
    batch: FrameBatch,
    first: int,
    last: int,
    g: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add Jᵀg of frames `first:last` of the FrameBatch to out (rows, 3).

    features: the BlockFeatures of the blocks.
    """
    frame_offsets, frame_ids, offsets, place = batch
    feature_start, feature = features.start, features.feature
    n_elements = feature_start.shape[1] - 1
    w = np.empty(g.shape[1])
    for k in range(first, last):
        atom0 = frame_offsets[frame_ids[k]]
        shift = offsets[k] - atom0
        for i in range(atom0, frame_offsets[frame_ids[k] + 1]):
            kind = blocks.kind[i]
            mine = place[i + shift]
            sx = sy = sz = 0.0
            for e in range(n_elements):
                b = i * n_elements + e
                start = feature_start[kind, e]
                n = feature_start[kind, e + 1] - start
                for f in range(n):
                    w[f] = g[i + shift, feature[start + f]]
                at = blocks.value_start[b]
                for a in range(blocks.atom_start[b], blocks.atom_start[b + 1]):
                    other = place[blocks.atoms[a] + shift]
                    if mine >= 0 or other >= 0:
                        part = blocks.values[at : at + 3 * n]
                        x = y = z = 0.0
                        for f in range(n):
                            x += w[f] * part[f]
                            y += w[f] * part[n + f]
                            z += w[f] * part[2 * n + f]
                        sx += x
                        sy += y
                        sz += z
                        if other >= 0:
                            out[other, 0] += x
                            out[other, 1] += y
                            out[other, 2] += z
                    at += 3 * n
            if mine >= 0:
                out[mine, 0] -= sx
                out[mine, 1] -= sy
                out[mine, 2] -= sz


@njit
def apply_blocks(
    blocks: Blocks,
    features: BlockFeatures,
    batch: FrameBatch,
    first: int,
    last: int,
    v: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add J v of frames `first:last` of the FrameBatch to out (n, S), for v (rows, 3)."""
    frame_offsets, frame_ids, offsets, place = batch
    feature_start, feature = features.start, features.feature
    n_elements = feature_start.shape[1] - 1
    total = np.empty(out.shape[1])
    for k in range(first, last):
        atom0 = frame_offsets[frame_ids[k]]
        shift = offsets[k] - atom0
        for i in range(atom0, frame_offsets[frame_ids[k] + 1]):
            kind = blocks.kind[i]
            mine = place[i + shift]
            vx = vy = vz = 0.0
            if mine >= 0:
                vx, vy, vz = v[mine, 0], v[mine, 1], v[mine, 2]
            for e in range(n_elements):
                b = i * n_elements + e
                start = feature_start[kind, e]
                n = feature_start[kind, e + 1] - start
                for f in range(n):
                    total[f] = 0.0
                at = blocks.value_start[b]
                for a in range(blocks.atom_start[b], blocks.atom_start[b + 1]):
                    other = place[blocks.atoms[a] + shift]
                    if mine >= 0 or other >= 0:
                        x, y, z = -vx, -vy, -vz
                        if other >= 0:
                            x += v[other, 0]
                            y += v[other, 1]
                            z += v[other, 2]
                        part = blocks.values[at : at + 3 * n]
                        for f in range(n):
                            total[f] += x * part[f] + y * part[n + f] + z * part[2 * n + f]
                    at += 3 * n
                for f in range(n):
                    out[i + shift, feature[start + f]] += total[f]
