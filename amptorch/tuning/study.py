"""The Optuna study: its storage, sampler and pruner, and the record of each trial."""

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import optuna
except ImportError as error:
    raise ImportError("tuning needs the package optuna: pip install optuna") from error
import psutil
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from amptorch.files import read_json, write_json
from amptorch.tuning.training import RUNGS

if TYPE_CHECKING:
    from amptorch.tuning.settings import TuningConfig

logger = logging.getLogger(__name__)
# Seconds between signs of life of a trial, and without one until it counts as dead. A machine may
# be suspended for a minute.
HEARTBEAT, GRACE = 30, 240
# Seconds that a process waits for others that write to the same SQLite file.
BUSY = 120
# To open a storage whose tables others may be making.
ATTEMPTS = 5
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Return Optuna's storage of an SQLAlchemy URL, or of "journal:PATH": a file that grows, for
    file systems on which SQLite cannot lock.

    Raises OSError or ValueError that names the URL (without its password) and what is wrong.
    """
    if url.startswith("journal:"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = Path(url.removeprefix("journal:"))
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.parent)!r} for {url}")
        return JournalStorage(JournalFileBackend(str(path)))
    try:
        parsed, shown = make_url(url), public_url(url)
    except ArgumentError as error:
        raise ValueError(
            f"the storage {url!r} is no URL such as sqlite:///study.db, "
            "postgresql://user@host/name or journal:FILE"
        ) from error
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database and not Path(parsed.database).absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder for the storage {shown}")
    options = {"connect_args": {"timeout": BUSY}} if sqlite else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in range(ATTEMPTS):
            try:
                return optuna.storages.RDBStorage(
                    url, options, heartbeat_interval=HEARTBEAT, grace_period=GRACE
                )
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                reason = str(error.__cause__ or error).splitlines()[0]
                # Another process is making the same tables.
                shared = "UNIQUE" in reason or "already exists" in reason
                if not shared or attempt + 1 == ATTEMPTS:
                    raise OSError(f"the storage {shown} cannot be reached: {reason}") from error
                time.sleep(1)
            except ImportError as error:
                raise ImportError(f"the storage {shown} needs a driver: {error}") from error
    raise AssertionError("every attempt returns or raises")


def public_url(url: str) -> str:
    """Return the URL of a storage without its password."""
    if url.startswith("journal:"):
        return url
    return make_url(url).render_as_string(hide_password=True)


def make_sampler(tuning: "TuningConfig", seeds: Sequence[int]) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler for one process; `seeds` are those of no other process."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    startup, samplers = tuning.startup_trials, optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if tuning.sampler == "tpe":
            # The lie keeps processes that draw at the same time from drawing the same.
            lie: Any = {"multivariate": True, "group": True, "constant_liar": True}
            return samplers.TPESampler(n_startup_trials=startup, seed=seed, **lie)
        if tuning.sampler == "gp":
            return samplers.GPSampler(n_startup_trials=startup, seed=seed)
        if tuning.sampler == "qmc":
            return samplers.QMCSampler(scramble=True, seed=tuning.seed)
        if tuning.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.RandomSampler(seed=seed)


def make_pruner(tuning: "TuningConfig") -> optuna.pruners.BasePruner:
    """Return Optuna's pruner, which sees the errors of trials at RUNGS equal shares of a budget."""
    pruners = optuna.pruners
    if tuning.pruner == "none" or len(tuning.objectives) > 1:
        return pruners.NopPruner()
    if tuning.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=tuning.startup_trials, n_warmup_steps=2)
    if tuning.pruner == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return pruners.HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=3)


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    tuning: "TuningConfig",
    seeds: Sequence[int] = (0,),
) -> optuna.Study:
    """Return the study of that name; make it where there is none."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=make_sampler(tuning, seeds),
        pruner=make_pruner(tuning),
        directions=["minimize"] * len(tuning.objectives),
        load_if_exists=True,
    )


def process_name(pid: int | None = None) -> str:
    """Return "host:process id", by which trials name their process; this process's where None."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that are over, without the interrupted ones, which are run again."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in trials if "interrupted" not in trial.user_attrs]


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that gave an error, the best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (trial.user_attrs["error"], trial.number))


def fail_trials_of(
    study: optuna.Study, out: Path, dead: Callable[[str], bool], reason: str, again: bool = False
) -> list[int]:
    """Mark the running trials of processes for which `dead(worker)` is true as failed, and return
    their numbers.

    again: run them once more, and do not count them as failures of their parameters.
    """
    numbers = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if worker is None or not dead(worker):
            continue
        attributes = {"reason": reason, **({"interrupted": True} if again else {})}
        for key, value in attributes.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        _record_lost(out, trial, "interrupted" if again else "died", reason)
        if again:
            # What it was to have, and what it had drawn before it was cut off.
            study.enqueue_trial({**trial.system_attrs.get("fixed_params", {}), **trial.params})
        numbers.append(trial.number)
    return numbers


def record_silent(study: optuna.Study, out: Path) -> None:
    """Write the records of trials that Optuna took for failed because their process gave no sign of
    life any more."""
    recorded = {record["number"] for record in read_records(out)}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        if trial.number not in recorded:
            worker = trial.user_attrs.get("worker", "its process")
            _record_lost(out, trial, "died", f"{worker} gave no sign of life")


def _record_lost(out: Path, trial: FrozenTrial, state: str, reason: str) -> None:
    record = {"number": trial.number, "state": state, "reason": reason, "params": trial.params}
    write_record(out, record)


def has_ended(worker: str) -> bool:
    """Return True for a process of this machine that has ended."""
    host, _, process = worker.rpartition(":")
    return host == socket.gethostname() and not psutil.pid_exists(int(process))


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's own log: the records of the trials say more."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def write_record(out: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write `trials/<number>.json`."""
    write_json(Path(out) / "trials" / f"{record['number']:05d}.json", record)


def read_records(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of all trials, in the order of their numbers."""
    return [read_json(path) for path in sorted((Path(out) / "trials").glob("[0-9]*.json"))]
