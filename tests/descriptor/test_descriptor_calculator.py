"""Fingerprints by the classes and paths of v1.0."""

import numpy as np
import pytest
from ase.build import molecule

from amptorch.descriptor import base, base_descriptor
from amptorch.descriptor.descriptor_calculator import DescriptorCalculator
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.v1.atoms_to_data import DescriptorCalculator as ByOtherPath

FP_PARAMS = {
    "H": {"cutoff": 4.0, "G2": {"etas": [1.0], "rs_s": [0.0]}},
    "O": {"cutoff": 4.0, "G2": {"etas": [1.0, 2.0], "rs_s": [0.0]}},
}
IMAGES = [molecule("H2O"), molecule("H2O2")]


@pytest.fixture
def calculator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield DescriptorCalculator(IMAGES, Gaussian(FP_PARAMS, ["H", "O"]), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_descriptors_of_images_and_of_elements(calculator):
    assert calculator.calculated_descriptors is None
    separate = calculator.get_descriptors()
    every = calculator.get_descriptors(separate_atomtypes=False)
    assert every is calculator.calculated_descriptors
    assert [len(image["descriptors"]) for image in every] == [3, 4]
    assert every[0]["descriptor_primes"]["size"].tolist() == [12, 9]
    assert {z: rows.shape for z, rows in separate.items()} == {1: (4, 2), 8: (3, 4)}
    oxygen = np.concatenate([image["descriptors"][image["atomic_numbers"] == 8] for image in every])
    np.testing.assert_array_equal(separate[8], oxygen)


def test_kept_values_are_taken_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    descriptor = Gaussian(FP_PARAMS, ["H", "O"])
    first = DescriptorCalculator(IMAGES, descriptor, False, verbose=False).get_descriptors()
    assert (tmp_path / base.STORE).is_file()
    monkeypatch.setattr(Gaussian, "values", None)
    again = DescriptorCalculator(IMAGES, descriptor, False, verbose=False).get_descriptors()
    np.testing.assert_array_equal(again[8], first[8])


def test_principal_components(calculator):
    components = calculator.calculate_PCA(n_components=1)
    assert {z: rows.shape for z, rows in components.items()} == {1: (4, 1), 8: (3, 1)}
    rows = calculator.get_descriptors()[8]
    centred = rows - rows.mean(axis=0)
    # The singular vector of the largest singular value, of either sign.
    expected = np.abs(centred @ np.linalg.svd(centred)[2][0])
    np.testing.assert_allclose(np.abs(components[8][:, 0]), expected, atol=1e-12)
    assert calculator.pca_models[8].n_components == 1
    assert calculator.calculate_PCA(False, n_components=2).shape == (7, 2)
    with pytest.raises(ValueError, match="element H: n_components is 10, at most 2"):
        calculator.calculate_PCA()


def test_scaling(calculator):
    assert calculator.calculate_scaling(save_models=False, apply_scaling=False) is None
    assert calculator.scaling_models is None
    scaled = calculator.calculate_scaling()
    np.testing.assert_allclose([scaled[8].min(axis=0), scaled[8].max(axis=0)], [[-1] * 4, [1] * 4])
    back = calculator.scaling_models[8].inverse_transform(scaled[8])
    np.testing.assert_allclose(back, calculator.get_descriptors()[8])
    together = calculator.calculate_scaling(False, scaler_min=0)
    np.testing.assert_allclose([together.min(axis=0), together.max(axis=0)], [[0] * 4, [1] * 4])


def test_v1_paths():
    assert base_descriptor.BaseDescriptor is base.BaseDescriptor
    assert ByOtherPath is DescriptorCalculator
