"""What the net keeps and shows of its epochs."""

import io
import json
from pathlib import Path

import pytest
from skorch.callbacks import BatchScoring, Callback, EpochScoring

from amptorch.metrics import mae_energy_score
from amptorch.trainer import AtomsTrainer
from tests.small_frames import config, mixed_frames

EPOCHS = 3


class Witness(Callback):
    """Batches of each epoch that the history holds at the end of an epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, net, **kwargs):
        self.seen.append([len(row["batches"]) for row in net.history])


def test_history_keeps_the_batches_of_no_finished_epoch(tmp_path):
    trainer = AtomsTrainer(config(mixed_frames(8), tmp_path, optim__epochs=EPOCHS))
    trainer.load()
    witness = Witness()
    scores = [
        ("again", EpochScoring(mae_energy_score, name="mae", use_caching=False)),
        ("batches", BatchScoring(lambda net, X, y: float(len(X)), name="size", on_train=True)),
        ("witness", witness),
    ]
    trainer.net.set_params(callbacks=[*trainer.callbacks, *scores])
    trainer.train()
    # What callbacks use is there: two batches of the epoch that has just been.
    assert witness.seen == [[2], [0, 2], [0, 0, 2]]
    assert [row["batches"] for row in trainer.net.history] == [[]] * EPOCHS
    assert trainer.net.history[:, "size"] == [4.0] * EPOCHS
    assert all(loss > 0 for loss in trainer.net.history[:, "train_loss"])
    for epoch in (EPOCHS - 1, EPOCHS):
        rows = json.loads(
            (Path(trainer.cp_dir) / "epochs" / str(epoch) / "history.json").read_text()
        )
        assert [len(row["batches"]) for row in rows] == [0] * (epoch - 1) + [2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [(Terminal, None, True), (Terminal, "1", False), (io.StringIO, None, False)],
)
def test_colours_on_a_terminal_alone(stream, no_color, coloured, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    settings = config(mixed_frames(4), tmp_path, optim__epochs=1, cmd__verbose=True)
    trainer = AtomsTrainer({**settings, "cmd": {**settings["cmd"], "debug": True}})
    trainer.load()
    printed = stream()
    monkeypatch.setattr("sys.stdout", printed)
    trainer.train()
    lines = printed.getvalue().splitlines()
    assert ["epoch" in line for line in lines[-3:]] == [True, False, False]
    # The first epoch is the best so far.
    assert ("\x1b[" in lines[-1]) == coloured
    assert f"{trainer.net.history[0, 'train_loss']:.4f}" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "printed"), [(None, [1, 2, 3, 4, 5, 6]), (1000.0, [1, 3, 5, 6])]
)
def test_of_a_training_with_a_time_some_epochs_are_printed(
    seconds, printed, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("amptorch.training.callbacks.PRINTED", 0.25)
    changes = {"optim__epochs": 6, "optim__max_seconds": seconds, "cmd__verbose": True}
    AtomsTrainer(config(mixed_frames(4), tmp_path, **changes)).train()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(row[0]) for row in rows if row and row[0].isdigit()] == printed
