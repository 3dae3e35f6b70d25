"""A training that was ended by whatever goes on with the numbers that it would have had."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from amptorch.checkpoints.folder import HistoryText
from amptorch.trainer import AtomsTrainer
from amptorch.training.restart import KEPT_EPOCHS, newest_run, newest_state, saved_epochs
from tests.small_frames import labelled, mixed_frames
from tests.small_runs import (
    EPOCHS,
    ROOT,
    SCRIPT,
    Cut,
    PowerCut,
    assert_same,
    cut,
    history,
    progress,
    settings_of,
    train,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


def scheduler(policy, **params):
    return {"optim__scheduler": {"policy": policy, "params": params}}


# --- the same numbers ---


@pytest.mark.parametrize(
    "changes",
    [
        {"model__dropout": True, "model__batchnorm": True},
        scheduler("StepLR", step_size=2, gamma=0.5),
        scheduler("MultiStepLR", milestones=[2, 4], gamma=0.3),
        scheduler("CosineAnnealingLR", T_max=EPOCHS),
        scheduler("ReduceLROnPlateau", patience=0, factor=0.5, threshold=0.5),
        scheduler("OneCycleLR", max_lr=0.05, total_steps=2 * EPOCHS, step_every="batch"),
        scheduler("CyclicLR", base_lr=1e-3, max_lr=1e-2, step_size_up=3, cycle_momentum=False),
        {"optim__lr": 0.3, "cmd__early_stopping": True, "cmd__early_stopping_patience": 2},
        {"optim__optimizer": "LBFGS", "optim__batch_size": 10},
        {"cmd__dtype": "float32", "dataset__derivatives": "recompute", "model__name": "singlenn"},
        {"dataset__val_split": 0.0, "optim__force_fraction": 0.5},
        {"dataset__store": "store", "dataset__derivatives": "stored"},
        {"dataset__store": "store", "dataset__derivatives": "recompute", "model__dropout": True},
    ],
    ids=lambda changes: "-".join(
        str(value["policy"] if isinstance(value, dict) else value) for value in changes.values()
    ),
)
def test_goes_on_with_the_same_numbers(frames, tmp_path, changes):
    whole = train(settings_of(frames, tmp_path / "whole", **changes))
    settings = settings_of(frames, tmp_path / "cut", **changes)
    folder = cut(settings, 2, 1)
    resumed = train(settings, resume=True)
    assert resumed.cp_dir == str(folder)
    assert_same(resumed, whole)


@pytest.mark.parametrize("moment", [(1, 1), (1,), (EPOCHS - 1,), (EPOCHS, 2)])
def test_whenever_it_ended(frames, tmp_path, moment):
    whole = train(settings_of(frames, tmp_path / "whole"))
    settings = settings_of(frames, tmp_path / "cut")
    folder = cut(settings, *moment)
    assert_same(train(settings, resume=folder), whole)
    # There is nothing left to do, and nothing changes.
    assert_same(train(settings, resume=folder), whole)


@pytest.mark.parametrize(("changes", "others"), [({"dataset__store": "store"}, (3,)), ({}, ())])
def test_another_number_of_processes(frames, tmp_path, changes, others, monkeypatch):
    """Other batches would be drawn out of a store for some numbers, which is said."""
    settings = settings_of(frames, tmp_path, **changes)
    for before in (3, 4):
        processes = SimpleNamespace(size=before)
        with monkeypatch.context() as patched:
            patched.setattr("amptorch.training.restart.Ranks", lambda now=processes: now)
            folder = cut(settings, 1)
        state = newest_state(folder)
        assert state.training["processes"] == before
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            train({**settings, "optim": {**settings["optim"], "epochs": 1}}, resume=folder)
        said = [str(warning.message) for warning in said if "processes" in str(warning.message)]
        assert len(said) == (before in others)
        if said:
            assert f"was trained by {before} processes, now there is 1" in said[0]
    # As many groups: the batches are the same.
    state.training["processes"] = 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state.check_processes(9)


def test_after_an_interruption_from_the_keyboard(frames, tmp_path, monkeypatch):
    """Which is no failure, but loads back the best parameters."""
    whole = train(settings_of(frames, tmp_path / "whole"))
    settings = settings_of(frames, tmp_path / "cut")
    trainer = AtomsTrainer(settings)
    trainer.load()
    trainer.net.callbacks.append(("cut", Cut(3, 1)))
    monkeypatch.setattr(Cut, "exception", KeyboardInterrupt)
    trainer.train()
    assert_same(train(settings, resume=True), whole)


def test_what_a_killed_process_left_is_removed(frames, run_copy, tmp_path):
    (run_copy / ".params.pt.1234").write_bytes(b"half")
    (run_copy / ".mine").write_text("to be left alone")
    unfinished = run_copy / "epochs" / ".4.1234"
    unfinished.mkdir()
    (unfinished / "config.json").write_text("{")
    train(settings_of(frames, tmp_path), resume=run_copy)
    assert [path.name for path in run_copy.rglob(".*")] == [".mine"]


def test_twice(frames, tmp_path):
    whole = train(settings_of(frames, tmp_path / "whole"))
    settings = settings_of(frames, tmp_path / "cut")
    cut(settings, 2)
    trainer = AtomsTrainer(settings)
    original = trainer.load_extras

    def load_extras():
        original()
        trainer.callbacks.append(("cut", Cut(4, 1)))

    trainer.load_extras = load_extras
    with pytest.raises(PowerCut):
        trainer.train(resume=True)
    assert_same(train(settings, resume=True), whole)


def test_more_epochs_are_as_if_there_had_been_more(frames, tmp_path):
    whole = train(settings_of(frames, tmp_path / "whole"))
    short = train(settings_of(frames, tmp_path / "short", optim__epochs=2))
    longer = train(settings_of(frames, tmp_path / "short"), resume=True)
    assert longer.cp_dir == short.cp_dir
    assert history(longer) == history(whole)


def test_a_run_that_began_with_a_checkpoint(frames, tmp_path):
    first = train(settings_of(frames, tmp_path / "first"))
    changes = {"optim__lr": 1e-3, **scheduler("StepLR", step_size=2)}
    other = settings_of(frames[:8], tmp_path / "whole", **changes)
    whole = AtomsTrainer(other)
    whole.load_pretrained(first.cp_dir)
    whole.train()
    settings = {**other, "cmd": {**other["cmd"], "run_dir": str(tmp_path / "cut")}}
    trainer = AtomsTrainer(settings)
    trainer.load_pretrained(first.cp_dir)
    epochs = len(trainer.net.history)
    trainer.net.callbacks_.insert(0, ("cut", Cut(epochs + 2, 1)))
    with pytest.raises(PowerCut):
        trainer.train()
    resumed = train(settings, resume=True)
    assert len(resumed.net.history) == epochs + EPOCHS
    assert_same(resumed, whole)
    assert resumed.pretrained


def test_without_a_configuration(frames, tmp_path):
    """All that a run needs besides its frames is in its folder."""
    whole = train(settings_of(frames, tmp_path / "whole"))
    folder = cut(settings_of(frames, tmp_path / "cut"), 3)
    trainer = AtomsTrainer()
    trainer.train(raw_data=frames, resume=folder)
    assert history(trainer) == history(whole)


def test_training_again_starts_afresh(frames, tmp_path):
    settings = settings_of(frames, tmp_path)
    folder = cut(settings, 2)
    trainer = train(settings, resume=True)
    resumed = history(trainer)
    trainer.train()
    assert trainer.cp_dir != str(folder)
    assert history(trainer) == resumed


# --- kill -9 ---


def test_kill_9(frames, tmp_path):
    epochs = 40
    whole = train(settings_of(frames, tmp_path / "whole", optim__epochs=epochs))
    settings = settings_of(frames, tmp_path / "killed", optim__epochs=epochs)
    moments = random.Random(4)
    for least in (0, 10):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(epochs=epochs), str(tmp_path / "killed")], cwd=ROOT
        )
        while process.poll() is None and progress(tmp_path / "killed") < least:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = progress(tmp_path / "killed")
    assert 10 <= done < epochs
    assert_same(train(settings, resume=True), whole)


def test_the_last_few_epochs_are_kept_and_are_checkpoints(frames, tmp_path):
    trainer = train(settings_of(frames, tmp_path))
    assert saved_epochs(trainer.cp_dir) == [EPOCHS - k for k in range(KEPT_EPOCHS)]
    folder = Path(trainer.cp_dir) / "epochs" / str(EPOCHS)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.json",
        "config.json",
        "criterion.pt",
        "domain.pt",
        "history.json",
        "normalizers.json",
        "optimizer.pt",
        "params.pt",
        "training.pt",
    ]
    other = AtomsTrainer()
    other.load_pretrained(folder)
    assert len(other.net.history) == EPOCHS


def test_history_text_follows_what_is_added():
    text, rows = HistoryText(), []
    for epoch in range(4):
        rows.append({"epoch": epoch, "batches": []})
        assert json.loads(text(rows)) == rows
        rows[-1]["train_loss"] = 0.1 * epoch
        assert json.loads(text(rows)) == rows
    other = [{"epoch": 7}, {"epoch": 8}]
    assert json.loads(text(other)) == other
    assert json.loads(text([])) == []


def test_debug_keeps_none(frames, tmp_path):
    settings = settings_of(frames, tmp_path, cmd__debug=True)
    with pytest.raises(ValueError, match=r"cmd\.debug"):
        train(settings, resume=True)


def test_the_newest_run_is_found(tmp_path):
    names = [
        "2026-01-02-03-04-05",
        "2026-01-02-03-04-05-10",
        "2026-01-02-03-04-05-9",
        "2026-01-02-03-04-05-copper",
        "2027-01-02-03-04-05",
        "other",
    ]
    for name in names:
        (tmp_path / "checkpoints" / name / "epochs").mkdir(parents=True)
    # An older program's, from which a run cannot go on.
    (tmp_path / "checkpoints" / names[4] / "epochs").rmdir()
    (tmp_path / "checkpoints" / names[4] / "params.pt").touch()
    assert newest_run(tmp_path).name == names[1]
    assert newest_run(tmp_path, "copper").name == names[3]
    assert newest_run(tmp_path, "zinc") is None
    assert newest_run(tmp_path / "nowhere") is None


def test_nothing_to_resume_is_a_new_run(frames, tmp_path):
    """A script may ask to resume from the start; also where the run was killed early on."""
    settings = settings_of(frames, tmp_path, optim__epochs=2)
    first = train(settings, resume=True)
    assert len(first.net.history) == 2
    shutil.rmtree(Path(first.cp_dir) / "epochs")
    for path in Path(first.cp_dir).iterdir():
        path.unlink()
    again = AtomsTrainer(settings)
    again.load()
    again.train(resume=True)
    assert again.cp_dir == first.cp_dir
    assert history(again) == history(first)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


# --- what cannot go on ---


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    return cut(settings_of(frames, tmp_path_factory.mktemp("run")), 3)


@pytest.fixture
def run_copy(run, tmp_path):
    """The run to damage."""
    return Path(shutil.copytree(run, tmp_path / "checkpoints" / run.name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__lr": 0.5}, r"optim\.lr is 0\.5, but .* 0\.01"),
        ({"cmd__seed": 9}, r"cmd\.seed is 9"),
        ({"dataset__val_split": 0.2}, r"dataset\.val_split"),
        ({"model__dropout": True}, r"model\.dropout"),
        ({"dataset__store": "store"}, r"dataset\.store"),
        ({"dataset__elements": ["O", "Cu"]}, "order"),
        (scheduler("StepLR", step_size=2), r"optim\.scheduler"),
    ],
)
def test_other_settings_are_refused(frames, run, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(settings_of(frames, tmp_path, **changes), resume=run)


def test_settings_that_change_no_number_are_free(frames, run_copy, tmp_path):
    settings = settings_of(frames, tmp_path, cmd__threads=2, dataset__derivatives="recompute")
    assert len(train(settings, resume=run_copy).net.history) == EPOCHS


def test_other_frames_are_refused(frames, run, tmp_path):
    with pytest.raises(ValueError, match=r"10 frames.*these are 9"):
        train(settings_of(frames[:9], tmp_path), resume=run)
    with pytest.raises(ValueError, match="same order"):
        train(settings_of(frames[::-1], tmp_path), resume=run)
    moved = frames[9].copy()
    moved.positions[0] += 0.01
    moved = labelled(moved, frames[9].get_potential_energy(), frames[9].get_forces())
    with pytest.raises(ValueError, match="same energies, but with other positions"):
        train(settings_of([*frames[:9], moved], tmp_path), resume=run)


def test_no_such_run(frames, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(settings_of(frames, tmp_path), resume=tmp_path / "nowhere")


def test_a_checkpoint_without_epochs(frames, run_copy, tmp_path):
    shutil.rmtree(run_copy / "epochs")
    with pytest.raises(ValueError, match="load_pretrained"):
        train(settings_of(frames, tmp_path), resume=run_copy)
