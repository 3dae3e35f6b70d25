"""Rows of flat arrays, by loops, and the interface of derivative back ends."""

import inspect

import numpy as np
import pytest

from amptorch.descriptor.blocks import DerivativeBlocks, KeptDerivatives, RecomputedDerivatives
from amptorch.descriptor.derivatives import Derivatives
from amptorch.rows import checked_rows, offsets_of, row_flags, row_places, rows_between
from amptorch.store.backends import StoredDerivatives
from amptorch.v1.sparse import SparseDerivatives

BACK_ENDS = [
    DerivativeBlocks,
    RecomputedDerivatives,
    SparseDerivatives,
    StoredDerivatives,
]


@pytest.mark.nojit
@pytest.mark.parametrize("counts", [[], [0], [3, 0, 2], np.array([1, 4])])
def test_offsets(counts):
    offsets = offsets_of(counts)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(counts[:k]) for k in range(len(counts) + 1)]


@pytest.mark.nojit
@pytest.mark.parametrize("ranges", [[], [(2, 2)], [(5, 8), (0, 2), (4, 4), (7, 9)]])
def test_rows_between(ranges):
    starts, stops = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    expected = [row for start, stop in ranges for row in range(start, stop)]
    assert rows_between(starts, stops).tolist() == expected


@pytest.mark.nojit
def test_flags_and_places():
    rows = np.array([1, 4])
    assert row_flags(rows, 5).tolist() == [0, 1, 0, 0, 1]
    assert len(row_flags(None, 5)) == 0
    places, n_rows = row_places(rows, 5)
    assert (places.tolist(), n_rows) == ([-1, 0, -1, -1, 1], 2)
    places, n_rows = row_places(None, 3)
    assert (places.tolist(), n_rows) == ([0, 1, 2], 3)


@pytest.mark.nojit
def test_arrays_of_another_shape_are_refused():
    assert checked_rows([[1, 2]], (1, 2), np.float32).dtype == np.float32
    with pytest.raises(ValueError, match=r"shape \(2, 1\) for these frames, got \(1, 2\)"):
        checked_rows([[1, 2]], (2, 1))


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("method", ["vjp", "jvp"])
def test_back_ends_have_one_interface(back_end, method):
    expected = inspect.signature(getattr(Derivatives, method)).parameters
    found = inspect.signature(getattr(back_end, method)).parameters
    assert [*found][: len(expected)] == [*expected]
    assert found["rows"].default is None
    # Whatever else there is has a default.
    assert all(p.default is not p.empty for p in [*found.values()][len(expected) :])


def test_what_is_kept_is_known_by_its_class():
    kept = [back_end for back_end in BACK_ENDS if issubclass(back_end, KeptDerivatives)]
    assert kept == [DerivativeBlocks, StoredDerivatives]
