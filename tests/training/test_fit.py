"""`prepare` and `fit`: training without a trainer."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from skorch.callbacks import Callback

import amptorch
from amptorch import AtomsTrainer
from amptorch.config import Config
from amptorch.optimizers import Diverged
from amptorch.threads import torch_threads
from amptorch.training.prepare import TrainingData
from amptorch.training.summary import summary
from tests.small_frames import config, mixed_frames
from tests.small_runs import Cut, PowerCut
from tests.training.test_divergence import nan_at


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def settings(frames, tmp_path_factory):
    return config(frames, tmp_path_factory.mktemp("run"), dataset__val_split=0.3)


@pytest.fixture(scope="module")
def data(settings):
    return amptorch.prepare(settings)


def test_what_is_prepared(data, frames):
    assert isinstance(data, TrainingData)
    assert data.elements == data.settings.dataset.elements == ["Cu", "O"]
    assert len(data.dataset) == len(frames)
    with pytest.raises(FrozenInstanceError):
        data.settings = None


def test_the_same_numbers_as_a_trainer(data, settings, frames, tmp_path):
    trainer = AtomsTrainer(settings)
    trainer.train()
    potential = amptorch.fit(data, folder=tmp_path / "run")
    expected = trainer.predict(frames)
    for other in (potential, amptorch.load(tmp_path / "run")):
        found = other.predict(frames)
        np.testing.assert_allclose(found["energy"], expected["energy"], rtol=1e-9)
        np.testing.assert_allclose(
            np.concatenate(found["forces"]), np.concatenate(expected["forces"]), atol=1e-9
        )
    columns = ["train_loss", "valid_loss"]
    assert [[row[name] for name in columns] for row in potential.history] == [
        [row[name] for name in columns] for row in trainer.net.history
    ]


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", [torch.inference_mode, lambda: torch.device("meta")])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_whatever_is_set_for_torch(data, settings, frames, tmp_path, surroundings, dtype):
    settings = {**settings, "cmd": {**settings["cmd"], "dtype": dtype}}
    expected = amptorch.fit(amptorch.prepare(settings)).predict(frames)
    atoms = frames[0].copy()
    with surroundings():
        amptorch.fit(amptorch.prepare(settings), folder=tmp_path / "run")
        potential = amptorch.load(tmp_path / "run")
        atoms.calc = potential.get_calc()
        inside = [potential.predict(frames), atoms.get_forces()]
        trainer = AtomsTrainer(settings)
        trainer.train()
        inside.append(trainer.predict(frames))
    # Nothing of it is left behind.
    atoms.positions += 1.0
    outside = [potential.predict(frames), atoms.get_forces()]
    for found in (inside[0], inside[2], outside[0]):
        np.testing.assert_allclose(found["energy"], expected["energy"], rtol=1e-5)
    for forces in (inside[1], outside[1]):
        np.testing.assert_allclose(forces, expected["forces"][0], atol=1e-5)


@pytest.mark.parametrize("where", ["memory", "store"])
def test_frames_given(settings, frames, tmp_path, where):
    sections = {**settings, "dataset": {**settings["dataset"], "raw_data": None}}
    if where == "store":
        sections["dataset"]["store"] = str(tmp_path / "store")
    data = amptorch.prepare(Config.from_dict(sections), frames)
    potential = amptorch.fit(data)
    assert len(potential.history) == 5
    assert np.isfinite(potential.predict(frames[:2])["energy"]).all()


def test_from_a_potential(data, frames):
    first = amptorch.fit(data)
    again = amptorch.prepare(data.settings, frames, trained=first)
    scales = [one.feature_scaler.slope_and_offset() for one in (again, first)]
    assert all(map(torch.equal, *scales))
    second = amptorch.fit(again, start=first)
    # It begins where the first ended.
    assert second.history[0]["train_loss"] < first.history[0]["train_loss"]


def test_further_callbacks(data):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    assert len(amptorch.fit(data, callbacks=[("stop", Stop())]).history) == 1


def test_wrong(settings):
    sections = {**settings, "dataset": {**settings["dataset"], "raw_data": None}}
    with pytest.raises(ValueError, match="raw_data"):
        amptorch.prepare(sections)
    sections["dataset"]["lmdb_path"] = ["somewhere.lmdb"]
    with pytest.raises(ValueError, match="AtomsTrainer"):
        amptorch.prepare(sections)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "threads"), [("ekf", 1), ("adam", 2)])
def test_the_kalman_filter_has_the_cores_for_itself(settings, optimizer, threads):
    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.add(torch.get_num_threads())

    seen, optim = set(), {**settings["optim"], "optimizer": optimizer, "epochs": 1}
    data = amptorch.prepare({**settings, "optim": optim})
    with torch_threads(2):
        amptorch.fit(data, callbacks=[("watch", Watch())])
        assert seen == {threads}
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("moment", [(1, 1), (3,), (3, 1)])
def test_it_goes_on_as_if_it_had_not_stopped(data, settings, frames, tmp_path, moment):
    whole, run, cut = amptorch.fit(data), tmp_path / "run", [("cut", Cut(*moment))]
    with pytest.raises(PowerCut):
        amptorch.fit(amptorch.prepare(settings), folder=run, callbacks=cut, resume=True)
    potential = amptorch.fit(amptorch.prepare(settings), folder=run, resume=True)
    assert len(potential.history) == len(whole.history) == 5
    for other in (potential, amptorch.load(run)):
        np.testing.assert_array_equal(
            other.predict(frames)["energy"], whole.predict(frames)["energy"]
        )


def test_it_does_not_go_on_with_what_another_training_left(data, settings, frames, tmp_path):
    amptorch.fit(data, folder=tmp_path, resume=True)
    others = {**settings, "optim": {**settings["optim"], "lr": 0.5}}
    with pytest.raises(ValueError, match=r"optim\.lr"):
        amptorch.fit(amptorch.prepare(others), folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="started on 10 frames"):
        amptorch.fit(amptorch.prepare(settings, frames[:8]), folder=tmp_path, resume=True)
    assert amptorch.load(tmp_path).predict(frames[:1])["energy"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_what_a_diverged_training_leaves(settings, tmp_path, epoch):
    (tmp_path / "notes.txt").write_text("mine")
    calls = 1 + 2 * (epoch - 1)
    optim = {**settings["optim"], "loss_fn": nan_at(*range(calls, 100)), "recover": False}
    data = amptorch.prepare({**settings, "optim": optim})
    kept = "are kept, in" if epoch > 1 else "no checkpoint is kept"
    with pytest.raises(Diverged, match=kept):
        amptorch.fit(data, folder=tmp_path, resume=True)
    left = {path.name for path in tmp_path.iterdir()}
    assert "notes.txt" in left
    assert ("params.pt" in left) == (epoch > 1)
    if epoch == 1:
        assert left == {"notes.txt"}


def test_no_epochs_leave_the_network_as_it_began(settings, frames, tmp_path):
    sections = {**settings, "optim": {**settings["optim"], "epochs": 0}}
    potential = amptorch.fit(amptorch.prepare(sections), folder=tmp_path)
    found = [one.predict(frames)["energy"] for one in (potential, amptorch.load(tmp_path))]
    np.testing.assert_array_equal(*found)


def test_frames_without_labels_are_counted(settings, frames):
    some = [atoms.copy() for atoms in frames]
    for number, (atoms, frame) in enumerate(zip(some, frames, strict=True)):
        known = ("energy", "forces") if number % 5 else ("energy",)
        results = {name: frame.calc.results[name] for name in known}
        atoms.calc = SinglePointCalculator(atoms, **results)
    sections = {**settings, "dataset": {**settings["dataset"], "missing_forces": "ignore"}}
    assert "; forces of 8 of 10 frames" in summary(amptorch.prepare(sections, some))
    assert "of 10 frames" not in summary(amptorch.prepare(sections, frames))
