"""Copying the derivatives of functions from the blocks of one set of functions to another's."""

import numpy as np

from amptorch.kernels._jit import njit
from amptorch.kernels.structures import Blocks


@njit
def copy_features(
    source: Blocks,
    first: int,
    target: Blocks,
    row_start: np.ndarray,
    source_rows: np.ndarray,
    target_rows: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Copy into the blocks of atoms `start:stop` of `target`, where atom i is atom `first + i` of
    `source` and has the same neighbours there (both are `structures.Blocks`).

    Of an atom of kind k of the target and neighbours of element e, with b = k·E + e, rows
    `source_rows[row_start[b]:row_start[b + 1]]` become rows `target_rows[...]`.
    """
    n_elements = target.feature_row.shape[1]
    for i in range(start, stop):
        for e in range(n_elements):
            b = target.kind[i] * n_elements + e
            low, high = row_start[b], row_start[b + 1]
            here, there = i * n_elements + e, (first + i) * n_elements + e
            n = 3 * (target.atom_start[here + 1] - target.atom_start[here])
            if low == high or n == 0:
                continue
            to, origin = target.value_start[here], source.value_start[there]
            to_step = (target.value_start[here + 1] - to) // n
            step = (source.value_start[there + 1] - origin) // n
            for _ in range(n):
                for p in range(low, high):
                    target.values[to + target_rows[p]] = source.values[origin + source_rows[p]]
                to += to_step
                origin += step
