"""Short trainings for tests of restarts: cut off somewhere, and compared bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from skorch.callbacks import Callback

from amptorch.trainer import AtomsTrainer
from amptorch.training.restart import newest_run, newest_state, saved_epochs
from tests.small_frames import config

ROOT = Path(__file__).parent.parent
EPOCHS = 6


class PowerCut(Exception):
    pass


class Cut(Callback):
    """Ends the training after some batches of some epoch; batch None: after the epoch."""

    exception = PowerCut

    def __init__(self, epoch, batch=None):
        self.epoch = epoch
        self.batch = batch

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch and len(net.history[-1]["batches"]) == self.batch:
            raise self.exception

    def on_epoch_begin(self, net, **kwargs):
        if self.batch is None and len(net.history) == self.epoch + 1:
            raise self.exception


def settings_of(frames, folder, **changes):
    if "dataset__store" in changes:
        changes["dataset__store"] = str(Path(folder) / changes["dataset__store"])
    return config(frames, folder, **{"optim__epochs": EPOCHS, "dataset__val_split": 0.3, **changes})


def cut(settings, *moment):
    """The folder of a training that ends after an epoch, or after a batch of one."""
    trainer = AtomsTrainer(settings)
    trainer.load()
    trainer.net.callbacks.append(("cut", Cut(*moment)))
    with pytest.raises(PowerCut):
        trainer.train()
    return Path(trainer.cp_dir)


def train(settings, **options):
    trainer = AtomsTrainer(settings)
    trainer.train(**options)
    return trainer


def history(trainer):
    """Everything but the times."""
    rows = json.loads(json.dumps(trainer.net.history))
    return [{name: value for name, value in row.items() if name != "dur"} for row in rows]


def assert_same(one, two):
    """Bit for bit: the history, parameters, the state of the optimizer, and what is on disk."""
    assert history(one) == history(two)
    states = [trainer.net.optimizer_.state_dict()["state"] for trainer in (one, two)]
    assert_equal(*states)
    assert_equal(*(dict(trainer.net.module_.state_dict()) for trainer in (one, two)))
    for name in ("params.pt", "optimizer.pt", "criterion.pt"):
        assert_equal(*(torch.load(Path(t.cp_dir) / name, weights_only=True) for t in (one, two)))
    scalers = [(Path(trainer.cp_dir) / "normalizers.json").read_bytes() for trainer in (one, two)]
    assert scalers[0] == scalers[1]
    ends = [newest_state(trainer.cp_dir) for trainer in (one, two)]
    assert_equal(*(end.checkpoint.params for end in ends))
    assert_equal(*(end.training["random"] for end in ends))


def assert_equal(one, two):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_equal(first, second)
    else:
        assert one == two


SCRIPT = """
import sys
from tests.small_frames import config, mixed_frames
from amptorch.trainer import AtomsTrainer

settings = config(mixed_frames(10), sys.argv[1], optim__epochs={epochs}, dataset__val_split=0.3)
AtomsTrainer(settings).train(resume=True)
"""


def progress(run_dir):
    run = newest_run(run_dir)
    return -1 if run is None else max(saved_epochs(run), default=-1)
