"""Trainings that go on after NaN."""

import numpy as np
import pytest
import torch

from amptorch.config import Config
from amptorch.model import CustomLoss
from amptorch.optimizers import Diverged
from amptorch.trainer import AtomsTrainer
from amptorch.training.divergence import MOST_RECOVERIES
from tests.small_frames import config, mixed_frames
from tests.small_runs import assert_same, cut


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


def nan_at(*calls):
    """A loss that is NaN in these calls, counted from 1."""

    class Loss(CustomLoss):
        seen = 0

        def forward(self, *args):
            type(self).seen += 1
            value = super().forward(*args)
            return value * torch.nan if self.seen in calls else value

    return Loss


def trainer_of(frames, folder, **changes):
    return AtomsTrainer(config(frames, folder, **{"optim__recover": True, **changes}))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
def test_it_goes_on_with_half_of_the_learning_rate(frames, tmp_path, caplog, optimizer):
    changes = {"optim__loss_fn": nan_at(7), "optim__epochs": 6, "optim__optimizer": optimizer}
    if optimizer == "lbfgs":
        changes["optim__optimizer_args"] = {"max_iter": 1}
    changes["optim__lr"] = 1e-3 if optimizer == "sgd" else 1e-2
    trainer = trainer_of(frames, tmp_path, **changes)
    trainer.train()
    assert len(trainer.net.history) == 6
    assert trainer.net.optimizer_.param_groups[0]["lr"] == changes["optim__lr"] / 2
    assert "diverged in epoch 3; it goes on" in caplog.text
    assert np.isfinite(trainer.predict(frames)["energy"]).all()
    losses = trainer.net.history[:, "train_loss"]
    assert np.isnan(losses[2])
    assert losses[5] < losses[0]
    assert np.isfinite([*losses[:2], *losses[3:]]).all()


def test_without_it_the_training_ends(frames, tmp_path):
    changes = {"optim__loss_fn": nan_at(7), "optim__recover": False}
    with pytest.raises(Diverged, match="epoch 3 is nan"):
        trainer_of(frames, tmp_path, **changes).train()


@pytest.mark.slow
@pytest.mark.parametrize("begins", [1, 7])
def test_it_ends_in_peace_and_keeps_the_best_epoch(frames, tmp_path, caplog, begins):
    """Whatever happens, and also before any epoch."""
    changes = {"optim__loss_fn": nan_at(*range(begins, 1000)), "optim__epochs": 50}
    trainer = trainer_of(frames, tmp_path, **changes)
    trainer.train()
    assert caplog.text.count("it goes on from the best") == MOST_RECOVERIES
    assert "diverged again" in caplog.text
    energies = trainer.predict(frames)["energy"]
    assert np.isfinite(energies).all()
    if begins > 1:
        best = AtomsTrainer()
        best.load_pretrained(trainer.cp_dir)
        np.testing.assert_allclose(best.predict(frames)["energy"], energies)


def test_a_step_that_leads_to_nan(frames, tmp_path, caplog):
    """Where the loss is finite and the weights are not; also those that are averaged."""
    trainer = trainer_of(frames, tmp_path, optim__averaging="ema", optim__epochs=4)
    trainer.load()
    trainer.net.initialize()
    steps = []
    plain = trainer.net.optimizer_.step

    def step(closure):
        value = plain(closure)
        steps.append(value)
        if len(steps) == 5:
            next(p for p in trainer.model.parameters() if p.requires_grad).data.fill_(torch.nan)
        return value

    trainer.net.optimizer_.step = step
    trainer.train()
    assert len(steps) == 12
    assert "diverged in epoch 2; it goes on" in caplog.text
    assert np.isfinite(trainer.net.history[:, "train_loss"]).all()
    assert np.isfinite(trainer.predict(frames)["energy"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "params"), [("cosine_time", {}), ("StepLR", {"step_size": 100}), ("LambdaLR", None)]
)
def test_schedulers_go_on_from_the_half(frames, tmp_path, policy, params):
    params = {"lr_lambda": lambda epoch: 1.0} if params is None else params
    rates = []
    for calls in ((), (7,)):
        changes = {
            "optim__loss_fn": nan_at(*calls),
            "optim__scheduler": {"policy": policy, "params": params},
            "cmd__debug": True,
        }
        trainer = trainer_of(frames, tmp_path, **changes)
        trainer.train()
        rates.append(trainer.net.optimizer_.param_groups[0]["lr"])
    assert rates[1] == pytest.approx(rates[0] / 2)


@pytest.mark.slow
def test_a_restart_goes_on_with_it(frames, tmp_path):
    runs = []
    for name in ("whole", "cut"):
        changes = {"optim__loss_fn": nan_at(4), "optim__epochs": 6, "dataset__val_split": 0.3}
        runs.append(config(frames, tmp_path / name, **changes, optim__recover=True))
    whole = AtomsTrainer(runs[0])
    whole.train()
    cut(runs[1], 4)
    again = AtomsTrainer(runs[1])
    again.train(resume=True)
    states = [dict(one.callbacks)["divergence"].recoveries_ for one in (whole, again)]
    assert states == [1, 1]
    assert_same(again, whole)


def test_the_filter_has_a_repair_of_its_own():
    with pytest.raises(ValueError, match=r"optim\.recover is True.*Kalman filter"):
        Config.from_dict({"optim": {"optimizer": "ekf", "recover": True}})
