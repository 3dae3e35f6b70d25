"""Potentials written for n2p2, read again, and what cannot be written."""

import numpy as np
import pytest
import torch

import amptorch
from amptorch.cli import main
from amptorch.data.scalers import FeatureScaler
from amptorch.descriptor.construct import construct_descriptor
from amptorch.n2p2 import read_potential, write_potential
from tests.n2p2.golden import CASES, FOLDER, largest_difference, structures
from tests.small_frames import config, mixed_frames

FUNCTIONS = {
    "Cu": {
        "cutoff": 4.5,
        "G1": {},
        "G2": {"etas": [0.5, 4.0], "rs_s": [0.0, 1.5]},
        "G4": {"etas": [0.1], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0], "rs_s": [0.0, 0.3]},
    },
    "O": {
        "cutoff": 4.0,
        "G2W": {"etas": [2.0, 5.0]},
        "G4W": {"etas": [0.3], "zetas": [2.5], "gammas": [-1.0]},
        "G5": {"etas": [0.02, 0.01], "zetas": [1.0], "gammas": [1.0]},
    },
}
# Both have no mean of whole frames.
PER_ATOM = {"dataset__target_scaling": "per_atom", "dataset__atomic_correction": True}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


def trained(frames, folder, **changes):
    settings = config(
        frames,
        folder,
        **{"dataset__fp_params": FUNCTIONS, "optim__epochs": 1, **PER_ATOM, **changes},
    )
    return amptorch.fit(amptorch.prepare(settings))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_what_was_read(path, tmp_path):
    potential = read_potential(path)
    write_potential(potential, tmp_path)
    again = read_potential(tmp_path)
    assert max(largest_difference(potential, again, structures(path))) < 1e-13
    for number, limits in potential.feature_scaler.ranges.items():
        assert all(map(torch.equal, limits, again.feature_scaler.ranges[number]))
    # Written a second time, nothing changes.
    write_potential(again, tmp_path / "again")
    for name in ("input.nn", "scaling.data"):
        assert (tmp_path / name).read_text() == (tmp_path / "again" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dataset__scaling": {"type": "standardize", "elementwise": True}},
        {"dataset__scaling": {"type": "normalize", "range": (-1, 1), "elementwise": False}},
        {"dataset__pca": {"num_pc": 4, "elementwise": True}},
        {"dataset__pca": {"num_pc": 3}, "dataset__scaling": {"type": "standardize"}},
        {"model__name": "singlenn", "model__activation": "Sigmoid"},
        {"model__batchnorm": True, "model__dropout": True, "model__activation": "Softplus"},
        {"model__activation": ["ReLU", "Gauss", "Harmonic"], "model__hidden_layers": [4, 3]},
        {"dataset__cutoff_params": {"cutoff_func": "Polynomial", "gamma": 2}},
        {"dataset__cutoff_params": {"cutoff_func": "poly3", "alpha": 0.2}},
        {"dataset__elements": ["O", "Cu"]},
    ],
    ids=str,
)
def test_trained_potentials(frames, tmp_path, changes):
    potential = trained(frames, tmp_path, **changes)
    write_potential(potential, tmp_path / "n2p2")
    again = read_potential(tmp_path / "n2p2")
    assert again.elements == ["O", "Cu"]
    assert max(largest_difference(potential, again, frames)) < 1e-12


def test_ranges_are_those_of_the_training_atoms(frames, tmp_path):
    """Those of a checkpoint, of a scaler of all atoms together, and of frames that are given."""
    potential = trained(frames, tmp_path, dataset__scaling={"type": "standardize"})
    potential.save(tmp_path / "saved")
    values = [potential.descriptor.values(amptorch.frames.Frames.from_atoms([f])) for f in frames]
    rows = np.concatenate(values)
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    for number, (low, high) in amptorch.load(tmp_path / "saved").feature_scaler.ranges.items():
        np.testing.assert_allclose(low, rows[numbers == number].min(axis=0), rtol=1e-12)
        np.testing.assert_allclose(high, rows[numbers == number].max(axis=0), rtol=1e-12)
    write_potential(potential, tmp_path / "known")
    state = potential.feature_scaler.state()
    del state["ranges"]
    potential.feature_scaler = FeatureScaler.from_state(state)
    with pytest.raises(ValueError, match="give the frames that it was trained on"):
        write_potential(potential, tmp_path / "unknown")
    with pytest.raises(ValueError, match="no frame has an atom of 'O'"):
        write_potential(potential, tmp_path / "unknown", frames[:1])
    assert not (tmp_path / "unknown").exists()
    write_potential(potential, tmp_path / "given", frames)
    one, two = (np.loadtxt(tmp_path / name / "scaling.data") for name in ("known", "given"))
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__target_scaling": True, "dataset__atomic_correction": False}, "target_scaling"),
        (
            {"model__activation": "GELU"},
            "GELU has no counterpart .*Tanh, Sigmoid, ReLU or Softplus",
        ),
        ({"dataset__cutoff_params": {"cutoff_func": "Polynomial", "gamma": 4}}, "gamma 4.0 has no"),
        (
            {"dataset__fp_params": {"default": {"cutoff": 4, "G3": {"kappas": [1]}}}},
            "the function G3, which has no counterpart in n2p2; train with G1, G2",
        ),
        (
            {
                "dataset__elements": ["Cu", "O", "H"],
                "dataset__fp_params": {"default": {"cutoff": 4, "G2": {"etas": [1]}}},
            },
            r"\['H'\] were in no training frame.*dataset.elements \['Cu', 'O'\]",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_has_no_counterpart(frames, tmp_path, changes, message):
    potential = trained(frames, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        write_potential(potential, tmp_path / "n2p2")
    assert not (tmp_path / "n2p2").exists()


def test_other_kinds_of_potentials(tmp_path):
    potential = read_potential(FOLDER / "scale")
    gaussian = potential.descriptor
    params = {"MCSHs": {"orders": [0], "sigmas": [1.0]}, "cutoff": 5}
    potential.descriptor = construct_descriptor(("gmpordernorm", params, None, gaussian.elements))
    with pytest.raises(ValueError, match=r"GMPOrderNorm have no counterpart .*'gaussian'"):
        write_potential(potential, tmp_path)
    potential.descriptor = gaussian
    potential.model.element_mask.one_hot = False
    with pytest.raises(ValueError, match="mixed them by a trained mask"):
        write_potential(potential, tmp_path)
    with pytest.raises(TypeError, match="Ensemble is no single potential"):
        write_potential(amptorch.Ensemble([potential, potential]), tmp_path)


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def test_commands(tmp_path, capsys):
    path = FOLDER / "weighted_12_13"
    assert run("convert", path, "--out", tmp_path / "model") == 0
    assert run("export", tmp_path / "model", "--format", "n2p2", "--out", tmp_path / "n2p2") == 0
    assert "n2p2 potential of H, O, Fe" in capsys.readouterr().out
    one, two = read_potential(path), read_potential(tmp_path / "n2p2")
    assert max(largest_difference(one, two, structures(path))) < 1e-13
    for command in (
        ("convert", path, "--out", tmp_path / "model"),
        ("export", tmp_path / "model", "--out", tmp_path / "n2p2"),
    ):
        assert run(*command) == 1
        assert "give --overwrite" in capsys.readouterr().err
        assert run(*command, "--overwrite") == 0
    assert run("convert", tmp_path / "model", "--out", tmp_path / "other") == 1
    assert "input.nn" in capsys.readouterr().err
