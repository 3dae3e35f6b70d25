"""The tables of densities, and files of densities."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.data import chemical_symbols

from amptorch.descriptor.densities import read_gaussians, table_densities
from amptorch.descriptor.densities.fit import RADII, fit_gaussians
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.descriptor.multipole.parameters import with_densities
from amptorch.preprocessing import AtomsToData

SYMBOLS = chemical_symbols[1:87]
PROBES = {"MCSHs": {"orders": [0], "sigmas": [0.5]}}
GROUPS = {"MCSHs": {"0": {"groups": [1], "sigmas": [0.5]}}}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_element_has_its_electrons(symbol):
    gaussians = table_densities([symbol], "valence")[symbol]
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


def test_without_files_the_numbers_are_those_of_v1():
    golden = np.load(Path(__file__).parents[1] / "golden" / "gmp_default_densities.npz")
    keys = ("numbers", "positions", "cell", "pbc")
    atoms = Atoms(**{key: golden[key] for key in keys})
    descriptor = GMPOrderNorm(json.loads(str(golden["fp_params"])), golden["elements"])
    data = AtomsToData(descriptor, save_fps=False).convert(atoms)
    np.testing.assert_allclose(data.fingerprint, golden["fingerprint"], rtol=1e-10)
    squares = float((data.fprimes.values() ** 2).sum())
    assert squares == pytest.approx(float(golden["jacobian_sum_of_squares"]), rel=1e-10)


@pytest.mark.parametrize(("scheme", "probes"), [(GMPOrderNorm, PROBES), (GMP, GROUPS)])
def test_tables_by_name(scheme, probes):
    first, named, own = (
        scheme({**probes, **more}, ["Fe", "O"])
        for more in ({}, {"densities": "v1"}, {"densities": "valence"})
    )
    assert first.descriptor_setup_hash == named.descriptor_setup_hash
    assert first.descriptor_setup_hash != own.descriptor_setup_hash
    expected = table_densities(["O"], "valence")["O"]
    np.testing.assert_array_equal(own.densities["O"], expected)
    given = {"densities": "valence", "atom_gaussians": {"O": [[1.0, 2.0]]}}
    np.testing.assert_array_equal(scheme({**probes, **given}, ["O"]).densities["O"], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"fp_params\['densities'\].*v1.*valence"):
        scheme({**probes, "densities": "mine"}, ["O"])


def test_numbers_in_a_checkpoint_depend_on_no_table():
    inlined = with_densities({**PROBES, "densities": "valence"}, ["O"])
    assert inlined.keys() == {"MCSHs", "atom_gaussians"}
    own = GMPOrderNorm({**PROBES, "densities": "valence"}, ["O"])
    assert GMPOrderNorm(inlined, ["O"]).descriptor_setup_hash == own.descriptor_setup_hash


def test_elements_that_v1_lacks_are_filled_in_with_one_warning():
    with pytest.warns(UserWarning, match="no densities of Nd, Rn: the package's own") as warned:
        descriptor = GMPOrderNorm(PROBES, ["Nd", "O", "Rn"])
    assert len(warned) == 1
    own = table_densities(["Nd", "O"], "valence")
    np.testing.assert_array_equal(descriptor.densities["Nd"], own["Nd"])
    assert not np.array_equal(descriptor.densities["O"], own["O"])


@pytest.mark.parametrize("table", ["v1", "valence"])
def test_an_element_beyond_the_tables_is_named(table):
    with pytest.raises(ValueError, match=r"'U'.*atom_gaussians"):
        GMPOrderNorm({**PROBES, "densities": table}, ["O", "U"])


@pytest.mark.slow
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
