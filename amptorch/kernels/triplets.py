"""J = ∂G/∂r of a frame as triplets (row, column, value), as AMPTorch v1.0 has it, out of blocks.

row = atom · n_features + feature, column = 3 · atom' + axis; ordered by row, then column; zeros are
left out. It takes two passes, so that the arrays can be made as long as they must be: the memory of
a frame is its own and new, and pages that are not needed would cost as much as the numbers.
"""

import numpy as np

from amptorch.kernels._jit import njit


@njit
def count_triplets(blocks, feature_start, features, atom0, atom1, own, counts):
    """Count the triplets of each of the atoms `atom0:atom1` in `counts` (n,).

    `own` (n, 3, S) of zeros becomes what an atom's own displacement does to its features.
    """
    n_elements = feature_start.shape[1] - 1
    total = np.empty(3 * own.shape[2])
    for i in range(atom0, atom1):
        mine = own[i - atom0]
        count = 0
        for e in range(n_elements):
            b = i * n_elements + e
            here = features[feature_start[blocks.kind[i], e] : feature_start[blocks.kind[i], e + 1]]
            n = here.shape[0]
            for axis in range(3):
                for f in range(n):
                    total[axis * n + f] = mine[axis, here[f]]
            at = blocks.value_start[b]
            for _ in range(blocks.atom_start[b], blocks.atom_start[b + 1]):
                part = blocks.values[at : at + 3 * n]
                for f in range(3 * n):
                    total[f] -= part[f]
                at += 3 * n
            for axis in range(3):
                for f in range(n):
                    mine[axis, here[f]] = total[axis * n + f]
            for value in blocks.values[blocks.value_start[b] : blocks.value_start[b + 1]]:
                count += value != 0.0
        for axis in range(3):
            for value in mine[axis]:
                count += value != 0.0
        counts[i - atom0] = count


@njit
def write_triplets(blocks, feature_start, atom0, atom1, own, rows, columns, values):
    """Write the triplets that `count_triplets` has counted, with its `own`."""
    n_elements = feature_start.shape[1] - 1
    n_features = own.shape[2]
    count = 0
    for i in range(atom0, atom1):
        kind = blocks.kind[i]
        first = blocks.atom_start[i * n_elements]
        n = blocks.atom_start[(i + 1) * n_elements] - first
        # For each atom, in order: its element, where its values begin, and their step per axis; the
        # central atom has element -1.
        atoms = np.empty(n + 1, dtype=np.int64)
        place = np.empty((n + 1, 3), dtype=np.int64)
        atoms[0], place[0, 0] = i, -1
        k = 1
        for e in range(n_elements):
            b = i * n_elements + e
            step = feature_start[kind, e + 1] - feature_start[kind, e]
            at = blocks.value_start[b]
            for j in range(blocks.atom_start[b], blocks.atom_start[b + 1]):
                atom = blocks.atoms[j]
                # Sorted by insertion: within an element they are in order already.
                q = k
                while q > 0 and atoms[q - 1] > atom:
                    atoms[q] = atoms[q - 1]
                    place[q] = place[q - 1]
                    q -= 1
                atoms[q] = atom
                place[q, 0], place[q, 1], place[q, 2] = e, at, step
                at += 3 * step
                k += 1
        for f in range(n_features):
            row = (i - atom0) * n_features + f
            for k in range(n + 1):
                e, column = place[k, 0], 3 * (atoms[k] - atom0)
                if e < 0:
                    for axis in range(3):
                        value = own[i - atom0, axis, f]
                        if value != 0.0:
                            rows[count], columns[count] = row, column + axis
                            values[count] = value
                            count += 1
                elif blocks.feature_row[kind, e, f] >= 0:
                    at = place[k, 1] + blocks.feature_row[kind, e, f]
                    for axis in range(3):
                        value = blocks.values[at + axis * place[k, 2]]
                        if value != 0.0:
                            rows[count], columns[count] = row, column + axis
                            values[count] = value
                            count += 1
