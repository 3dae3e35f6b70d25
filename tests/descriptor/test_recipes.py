"""Recipes of symmetry functions: the papers' formulas, and how they meet the data."""

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list
from numpy.testing import assert_allclose

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian, recipes
from amptorch.descriptor.Gaussian.recipes import pair_distances, pool, symmetry_functions
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list

CUTOFF = 5.0


@pytest.fixture(scope="module")
def images():
    return iron_water(4, seed=2)


@pytest.fixture(scope="module")
def frames(images):
    return Frames.from_atoms(images)


@pytest.fixture(scope="module")
def distances(frames):
    return pair_distances(frames, neighbor_list(frames, CUTOFF))


class TestSeries:
    """Against the formulas of the papers, written out."""

    def test_gastegger_centered(self):
        series = recipes.gastegger_centered(4, 6.0, 1.0)
        radii = [1.0, 2.5, 4.0, 5.5]
        assert_allclose(series, [[1 / (2 * r * r), 0.0] for r in radii])

    def test_gastegger_shifted(self):
        series = recipes.gastegger_shifted(4, 6.0, 1.0)
        assert_allclose(series, [[1 / (2 * 1.5**2), r] for r in (1.0, 2.5, 4.0, 5.5)])

    def test_imbalzano_centered(self):
        # The paper's own: n steps, each n^(1/n) times as narrow.
        n, rc = 4, 6.0
        expected = [[(n ** (m / n) / rc) ** 2, 0.0] for m in range(n + 1)]
        assert_allclose(recipes.imbalzano_centered(n + 1, rc, nearest=rc / n), expected)

    def test_imbalzano_shifted(self):
        n, rc = 4, 6.0
        shift = [rc / n ** (m / n) for m in range(n + 1)]
        expected = [[1 / (shift[n - m] - shift[n - m - 1]) ** 2, shift[n - m]] for m in range(n)]
        assert_allclose(recipes.imbalzano_shifted(n, rc, nearest=rc / n), expected)

    @pytest.mark.parametrize("name", recipes.RADIAL)
    def test_from_the_nearest_distance_to_the_cutoff(self, name):
        series = recipes.RADIAL[name](7, 6.0, 0.9)
        assert series.shape == (7, 2)
        assert (series[:, 0] > 0).all()
        if name in recipes.CENTERED:
            assert (series[:, 1] == 0).all()
            # The narrowest has fallen to 1/e or e^(−1/2) at the nearest distance.
            assert 0.5 <= series[:, 0].max() * 0.9**2 <= 1.0 + 1e-12
        else:
            assert series[0, 1] == pytest.approx(0.9)
            assert (np.diff(series[:, 1]) > 0).all()
            assert series[-1, 1] < 6.0
            # Neighbouring shells overlap: each falls to 1/e or less well before the second next.
            assert (np.diff(series[:, 1]) * np.sqrt(series[:-1, 0]) < 3).all()


class TestDistances:
    def test_against_ase(self, images, distances):
        found = {pair: [] for pair in distances.counts}
        for atoms in images:
            i, j, d = ase_neighbor_list("ijd", atoms, CUTOFF)
            for a, b, r in zip(i, j, d, strict=True):
                found[atoms.symbols[a], atoms.symbols[b]].append(r)
        assert distances.elements == ["Fe", "H", "O"]
        for pair, values in found.items():
            assert distances.counts[pair].sum() == len(values)
            assert distances.smallest[pair] == pytest.approx(min(values))
            near = np.abs(distances.occurring(*pair) - min(values)).min()
            assert near <= recipes.BIN / 2 + 1e-12

    def test_one_bad_frame_moves_little(self, images, distances):
        bad = images[0].copy()
        oxygen = np.flatnonzero(bad.symbols == "O")[0]
        bad.positions[oxygen + 1] = bad.positions[oxygen] + [0.05, 0, 0]
        frames = Frames.from_atoms([*images * 10, bad])
        with_bad = pair_distances(frames, cutoff=CUTOFF)
        assert with_bad.smallest["O", "H"] == pytest.approx(0.05)
        assert with_bad.nearest["O", "H"] == pytest.approx(distances.nearest["O", "H"], abs=0.1)

    def test_elements_that_never_meet(self):
        frames = Frames.from_atoms([Atoms("HCO", [[0, 0, 0], [1, 0, 0], [9, 0, 0]])])
        found = pair_distances(frames, cutoff=3.0)
        assert found.nearest["H", "C"] == found.smallest["H", "C"] == 1.0
        assert found.nearest["H", "O"] == found.smallest["H", "H"] == np.inf

    def test_unknown_element(self, frames):
        with pytest.raises(ValueError, match=r"\(Fe\).*\['H', 'O'\]"):
            pair_distances(frames, cutoff=3.0, elements=["H", "O"])


class TestFunctions:
    def test_what_gaussian_makes_of_them(self, distances):
        params = symmetry_functions(
            distances, CUTOFF, radial="imbalzano-shifted", n_radial=5, angular=("G4", "G5")
        )
        setup = Gaussian(params, distances.elements).descriptor_setup
        for symbol, table in setup.items():
            assert len(table) == len(params[symbol])
            numbers = {"Fe": 26, "H": 1, "O": 8}
            for neighbor, number in numbers.items():
                g2 = table[(table[:, 0] == 2) & (table[:, 1] == number)]
                expected = recipes.imbalzano_shifted(5, CUTOFF, distances.nearest[symbol, neighbor])
                assert len(g2) >= 4
                for row in g2:
                    # eta in 1/Å², to the six digits that are written.
                    assert np.isclose(row[4:6], expected, rtol=1e-5).all(axis=1).any()
            nearest = min(distances.nearest[symbol, other] for other in numbers)
            for kind in (4, 5):
                # Up to 10/Rc² in a G4.
                ends = nearest if kind == 5 else max(nearest, CUTOFF / np.sqrt(10))
                etas = recipes.imbalzano_centered(2, CUTOFF, ends)[:, 0]
                angular = table[table[:, 0] == kind]
                assert set(map(tuple, angular[:, 5:])) == {(1, 1), (1, -1), (4, 1), (4, -1)}
                assert np.isclose(angular[:, 4, None], etas, rtol=1e-5).any(axis=1).all()

    def test_pool_is_large_and_made_of_what_varies(self, frames, distances):
        descriptor = Gaussian(pool(distances, CUTOFF), distances.elements)
        values = descriptor.values(frames)
        for symbol, number in (("Fe", 26), ("H", 1), ("O", 8)):
            count = descriptor.num_descriptors[symbol]
            assert 200 < count < 600
            spread = values[frames.numbers == number, :count].std(axis=0)
            assert np.mean(spread > 1e-6) > 0.9

    def test_what_sees_nothing_is_left_out(self):
        # Two H2 molecules that do not see each other: no pair of neighbours for an angle.
        atoms = Atoms("H4", [[0, 0, 0], [0.74, 0, 0], [20, 0, 0], [20.8, 0, 0]])
        found = pair_distances(Frames.from_atoms([atoms]), cutoff=6.0, elements=["H", "O"])
        with pytest.raises(ValueError, match=r"O has no neighbour within 6\.0 Å"):
            symmetry_functions(found, 6.0)
        found = pair_distances(Frames.from_atoms([atoms]), cutoff=6.0)
        params = symmetry_functions(found, 6.0, n_radial=8)
        shifts = [entry["Rs"] for entry in params["H"] if entry["type"] == "G2"]
        # Shells without a bond length in them are gone, those around 0.74 and 0.8 Å are there.
        assert 1 < len(shifts) < 8
        assert min(shifts) < 0.8
        assert max(shifts) < 4.0

    def test_lists_longer_than_the_cutoff(self):
        # The nearest O of H is listed, and yet beyond the cutoff of the functions.
        atoms = Atoms("H2O", [[0, 0, 0], [0.74, 0, 0], [6.0, 0, 0]])
        found = pair_distances(Frames.from_atoms([atoms]), cutoff=8.0)
        with pytest.raises(ValueError, match=r"O has no neighbour within 4\.0 Å"):
            symmetry_functions(found, 4.0)
        params = symmetry_functions(found, 7.0, angular=None)
        assert {entry["element"] for entry in params["H"]} == {"H", "O"}
        assert symmetry_functions(found, 5.5, radial=(), angular="G4")["O"] == []

    def test_short_angles(self, distances):
        params = symmetry_functions(distances, CUTOFF, angular=("G4",), angular_cutoff=3.5)
        setup = Gaussian(params, distances.elements).descriptor_setup
        table = setup["O"]
        assert set(table[table[:, 0] == 4, 3]) == {3.5}
        assert set(table[table[:, 0] == 2, 3]) == {CUTOFF}

    def test_no_angles(self, distances):
        params = symmetry_functions(distances, CUTOFF, angular=None)
        assert {entry["type"] for entry in params["O"]} == {"G2"}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"radial": "imbalzano-shiftet"}, "did you mean 'imbalzano-shifted'"),
            ({"angular": ("G6",)}, "'G6' is not known"),
            ({"angular_widths": "imbalzano-shifted"}, "angular_widths"),
            ({"n_radial": 1}, "n_radial is 1"),
            ({"cutoff": 7.0}, "cutoff is 7.0 Å, but .* up to 5.0"),
            ({"angular_cutoff": -1.0}, "angular_cutoff.*positive"),
        ],
    )
    def test_errors(self, distances, changes, message):
        with pytest.raises(ValueError, match=message):
            symmetry_functions(distances, **{"cutoff": CUTOFF, **changes})
