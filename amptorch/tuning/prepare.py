"""The beginning of a study: checked frames and settings, one folder, one clock."""

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write
from filelock import FileLock

from amptorch.config import DatasetConfig, to_json
from amptorch.files import read_json, write_json
from amptorch.frames import Frames, read_images
from amptorch.labels import Labels
from amptorch.profiling.environment import environment
from amptorch.tuning.errors import outlier_energy
from amptorch.tuning.jobs import SETTINGS
from amptorch.tuning.predictions import digest
from amptorch.tuning.settings import split_config
from amptorch.tuning.space import Space
from amptorch.tuning.splits import correlation

logger = logging.getLogger(__name__)
# Correlation of consecutive frames above which random validation frames flatter the errors.
FLATTERS = 0.3
LOCK = ".lock"
CALLS = "calls.json"


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make the study's folder, and let one process at a time into the block."""
    if out.exists() and not (out / SETTINGS).exists():
        others = [path.name for path in out.iterdir() if path.name not in (LOCK, "cache")]
        if others:
            raise FileExistsError(
                f"{str(out)!r} has other files in it ({others[0]}) and no study; give a new folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / LOCK):
        yield


def check_input(
    train: Any, test: Any, config: dict[str, Any] | None
) -> tuple[dict[str, Any], list[Atoms]]:
    """Check frames and settings; return the content of `settings.json`, and the training images."""
    config = to_json(config or {})
    tuning, base, space = split_config(config)
    forces = base["model"].get("get_forces", True)
    labels = DatasetConfig.from_dict(base["dataset"]).labels
    images = read_images(train, labels)
    frames = Frames.from_atoms(
        images, base["dataset"].get("elements"), energies=True, forces=forces
    )
    found = sorted(chemical_symbols[number] for number in np.unique(frames.numbers))
    elements = base["dataset"].get("elements") or found
    if test is not None:
        _check_test(test, found, forces, labels)
    above = outlier_energy(frames)
    outliers = np.flatnonzero(frames.energies / frames.counts > above)
    folds = tuning.validation.split(len(frames), tuning.seed, outliers)
    _check_folds(frames, folds)
    about = {
        "config": config,
        "train": digest(frames),
        "elements": elements,
        "frames": len(frames),
        "outliers_above": above,
        "correlation": correlation(frames.energies / frames.counts),
        "folds": [{"train": a.tolist(), "validate": b.tolist()} for a, b in folds],
        "cutoff": _cutoff(base, space, elements),
    }
    identity = json.dumps(
        [about["train"], config.get("tuning", {}).get("space"), base], default=str
    )
    identity += json.dumps(tuning.identity())
    about["study"] = f"tune-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    return about, images


def write_settings(
    about: dict[str, Any], train: Any, images: list[Atoms], out: Path
) -> dict[str, Any]:
    """Write `settings.json`, or compare with the one that is there; return its content.

    Settings that may change (sampler, pruner, final trainings, …) are replaced by those given.
    """
    path = out / SETTINGS
    if path.exists():
        before = read_json(path)
        _check_same(before, about, out)
        if before["config"] != about["config"]:
            before["config"] = about["config"]
            write_json(path, before)
            logger.info("the study goes on with the configuration of this call")
        return before
    (out / "cache").mkdir(exist_ok=True)
    labels = DatasetConfig.from_dict(split_config(about["config"])[1]["dataset"]).labels
    about["data"] = _data(None if labels.keys else train, images, out)
    write_json(path, about)
    validation = split_config(about["config"])[0].validation
    logger.info("%d training frames; %s", about["frames"], validation.describe())
    logger.info(
        "energies of consecutive frames correlate with %.2f%s",
        about["correlation"],
        ": frames drawn at random would flatter" if about["correlation"] > FLATTERS else "",
    )
    return about


def _check_test(test: Any, elements: list[str], forces: bool, labels: Labels) -> None:
    """Check that the test frames can be used; do not look at their energies and forces."""
    try:
        Frames.from_atoms(read_images(test, labels), elements, energies=True, forces=forces)
    except (ValueError, TypeError) as error:
        raise ValueError(f"test frames: {error}") from error


def _check_folds(frames: Frames, folds: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for fold, (train, validate) in enumerate(folds):
        known = set(frames.select(train).numbers)
        unknown = set(frames.select(validate).numbers) - known
        if unknown:
            raise ValueError(
                f"fold {fold} would validate on {chemical_symbols[min(unknown)]}, which none of "
                "its training frames holds; use more frames, or tuning.validation.method: random"
            )


def _cutoff(base: dict[str, dict], space: Space, elements: list[str]) -> float:
    """Return the longest cutoff that any trial may ask for, Å."""
    largest = space.largest_cutoff()
    if largest is not None:
        return float(largest)
    from amptorch.descriptor.Gaussian import Gaussian

    options = base["dataset"]
    return Gaussian(options["fp_params"], elements, options.get("cutoff_params")).cutoff


def _data(train: Any, images: list[Atoms], out: Path) -> str:
    """Return the file that `preprocess` reads: the user's, or else a new one of `images`."""
    if isinstance(train, (str, os.PathLike)) and Path(train).is_file():
        return str(Path(train).absolute())
    path = out / "cache" / "frames.traj"
    write(path, images)
    return str(path)


def _check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    for key, what in (("train", "training frames"), ("study", "settings")):
        if before[key] != now[key]:
            raise ValueError(
                f"{str(out)!r} holds a study of other {what}; give another folder, or what it was "
                f"begun with ({out / SETTINGS})"
            )


def note_call(out: Path, call: dict[str, Any]) -> None:
    """Add a call to `calls.json`: its time, arguments and machine."""
    call = {key: os.fspath(v) if isinstance(v, os.PathLike) else v for key, v in call.items()}
    for key in ("train", "test"):
        if not isinstance(call[key], (str, type(None))):
            call[key] = f"{len(call[key])} frames given from Python"
    call["begun"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    path = out / CALLS
    calls = read_json(path) if path.exists() else []
    write_json(path, [*calls, {**call, "environment": environment()}])


class Clock:
    """Measure the seconds of all calls for a study on this machine, killed ones included."""

    def __init__(self, out: str | os.PathLike[str]):
        self.path = Path(out) / f"clock-{socket.gethostname()}.json"
        self.before = read_json(self.path)["seconds"] if self.path.exists() else 0.0
        self.begun = time.monotonic()

    def __call__(self) -> float:
        """Return the seconds so far."""
        return self.before + time.monotonic() - self.begun

    def stop(self) -> None:
        """Write the seconds so far to the file."""
        write_json(self.path, {"seconds": self()})
