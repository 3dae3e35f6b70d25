"""A training that was ended by whatever goes on with the numbers that it would have had."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from skorch.callbacks import Callback

from amptorch.trainer import AtomsTrainer
from amptorch.trainer.checkpoints import HistoryText, to_disk
from amptorch.trainer.restart import KEPT, epochs_of, newest_run, newest_state
from tests.small_frames import config, mixed_frames

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


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


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
            patched.setattr("amptorch.trainer.restart.Ranks", lambda now=processes: now)
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

SCRIPT = """
import sys
from tests.small_frames import config, mixed_frames
from amptorch.trainer import AtomsTrainer

settings = config(mixed_frames(10), sys.argv[1], optim__epochs={epochs}, dataset__val_split=0.3)
AtomsTrainer(settings).train(resume=True)
"""


def test_kill_9(frames, tmp_path):
    epochs = 60
    whole = train(settings_of(frames, tmp_path / "whole", optim__epochs=epochs))
    settings = settings_of(frames, tmp_path / "killed", optim__epochs=epochs)
    moments = random.Random(4)
    for least in (0, 15):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(epochs=epochs), str(tmp_path / "killed")], cwd=ROOT
        )
        while process.poll() is None and progress(tmp_path / "killed") < least:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = progress(tmp_path / "killed")
    assert 15 <= done < epochs
    assert_same(train(settings, resume=True), whole)


def progress(run_dir):
    run = newest_run(run_dir)
    return -1 if run is None else max(epochs_of(run), default=-1)


# --- one training at a time ---


class Second(Callback):
    """Tries to go on with the run while it is under way."""

    def __init__(self, settings, run):
        self.settings = settings
        self.run = run
        self.refused = []

    def on_batch_end(self, net, **kwargs):
        unfinished = Path(self.run) / ".params.pt.1234"
        unfinished.write_text("being written")
        for resume in (True, self.run):
            trainer = AtomsTrainer(self.settings)
            with pytest.raises(BlockingIOError, match="another training is writing") as refusal:
                trainer.train(resume=resume)
            assert str(self.run) in str(refusal.value)
            assert trainer.cp_dir is None
            self.refused.append(resume)
        assert unfinished.exists()


def test_a_run_that_is_under_way_is_refused(frames, tmp_path):
    whole = train(settings_of(frames, tmp_path / "whole"))
    settings = settings_of(frames, tmp_path / "run")
    trainer = AtomsTrainer(settings)
    trainer.load()
    second = Second(settings, trainer.cp_dir)
    trainer.net.callbacks.append(("second", second))
    trainer.train()
    assert len(second.refused) > EPOCHS
    assert_same(trainer, whole)
    # It is free again, and nothing tells of it.
    assert not (Path(trainer.cp_dir) / ".lock").exists()
    assert_same(train(settings, resume=True), whole)


def test_a_run_that_is_being_prepared_is_refused(frames, tmp_path, monkeypatch):
    """Its folder is empty still, as that of one that was killed early."""
    settings = settings_of(frames, tmp_path)
    trainer, second = AtomsTrainer(settings), AtomsTrainer(settings)
    load_dataset = trainer.load_dataset

    def meanwhile():
        with pytest.raises(BlockingIOError, match="wait until it has ended, or start a new run"):
            second.train(resume=True)
        load_dataset()

    trainer.load_dataset = meanwhile
    trainer.load()
    trainer.train()
    second.train(resume=True)
    assert second.cp_dir == trainer.cp_dir


def test_one_that_was_killed_keeps_nobody_out(frames, run_copy, tmp_path):
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run_copy / ".lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match=run_copy.name):
            train(settings_of(frames, tmp_path), resume=run_copy)
        other.kill()
        other.wait()
    assert (run_copy / ".lock").exists()
    train(settings_of(frames, tmp_path), resume=run_copy)
    assert not (run_copy / ".lock").exists()


@pytest.mark.parametrize("failure", [OSError(errno.ENOLCK, "No locks available"), None])
def test_a_file_system_without_locks(frames, tmp_path, monkeypatch, failure):
    def acquire(lock):
        raise failure or NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("amptorch.trainer.run_folder.FileLock.acquire", acquire)
    with pytest.warns(UserWarning, match="file system without locks"):
        trainer = train(settings_of(frames, tmp_path, optim__epochs=1))
    assert epochs_of(trainer.cp_dir) == [1, 0]


# --- what is on disk ---


class Seconds(Callback):
    """A clock on which an epoch takes 12 s."""

    now = 0.0

    def on_epoch_begin(self, net, **kwargs):
        Seconds.now += 12.0


def test_power_failure(frames, tmp_path, monkeypatch):
    """Half a minute is lost: what the system had not been told to write is empty."""
    whole = train(settings_of(frames, tmp_path / "whole"))
    written, fsync = set(), os.fsync

    def recorded(descriptor):
        fsync(descriptor)
        written.add(state_of(os.fstat(descriptor)))

    def state_of(status):
        return status.st_ino, status.st_mtime_ns

    monkeypatch.setattr(os, "fsync", recorded)
    clock = SimpleNamespace(monotonic=lambda: Seconds.now)
    monkeypatch.setattr("amptorch.trainer.restart.time", clock)
    settings = settings_of(frames, tmp_path / "cut")
    trainer = AtomsTrainer(settings)
    trainer.load()
    trainer.net.callbacks[:0] = [("clock", Seconds())]
    trainer.net.callbacks.append(("cut", Cut(5)))
    with pytest.raises(PowerCut):
        trainer.train()
    monkeypatch.undo()
    run = Path(trainer.cp_dir)
    assert epochs_of(run) == [5, 4, 3]
    for path in run.rglob("*.*"):
        if state_of(path.stat()) not in written:
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="epoch 4 is passed over"):
        resumed = train(settings, resume=True)
    assert_same(resumed, whole)
    assert epochs_of(run) == [6, 5]


def test_the_end_of_a_training_is_on_the_disk(frames, tmp_path, monkeypatch):
    written = []
    fsync = os.fsync

    def recorded(descriptor):
        fsync(descriptor)
        written.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    run = Path(train(settings_of(frames, tmp_path)).cp_dir)
    places = [run, run / "epochs", run / "epochs" / str(EPOCHS), run / "params.pt"]
    places += (run / "epochs" / str(EPOCHS)).iterdir()
    assert {place.stat().st_ino for place in places} <= set(written)
    # Once, not in each of these short epochs.
    assert len(written) < 2 * 16


def test_what_the_disk_cannot_do(tmp_path, monkeypatch):
    (tmp_path / "params.pt").touch()

    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    number = errno.EINVAL
    to_disk(tmp_path)
    number = errno.EIO
    with pytest.raises(OSError, match=r"Input/output error.*params\.pt"):
        to_disk(tmp_path)


def test_the_last_few_epochs_are_kept_and_are_checkpoints(frames, tmp_path):
    trainer = train(settings_of(frames, tmp_path))
    assert epochs_of(trainer.cp_dir) == [EPOCHS - k for k in range(KEPT)]
    folder = Path(trainer.cp_dir) / "epochs" / str(EPOCHS)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "criterion.pt",
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


def test_no_such_run(frames, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(settings_of(frames, tmp_path), resume=tmp_path / "nowhere")


def test_a_checkpoint_without_epochs(frames, run_copy, tmp_path):
    shutil.rmtree(run_copy / "epochs")
    with pytest.raises(ValueError, match="load_pretrained"):
        train(settings_of(frames, tmp_path), resume=run_copy)


@pytest.mark.parametrize("name", ["params.pt", "training.pt", "history.json"])
def test_a_damaged_epoch_is_passed_over(frames, run_copy, tmp_path, name):
    whole = train(settings_of(frames, tmp_path / "whole"))
    damaged = run_copy / "epochs" / "3" / name
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.warns(UserWarning, match=f"epoch 3 is passed over.*{name}"):
        resumed = train(settings_of(frames, tmp_path), resume=run_copy)
    assert_same(resumed, whole)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("config.json", b'"lr": 0.01', b'"lr": 0.02'),
        ("normalizers.json", b"0.", b"1."),
        ("history.json", b'"epoch": 2', b'"epoch": 4'),
    ],
)
def test_another_digit_is_found(frames, run_copy, tmp_path, name, before, after):
    damaged = run_copy / "epochs" / "3" / name
    content = damaged.read_bytes()
    assert before in content
    damaged.write_bytes(content.replace(before, after, 1))
    with pytest.warns(UserWarning, match=f"3/{name} is damaged: it does not match its checksum"):
        train(settings_of(frames, tmp_path), resume=run_copy)


@pytest.mark.parametrize("name", ["params.pt", "optimizer.pt", "training.pt"])
def test_another_bit_is_found(frames, run_copy, tmp_path, name):
    damaged = run_copy / "epochs" / "3" / name
    content = bytearray(damaged.read_bytes())
    with zipfile.ZipFile(damaged) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    header = content[entry.header_offset :][:30]
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    content[entry.header_offset + 30 + lengths] ^= 1
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match=f"epoch 3 is passed over.*{name}.*Bad CRC-32"):
        train(settings_of(frames, tmp_path), resume=run_copy)


def test_all_epochs_damaged(frames, run_copy, tmp_path):
    for epoch in (2, 3):
        (run_copy / "epochs" / str(epoch) / "optimizer.pt").unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="all are damaged"):  # noqa: PT030
        train(settings_of(frames, tmp_path), resume=run_copy)


# --- faults ---


def test_full_disk(frames, tmp_path, monkeypatch):
    """Wherever the disk runs full, what was there is whole, nothing is left behind, and the run
    goes on when there is space again."""
    whole = train(settings_of(frames, tmp_path / "whole"))
    write_bytes = Path.write_bytes
    for fault in (3, 20, 30, 41):
        folder = tmp_path / str(fault)
        writes = []

        def full(path, content, fault=fault, writes=writes):
            writes.append(path)
            if len(writes) >= fault:
                write_bytes(path, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left on device") as failure:
            train(settings_of(frames, folder))
        monkeypatch.undo()
        assert failure.value.errno == errno.ENOSPC
        assert str(folder) in str(failure.value)
        assert not list(folder.rglob(".*"))
        for run in (folder / "checkpoints").iterdir():
            if epochs_of(run):
                assert len(newest_state(run).history) == epochs_of(run)[0]
        assert_same(train(settings_of(frames, folder), resume=True), whole)


def test_a_place_that_cannot_be_written(frames, tmp_path):
    trainer = AtomsTrainer(settings_of(frames, tmp_path))
    trainer.load()
    (Path(trainer.cp_dir) / "epochs").write_text("in the way")
    with pytest.raises(OSError, match="checkpoint of epoch 0"):
        trainer.train()
