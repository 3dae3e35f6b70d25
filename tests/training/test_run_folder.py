"""What two trainings, a failing disk or power, and damage do to the folder of a run."""

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from skorch.callbacks import Callback

from amptorch.checkpoints.folder import to_disk
from amptorch.trainer import AtomsTrainer
from amptorch.training.restart import newest_state, saved_epochs
from tests.small_frames import mixed_frames
from tests.small_runs import EPOCHS, Cut, PowerCut, assert_same, cut, settings_of, train


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    return cut(settings_of(frames, tmp_path_factory.mktemp("run")), 3)


@pytest.fixture
def run_copy(run, tmp_path):
    """The run to damage."""
    return Path(shutil.copytree(run, tmp_path / "checkpoints" / run.name))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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

    monkeypatch.setattr("amptorch.locks.FileLock.acquire", acquire)
    with pytest.warns(UserWarning, match="file system without locks"):
        trainer = train(settings_of(frames, tmp_path, optim__epochs=1))
    assert saved_epochs(trainer.cp_dir) == [1, 0]


# --- what is on disk ---


class Seconds(Callback):
    """A clock on which an epoch takes 12 s."""

    now = 0.0

    def on_epoch_begin(self, net, **kwargs):
        Seconds.now += 12.0


@pytest.mark.slow
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
    monkeypatch.setattr("amptorch.training.restart.time", clock)
    settings = settings_of(frames, tmp_path / "cut")
    trainer = AtomsTrainer(settings)
    trainer.load()
    trainer.net.callbacks[:0] = [("clock", Seconds())]
    trainer.net.callbacks.append(("cut", Cut(5)))
    with pytest.raises(PowerCut):
        trainer.train()
    monkeypatch.undo()
    run = Path(trainer.cp_dir)
    assert saved_epochs(run) == [5, 4, 3]
    for path in run.rglob("*.*"):
        if state_of(path.stat()) not in written:
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="epoch 4 is passed over"):
        resumed = train(settings, resume=True)
    assert_same(resumed, whole)
    assert saved_epochs(run) == [6, 5]


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


# --- damage ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["params.pt", "training.pt", "history.json"])
def test_a_damaged_epoch_is_passed_over(frames, run_copy, tmp_path, name):
    whole = train(settings_of(frames, tmp_path / "whole"))
    damaged = run_copy / "epochs" / "3" / name
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.warns(UserWarning, match=f"epoch 3 is passed over.*{name}"):
        resumed = train(settings_of(frames, tmp_path), resume=run_copy)
    assert_same(resumed, whole)


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.warns(UserWarning, match=f"epoch 3 is passed over.*{name} is damaged"):
        train(settings_of(frames, tmp_path), resume=run_copy)


def test_all_epochs_damaged(frames, run_copy, tmp_path):
    for epoch in (2, 3):
        (run_copy / "epochs" / str(epoch) / "optimizer.pt").unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="all are damaged"):  # noqa: PT030
        train(settings_of(frames, tmp_path), resume=run_copy)


# --- faults ---


@pytest.mark.slow
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
            if saved_epochs(run):
                assert len(newest_state(run).history) == saved_epochs(run)[0]
        assert_same(train(settings_of(frames, folder), resume=True), whole)


def test_a_place_that_cannot_be_written(frames, tmp_path):
    trainer = AtomsTrainer(settings_of(frames, tmp_path))
    trainer.load()
    (Path(trainer.cp_dir) / "epochs").write_text("in the way")
    with pytest.raises(OSError, match="checkpoint of epoch 0"):
        trainer.train()
