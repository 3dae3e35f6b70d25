"""J = ∂G/∂r of a frame as triplets (row, column, value), as AMPTorch v1.0 has it, out of blocks."""

import numpy as np

from amptorch.kernels._jit import inlined, njit
from amptorch.kernels.structures import Blocks


@njit
def write_triplets(
    blocks: Blocks,
    feature_start: np.ndarray,
    features: np.ndarray,
    n_features: int,
    atom0: int,
    atom1: int,
    rows: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
) -> int:
    """Write J of one frame (atoms `atom0:atom1`) as triplets ordered by row, then column.

    row = atom · n_features + feature, column = 3 · atom' + axis; zeros are left out. Returns their
    number; the arrays must have room for all entries of the blocks and of the central atoms.
    """
    n_elements = feature_start.shape[1] - 1
    own = np.empty((3, n_features))
    total = np.empty(3 * n_features)
    count = 0
    for i in range(atom0, atom1):
        kind = blocks.kind[i]
        table = blocks.feature_row[kind]
        first = blocks.atom_start[i * n_elements]
        n = blocks.atom_start[(i + 1) * n_elements] - first
        # Neighbours and the central atom, which has element -1: where their values begin, and the
        # step from axis to axis.
        atoms = np.empty(n + 1, dtype=np.int64)
        place = np.zeros((n + 1, 3), dtype=np.int64)
        atoms[n], place[n, 0] = i, -1
        column = np.empty(3 * n + 3, dtype=columns.dtype)
        where = np.empty(3 * n + 3, dtype=np.int64)
        own[:] = 0.0
        for e in range(n_elements):
            b = i * n_elements + e
            here = features[feature_start[kind, e] : feature_start[kind, e + 1]]
            step = here.shape[0]
            for axis in range(3):
                for f in range(step):
                    total[axis * step + f] = own[axis, here[f]]
            at = blocks.value_start[b]
            for k in range(blocks.atom_start[b] - first, blocks.atom_start[b + 1] - first):
                atoms[k] = blocks.atoms[first + k]
                place[k, 0], place[k, 1], place[k, 2] = e, at, step
                part = blocks.values[at : at + 3 * step]
                for f in range(3 * step):
                    total[f] -= part[f]
                at += 3 * step
            for axis in range(3):
                for f in range(step):
                    own[axis, here[f]] = total[axis * step + f]
        _sort(atoms, place)
        length = mine = shift = 0
        for f in range(n_features):
            # One row of J: where its values stand in the blocks, and their columns.
            if f > 0 and _same_elements(table, f):
                shift += 1
            else:
                length = shift = 0
                for k in range(n + 1):
                    e, at, step = place[k, 0], place[k, 1], place[k, 2]
                    if e < 0:
                        mine = length
                    elif table[e, f] < 0:
                        continue
                    else:
                        at += table[e, f]
                    for axis in range(3):
                        where[length + axis] = at + axis * step
                        column[length + axis] = 3 * (atoms[k] - atom0) + axis
                    length += 3
            # Slices, so that the loops vectorise.
            row, stop = (i - atom0) * n_features + f, count + length
            of_row, of_column, of_value = rows[count:stop], columns[count:stop], values[count:stop]
            source = blocks.values[shift:]
            for q in range(mine):
                of_value[q] = source[where[q]]
            for axis in range(3):
                of_value[mine + axis] = own[axis, f]
            for q in range(mine + 3, length):
                of_value[q] = source[where[q]]
            nonzero = 0
            for q in range(length):
                of_row[q], of_column[q] = row, column[q]
                nonzero += of_value[q] != 0.0
            if nonzero < length:
                at = 0
                for q in range(length):
                    value = of_value[q]
                    if value != 0.0:
                        of_column[at], of_value[at] = column[q], value
                        at += 1
                stop = count + at
            count = stop
    return count


@inlined
def _sort(atoms: np.ndarray, place: np.ndarray) -> None:
    """Sort `atoms` and the rows of `place` by insertion: within an element they are in order."""
    for k in range(1, atoms.shape[0]):
        atom, e, at, step = atoms[k], place[k, 0], place[k, 1], place[k, 2]
        q = k
        while q > 0 and atoms[q - 1] > atom:
            atoms[q] = atoms[q - 1]
            for column in range(3):
                place[q, column] = place[q - 1, column]
            q -= 1
        atoms[q], place[q, 0], place[q, 1], place[q, 2] = atom, e, at, step


@inlined
def _same_elements(table: np.ndarray, f: int) -> bool:
    """Tell whether feature f stands beside the one before, in the blocks of the same elements."""
    same = True
    for e in range(table.shape[0]):
        same &= (table[e, f] < 0) == (table[e, f - 1] < 0)
    return same
