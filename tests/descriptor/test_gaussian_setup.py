"""fp_params in all their forms: the tables they make, and the errors that name what is wrong."""

import copy

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal

from amptorch.descriptor.Gaussian import GDS, Gaussian, GaussianDescriptorSet
from amptorch.descriptor.Gaussian.setup import cutoff_function, descriptor_setup, setup_hash
from amptorch.frames import Frames
from amptorch.tuning.selection import as_entries

G2 = {"etas": [4.0], "rs_s": [0.0]}
G4 = {"etas": [0.1], "zetas": [1.0], "gammas": [-1.0]}


def section(**changes):
    """The section of one element, valid but for the changes (a value None takes the key away)."""
    given = {"cutoff": 5.0, "G2": G2, "G4": G4, **changes}
    return {key: value for key, value in given.items() if value is not None}


class TestDictionary:
    def test_all_types_in_order(self):
        params = section(G1={}, G3={"kappas": [2.0, 1.0]}, G5=G4)
        table = descriptor_setup({"default": params}, ["O", "H"])["H"]
        eta = 0.1 / 25
        expected = [
            (1, 1, 0, 5, 0, 0, 0),
            (1, 8, 0, 5, 0, 0, 0),
            (2, 1, 0, 5, 4 / 25, 0, 0),
            (2, 8, 0, 5, 4 / 25, 0, 0),
            (3, 1, 0, 5, 1, 0, 0),
            (3, 1, 0, 5, 2, 0, 0),
            (3, 8, 0, 5, 1, 0, 0),
            (3, 8, 0, 5, 2, 0, 0),
            (4, 1, 1, 5, eta, 1, -1),
            (4, 8, 1, 5, eta, 1, -1),  # a pair stands in the order of `elements`
            (4, 8, 8, 5, eta, 1, -1),
            (5, 1, 1, 5, 0.1, 1, -1),  # the eta of G5 is used as it is
            (5, 8, 1, 5, 0.1, 1, -1),
            (5, 8, 8, 5, 0.1, 1, -1),
        ]
        assert_allclose(table, expected, rtol=1e-15)
        assert table.dtype == np.float64

    def test_own_section_goes_before_default(self):
        setup = descriptor_setup({"default": section(), "O": section(cutoff=3.0)}, ["H", "O"])
        assert_array_equal(setup["H"][:, 3], 5.0)
        assert_array_equal(setup["O"][:, 3], 3.0)
        assert list(setup) == ["H", "O"]

    def test_arrays_scalars_and_numeric_text(self):
        lists = descriptor_setup({"default": section(G2={"etas": [0.1, 4], "rs_s": [0]})}, ["H"])
        arrays = {"etas": np.array([0.1, 4.0]), "rs_s": np.float32(0)}
        # PyYAML makes text of 1e-1.
        text = {"etas": ["1e-1", 4.0], "rs_s": 0}
        for G in (arrays, text, {"etas": (0.1, 4.0)}):
            other = descriptor_setup({"default": section(cutoff=np.float64(5), G2=G)}, ["H"])
            assert_array_equal(other["H"], lists["H"])

    def test_input_is_not_changed(self):
        params = {"default": section(G2={"etas": np.array([1.0, 0.5]), "rs_s": [0.0]})}
        before = copy.deepcopy(params)
        descriptor_setup(params, ["H", "O"])
        assert str(params) == str(before)


BAD_SECTIONS = {
    "zeta": (section(G4={**G4, "zetas": [0.5]}), r"'default'\]\['G4'\]: zeta 0.5 must be at least"),
    "zeta of G5": (section(G5={**G4, "zetas": [0.99]}), r"\['G5'\]: zeta 0.99"),
    "eta": (section(G2={"etas": [-1.0], "rs_s": [0]}), r"\['G2'\]: eta -1.0 must not be negative"),
    "NaN": (section(G2={"etas": [np.nan]}), r"\['G2'\]: eta is nan, expected a finite number"),
    "text": (section(G2={"etas": ["many"]}), r"\['G2'\]: eta is 'many', expected a finite"),
    "truth": (section(G2={"etas": [True]}), r"\['G2'\]: eta is True, expected a finite number"),
    "cutoff": (section(cutoff=0), r"\['default'\]: cutoff 0.0 must be positive"),
    "no cutoff": (section(cutoff=None), r"\['default'\] has no 'cutoff'"),
    "empty list": (section(G2={"etas": [], "rs_s": [0]}), r"\['G2'\]\['etas'\] is empty"),
    "no etas": (section(G4={"zetas": [1], "gammas": [1]}), r"\['G4'\] has no 'etas'"),
    "unknown key": (section(cutof=5.0), r"\['default'\] has the unknown key 'cutof'.*'cutoff'\?"),
    "case": (section(g2=G2), r"unknown key 'g2'; did you mean 'G2'\?"),
    "unknown list": (section(G2={**G2, "eta": [1]}), r"\['G2'\] .*'eta'; did you mean 'etas'\?"),
    "nothing": ({"cutoff": 5.0}, r"\['default'\] has no symmetry functions"),
    "power of a negative number": (
        section(G4={"etas": [0.1], "zetas": [1.5], "gammas": [1.2]}),
        r"\['G4'\]: gamma 1.2 beyond ±1 needs an integer zeta, not 1.5",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD_SECTIONS.values(), ids=BAD_SECTIONS)
def test_a_wrong_section_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        descriptor_setup({"default": given}, ["H", "O"])


def test_other_wrong_fp_params():
    with pytest.raises(ValueError, match="neither 'O' nor 'default'"):
        descriptor_setup({"H": section()}, ["H", "O"])
    with pytest.raises(ValueError, match=r"unknown key 'defualt'; did you mean 'default'\?"):
        descriptor_setup({"defualt": section()}, ["H"])
    with pytest.raises(TypeError, match="fp_params is list"):
        descriptor_setup([section()], ["H"])
    with pytest.raises(TypeError, match=r"fp_params\['H'\] is int"):
        descriptor_setup({"H": 3}, ["H"])
    with pytest.raises(ValueError, match="'Hh' is not a chemical symbol"):
        descriptor_setup({"default": section()}, ["Hh"])
    # Gamma beyond ±1 is fine where the power is an integer, and a section nobody needs is too.
    fine = section(G4={"etas": 0.1, "zetas": 2, "gammas": 1.2})
    descriptor_setup({"default": fine, "Pt": section()}, ["H"])


class TestCutoffParams:
    def test_names_in_any_case(self):
        assert cutoff_function(None) == ("cosine", 0.0)
        assert cutoff_function({"cutoff_func": "COSINE"}) == ("cosine", 0.0)
        assert cutoff_function({"cutoff_func": "polynomial", "gamma": 2}) == ("polynomial", 2.0)
        assert cutoff_function({"cutoff_func": "Exp", "alpha": 0.2}) == ("exp", 0.2)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"cutoff_func": "tan"}, "is 'tan'; expected 'Cosine' or 'Polynomial', or one of"),
            (
                {"cutoff_func": "poly2", "alpha": 1.0},
                r"\['alpha'\] is 1.0, must be from 0 to below 1",
            ),
            ({"cutoff_func": "tanh", "alpha": 0.5}, r"\['alpha'\] is 0.5, must be 0 for 'tanh'"),
            ({}, "expected 'Cosine' or 'Polynomial'"),
            ({"cutoff_func": "Polynomial"}, r"\['gamma'\] is None, expected a finite number"),
            ({"cutoff_func": "Polynomial", "gamma": 0}, "must be positive"),
            ({"cutoff_fun": "Cosine"}, r"did you mean 'cutoff_func'\?"),
        ],
    )
    def test_wrong(self, given, message):
        with pytest.raises(ValueError, match=message):
            cutoff_function(given)

    def test_the_hash_knows_the_cutoff_function(self):
        setup = descriptor_setup({"default": section()}, ["H"])
        polynomials = [{"cutoff_func": "Polynomial", "gamma": gamma} for gamma in (2.0, 3.0)]
        alphas = [{"cutoff_func": name, "alpha": 0.5} for name in ("cosine", "poly1", "poly2")]
        hashes = {setup_hash(setup, params) for params in [None, *polynomials, *alphas]}
        assert len(hashes) == 6
        assert setup_hash(setup, {"cutoff_func": "Cosine"}) in hashes


class TestAmpList:
    def test_all_etas_are_divided_by_the_square_of_the_cutoff(self):
        G = [
            {"type": "G4", "elements": ["H", "O"], "eta": 0.2, "zeta": 4, "gamma": 1},
            {"type": "G5", "elements": ["O", "H"], "eta": 0.2, "zeta": 1, "gamma": -1},
            {"type": "G2", "element": "O", "eta": 4.0, "Rs": 0.5},
            {"type": "G2", "element": "H", "eta": 4.0, "offset": 0.5, "cutoff": 3.0},
            {"type": "G2", "element": "H", "eta": 4.0},
        ]
        setup = descriptor_setup({"O": G, "H": section()}, ["O", "H"])
        rc2 = 6.5**2
        expected = [
            (2, 1, 0, 3.0, 4 / 9, 0.5, 0),
            (2, 1, 0, 6.5, 4 / rc2, 0, 0),
            (2, 8, 0, 6.5, 4 / rc2, 0.5, 0),
            (4, 8, 1, 6.5, 0.2 / rc2, 4, 1),
            (5, 8, 1, 6.5, 0.2 / rc2, 1, -1),
        ]
        assert_allclose(setup["O"], expected, rtol=1e-15)
        assert_array_equal(setup["H"], descriptor_setup({"default": section()}, ["O", "H"])["H"])

    def test_common_cutoff(self):
        G = [{"type": "G2", "element": "H", "eta": 4.0}]
        assert descriptor_setup({"cutoff": 4.0, "H": G}, ["H"])["H"][0, 3] == 4.0
        assert descriptor_setup({"cutoff": 4.0, "default": G}, ["H"])["H"][0, 4] == 4 / 16

    def test_same_functions_as_the_dictionary(self):
        dictionary = {"default": {"cutoff": 6.5, "G2": G2, "G4": G4}}
        pairs = [["H", "H"], ["O", "H"], ["O", "O"]]
        G = [
            *({"type": "G2", "element": e, "eta": 4.0} for e in ("O", "H")),
            *({"type": "G4", "elements": p, "eta": 0.1, "zeta": 1, "gamma": -1} for p in pairs),
        ]
        amp = Gaussian({"H": G, "O": G}, ["H", "O"])
        assert amp.descriptor_setup_hash == Gaussian(dictionary, ["H", "O"]).descriptor_setup_hash

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"type": "G6"}, r"fp_params\['H'\]\[1\]\['type'\] is 'G6'"),
            (
                {"type": "G2", "element": "C", "eta": 1},
                r"\[1\]\['element'\]: 'C' is not in elements",
            ),
            ({"type": "G2", "eta": 1}, r"\[1\]\['element'\] is None, expected one symbol"),
            ({"type": "G4", "elements": "O"}, r"\['elements'\] is 'O', expected a list of two"),
            ({"type": "G2", "element": "H"}, r"\[1\]: eta is None"),
            ({"type": "G2", "element": "H", "zeta": 1}, r"\[1\] has the unknown key 'zeta'"),
            (
                {"type": "G5", "elements": ["H", "H"], "eta": 1, "zeta": 0, "gamma": 1},
                r"\[1\]: zeta 0.0 must be at least 1",
            ),
        ],
    )
    def test_a_wrong_entry_is_named(self, entry, message):
        good = {"type": "G2", "element": "H", "eta": 4.0}
        with pytest.raises(ValueError, match=message):
            descriptor_setup({"H": [good, entry]}, ["H", "O"])


class TestWeighted:
    DICTIONARY = section(
        G2W={"etas": [4.0, 1.0], "rs_s": [0.0, 0.5]}, G4W=G4, G5W={**G4, "rs_s": [0.3]}
    )

    def test_rows_have_no_neighbours(self):
        table = descriptor_setup({"default": {**self.DICTIONARY, "cutoff": 5.0}}, ["O", "H"])["H"]
        expected = [
            (12, 0, 0, 5, 1 / 25, 0, 0, 0),
            (12, 0, 0, 5, 1 / 25, 0.5, 0, 0),
            (12, 0, 0, 5, 4 / 25, 0, 0, 0),
            (12, 0, 0, 5, 4 / 25, 0.5, 0, 0),
            (14, 0, 0, 5, 0.1 / 25, 1, -1, 0),
            (15, 0, 0, 5, 0.1, 1, -1, 0.3),  # the eta of G5W is used as it is
        ]
        assert_allclose(table[table[:, 0] > 5], expected, rtol=1e-15)
        # Without an angular shift there is no eighth column, which older tables do not have.
        without = descriptor_setup({"default": section(G4W=G4)}, ["O", "H"])["H"]
        assert without.shape == (6, 7)

    def test_list_has_the_hash_of_the_dictionary(self):
        G = [
            {"type": "G2W", "eta": 4.0, "cutoff": 5.0},
            {"type": "G4W", "eta": 0.1, "zeta": 1, "gamma": -1, "cutoff": 5.0},
            {"type": "G5W", "eta": 0.2 * 25, "zeta": 1, "gamma": -1, "Rs": 0.3, "cutoff": 5.0},
        ]
        dictionary = {
            "cutoff": 5.0,
            "G2W": {"etas": [4.0]},
            "G4W": G4,
            "G5W": {**G4, "etas": [0.2], "rs_s": [0.3]},
        }
        one_by_one = GDS(["H", "O"], cutoff=5.0)
        for symbol in ("H", "O"):
            one_by_one.add_weighted("G5W", symbol, 0.2, 1.0, -1.0, 0.3)
        one_by_one.batch_add_descriptors("2W", [4.0], [0.0])
        one_by_one.batch_add_descriptors("4W", [0.1], [1.0], [-1.0])
        as_list, as_dictionary, as_set = (
            Gaussian(given, ["H", "O"])
            for given in ({"default": G}, {"default": dictionary}, one_by_one)
        )
        assert as_list.descriptor_setup_hash == as_dictionary.descriptor_setup_hash
        assert as_set.descriptor_setup_hash == as_dictionary.descriptor_setup_hash
        again = GDS.from_setup(["H", "O"], 5.0, None, as_set.descriptor_setup)
        assert again.descriptor_setup_hash == as_set.descriptor_setup_hash
        entries = as_entries({"default": dictionary}, ["H", "O"])
        assert Gaussian(entries, ["H", "O"]).descriptor_setup_hash == as_set.descriptor_setup_hash

    def test_wrong_entries_are_named(self):
        entry = {"type": "G2W", "eta": 4.0, "element": "O"}
        with pytest.raises(ValueError, match=r"\[0\] has the unknown key 'element'"):
            descriptor_setup({"default": [entry]}, ["O"])
        with pytest.raises(ValueError, match=r"\['G4W'\]: zeta 0.5 must be at least 1"):
            descriptor_setup({"default": section(G4W={**G4, "zetas": [0.5]})}, ["O"])
        with pytest.raises(ValueError, match="kind is 'G4', expected one of"):
            GDS(["H"]).add_weighted("G4", "H", 0.1, 1.0, 1.0)
        with pytest.raises(ValueError, match="G4W of H: gamma is None"):
            GDS(["H"]).add_weighted("G4W", "H", 0.1, 1.0)


class TestDescriptorSet:
    def test_one_by_one_has_the_hash_of_the_dictionary(self):
        functions = GDS(["H", "O"], cutoff=5.0)
        for center in ("H", "O"):
            functions.add_g2(center, "H", eta=4.0)
            functions.add_g2(center, "O", eta=4.0, update=False)
            for pair in (("O", "H"), ("H", "H"), ("O", "O")):
                functions.add_g4(center, *pair, eta=0.1, zeta=1.0, gamma=-1.0, update=False)
                functions.add_g5(center, *pair, eta=0.1, zeta=1.0, gamma=-1.0, update=False)
        functions.update()
        expected = Gaussian({"default": section(G5=G4)}, ["H", "O"])
        assert functions.descriptor_setup_hash == expected.descriptor_setup_hash

    def test_batches_zip_their_lists(self):
        functions = GDS(["H", "O"], cutoff=5.0)
        functions.batch_add_descriptors(2, [4.0, 1.0], [0.0, 2.0])
        functions.batch_add_descriptors(4, [0.1], [1.0], [-1.0], cutoff=4.0)
        functions.batch_add_descriptors(3, [1.5])
        table = functions.descriptor_setup["O"]
        assert [tuple(row) for row in table[table[:, 0] == 2][:2, 4:6]] == [
            (1 / 25, 2),
            (4 / 25, 0),
        ]
        assert_array_equal(table[table[:, 0] == 4][:, 3], [4.0] * 3)
        assert len(table) == 4 + 2 + 3
        with pytest.raises(ValueError, match="G2 needs lists of one length"):
            functions.batch_add_descriptors(2, [4.0, 1.0], [0.0])
        with pytest.raises(ValueError, match="expected 2, 3, 4 or 5"):
            functions.batch_add_descriptors(7, [4.0], [0.0])

    def test_update_can_wait(self):
        functions = GDS(["H"])
        before = functions.descriptor_setup_hash
        functions.add_g2("H", "H", update=False)
        assert functions.descriptor_setup_hash == before
        functions.update()
        assert functions.descriptor_setup_hash != before

    def test_default_interactions_are_amp_defaults(self):
        functions = GDS(["H", "O"], default_interactions=True)
        etas = np.logspace(np.log10(0.05), np.log10(5.0), 4)
        angular = {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}
        expected = {"default": {"cutoff": 6.5, "G2": {"etas": etas}, "G4": angular}}
        gaussian = Gaussian(expected, ["H", "O"])
        assert functions.descriptor_setup_hash == gaussian.descriptor_setup_hash

    def test_hashable_and_equal_by_content(self):
        one, two, other = (GaussianDescriptorSet(["H", "O"], cutoff=4.0) for _ in range(3))
        one.add_g2("H", "O")
        two.add_g2("H", "O")
        other.add_g2("H", "O", eta=3.1)
        assert one == two
        assert one != other
        assert len({one, two, other}) == 2
        assert one != "a set"

    def test_wrong_values_are_named(self):
        functions = GDS(["H", "O"])
        with pytest.raises(ValueError, match="G2 of H-C: 'C' is not in elements"):
            functions.add_g2("H", "C")
        with pytest.raises(ValueError, match=r"G4 of H-O-H: zeta 0.5 must be at least 1"):
            functions.add_g4("H", "O", "H", zeta=0.5)
        with pytest.raises(ValueError, match=r"G2 of H-O: cutoff -1.0 must be positive"):
            functions.add_g2("H", "O", cutoff=-1)
        with pytest.raises(ValueError, match=r"cutoff 0.0 must be positive"):
            GDS(["H"], cutoff=0)
        with pytest.raises(ValueError, match="expected 'Cosine' or 'Polynomial'"):
            GDS(["H"], cutoff_params={"cutoff_func": "box"})
        assert functions.descriptor_setup == {}

    def test_every_element_needs_functions_and_knows_its_neighbours(self):
        functions = GDS(["H", "O"])
        functions.add_g2("H", "O")
        with pytest.raises(ValueError, match="'O' has no symmetry functions"):
            Gaussian(functions, ["H", "O"])
        with pytest.raises(ValueError, match="neighbour 'O', which is not in elements"):
            Gaussian(functions, ["H"])

    def test_its_own_cutoff_function_counts(self):
        polynomial = {"cutoff_func": "Polynomial", "gamma": 2.0}
        functions = GDS(["H", "O"], cutoff_params=polynomial, default_interactions=True)
        assert Gaussian(functions, ["H", "O"]).descriptor_setup_hash == (
            functions.descriptor_setup_hash
        )


def test_polynomial_cutoff_without_derivatives():
    """v1.0 fails there with an UnboundLocalError."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 2.0]])
    params = {"default": {"cutoff": 4.0, "G2": {"etas": [0.0], "rs_s": [0.0]}}}
    descriptor = Gaussian(params, ["H"], {"cutoff_func": "Polynomial", "gamma": 2.0})
    values = descriptor.values(Frames.from_atoms([atoms]))
    assert_allclose(values, 1 + 2 * 0.5**3 - 3 * 0.5**2, rtol=1e-13)


def test_small_zeta_does_not_silence_the_rest():
    """v1.0 returns zeros for every function of the atom; here the set-up is refused."""
    params = {"default": section(G4={**G4, "zetas": [0.5]})}
    with pytest.raises(ValueError, match="zeta"):
        Gaussian(params, ["H", "O"])
    values = Gaussian({"default": section()}, ["H", "O"]).values(
        Frames.from_atoms([molecule("H2O")])
    )
    assert values.any(axis=1).all()
