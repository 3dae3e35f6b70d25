"""Rows of flat arrays in which many frames or atoms stand one after the other."""

import numpy as np


def offsets_of(counts: np.ndarray | list[int]) -> np.ndarray:
    """Return (n + 1,) int64: the rows of part k, of which there are `counts[k]`, are
    `offsets[k]:offsets[k + 1]`."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def rows_between(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return the numbers of range(start, stop) of each start and stop, one range after another."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(stops - ends, lengths)


def row_flags(rows: np.ndarray | None, n: int) -> np.ndarray:
    """Return (n,) int8 with 1 at `rows` and 0 elsewhere; an empty array where `rows` is None.

    This is how kernels are told which atoms are wanted, or move.
    """
    if rows is None:
        return np.empty(0, dtype=np.int8)
    flags = np.zeros(n, dtype=np.int8)
    flags[rows] = 1
    return flags


def row_places(rows: np.ndarray | None, n: int) -> tuple[np.ndarray, int]:
    """Return for each of n atoms its place in `rows`, or -1, and the number of rows.

    None stands for all atoms.
    """
    if rows is None:
        return np.arange(n), n
    places = np.full(n, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return places, len(rows)


def checked_rows(
    array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype | type = np.float64
) -> np.ndarray:
    """Return `array` as a contiguous array of this type.

    Raises ValueError where its shape is another.
    """
    array = np.ascontiguousarray(array, dtype=dtype)
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape} for these frames, got {array.shape}")
    return array
