"""Selection of symmetry functions: against the slow twins, invariances, and from end to end."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.descriptor.Gaussian.recipes import pair_distances, pool
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.tuning import selection
from amptorch.tuning.selection import (
    as_entries,
    cur,
    farthest_points,
    reconstruction_error,
    select_functions,
)
from tests.reference import selection as reference

METHODS = {
    "cur": cur,
    "farthest, correlation": farthest_points,
    "farthest, euclidean": lambda X, k, costs=None: farthest_points(X, k, costs, "euclidean"),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
seeds = st.integers(0, 10_000)


def correlated(seed, rows=120, columns=14, rank=6, noise=0.05):
    """Columns that are mostly combinations of a few, of very different sizes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    X += noise * rng.normal(size=X.shape)
    return X * rng.lognormal(sigma=3.0, size=columns) + rng.normal(size=columns)


@pytest.fixture(scope="module")
def frames():
    return Frames.from_atoms(iron_water(6, seed=4))


@pytest.fixture(scope="module")
def neighbors(frames):
    return neighbor_list(frames, 5.0)


@pytest.fixture(scope="module")
def large(frames, neighbors):
    return pool(pair_distances(frames, neighbors), 4.5, n_radial=4, n_angular=2)


class TestAgainstTwins:
    @given(seeds, st.integers(1, 8))
    def test_cur(self, seed, k):
        X = correlated(seed)
        assert_array_equal(cur(X, k), reference.cur(X, k))

    @given(seeds, st.integers(1, 8), st.sampled_from(["euclidean", "correlation"]))
    def test_farthest_points(self, seed, k, metric):
        X = correlated(seed)
        expected = reference.farthest_points(X, k, metric)
        assert_array_equal(farthest_points(X, k, metric=metric), expected)

    @given(seeds, st.integers(1, 10))
    def test_reconstruction_error(self, seed, k):
        X = correlated(seed)
        columns = np.random.default_rng(seed).choice(X.shape[1], k, replace=False)
        expected = reference.reconstruction_error(X, columns)
        assert reconstruction_error(X, columns) == pytest.approx(expected, rel=1e-6, abs=1e-9)


class TestInvariance:
    @every_method
    @given(seed=seeds)
    def test_order_of_columns_and_rows(self, method, seed):
        X = correlated(seed)
        rng = np.random.default_rng(seed)
        order, rows = rng.permutation(X.shape[1]), rng.permutation(len(X))
        assert_array_equal(order[method(X[rows][:, order], 6)], method(X, 6))

    @every_method
    @given(seed=seeds)
    def test_scale_and_offset(self, method, seed):
        X = correlated(seed)
        rng = np.random.default_rng(seed)
        scaled = X * rng.lognormal(sigma=2.0, size=X.shape[1]) + rng.normal(size=X.shape[1])
        assert_array_equal(method(scaled, 6), method(X, 6))

    @pytest.mark.parametrize("name", ["cur", "farthest, correlation"])
    def test_sign(self, name):
        X = correlated(3)
        signs = np.random.default_rng(0).choice([-1, 1], X.shape[1])
        assert_array_equal(METHODS[name](X * signs, 6), METHODS[name](X, 6))

    @every_method
    def test_more_begin_with_fewer(self, method):
        X = correlated(5)
        assert_array_equal(method(X, 9)[:4], method(X, 4))

    @every_method
    def test_of_equal_columns_the_first(self, method):
        X = correlated(7, columns=8)
        twice = np.column_stack((X, X))
        chosen = method(twice, 5)
        assert chosen.max() < 8
        assert_array_equal(chosen, method(X, 5))


class TestQuality:
    def test_error_falls_and_is_below_that_of_chance(self):
        X = correlated(1, rows=400, columns=60, rank=12)
        errors = [reconstruction_error(X, cur(X, k)) for k in range(1, 20)]
        assert (np.diff(errors) < 1e-12).all()
        assert errors[-1] < 0.1 < errors[0]
        rng = np.random.default_rng(0)
        chance = [reconstruction_error(X, rng.choice(60, 8, replace=False)) for _ in range(30)]
        assert errors[7] < np.quantile(chance, 0.1)
        spread = reconstruction_error(X, farthest_points(X, 8))
        assert spread < np.median(chance)

    def test_all_columns_say_all(self):
        X = correlated(2)
        assert reconstruction_error(X, np.arange(X.shape[1])) < 1e-10

    @every_method
    def test_price(self, method):
        X = correlated(4)
        free = method(X, 1)[0]
        costs = np.ones(X.shape[1])
        costs[free] = 1e6
        assert free not in method(X, 6, costs)
        assert_array_equal(method(X, 6, np.full(X.shape[1], 3.0)), method(X, 6))

    @every_method
    def test_constant_columns_are_never_chosen(self, method):
        X = correlated(6)
        X[:, [2, 5]] = [1e8, 0.1]
        chosen = method(X, X.shape[1] - 2)
        assert set(chosen) == set(range(X.shape[1])) - {2, 5}
        with pytest.raises(ValueError, match="of 14 columns only 12 vary"):
            method(X, 13)

    def test_dependent_columns_are_never_chosen_by_cur(self):
        X = correlated(8, rank=5, noise=0.0)
        assert len(cur(X, 5)) == 5
        with pytest.raises(ValueError, match="only 5 of the 14 columns are independent"):
            cur(X, 6)


@every_method
class TestBadInput:
    def test_not_finite(self, method):
        X = correlated(0)
        X[4, 3] = np.nan
        with pytest.raises(ValueError, match="column 3 of X is nan in row 4"):
            method(X, 2)

    @pytest.mark.parametrize("k", [0, -1, 2.5])
    def test_number(self, method, k):
        with pytest.raises(ValueError, match=f"k is {k}"):
            method(correlated(0), k)

    def test_shape(self, method):
        with pytest.raises(ValueError, match=r"\(5,\)"):
            method(np.arange(5.0), 1)

    @pytest.mark.parametrize("costs", [np.zeros(14), np.ones(3)])
    def test_costs(self, method, costs):
        with pytest.raises(ValueError, match="14 positive numbers"):
            method(correlated(0), 2, costs)


def test_unknown_metric():
    with pytest.raises(ValueError, match="did you mean 'correlation'"):
        farthest_points(correlated(0), 2, metric="corelation")


class TestSymmetryFunctions:
    @pytest.mark.slow
    @pytest.mark.parametrize("method", selection.METHODS)
    def test_columns_of_the_pool(self, frames, neighbors, large, method, caplog):
        number = {"Fe": 10, "H": 12, "O": 7}
        with caplog.at_level(logging.INFO, logger="amptorch"):
            chosen = select_functions(
                frames, large, number, method, neighbors=neighbors, atoms_per_element=300
            )
        assert {symbol: len(entries) for symbol, entries in chosen.items()} == number
        assert "Fe: 10 of" in caplog.text
        assert "took" in caplog.text
        everything = Gaussian(large, ["Fe", "H", "O"])
        few = Gaussian(chosen, ["Fe", "H", "O"])
        for symbol, table in few.descriptor_setup.items():
            rows = {tuple(row) for row in everything.descriptor_setup[symbol]}
            # To the last bit, so that what was computed for a function can be found again.
            assert {tuple(row) for row in table} < rows

    def test_choice_is_that_of_the_values(self, frames, large):
        chosen = select_functions(frames, large, 9, atoms_per_element=10**6)
        descriptor = Gaussian(large, ["Fe", "H", "O"])
        values = descriptor.values(frames)[frames.numbers == 8]
        values = values[:, : descriptor.num_descriptors["O"]]
        varying = np.flatnonzero(values.std(axis=0) > 1e-6)
        expected = varying[cur(values[:, varying], 9)]
        entries = as_entries(large, descriptor.elements)["O"]
        assert chosen["O"] == [entries[column] for column in expected]

    def test_without_a_number_only_what_is_constant_goes(self, frames, large):
        params = {**large, "O": [*large["O"], {**large["O"][0], "eta": 1e4, "Rs": 0.5}]}
        kept = select_functions(frames, params, None, atoms_per_element=10**6)
        assert len(kept["Fe"]) <= len(large["Fe"])
        assert not any(entry["eta"] == 1e4 for entry in kept["O"])

    def test_all_there_is_with_a_warning(self, frames, caplog):
        small = {"default": {"cutoff": 4.0, "G2": {"etas": [1.0, 4.0], "rs_s": [0.0]}}}
        chosen = select_functions(frames, small, 50)
        assert {symbol: len(entries) for symbol, entries in chosen.items()} == {
            "Fe": 6,
            "H": 6,
            "O": 6,
        }
        assert "Fe: 6 functions of the pool" in caplog.text

    def test_price(self, frames, large):
        dear = select_functions(frames, large, 12, costs={"G4": 1e6, "G5": 1e6})
        assert {entry["type"] for entry in dear["O"]} == {"G2"}

    def test_same_seed_same_choice(self, frames, large):
        first, again = (
            select_functions(frames, large, 6, atoms_per_element=50, seed=3) for _ in range(2)
        )
        assert first == again

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"method": "curr"}, "did you mean 'cur'"),
            ({"k": 0}, "k of Fe is 0"),
            ({"costs": {"G9": 1.0}}, "G9"),
            ({"costs": {"G4": 0.0}}, "positive numbers"),
            ({"elements": ["Fe", "H", "O", "Pt"]}, "'Pt'"),
        ],
    )
    def test_errors(self, frames, large, changes, message):
        with pytest.raises(ValueError, match=message):
            select_functions(frames, large, **{"k": 4, **changes})

    def test_element_without_atoms(self, frames):
        small = {"default": {"cutoff": 4.0, "G2": {"etas": [1.0], "rs_s": [0.0]}}}
        with pytest.raises(ValueError, match="Pt: no atom of it"):
            select_functions(frames, small, 2, elements=["Fe", "H", "O", "Pt"])


class TestEntries:
    @pytest.mark.slow
    def test_every_form_gives_the_rows_it_came_from(self):
        elements = ["O", "H"]
        given = {
            "cutoff": 6.3,
            "O": {
                "G1": {},
                "G2": {"etas": np.logspace(-1, 2, 7), "rs_s": [0.0, 1.1]},
                "G3": {"kappas": [0.7]},
                "G4": {"etas": [0.005, 0.3], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
                "G5": {"etas": [0.005, 0.07], "zetas": [1.5], "gammas": [1.0]},
            },
            "H": [{"type": "G2", "element": "O", "eta": 7.1, "Rs": 0.3}],
        }
        descriptor_set = GaussianDescriptorSet(elements, cutoff=5.1)
        descriptor_set.process_combinatorial_Gs(given)
        for params in (given, descriptor_set):
            entries = as_entries(params, elements)
            expected = Gaussian(params, elements).descriptor_setup
            again = Gaussian(entries, elements).descriptor_setup
            for symbol in elements:
                assert len(entries[symbol]) == len(expected[symbol])
                assert_allclose(again[symbol], expected[symbol], rtol=1e-15)
                one_by_one = [
                    Gaussian({symbol: [entry], "default": [entry]}, elements)
                    for entry in entries[symbol]
                ]
                rows = [single.descriptor_setup[symbol][0] for single in one_by_one]
                assert_allclose(rows, expected[symbol], rtol=1e-15)
        assert as_entries(given, elements)["H"] == [
            {"type": "G2", "cutoff": 6.3, "element": "O", "eta": 7.1, "Rs": 0.3}
        ]
