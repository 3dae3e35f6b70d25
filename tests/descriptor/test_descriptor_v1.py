"""Descriptors as v1.0's scripts make and ask them; the hashes are what v1.0 gave."""

import json

import numpy as np
import pytest
from ase.build import molecule

from amptorch.dataset import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm

FUNCTIONS = {
    "default": {
        "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), num=4), "rs_s": [0]},
        "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
        "cutoff": 5.0,
    }
}
COSINE, POLYNOMIAL = "a4b9813e10e97df1fb0678cd7c5d1183", "8f2a28e0bad9533b03a2bc4088f3ab65"
PROBES = {"MCSHs": {"orders": [0, 1], "sigmas": [0.5, 1.0]}, "cutoff": 4.0}
GROUPS = {"MCSHs": {"1": {"groups": [1], "sigmas": [0.5, 1.0]}}, "cutoff": 4.0}
ELEMENTS = ["C", "H", "O"]


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ((), {}, COSINE),
        (("cosine",), {}, COSINE),
        (("Cosine", 2.0), {}, COSINE),
        ((None,), {}, COSINE),
        (({"cutoff_func": "Cosine"},), {}, COSINE),
        (("polynomial", 2.0), {}, POLYNOMIAL),
        ((), {"cutoff_func": "Polynomial", "gamma": 2.0}, POLYNOMIAL),
        (({"cutoff_func": "Polynomial", "gamma": 2.0},), {}, POLYNOMIAL),
    ],
)
def test_cutoff_function_and_gamma(arguments, options, expected):
    assert Gaussian(FUNCTIONS, ["Cu", "O"], *arguments, **options).descriptor_setup_hash == expected


@pytest.mark.parametrize("function", ["NA", "polynomial"])
def test_a_cutoff_function_that_cannot_be(function):
    with pytest.raises(ValueError, match="cutoff_params"):
        construct_descriptor(("gaussian", FUNCTIONS, function, ["Cu", "O"]))


def test_a_set_made_one_by_one():
    shared = {"cutoff_func": "cosine"}
    functions = GaussianDescriptorSet(np.array(["Cu", "O"]), 5.0, shared)
    for centre in ("Cu", "O"):
        for neighbor in ("Cu", "O"):
            assert functions.add_g2(centre, neighbor, eta=0.5, rs=0.0) is functions
        assert functions.add_g4(centre, "Cu", "O", eta=0.005, zeta=4.0, gamma=1.0) is functions
    assert functions.descriptor_setup_hash == "610be2614b3fbfed39a949cf14a9850c"
    functions.cutoff_params["gamma"] = 1.0
    assert shared == GaussianDescriptorSet(["O"]).cutoff_params == {"cutoff_func": "cosine"}
    assert functions.add_g5("Cu", "O", "O") is functions


@pytest.mark.parametrize(("scheme", "fp_params"), [("gmpordernorm", PROBES), ("GMP", GROUPS)])
@pytest.mark.parametrize("cutoff_params", ["NA", None, {}])
def test_multipoles_look_at_no_cutoff_params(scheme, fp_params, cutoff_params):
    descriptor = construct_descriptor((scheme, fp_params, cutoff_params, np.array(["H", "O"])))
    assert descriptor.elements == ["H", "O"]
    assert {type(symbol) for symbol in descriptor.elements} == {str}


def each():
    return [Gaussian(FUNCTIONS, ELEMENTS), GMPOrderNorm(PROBES, ELEMENTS), GMP(GROUPS, ELEMENTS)]


@pytest.mark.parametrize("descriptor", each(), ids=lambda d: d.descriptor_type)
def test_fingerprints_of_one_element(descriptor):
    image = molecule("CH3OH")
    (whole,) = descriptor.prepare_fingerprints([image], calc_derivatives=True)
    part = descriptor.calculate_fingerprints(image, "H", True, None)
    hydrogen = np.flatnonzero(image.numbers == 1)
    np.testing.assert_array_equal(part["indices"], hydrogen)
    assert part["num_atoms"] == len(part["atomic_numbers"]) == 4
    np.testing.assert_array_equal(part["descriptors"], whole["descriptors"][hydrogen])

    def dense(primes):
        matrix = np.zeros(primes["size"])
        matrix[primes["row"], primes["col"]] = primes["val"]
        return matrix.reshape(-1, descriptor.n_features, 3 * len(image))

    expected = dense(whole["descriptor_primes"])[hydrogen]
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(dense(part["descriptor_primes"]), expected)
    values = descriptor.calculate_fingerprints(image, "O", calc_derivatives=False)
    assert "descriptor_primes" not in values
    with pytest.raises(ValueError, match="'N' is not one of"):
        descriptor.calculate_fingerprints(image, "N", False, None)


@pytest.mark.parametrize("descriptor", each(), ids=lambda d: d.descriptor_type)
def test_the_set_up_as_a_file(descriptor, tmp_path):
    descriptor.save_descriptor_setup(tmp_path / "setup.json")
    saved = json.loads((tmp_path / "setup.json").read_text())
    assert saved["descriptor_type"] == type(descriptor).__name__
    assert saved["elements"] == ELEMENTS
    assert saved["descriptor_setup_hash"] == descriptor.get_descriptor_setup_hash()
    tables = descriptor.prepare_descriptor_parameters()
    for symbol in ELEMENTS:
        np.testing.assert_array_equal(saved["descriptor_setup"][symbol], tables[symbol])
    more = {"Gaussian": "cutoff_params"}.get(saved["descriptor_type"], "densities")
    assert more in saved
    with pytest.raises(OSError, match="nowhere"):
        descriptor.save_descriptor_setup(tmp_path / "nowhere" / "setup.json")


def test_default_cutoff_and_densities():
    descriptor = GMPOrderNorm(PROBES, ["H"])
    free = GMPOrderNorm({"MCSHs": PROBES["MCSHs"]}, ["H"])
    assert descriptor.default_cutoff() == free.cutoff == free.default_cutoff(1e-8)
    assert descriptor.default_cutoff(threshold=1e-4) < free.cutoff
    with pytest.raises(ValueError, match="nowhere above 1"):
        descriptor.default_cutoff(1.0)
    np.testing.assert_array_equal(
        descriptor.load_pseudo_densities(np.array(["O", "H"]))["H"], descriptor.densities["H"]
    )
