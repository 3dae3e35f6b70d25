"""Going on with an interrupted training as if nothing had happened.

`epochs/<n>` in the folder of a run is a checkpoint of the parameters after n epochs (see
`checkpoints`) with one more file, `training.pt`, for `torch.load(weights_only=True)`:

| key | what it holds |
|---|---|
| `callbacks` | {name: {attribute: value}}: best scores, best parameters, scheduler, patience |
| `random` | states of torch's random numbers |
| `first_epoch` | epochs that the parameters had been trained for when the run began |
| `frames` | by what frames are known again; see `dataset_identity` |
| `processes` | how many trained together |

Such a folder appears, complete, by being renamed. The last `KEPT_EPOCHS` stay, and the last that
is known to be on the disk: to wait for that after each epoch would take longer than many an epoch.
A callback's state is, by scikit-learn's convention, its attributes that end in an underscore.
"""

import logging
import os
import re
import shutil
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, PrintLog
from skorch.history import History

from amptorch.checkpoints.config import config_to_json
from amptorch.checkpoints.folder import (
    Checkpoint,
    as_bytes,
    load_checkpoint,
    load_json,
    load_tensors,
    to_disk,
    write_files,
)
from amptorch.config import Config
from amptorch.data.samplers import groups_for
from amptorch.frames import Frames
from amptorch.training.random_state import RandomState
from amptorch.training.ranks import Ranks
from amptorch.training.run_folder import EPOCHS, LOCK

logger = logging.getLogger(__name__)
STATE_FILE = "training.pt"
KEPT_EPOCHS = 2
# The time at which it began.
RUN_NAME = re.compile(r"(\d{4}(?:-\d\d){5})")
# s from one wait for the disk to the next, if no epoch takes longer: what a power failure costs.
# One takes 50 to 80 ms (4 ms a file); where it is longer, so is the time between, in proportion.
SYNC_SECONDS, SYNC_FACTOR = 30.0, 20
# What the numbers of a run do not depend on, or only as far as it is long.
MAY_CHANGE = {
    "model": (),
    "optim": ("epochs", "max_seconds", "total_seconds", "gpus"),
    "dataset": (
        "elements",
        "fp_params",
        "lmdb_path",
        "cache",
        "save_fps",
        "derivatives",
        "memory_budget",
    ),
}


@dataclass
class TrainingState:
    """Hold a training after some epoch: `checkpoint`, its `config` as it was written, and what else
    is needed to go on."""

    checkpoint: Checkpoint
    config: dict
    optimizer: dict
    criterion: dict
    history: list
    training: dict

    @classmethod
    def load(cls, folder: Path) -> "TrainingState":
        """Return the state in a folder `epochs/<n>`; errors as `load_checkpoint` raises them."""
        training = load_tensors(folder / STATE_FILE)
        # Of runs that were begun before all files had a checksum.
        for name, crc32 in training.get("checksums", {}).items():
            if zlib.crc32((folder / name).read_bytes()) != crc32:
                raise ValueError(f"{folder / name} is damaged: it does not match its checksum")
        checkpoint = load_checkpoint(folder)
        return cls(
            checkpoint,
            load_json(folder / "config.json"),
            checkpoint.optimizer,
            checkpoint.criterion,
            checkpoint.history,
            training,
        )

    @property
    def first_epoch(self) -> int:
        """Return the epochs of training before the run began: 0, or those of the checkpoint that it
        began with."""
        return self.training["first_epoch"]

    def epochs_left(self, epochs: int) -> int:
        """Return the epochs to go where the run is to have `epochs`."""
        return max(0, self.first_epoch + epochs - len(self.history))

    def check_settings(self, settings: Config) -> None:
        """Raise ValueError that names a key of `settings` with which the run would not go on with
        the same numbers."""
        now = config_to_json(settings)
        for section, values in self.config.items():
            keys = {"seed", "dtype"} if section == "cmd" else set(values) - set(MAY_CHANGE[section])
            for key in sorted(keys & now[section].keys()):
                before, after = values[key], now[section][key]
                if before != after:
                    raise ValueError(
                        f"{section}.{key} is {after!r}, but the run "
                        f"{run_folder_of(self.checkpoint.folder)} was started with {before!r}; "
                        "go on with that, or start a new run from its parameters with "
                        "load_pretrained"
                    )

    def check_frames(self, dataset: Any) -> None:
        """Raise ValueError where the data set is not that of the run."""
        was, found = self.training["frames"], dataset_identity(dataset)
        if was["packed"] != found["packed"]:
            raise ValueError(
                f"the run {run_folder_of(self.checkpoint.folder)} was started "
                f"{'with' if was['packed'] else 'without'} dataset.store (or dataset.cache "
                "'partial'), with which batches are drawn in another way; go on with the same"
            )
        # Runs that were begun before structures had a checksum do not know theirs.
        if {**was, "structures": None} != {**found, "structures": None}:
            raise ValueError(
                f"the run {run_folder_of(self.checkpoint.folder)} was started on "
                f"{was['number']} frames with energies (and weights, and shards) of checksum "
                f"{was['crc32']}, these are "
                f"{found['number']} with {found['crc32']}; give it the same frames in the same "
                "order, dataset.weights as they were, and a store with as many frames a shard"
            )
        if was.get("structures", found["structures"]) != found["structures"]:
            raise ValueError(
                f"the run {run_folder_of(self.checkpoint.folder)} was started on frames with the "
                "same energies, but with other positions, cells, elements, forces or stresses; "
                "give it the same frames, or start a new run from its parameters with "
                "load_pretrained (--from)"
            )

    def check_processes(self, processes: int) -> None:
        """Warn where so many processes would draw other batches out of a store than those that
        the run was trained by."""
        before = self.training.get("processes", processes)
        if self.training["frames"]["packed"] and groups_for(before) != groups_for(processes):
            warnings.warn(
                f"the run {run_folder_of(self.checkpoint.folder)} was trained by {before} "
                f"process{'es' * (before > 1)}, now there {'are' if processes > 1 else 'is'} "
                f"{processes}: from here on batches are drawn in another way, so that the numbers "
                "are not those of an uninterrupted run; they are the same for 1, 2, 4 and 8",
                stacklevel=2,
            )

    def restore(self, net: Any, random_state: RandomState) -> None:
        """Put an initialized net, and the random numbers, in this state."""
        self.checkpoint.load_params(net.module_)
        net.criterion_.load_state_dict(self.criterion)
        for name, callback in net.callbacks_:
            for attribute, value in self.training["callbacks"].get(name, {}).items():
                held: Any = getattr(callback, attribute, None)
                if hasattr(held, "load_state_dict"):
                    held.load_state_dict({**held.state_dict(), **value})
                else:
                    setattr(callback, attribute, value)
        # After the schedulers, which set the learning rate of the optimizer when they are made.
        net.optimizer_.load_state_dict(self.optimizer)
        net.history = History(self.history)
        random_state.set(self.training["random"])


class EpochCheckpoint(Callback):
    """Write the state of the training when it begins and after each epoch; begin with `start`, a
    `TrainingState`, where there is one.

    save(net, folder): writes a checkpoint. folder(): that of the run; None writes nothing.
    random_state: the `RandomState` of the training. Comes after the other callbacks.
    """

    def __init__(
        self,
        save: Callable[..., None],
        folder: Callable[[], Any],
        random_state: RandomState,
        start: Any = None,
    ):
        self.save = save
        self.folder = folder
        self.random_state = random_state
        self.start = start

    def on_train_begin(self, net: Any, X: Any = None, **kwargs: Any) -> None:
        start, self.start = self.start, None
        self.on_disk: int | None
        self.on_disk, self.due = None, time.monotonic() + SYNC_SECONDS
        self.frames, self.processes = dataset_identity(X), Ranks().size
        if start is None:
            self.first_epoch = len(net.history)
            self._write(net)
        else:
            self.first_epoch = start.first_epoch
            if self.folder() is not None:
                start.check_processes(self.processes)
            start.restore(net, self.random_state)
            self.last = len(net.history)
            # As far as is known, it may be in the memory of the system alone.
            self._remove_old_epochs(wait=True)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self._write(net)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self._remove_old_epochs(wait=True)

    def _write(self, net: Any) -> None:
        run = self.folder()
        if run is None:
            return
        training = {
            "callbacks": {
                name: callback_state(callback)
                for name, callback in net.callbacks_
                if not isinstance(callback, PrintLog)
            },
            "random": self.random_state.get(),
            "first_epoch": self.first_epoch,
            "frames": self.frames,
            "processes": self.processes,
        }

        def write(folder: str | os.PathLike[str]) -> None:
            self.save(net, folder)
            write_files(folder, {STATE_FILE: as_bytes(training)})

        self.last = len(net.history)
        write_epoch(run, self.last, write)
        self._remove_old_epochs(wait=time.monotonic() >= self.due)

    def _remove_old_epochs(self, wait: bool) -> None:
        """Remove the epochs that are not needed any more; `wait` until the last one, and the best
        checkpoint, are on the disk."""
        run = self.folder()
        if run is None:
            return
        if wait:
            start, epochs = time.monotonic(), Path(run) / EPOCHS
            for folder in (run, epochs / str(self.last), epochs):
                to_disk(folder)
            end = time.monotonic()
            self.on_disk, self.due = self.last, end + max(SYNC_SECONDS, SYNC_FACTOR * (end - start))
        remove_old_epochs(run, self.last, self.on_disk)


def callback_state(callback: Callback) -> dict[str, Any]:
    """Return what a callback has learnt, as far as `load_tensors` reads it."""
    state = {}
    for name, value in vars(callback).items():
        if name.endswith("_") and not isinstance(value, type):
            if hasattr(value, "state_dict"):
                # What is left out, such as the Counter of MultiStepLR, comes with the settings.
                value = {k: v for k, v in value.state_dict().items() if _is_plain(v)}
            value = value.item() if isinstance(value, np.generic) else value
            if _is_plain(value):
                state[name] = value
    return state


def _is_plain(value: Any) -> bool:
    if type(value) in (dict, OrderedDict):
        return all(map(_is_plain, value.values()))
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in (type(None), bool, int, float, str) or isinstance(value, torch.Tensor)


def dataset_identity(dataset: Any) -> dict[str, Any]:
    """Return what a data set is known again by: the number of frames, the CRC-32 of energies,
    weights and shards, that of structures in memory, and whether it is in a store."""
    # A program may hand the net a data set of its own.
    crc32: Any = getattr(dataset, "checksum", None)
    if crc32 is None:
        energies = np.ascontiguousarray(getattr(dataset, "energies", ()), dtype=np.float64)
        crc32 = zlib.crc32(energies.tobytes())
    weights = getattr(dataset, "weights", None)
    if weights is not None:
        crc32 = zlib.crc32(weights.tobytes(), crc32)
    return {
        "number": len(dataset),
        "crc32": crc32,
        "structures": _structures_crc32(getattr(dataset, "frames", None)),
        "packed": getattr(dataset, "shards", None) is not None,
    }


def _structures_crc32(frames: Any) -> int | None:
    """Return what `Frames` are known again by besides their energies; None for anything else: what
    is in a store has checksums of its own."""
    if not isinstance(frames, Frames):
        return None
    crc32 = 0
    for part in (frames.numbers, frames.positions, frames.cells, frames.forces, frames.stress):
        if part is not None:
            crc32 = zlib.crc32(np.ascontiguousarray(part).tobytes(), crc32)
    return crc32


def write_epoch(run: str | os.PathLike[str], epoch: int, write: Callable[[Path], None]) -> None:
    """Let `write(folder)` fill a new folder that becomes `epochs/<epoch>` of the folder `run`.

    Raises OSError where it cannot be written; the epochs before are left as they are.
    """
    parent = Path(run) / EPOCHS
    folder, unfinished = parent / str(epoch), parent / f".{epoch}.{os.getpid()}"
    try:
        # One of a killed process that had this process's number.
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write(unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        kept = saved_epochs(run)
        raise OSError(
            error.errno,
            f"cannot write the checkpoint of epoch {epoch} ({os.strerror(error.errno or 0)}); "
            + (f"resume goes on from epoch {kept[0]}" if kept else "there is none before it"),
            str(folder),
        ) from error


def remove_old_epochs(run: str | os.PathLike[str], last: int, on_disk: int | None) -> None:
    """Remove all epochs but the epoch `on_disk` and the `KEPT_EPOCHS` up to `last`.

    What there is after `last` was damaged, or training would have gone on from it.
    """
    epochs = saved_epochs(run)
    kept = {on_disk, *[epoch for epoch in epochs if epoch <= last][:KEPT_EPOCHS]}
    for epoch in set(epochs) - kept:
        shutil.rmtree(Path(run) / EPOCHS / str(epoch), ignore_errors=True)


def newest_state(run: str | os.PathLike[str]) -> TrainingState | None:
    """Return the `TrainingState` of the last epoch of a run, or None where it was not even started.

    A folder that is damaged is passed over with a warning. Raises FileNotFoundError where there is
    no folder, and ValueError where it holds no epochs but other things, or no epoch that is whole.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"there is no folder {str(run)!r} of a run to go on with")
    epochs = saved_epochs(run)
    for epoch in epochs:
        try:
            state = TrainingState.load(run / EPOCHS / str(epoch))
        except (FileNotFoundError, ValueError) as error:
            warnings.warn(f"epoch {epoch} is passed over: {error}", stacklevel=2)
        else:
            return state
    if epochs:
        raise ValueError(
            f"{run / EPOCHS} has no epoch to go on from: all are damaged; load_pretrained (--from) "
            f"starts a new run from the best parameters, where {run} has them"
        )
    if (run / "params.pt").exists() or (run / "config.pt").exists():
        raise ValueError(
            f"{run} has no {EPOCHS}/ to go on from; load_pretrained (--from) starts a new run from "
            "its parameters"
        )
    return None


def run_to_resume(resume: Any, cmd: Any) -> Path | None:
    """Return the folder of the run that training goes on with; None for a new one.

    resume : as of `AtomsTrainer.train`; cmd : that section of the settings
    """
    if cmd.debug:
        raise ValueError("cmd.debug keeps no checkpoints, so that there is nothing to resume")
    if resume is True:
        run = newest_run(cmd.run_dir, cmd.identifier)
    else:
        run = run_in(resume, cmd.identifier)
    logger.info("a new run" if run is None else f"going on with {run}")
    return run


def run_in(folder: str | os.PathLike[str], identifier: str | None = None) -> Path:
    """Return the run that a folder is, or the newest of those that a training wrote into it.

    Raises FileNotFoundError where there is no such folder, and ValueError where it holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} of a run to go on with")
    if any((folder / name).exists() for name in (EPOCHS, LOCK, "params.pt", "config.pt")):
        return folder
    run = newest_run(folder, identifier)
    if run is None and not RUN_NAME.match(folder.name):
        raise ValueError(
            f"{folder} holds no run to go on with: give the folder that --out (cmd.run_dir) named, "
            "or of the runs in its checkpoints/ the one that is meant"
        )
    return folder if run is None else run


def newest_run(run_dir: str | os.PathLike[str], identifier: str | None = None) -> Path | None:
    """Return the folder of the newest run in `run_dir/checkpoints` that can go on, or None."""
    name = RUN_NAME.pattern + (re.escape(f"-{identifier}") if identifier else "")
    parent = Path(run_dir) / "checkpoints"
    runs = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        found = re.fullmatch(name + r"(?:-(\d+))?", folder.name)
        if found and ((folder / EPOCHS).is_dir() or {f.name for f in folder.iterdir()} <= {LOCK}):
            runs.append((found[1], int(found[2] or 1), folder))
    return max(runs)[-1] if runs else None


def saved_epochs(run: str | os.PathLike[str]) -> list[int]:
    """Return the numbers of the epochs of which there is a folder, the last first."""
    parent = Path(run) / EPOCHS
    names = (path.name for path in (parent.iterdir() if parent.is_dir() else ()))
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def run_folder_of(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of the run that `epochs/<n>` belongs to."""
    return Path(folder).parent.parent
