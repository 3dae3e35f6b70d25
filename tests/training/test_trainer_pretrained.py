"""Predictions, and going on from checkpoints: our own and v1.0's."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, mixed_frames

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def trainer(frames, tmp_path_factory):
    trainer = AtomsTrainer(config(frames, tmp_path_factory.mktemp("run"), optim__epochs=4))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def golden_images():
    return read(GOLDEN / "images.traj", ":")


def loaded(folder, settings=None):
    trainer = AtomsTrainer(settings)
    trainer.load_pretrained(str(folder))
    return trainer


# --- v1.0's folders ---


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_v1_checkpoints_predict_what_v1_predicted(folder, golden_images):
    trainer = loaded(folder)
    prediction = trainer.predict(golden_images)
    expected = np.load(folder / "predictions.npz")
    np.testing.assert_allclose(prediction["energy"], expected["energy"], rtol=0, atol=1e-9)
    if trainer.forcetraining:
        np.testing.assert_allclose(prediction["forces"], expected["forces"], rtol=0, atol=1e-9)
    else:
        assert [len(forces) for forces in prediction["forces"]] == [0] * len(golden_images)
    assert len(trainer.net.history) > 5


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_training_goes_on_from_v1_checkpoints(folder, golden_images, tmp_path):
    trainer = loaded(folder)
    for name, value in {"run_dir": str(tmp_path), "verbose": False}.items():
        setattr(trainer.settings.cmd, name, value)
    trainer.net.set_params(max_epochs=2, verbose=0, lr=1e-4)
    before = trainer.predict(golden_images)["energy"]
    epochs = len(trainer.net.history)
    trainer.train(raw_data=golden_images)
    assert len(trainer.net.history) == epochs + 2
    after = trainer.predict(golden_images)["energy"]
    assert 0 < np.abs(np.subtract(before, after)).max() < 0.5
    again = loaded(trainer.cp_dir).predict(golden_images)["energy"]
    np.testing.assert_allclose(again, after, rtol=0, atol=1e-12)


# --- our own ---


def test_a_checkpoint_needs_nothing_else(trainer, frames, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(trainer.cp_dir, copy)
    other = loaded(copy)
    expected, found = trainer.predict(frames), other.predict(frames)
    assert found["energy"] == expected["energy"]
    for one, two in zip(found["forces"], expected["forces"], strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.elements == ["Cu", "O"]
    assert len(other.net.history) >= 1


def test_the_last_training_is_loaded_without_a_path(trainer, frames):
    expected = trainer.predict(frames)["energy"]
    other = AtomsTrainer()
    with pytest.raises(ValueError, match="folder"):
        other.load_pretrained()
    other.cp_dir = trainer.cp_dir
    other.load_pretrained()
    assert other.predict(frames)["energy"] == expected


@pytest.mark.slow
def test_going_on_is_as_if_it_had_not_stopped(frames, tmp_path):
    """Parameters, scalers, optimizer and history come back: with one batch an epoch (so that no
    random order matters), 3 + 3 epochs are 6."""
    changes = {"optim__batch_size": 10, "optim__lr": 1e-3}
    whole = AtomsTrainer(config(frames, tmp_path, optim__epochs=6, **changes))
    whole.train()
    assert all(whole.net.history[:, "event_cp"])
    first = AtomsTrainer(config(frames, tmp_path, optim__epochs=3, **changes))
    first.train()
    second = loaded(first.cp_dir, config(frames, tmp_path, optim__epochs=3, **changes))
    second.train()
    assert second.cp_dir != first.cp_dir
    assert len(second.net.history) == 6
    for one, two in zip(whole.net.module.parameters(), second.net.module.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_scalers_of_the_checkpoint_are_kept(trainer, frames, tmp_path):
    other = loaded(trainer.cp_dir, config(frames[:4], tmp_path))
    assert len(other.train_dataset) == 4
    assert other.train_dataset.target_scaler.target_std == trainer.target_scaler.target_std
    for number in (8, 29):
        for name in ("offset", "scale"):
            kept = other.feature_scaler.scales[number][name]
            assert torch.equal(kept, trainer.feature_scaler.scales[number][name])


def test_a_new_learning_rate_and_scheduler(trainer, frames, tmp_path):
    settings = config(
        frames,
        tmp_path,
        optim__lr=1e-5,
        optim__epochs=2,
        optim__scheduler={"policy": "StepLR", "params": {"step_size": 100}},
    )
    other = loaded(trainer.cp_dir, settings)
    other.train()
    assert other.net.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-5)
    same = loaded(trainer.cp_dir, config(frames, tmp_path))
    state = same.net.optimizer_.state_dict()["state"]
    assert state
    assert same.net.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-2)


def test_another_optimizer_starts_without_its_state(trainer, frames, tmp_path):
    settings = config(frames, tmp_path, optim__optimizer="SGD", optim__epochs=1)
    with pytest.warns(UserWarning, match="Adam"):
        other = loaded(trainer.cp_dir, settings)
    other.train()
    assert type(other.net.optimizer_) is torch.optim.SGD


def test_what_the_config_leaves_out_is_as_in_the_checkpoint(trainer, frames, tmp_path):
    settings = {"dataset": {"raw_data": frames}, "cmd": {"debug": True, "verbose": False}}
    other = loaded(trainer.cp_dir, settings)
    assert other.predict(frames)["energy"] == trainer.predict(frames)["energy"]
    assert settings == {
        "dataset": {"raw_data": frames},
        "cmd": {"debug": True, "verbose": False},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__elements": ["O", "Cu"]}, "order"),
        ({"dataset__elements": ["Cu", "N", "O"]}, "trained on"),
        ({"dataset__fp_params": {"default": {**FP_PARAMS["default"], "cutoff": 5}}}, "fp_params"),
        ({"dataset__cutoff_params": {"cutoff_func": "Polynomial", "gamma": 2.0}}, "cutoff_params"),
        ({"model__num_nodes": 7}, "does not fit"),
        ({"model__name": "singlenn"}, "does not fit"),
    ],
)
def test_another_model_is_refused(trainer, frames, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        loaded(trainer.cp_dir, config(frames, tmp_path, **changes))


def test_frames_with_other_elements_are_refused(trainer, golden_images, tmp_path):
    with pytest.raises(ValueError, match=r"\['Cu', 'O'\].*'C'"):
        loaded(trainer.cp_dir, config(golden_images, tmp_path))
    with pytest.raises(ValueError, match=r"frame 0, atom \d \(C\)"):
        trainer.predict(golden_images)


def test_a_run_that_cannot_go_on_leaves_no_folder(trainer, golden_images, tmp_path):
    settings = {"cmd": {"run_dir": str(tmp_path), "verbose": False}}
    other = loaded(trainer.cp_dir, settings)
    with pytest.raises(ValueError, match="raw_data"):
        other.train()
    with pytest.raises(ValueError, match="trained on"):
        other.train(raw_data=golden_images)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["config.json", "normalizers.json", "params.pt", "optimizer.pt", "history.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_missing_or_damaged_file_is_named(trainer, tmp_path, name, damage):
    folder = tmp_path / "checkpoint"
    shutil.copytree(trainer.cp_dir, folder)
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-30])
    error = FileNotFoundError if damage == "missing" else ValueError
    with pytest.raises(error, match=name):
        loaded(folder)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        loaded(tmp_path / "nowhere")


def test_gpu2cpu(trainer, tmp_path, frames, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = config(frames, tmp_path)
    other = AtomsTrainer(settings)
    settings["optim"]["gpus"] = 1
    other.load_pretrained(trainer.cp_dir, gpu2cpu=True)
    assert other.predict(frames)["energy"] == trainer.predict(frames)["energy"]


def test_no_gpu_and_no_wandb_where_the_checkpoint_had_them(trainer, tmp_path, frames, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = tmp_path / "checkpoint"
    shutil.copytree(trainer.cp_dir, folder)
    (folder / "checksums.json").unlink()
    content = json.loads((folder / "config.json").read_text())
    content["optim"]["gpus"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    assert loaded(folder).predict(frames)["energy"] == trainer.predict(frames)["energy"]
    content["cmd"]["logger"] = True
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="wandb is not installed"):
        assert loaded(folder).predict(frames)["energy"] == trainer.predict(frames)["energy"]
    # What the user asks for is another matter.
    for section, key in (("optim", "gpus"), ("cmd", "logger")):
        settings = config(frames, tmp_path)
        other = AtomsTrainer(settings)
        settings[section][key] = 1
        with pytest.raises(ValueError, match=f"{section}.{key}"):
            other.load_pretrained(folder)


# --- predict ---


def test_predict_keeps_order_and_counts(trainer, frames):
    prediction = trainer.predict(frames)
    assert [len(forces) for forces in prediction["forces"]] == [len(atoms) for atoms in frames]
    assert all(isinstance(energy, float) for energy in prediction["energy"])
    assert prediction["t_fingerPrint"] > 0
    assert prediction["t_forwardPass"] > 0
    for k in (0, 5, 9):
        alone = trainer.predict([frames[k]])
        assert alone["energy"][0] == pytest.approx(prediction["energy"][k], rel=1e-12)
        np.testing.assert_allclose(alone["forces"][0], prediction["forces"][k], atol=1e-12)


def test_predict_goes_by_batches(trainer, frames, monkeypatch):
    expected = trainer.predict(frames)
    monkeypatch.setattr("amptorch.prediction.BATCH_ATOMS", 9)
    found = trainer.predict(frames)
    np.testing.assert_allclose(found["energy"], expected["energy"], rtol=1e-12)
    for one, two in zip(found["forces"], expected["forces"], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_latent_and_descriptors_are_means_over_atoms(trainer, frames):
    first = trainer.predict(frames, get_latent=1, get_descriptor=True)
    second = trainer.predict(frames, get_latent=1, get_descriptor=True)
    batch = trainer.train_dataset.batch([0])
    latent = torch.zeros(len(frames[0]), 6, dtype=torch.float64)
    for network, rows in zip(trainer.model.elementwise_models, batch.element_rows, strict=True):
        layers = network.model_net
        latent[rows] = torch.tanh(layers[0](batch.fingerprint[rows])).detach()
    np.testing.assert_allclose(first["latent"][0], latent.mean(dim=0), rtol=1e-10)
    np.testing.assert_allclose(
        first["descriptors"][0], batch.fingerprint.mean(dim=0), rtol=1e-9, atol=1e-12
    )
    for name in ("latent", "descriptors"):
        assert len(first[name]) == len(second[name]) == len(frames)
        for one, two in zip(first[name], second[name], strict=True):
            np.testing.assert_array_equal(one, two)
    assert first["energy"] == second["energy"] == trainer.predict(frames)["energy"]
    assert not any(module._forward_hooks for module in trainer.net.module.modules())


def test_latent_of_a_layer_that_is_not_there(trainer, frames):
    with pytest.raises(ValueError, match="get_latent"):
        trainer.predict(frames, get_latent=50)


def test_predict_keeps_fingerprints_where_asked(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path, optim__epochs=1))
    trainer.train()
    plain = trainer.predict(frames)
    file = tmp_path / "processed" / "fingerprints.sqlite"
    assert not file.exists()
    for _ in range(2):
        kept = trainer.predict(frames, save_fps=True)
        assert file.is_file()
        np.testing.assert_allclose(kept["energy"], plain["energy"], rtol=1e-12)
