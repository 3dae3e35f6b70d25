"""Training on Gaussian multipoles: every back end, and a checkpoint that needs no other file."""

import shutil

import numpy as np
import pytest
import torch

from amptorch import AmpTorch, AtomsTrainer
from tests.small_frames import config, mixed_frames

ORDER_NORM = {"MCSHs": {"orders": [0, 1, 2], "sigmas": [0.4, 0.8]}, "cutoff": 5.0}
GROUPS = {
    "MCSHs": {"1": {"groups": [1], "sigmas": [0.6]}, "2": {"groups": [1, 2], "sigmas": [0.6]}},
    "cutoff": 5.0,
}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(12)


def trained(frames, folder, scheme, fp_params, **changes):
    trainer = AtomsTrainer(
        config(
            frames,
            folder,
            dataset__fp_scheme=scheme,
            dataset__fp_params=fp_params,
            optim__epochs=4,
            **changes,
        )
    )
    trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "fp_params"),
    [("gmpordernorm", {**ORDER_NORM, "square": False}), ("GMP", GROUPS)],
    ids=["gmpordernorm", "gmp"],
)
def test_back_ends_train_alike(frames, tmp_path, scheme, fp_params):
    losses = {}
    for name, changes in {
        "stored": {"dataset__derivatives": "stored"},
        "recompute": {"dataset__derivatives": "recompute"},
        "store": {"dataset__derivatives": "stored", "dataset__store": str(tmp_path / "store")},
        "store, recompute": {
            "dataset__derivatives": "recompute",
            "dataset__store": str(tmp_path / "store"),
        },
    }.items():
        trainer = trained(frames, tmp_path, scheme, fp_params, **changes)
        losses[name] = trainer.net.history[:, "train_loss"]
        assert losses[name][-1] < losses[name][0]
    # A store draws its batches in another order.
    np.testing.assert_allclose(losses["recompute"], losses["stored"], rtol=1e-8)
    np.testing.assert_allclose(losses["store, recompute"], losses["store"], rtol=1e-8)


def test_forces_are_the_gradient_of_the_energy(frames, tmp_path):
    atoms = frames[1].copy()
    atoms.calc = AmpTorch(trained(frames, tmp_path, "gmpordernorm", ORDER_NORM))
    forces = atoms.get_forces()
    direction = np.random.default_rng(0).normal(size=forces.shape)
    energies = []
    for multiple in (-1, 1):
        moved = atoms.copy()
        moved.positions += multiple * 1e-4 * direction
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert np.vdot(forces, direction) == pytest.approx(-np.diff(energies)[0] / 2e-4, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["files", "package"])
def test_a_checkpoint_needs_no_file_and_no_table(frames, tmp_path, monkeypatch, given):
    """v1.0's hold absolute paths of the machine that wrote them."""
    fp_params = dict(ORDER_NORM)
    files = {symbol: tmp_path / f"{symbol}.g" for symbol in ("Cu", "O")}
    if given == "files":
        for symbol, path in files.items():
            path.write_text(f"0.8 {2.0 + len(symbol)}\n-0.1 4.0\n")
        fp_params["atom_gaussians"] = {symbol: str(path) for symbol, path in files.items()}
    trainer = trained(frames, tmp_path, "gmpordernorm", fp_params)
    before = trainer.predict(frames[:3])
    for path in files.values():
        path.unlink(missing_ok=True)
    monkeypatch.setattr("amptorch.descriptor.densities._table", dict)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    after = again.predict(frames[:3])
    np.testing.assert_array_equal(after["energy"], before["energy"])
    for mine, theirs in zip(after["forces"], before["forces"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def as_of_v1(trainer, folder, scheme, fp_params):
    """The checkpoint of a trainer in v1.0's layout, which holds paths of the densities' files."""
    shutil.copytree(
        trainer.cp_dir, folder, ignore=shutil.ignore_patterns("epochs", "n*", "config*")
    )
    elements = list(trainer.elements)
    model = {"name": "bpnn", "num_layers": 2, "num_nodes": 6, "get_forces": True}
    dataset = {
        **{"fp_scheme": scheme, "fp_params": fp_params, "elements": elements, "val_split": 0},
        **{"descriptor": (scheme, fp_params, {}, elements), "fp_length": 6},
    }
    config = {"model": model, "optim": {"lr": 0.1}, "dataset": dataset, "cmd": {"run_dir": "./"}}
    torch.save(config, folder / "config.pt")
    scalers = {"target": trainer.target_scaler, "feature": trainer.feature_scaler}
    torch.save(scalers, folder / "normalizers.pt")
    shutil.copy(f"{trainer.cp_dir}/history.json", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "params"), [("gmpordernorm", ORDER_NORM), ("gmp", GROUPS)])
def test_a_checkpoint_of_v1_with_files(frames, tmp_path, scheme, params):
    """Where these are gone, the message names them, and they are taken from where they are now."""
    there, moved = tmp_path / "there", tmp_path / "moved"
    there.mkdir()
    for symbol in ("Cu", "O"):
        (there / f"{symbol}.g").write_text(f"0.8 {2.0 + len(symbol)}\n-0.1 4.0\n")

    def with_files(folder):
        files = {symbol: str(folder / f"{symbol}.g") for symbol in ("Cu", "O")}
        return {**params, "atom_gaussians": files}

    trainer = trained(frames, tmp_path, scheme, with_files(there))
    expected = trainer.predict(frames[:3])["energy"]
    folder = as_of_v1(trainer, tmp_path / "v1", scheme, with_files(there))
    again = AtomsTrainer()
    again.load_pretrained(folder)
    np.testing.assert_allclose(again.predict(frames[:3])["energy"], expected, rtol=1e-12)
    shutil.move(there, moved)
    with pytest.raises(FileNotFoundError, match=r"\['Cu'\].*there/Cu\.g; the checkpoint .*v1 was"):
        AtomsTrainer().load_pretrained(folder)
    settings = {"dataset": {"fp_params": with_files(moved)}}
    again = AtomsTrainer(settings)
    again.load_pretrained(folder)
    np.testing.assert_allclose(again.predict(frames[:3])["energy"], expected, rtol=1e-12)
    # Those of another cutoff are not what it was trained with.
    settings["dataset"]["fp_params"] = {**with_files(moved), "cutoff": 4.0}
    with pytest.raises(ValueError, match=r"dataset\.fp_params"):
        AtomsTrainer(settings).load_pretrained(folder)
    (moved / "O.g").unlink()
    with pytest.raises(FileNotFoundError, match=r"\['O'\].*moved/O\.g"):
        AtomsTrainer({"dataset": {"fp_params": with_files(moved)}}).load_pretrained(folder)
