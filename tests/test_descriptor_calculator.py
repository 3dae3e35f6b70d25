"""Fingerprints by the classes and paths of v1.0."""

import numpy as np
from ase.build import molecule

from amptorch.descriptor import base, base_descriptor
from amptorch.descriptor.descriptor_calculator import DescriptorCalculator
from amptorch.descriptor.Gaussian import Gaussian

FP_PARAMS = {
    "H": {"cutoff": 4.0, "G2": {"etas": [1.0], "rs_s": [0.0]}},
    "O": {"cutoff": 4.0, "G2": {"etas": [1.0, 2.0], "rs_s": [0.0]}},
}


def test_descriptors_of_images_and_of_elements():
    images = [molecule("H2O"), molecule("H2O2")]
    descriptor = Gaussian(FP_PARAMS, ["H", "O"])
    lazy = DescriptorCalculator(images, descriptor, automatic_calculation=False)
    assert lazy.calculated_descriptors is None
    every = DescriptorCalculator(images, descriptor, calc_derivatives=True).get_descriptors()
    assert [len(image["descriptors"]) for image in every] == [3, 4]
    assert every[0]["descriptor_primes"]["size"].tolist() == [12, 9]

    separate = lazy.get_descriptors(separate_atomic_numbers=True)
    assert {z: rows.shape for z, rows in separate.items()} == {1: (4, 2), 8: (3, 4)}
    oxygen = np.concatenate([image["descriptors"][image["atomic_numbers"] == 8] for image in every])
    np.testing.assert_array_equal(separate[8], oxygen)


def test_v1_path_of_the_base():
    assert base_descriptor.BaseDescriptor is base.BaseDescriptor
