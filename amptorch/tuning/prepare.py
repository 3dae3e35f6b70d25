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

from amptorch.config import Config, DatasetConfig
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.Gaussian.auto import functions_of, is_recipe
from amptorch.files import read_json, write_json
from amptorch.frames import Frames, elements_of, read_images
from amptorch.locks import locked
from amptorch.plain import to_json
from amptorch.profiling.environment import environment
from amptorch.recommended import RECOMMENDED
from amptorch.tuning.errors import outlier_energy
from amptorch.tuning.jobs import SETTINGS
from amptorch.tuning.predictions import digest
from amptorch.tuning.settings import configuration, split_config, tuning_config
from amptorch.tuning.splits import correlation

logger = logging.getLogger(__name__)
# Correlation of consecutive frames above which random validation frames flatter the errors.
FLATTERS = 0.3
LOCK = ".lock"
# Key of `settings.json` that studies of before the recommended defaults lack.
DEFAULTS = "defaults"
# Trials, at least, that the time of a search is divided by, and the shortest trial, seconds.
TRIALS, SHORTEST = 12, 2.5
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
    with locked(out / LOCK):
        yield


def is_of_before(out: Path) -> bool:
    """Return True for the folder of a study of before the recommended defaults."""
    return (out / SETTINGS).exists() and DEFAULTS not in read_json(out / SETTINGS)


def check_input(
    train: Any, test: Any, config: dict[str, Any] | None, out: Path, seconds: float | None = None
) -> tuple[dict[str, Any], list[Atoms]]:
    """Check frames and settings; return the content of `settings.json`, and the training images.

    seconds: of the whole study, by which the time of a trial is chosen where nothing says it.
    """
    config = to_json(config or {})
    before = read_json(out / SETTINGS) if (out / SETTINGS).exists() else None
    _choose_trial_seconds(config, before, seconds)
    tuning, base, space = split_config(config)
    complete = Config.from_dict(configuration({}, base, None, {"epochs": 1}, tuning.seed))
    options, forces = complete.dataset, complete.model.get_forces
    if complete.model.repulsion is not None:
        raise ValueError(
            "model.repulsion is not for `tune`: leave it out, and train what is found with it"
        )
    labels = options.labels
    images = read_images(train, labels)
    frames = Frames.from_atoms(images, options.elements, energies=True, forces=forces)
    if test is not None:
        # Nothing else of the test frames is looked at.
        try:
            found = read_images(test, labels)
            Frames.from_atoms(found, elements_of(frames), energies=True, forces=forces)
        except (ValueError, TypeError) as error:
            raise ValueError(f"test frames: {error}") from error
    elements = options.elements or elements_of(frames)
    per_atom, above = frames.energies / frames.counts, outlier_energy(frames)
    folds = tuning.validation.split(len(frames), tuning.seed, np.flatnonzero(per_atom > above))
    for fold, (learned, validated) in enumerate(folds):
        unknown = set(frames.select(validated).numbers) - set(frames.select(learned).numbers)
        if unknown:
            raise ValueError(
                f"fold {fold} would validate on {chemical_symbols[min(unknown)]}, which none of "
                "its training frames holds; use more frames, or tuning.validation.method: random"
            )
    cutoff = space.largest_cutoff()
    if cutoff is None:
        functions = options.fp_params
        if is_recipe(functions):
            functions = functions_of(functions, frames, elements)
        cutoff = Gaussian(functions, elements, options.cutoff_params).cutoff
    about = {
        "config": config,
        DEFAULTS: RECOMMENDED,
        "train": digest(frames),
        "elements": elements,
        "frames": len(frames),
        "outliers_above": above,
        "correlation": correlation(per_atom),
        "folds": [{"train": a.tolist(), "validate": b.tolist()} for a, b in folds],
        "cutoff": float(cutoff),
    }
    identity = json.dumps(
        [about["train"], config.get("tuning", {}).get("space"), base], default=str
    )
    identity += json.dumps(tuning.identity())
    about["study"] = f"tune-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    return about, images


def _choose_trial_seconds(
    config: dict[str, Any], before: dict[str, Any] | None, seconds: float | None
) -> None:
    """Put the time of a trial into the configuration where nothing says it: that of the study
    that is there, or such that a dozen trials end in the time of the search."""
    tuning = tuning_config(config)
    given = config.get("tuning") or {}
    if tuning.trial_epochs is not None or "trial_seconds" in given:
        return
    chosen = tuning.trial_seconds
    if before is not None:
        chosen = before["config"].get("tuning", {}).get("trial_seconds", chosen)
    elif seconds is not None:
        share = tuning.search_share * seconds / TRIALS
        chosen = min(chosen, max(SHORTEST, round(share, 1)))
    if chosen != tuning.trial_seconds:
        config["tuning"] = {**given, "trial_seconds": chosen}


def write_settings(
    about: dict[str, Any], train: Any, images: list[Atoms], out: Path
) -> dict[str, Any]:
    """Write `settings.json`, or compare with the one that is there; return its content.

    Settings that may change (sampler, pruner, final trainings, …) are replaced by those given.
    """
    path = out / SETTINGS
    if path.exists():
        before = read_json(path)
        for key, what in (("train", "training frames"), ("study", "settings")):
            if before[key] != about[key]:
                raise ValueError(
                    f"{str(out)!r} holds a study of other {what}; give another folder, or what it "
                    f"was begun with ({path})"
                )
        if before["config"] != about["config"]:
            before["config"] = about["config"]
            write_json(path, before)
            logger.info("the study goes on with the configuration of this call")
        return before
    (out / "cache").mkdir(exist_ok=True)
    config = about["config"]
    tuning = tuning_config(config)
    # `preprocess` reads the user's file, or else a new one of `images`.
    own = isinstance(train, (str, os.PathLike)) and Path(train).is_file()
    if own and not DatasetConfig.from_dict(config.get("dataset") or {}).labels.keys:
        about["data"] = str(Path(train).absolute())
    else:
        about["data"] = str(out / "cache" / "frames.traj")
        write(about["data"], images)
    write_json(path, about)
    logger.info("%d training frames; %s", about["frames"], tuning.validation.in_words())
    logger.info(
        "energies of consecutive frames correlate with %.2f%s",
        about["correlation"],
        ": frames drawn at random would flatter" if about["correlation"] > FLATTERS else "",
    )
    return about


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
