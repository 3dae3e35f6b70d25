"""The table of valence densities, and files of densities."""

import numpy as np
import pytest
from ase.data import chemical_symbols

from amptorch.descriptor.densities import read_gaussians, valence_gaussians
from amptorch.descriptor.densities.fit import RADII, fit_gaussians
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm

SYMBOLS = chemical_symbols[1:87]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_element_has_its_electrons(symbol):
    gaussians = valence_gaussians(symbol)
    b, beta = gaussians.T
    electrons = (b * (np.pi / beta) ** 1.5).sum()
    assert electrons == pytest.approx(round(electrons), abs=1e-3)
    assert 1 <= round(electrons) <= 32
    r = np.linspace(0, 6, 601)[:, None]
    density = (b * np.exp(-beta * r**2)).sum(axis=1)
    # Next to nothing is negative: less than 1 in 1000 electrons.
    volume = 4 * np.pi * r[:, 0] ** 2 * 0.01
    assert (volume * density.clip(max=0)).sum() > -1e-3 * electrons
    assert 0.4 < np.sqrt((volume * r[:, 0] ** 2 * density).sum() / electrons) < 3.0


def test_densities_need_no_files():
    descriptor = GMPOrderNorm({"MCSHs": {"orders": [0], "sigmas": [0.5]}}, ["Fe", "O"])
    np.testing.assert_array_equal(descriptor.densities["O"], valence_gaussians("O"))


def test_an_element_beyond_the_table_is_named():
    with pytest.raises(ValueError, match=r"'U'.*atom_gaussians"):
        GMPOrderNorm({"MCSHs": {"orders": [0], "sigmas": [0.5]}}, ["O", "U"])


def test_the_fit_finds_gaussians():
    expected = np.array([[0.3, 0.7], [-0.8, 3.0], [2.0, 9.0]])
    density = np.exp(-expected[:, 1] * RADII[:, None] ** 2) @ expected[:, 0]
    gaussians, error = fit_gaussians(density)
    assert error < 0.01
    charges = [(g[:, 0] * (np.pi / g[:, 1]) ** 1.5).sum() for g in (gaussians, expected)]
    assert charges[0] == pytest.approx(charges[1], rel=1e-6)


def test_files(tmp_path):
    path = tmp_path / "O.g"
    path.write_text("# B beta\n 1.5\t2.0\n-0.5  3e0\n")
    np.testing.assert_array_equal(read_gaussians(path), [[1.5, 2.0], [-0.5, 3.0]])
    path.write_text("1.5 2.0 3.0\n")
    with pytest.raises(ValueError, match=r"O\.g.*two columns"):
        read_gaussians(path)
    path.write_text("one two\n")
    with pytest.raises(ValueError, match=r"O\.g.*numbers"):
        read_gaussians(path)
    with pytest.raises(FileNotFoundError, match=r"no\.g"):
        read_gaussians(tmp_path / "no.g")
