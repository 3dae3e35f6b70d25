"""Contractions with derivatives: Jᵀg and J v, from blocks that are kept or from pair gradients.

J = ∂G/∂r is kept as blocks (atoms, 3, features) of a central atom and its neighbours of one element
(`structures.Blocks`). Derivatives with respect to the central atom are minus the sum of the others
(moving all atoms together changes nothing), so they are never stored.
"""

import numpy as np

from amptorch.kernels._jit import njit
from amptorch.kernels.structures import Blocks


@njit
def scatter_pair_gradients(
    offsets: np.ndarray,
    neighbors: np.ndarray,
    vectors: np.ndarray,
    pair_gradients: np.ndarray,
    start: int,
    stop: int,
    gradient: np.ndarray,
    virials: np.ndarray,
) -> None:
    """Add up the gradient of the energy (N, 3) from that of each pair vector (P, 3), and write the
    virials (N, 6), for atoms `start:stop`.

    g_ij pulls on the neighbour, −g_ij on the central atom; atoms `start:stop` must be whole frames.
    The virial of a central atom is the symmetric part of Σ_j g_ij ⊗ r_ij, with r_ij in `vectors`
    (P, 3), in Voigt's order xx, yy, zz, yz, xz, xy. Those of a frame add up to ∂E/∂ε, ε being the
    strain. They cost 0.6 ns a pair, so that they are not left out where none are asked for.
    """
    for i in range(start, stop):
        x = y = z = 0.0
        xx = yy = zz = yz = xz = xy = 0.0
        for p in range(offsets[i], offsets[i + 1]):
            j = neighbors[p]
            gx, gy, gz = pair_gradients[p, 0], pair_gradients[p, 1], pair_gradients[p, 2]
            rx, ry, rz = vectors[p, 0], vectors[p, 1], vectors[p, 2]
            x += gx
            y += gy
            z += gz
            gradient[j, 0] += gx
            gradient[j, 1] += gy
            gradient[j, 2] += gz
            xx += gx * rx
            yy += gy * ry
            zz += gz * rz
            yz += gy * rz + gz * ry
            xz += gx * rz + gz * rx
            xy += gx * ry + gy * rx
        gradient[i, 0] -= x
        gradient[i, 1] -= y
        gradient[i, 2] -= z
        virials[i, 0] = xx
        virials[i, 1] = yy
        virials[i, 2] = zz
        virials[i, 3] = 0.5 * yz
        virials[i, 4] = 0.5 * xz
        virials[i, 5] = 0.5 * xy


@njit
def contract_blocks(
    blocks: Blocks,
    feature_start: np.ndarray,
    features: np.ndarray,
    frame_offsets: np.ndarray,
    frame_ids: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    place: np.ndarray,
    g: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add Jᵀg of frames `frame_ids[first:last]` to out (rows, 3).

    feature_start, features: features of block (i, e) are
    `features[feature_start[kind, e] : feature_start[kind, e + 1]]`, kind being that of atom i.
    frame_offsets: first atom of each frame in the blocks. offsets: row of g (n, S) and place (n,)
    of the first atom of `frame_ids[k]`. place: row of out for each atom, -1 for those that are not
    asked for.

    Arguments stand one by one here and in `apply_blocks`: as two NamedTuples they cost 2.8 µs a
    call, 18 % of what a molecule of three atoms takes.
    """
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
                if blocks.atom_start[b] == blocks.atom_start[b + 1]:
                    continue
                start = feature_start[kind, e]
                n = feature_start[kind, e + 1] - start
                for f in range(n):
                    w[f] = g[i + shift, features[start + f]]
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
    feature_start: np.ndarray,
    features: np.ndarray,
    frame_offsets: np.ndarray,
    frame_ids: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    place: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add J v of frames `frame_ids[first:last]` to out (n, S); arguments as in `contract_blocks`.

    place: row of v (rows, 3) for each atom, -1 for those that do not move.
    """
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
                if blocks.atom_start[b] == blocks.atom_start[b + 1]:
                    continue
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
                    out[i + shift, features[start + f]] += total[f]
