"""Potentials of n2p2, read: its energies and forces, and what a damaged file is told."""

import re
import shutil

import numpy as np
import pytest
import torch

import amptorch
from amptorch.config import Config
from amptorch.model import make_model
from amptorch.model.activations import Exponential, Harmonic
from amptorch.n2p2 import read_potential
from amptorch.n2p2.networks import ACTIVATIONS
from tests.n2p2.golden import ALL, CASES, COMPACT, FOLDER, largest_difference, structure, structures

CASE = FOLDER / "normalize_nodes"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_energies_and_forces(path):
    potential = read_potential(path)
    for name in ("crystal", "cluster"):
        atoms, energy, forces = structure(path, name)
        found = potential.predict([atoms])
        np.testing.assert_allclose(found["energy"][0], energy, rtol=1e-12)
        np.testing.assert_allclose(found["forces"][0], forces, atol=1e-12 * np.abs(forces).max())


def test_all_cases_are_there():
    assert len(CASES) >= 20


@pytest.mark.parametrize("path", COMPACT, ids=lambda path: path.name)
def test_compact_functions_are_refused(path):
    with pytest.raises(ValueError, match=r"input\.nn, line 11: symmetry functions of type 2[0-5]"):
        read_potential(path)


@pytest.mark.parametrize("name", ["activation_c", "weighted_12_13", "angular_shift"])
def test_saved_and_loaded(name, tmp_path):
    potential = read_potential(FOLDER / name)
    potential.save(tmp_path)
    again = amptorch.load(tmp_path)
    assert largest_difference(potential, again, structures(FOLDER / name)) == [0, 0]
    assert [*again.feature_scaler.ranges] == [1, 8, 26]


def test_bohr_and_hartree():
    atoms, energy, forces = structure(CASE, "crystal")
    length, hartree = 0.5291772105638411, 27.211386024367243
    atoms.set_cell(atoms.cell * length, scale_atoms=True)
    found = read_potential(CASE, "bohr").predict([atoms])
    np.testing.assert_allclose(found["energy"][0], energy * hartree, rtol=1e-10)
    expected = forces * hartree / length
    np.testing.assert_allclose(found["forces"][0], expected, atol=1e-10 * np.abs(expected).max())
    with pytest.raises(ValueError, match="units is 'nm'; expected 'angstrom'"):
        read_potential(CASE, "nm")


def test_every_activation():
    x = torch.linspace(-3, 30, 50, dtype=torch.float64)
    expected = {
        "p": torch.log(torch.exp(-x) + 1) + x,
        "g": torch.exp(-(x**2) / 2),
        "c": torch.cos(x),
        "S": 1 / (1 + torch.exp(x)),
        "e": 1 / torch.exp(x),
        "h": x**2,
    }
    for letter, values in expected.items():
        torch.testing.assert_close(ACTIVATIONS[letter]()(x), values, rtol=1e-12, atol=1e-15)


def test_activations_of_a_configuration():
    settings = Config.from_dict(
        {"model": {"hidden_layers": [3, 2], "activation": ["Harmonic", "tanh", Exponential]}}
    )
    network = make_model(settings.model, ["O"], 4, torch.float64).elementwise_models[0]
    kinds = [type(layer) for layer in network.model_net]
    linear = torch.nn.Linear
    assert kinds == [linear, Harmonic, linear, torch.nn.Tanh, linear, Exponential]
    network.start_at(2.0)
    assert network.output.bias.item() == 2.0
    assert settings.to_dict()["model"]["activation"] == ["Harmonic", "Tanh", "Exponential"]
    for wrong in (["Tanh"], ["Tanh"] * 4):
        with pytest.raises(ValueError, match=r"model\.activation lists \d activations for 2"):
            Config.from_dict({"model": {"hidden_layers": [3, 2], "activation": wrong}})
    with pytest.raises(ValueError, match=r"model\.activation\[1\]: no class 'Tan' is known"):
        Config.from_dict({"model": {"hidden_layers": [3, 2], "activation": ["Tanh", "Tan"]}})


# File, words that are replaced, what stands there then, and the error.
DAMAGED = [
    ("input.nn", "elements O Fe H", "elements O Fe Q", "line 3: 'Q' is no chemical element"),
    ("input.nn", "elements O Fe H", "elements O Fe", "line 2: 'number_of_elements' is 3, but"),
    ("input.nn", "elements O Fe H", "elements O O H", "line 3: the element 'O' is there twice"),
    ("input.nn", "cutoff_type 1 0.0", "", "has no keyword 'cutoff_type'"),
    ("input.nn", "cutoff_type 1 0.0", "cutoff_type 9", "line 4: there is no cutoff_type 9"),
    ("input.nn", "cutoff_type 1 0.0", "cutoff_type 1 1.0", "line 4: alpha of 'cutoff_type'"),
    ("input.nn", "cutoff_type 1 0.0", "cutoff_type cos", "line 4: expected an integer, got 'cos'"),
    ("input.nn", "normalize_nodes", "nnp_type 4G-HDNNP", "only the type 2G-HDNNP is available"),
    ("input.nn", "normalize_nodes", "element_nodes_short H 1 3", "'element_nodes_short' is not"),
    (
        "input.nn",
        "normalize_nodes",
        "cutoff_type 1",
        "'cutoff_type' is there twice, first in line 4",
    ),
    ("input.nn", "normalize_nodes", "conv_energy 2.0", "'conv_energy' needs 'mean_energy' too"),
    ("input.nn", "normalize_nodes", "atom_energy Q 1", "'atom_energy' needs one of the elements"),
    ("input.nn", "scale_max_short 1.0", "scale_max_short 0.0", "line 7: 'scale_max_short' must be"),
    ("input.nn", "_short 5 3", "_short 5", "line 9: 'global_nodes_short' needs 2 values, got 1"),
    ("input.nn", "t p l", "t p", "line 10: 'global_activation_short' needs 3 values, got 2"),
    ("input.nn", "t p l", "t x l", "line 10: there is no activation 'x'; known are"),
    ("input.nn", "_short H 2 H", "_short H 4 H", "there is no symmetry function of type 4"),
    ("input.nn", "_short H 2 H", "_short H 23 H", "symmetry functions of type 23, of compact"),
    ("input.nn", "_short H 2 H", "_short H 2 C", "'C' is not among the elements"),
    ("input.nn", "_short H 2 H", "_short H 2 H 1", "type 2 needs the values n1 eta rs rc, got 5"),
    ("input.nn", "_short H 2 H", "_short H 2 H -", "got 5"),
    ("input.nn", "_short H ", "_short O ", "has no symfunction_short of 'H'"),
    ("scaling.data", "1 1 ", "1 2 ", "function 2 of element 1 is in line 2 too"),
    ("scaling.data", "\n1 1 ", "\n# 1 1 ", "has no line of function 1 of element 1"),
    ("scaling.data", "\n1 1 ", "\n4 1 ", "line 2: there is no element 4 of 3"),
    ("scaling.data", "\n1 1 ", "\n1 99 ", "line 2: element 1 has 5 functions in input.nn, not a"),
    ("scaling.data", "\n1 1 ", "\n1 1 nan ", "line 2: expected element, function, min, max"),
    ("weights.008.data", "1", "a", "weights.008.data, line 1: expected a number, got"),
    ("weights.008.data", "\n", "\n#", "weights.008.data has 1 weights and biases, but a network"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), DAMAGED)
def test_damage_is_named(tmp_path, name, old, new, message):
    shutil.copytree(CASE, tmp_path / "case")
    path = tmp_path / "case" / name
    text = path.read_text()
    assert old in text
    every = old in ("_short H ", "\n")
    path.write_text(text.replace(old, new) if every else text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_potential(tmp_path / "case")
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["input.nn", "scaling.data", "weights.026.data"])
def test_missing_files(tmp_path, name):
    shutil.copytree(CASE, tmp_path / "case")
    (tmp_path / "case" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_potential(tmp_path / "case")
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_potential(tmp_path / "other")
