"""Averages of the weights are what is validated, kept and predicted with."""

import pytest
import torch
from skorch.callbacks import Callback

from amptorch.config import Config
from amptorch.trainer import AtomsTrainer
from amptorch.training.restart import newest_state
from tests.small_frames import config, mixed_frames
from tests.small_runs import assert_same, cut, settings_of
from tests.small_runs import train as trained

pytestmark = pytest.mark.slow

EPOCHS = 6


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


class Watch(Callback):
    """Weights after each training batch, at each validation, and what is validated with."""

    def __init__(self):
        self.batches, self.epochs, self.validated = [], [], []

    def on_batch_end(self, net, training=False, **kwargs):
        (self.batches if training else self.validated).append(weights(net.module_))
        if training:
            self.last = self.batches[-1]

    def on_epoch_end(self, net, **kwargs):
        self.epochs.append(self.last)


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def watched(frames, folder, **changes):
    """A trainer after training, and the `Watch` of it."""
    trainer = AtomsTrainer(
        config(frames, folder, **{"optim__epochs": EPOCHS, "dataset__val_split": 0.2, **changes})
    )
    trainer.load()
    watch = Watch()
    trainer.net.callbacks.append(("watch", watch))
    trainer.train()
    return trainer, watch


def test_swa_is_the_mean_over_the_last_epochs(frames, tmp_path):
    averaging = {"kind": "swa", "share": 0.5}
    trainer, watch = watched(frames, tmp_path, optim__averaging=averaging, cmd__debug=True)
    assert len(watch.validated) == EPOCHS
    for epoch, validated in enumerate(watch.validated):
        tail = watch.epochs[EPOCHS // 2 : epoch + 1] or [watch.epochs[epoch]]
        torch.testing.assert_close(validated, torch.stack(tail).mean(dim=0), rtol=1e-12, atol=0)
    assert torch.equal(weights(trainer.net.module), watch.validated[-1])


def test_ema_forgets_exponentially(frames, tmp_path):
    averaging = {"kind": "ema", "decay": 0.3}
    trainer, watch = watched(frames, tmp_path, optim__averaging=averaging, cmd__debug=True)
    average, n = None, 0
    expected = []
    per_epoch = len(watch.batches) // EPOCHS
    for n, now in enumerate(watch.batches):
        decay = min(0.3, (1 + n) / (10 + n))
        average = now if average is None else decay * average + (1 - decay) * now
        if (n + 1) % per_epoch == 0:
            expected.append(average)
    for validated, one in zip(watch.validated, expected, strict=True):
        torch.testing.assert_close(validated, one, rtol=1e-12, atol=1e-14)
    assert torch.equal(weights(trainer.net.module), watch.validated[-1])


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_training_is_on_the_weights_themselves(frames, tmp_path, averaging):
    _, plain = watched(frames, tmp_path, cmd__debug=True)
    _, averaged = watched(frames, tmp_path, optim__averaging=averaging, cmd__debug=True)
    assert all(map(torch.equal, plain.batches, averaged.batches))
    assert not torch.equal(plain.validated[-1], averaged.validated[-1])


@pytest.mark.parametrize("val_split", [0.0, 0.2])
def test_the_checkpoint_has_the_average(frames, tmp_path, val_split):
    trainer, _ = watched(
        frames, tmp_path, optim__averaging="ema", optim__lr=1e-3, dataset__val_split=val_split
    )
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert torch.equal(weights(again.net.module), weights(trainer.net.module))
    best = [row["event_cp"] for row in trainer.net.history]
    assert best[-1], "the last epoch is the best, so that the average is that of the end"
    state = newest_state(trainer.cp_dir)
    average = state.training["callbacks"]["averaging"]["average_"]
    for name, tensor in again.net.module.state_dict().items():
        assert torch.equal(tensor, average[f"module.{name}"])
        assert torch.equal(tensor, state.checkpoint.params[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__averaging": "ema"},
        {"optim__averaging": {"kind": "swa", "share": 0.9}, "model__batchnorm": True},
        {"optim__averaging": {"kind": "swa", "share": 0.6}, "dataset__val_split": 0},
        {"optim__averaging": "ema", "optim__scheduler": {"policy": "cosine_time"}},
    ],
)
@pytest.mark.parametrize("moment", [(3, 1), (3,)])
def test_goes_on_with_the_same_numbers(frames, tmp_path, changes, moment):
    whole = trained(settings_of(frames, tmp_path / "whole", **changes))
    settings = settings_of(frames, tmp_path / "cut", **changes)
    cut(settings, *moment)
    assert_same(trained(settings, resume=True), whole)


def test_statistics_of_batch_norm_are_averaged(frames, tmp_path):
    averaging = {"kind": "swa", "share": 0.5}
    trainer, _ = watched(
        frames, tmp_path, optim__averaging=averaging, model__batchnorm=True, cmd__debug=True
    )
    assert all(torch.isfinite(tensor).all() for tensor in trainer.net.module.state_dict().values())
    assert trainer.model.element_mask.one_hot


def test_options():
    def averaging(value):
        return Config.from_dict({"optim": {"averaging": value}}).optim.averaging

    assert averaging(None) is None
    assert averaging("EMA") == {"kind": "ema", "decay": 0.999}
    assert averaging("swa") == {"kind": "swa", "share": 0.25}
    assert averaging({"kind": "ema", "decay": "0.9"}) == {"kind": "ema", "decay": 0.9}
    assert averaging(averaging("swa")) == averaging("swa")
    for value, message in [
        ("mean", r"optim\.averaging\.kind must be 'ema' or 'swa', got 'mean'"),
        ({"kind": "swa", "decay": 0.9}, r"optim\.averaging has no key 'decay'"),
        ({"kind": "ema", "deacy": 0.9}, r"no key 'deacy', did you mean 'decay'"),
        ({"kind": "ema", "decay": 1}, r"optim\.averaging\.decay must be .*got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            averaging(value)
