"""Training for some time, and learning rates that follow it."""

import math
from pathlib import Path

import pytest

from amptorch.config import Config
from amptorch.trainer import AtomsTrainer
from tests.small_frames import config, mixed_frames


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


class Clock:
    """A second goes by whenever it is looked at."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 1.0
        return self.now


def loaded(frames, folder, **changes):
    """A trainer with such a clock; 8 frames make 2 batches and one validates 2 frames: an epoch
    takes four seconds, one for each batch and one at its end."""
    defaults = {"optim__epochs": 50, "dataset__val_split": 0.2}
    trainer = AtomsTrainer(config(frames, folder, **{**defaults, **changes}))
    trainer.load()
    trainer.progress.clock = Clock()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "batches"),
    [(8, [2, 2]), (8.5, [2, 2, 1]), (10, [2, 2, 2]), (9.5, [2, 2, 2]), (0.5, [1])],
)
def test_training_ends_with_its_time(frames, tmp_path, seconds, batches):
    """And the epoch in which it ends is validated, scored and kept like any other."""
    trainer = loaded(frames, tmp_path, optim__max_seconds=seconds)
    trainer.train()
    history = trainer.net.history
    assert history[:, "train_batch_count"] == batches
    assert history[:, "valid_batch_count"] == [1] * len(batches)
    assert all("val_energy_mae" in row and "event_cp" in row for row in history)
    newest = max(int(path.name) for path in (Path(trainer.cp_dir) / "epochs").iterdir())
    assert newest == len(batches)


def test_epochs_still_count(frames, tmp_path):
    trainer = loaded(frames, tmp_path, optim__max_seconds=1000, optim__epochs=3)
    trainer.train()
    assert len(trainer.net.history) == 3


@pytest.mark.slow
def test_a_resumed_training_has_the_time_that_was_left(frames, tmp_path):
    changes = {"optim__max_seconds": 16}
    first = loaded(frames, tmp_path, **{**changes, "optim__epochs": 2})
    first.train()
    second = AtomsTrainer(
        config(frames, tmp_path, **{**changes, "optim__epochs": 50, "dataset__val_split": 0.2})
    )
    original = second.load_extras

    def load_extras():
        original()
        second.progress.clock = Clock()

    second.load_extras = load_extras
    second.train(resume=True)
    assert len(second.net.history) == 4
    assert second.progress.elapsed_ >= 16
    # There is none left, unless more is given.
    second.train(resume=True)
    assert len(second.net.history) == 4


def rates(trainer):
    return trainer.net.history[:, "event_lr"]


def test_the_rate_follows_the_epochs(frames, tmp_path):
    scheduler = {"policy": "cosine_time", "params": {"final": 0.1}}
    trainer = loaded(frames, tmp_path, optim__epochs=4, optim__scheduler=scheduler, optim__lr=0.02)
    trainer.train()
    expected = [0.02 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 4))) for k in range(4)]
    assert rates(trainer) == pytest.approx(expected)


def test_the_rate_follows_the_time(frames, tmp_path):
    scheduler = {"policy": "Cosine_Time"}
    trainer = loaded(frames, tmp_path, optim__max_seconds=16, optim__scheduler=scheduler)
    trainer.train()
    # Of the second batch of each epoch, which begins 1, 5, 9 and 13 seconds after the start.
    shares = [(4 * k + 1) / 16 for k in range(4)]
    expected = [0.01 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * s))) for s in shares]
    assert rates(trainer) == pytest.approx(expected)


def test_options():
    optim = Config.from_dict({"optim": {"scheduler": {"policy": "cosine_time"}}}).optim
    assert optim.scheduler == {"policy": "cosine_time", "params": {"final": 0.01}}
    for section, message in [
        ({"scheduler": {"policy": "cosine_time", "params": {"finl": 0}}}, "did you mean 'final'"),
        ({"max_seconds": 0}, r"optim\.max_seconds must be a number above 0, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Config.from_dict({"optim": section})
