"""Scalers fitted chunk by chunk."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from amptorch.data.statistics import Statistics
from amptorch.preprocessing import FeatureScaler

NUMBERS = np.random.default_rng(1).choice([1, 8, 26], 3000, p=[0.6, 0.3, 0.1])


def fingerprints():
    """Features of very different means and spreads, one of them constant for one element."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3000, 5)) * [1.0, 1.0, 30.0, 1e-4, 1.0] + [0.0, 1e2, -5.0, 0.0, 2.0]
    values[NUMBERS == 26, 4] = 0.0
    return values * (1 + NUMBERS[:, None])


def chunks(values, sizes=(1, 700, 2, 1500, 797)):
    """Pieces of unequal size, the first of a single atom."""
    bounds = np.cumsum([0, *sizes])
    assert bounds[-1] == len(values)
    return ((values[a:b], NUMBERS[a:b]) for a, b in pairwise(bounds))


@pytest.mark.parametrize("elementwise", [True, False])
@pytest.mark.parametrize("kind", ["normalize", "standardize"])
def test_chunks_are_scaled_as_all_atoms_at_once(kind, elementwise):
    scaling = {"type": kind, "range": (-1, 1), "elementwise": elementwise}
    values = fingerprints()
    whole = FeatureScaler.from_arrays(values, NUMBERS, scaling)
    parts = FeatureScaler.from_chunks(chunks(values), scaling)
    for one, two in zip(whole.slope_and_offset(), parts.slope_and_offset(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    np.testing.assert_allclose(
        whole.transform_rows(values, NUMBERS),
        parts.transform_rows(values, NUMBERS),
        rtol=0,
        atol=1e-11,
    )


def test_a_spread_a_millionth_of_the_mean_survives():
    """Sums of squares would lose it: 1e16 out of 1e4 has no digit left."""
    values = 1e8 + np.random.default_rng(2).normal(scale=10.0, size=(20000, 1))
    parts = [Statistics.of(torch.from_numpy(part)) for part in np.split(values, 40)]
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    assert total.n == 20000
    assert total.deviation.item() == pytest.approx(values.std(), rel=1e-9)
    assert total.mean.item() == pytest.approx(values.mean(), rel=1e-14)
