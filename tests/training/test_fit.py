"""`prepare` and `fit`: training without a trainer."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

import amptorch
from amptorch import AtomsTrainer
from amptorch.config import Config
from amptorch.threads import torch_threads
from amptorch.training.prepare import TrainingData
from tests.small_frames import config, mixed_frames


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
