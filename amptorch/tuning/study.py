"""The Optuna study: its storage, what draws and what ends trials, and the record of each trial."""

import json
import logging
import os
import socket
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

try:
    import optuna
except ImportError as error:
    raise ImportError("tuning needs the package optuna: pip install optuna") from error
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from amptorch.config import to_json
from amptorch.tuning.training import RUNGS
from amptorch.writing import write_atomically

logger = logging.getLogger(__name__)
# Seconds between signs of life of a trial, and without one until it counts as dead. A machine may
# be suspended for a minute.
HEARTBEAT, GRACE = 30, 240
# Seconds that a process waits for others that write to the same SQLite file.
BUSY = 120
# To open a storage whose tables others may be making.
ATTEMPTS = 5
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_storage(url):
    """Optuna's storage of an SQLAlchemy URL, or of "journal:PATH", a file that grows, for file
    systems on which SQLite cannot lock.

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
        parsed = make_url(url)
        shown = parsed.render_as_string(hide_password=True)
    except ArgumentError as error:
        raise ValueError(
            f"the storage {url!r} is no URL such as sqlite:///study.db, "
            "postgresql://user@host/name or journal:FILE"
        ) from error
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database and not Path(parsed.database).absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder for the storage {shown}")
    for attempt in range(ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": BUSY} if sqlite else {}},
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            # Another process is making the same tables.
            if attempt + 1 < ATTEMPTS and ("UNIQUE" in reason or "already exists" in reason):
                time.sleep(1)
                continue
            raise OSError(f"the storage {shown} cannot be reached: {reason}") from error
        except ImportError as error:
            raise ImportError(f"the storage {shown} needs a driver: {error}") from error


def public_url(url):
    """The URL of a storage, without the password that it may hold."""
    if url.startswith("journal:"):
        return url
    return make_url(url).render_as_string(hide_password=True)


def make_sampler(tuning, seed):
    """What draws the parameters, for one process; `seed` (a sequence of numbers) is its own."""
    seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    samplers = optuna.samplers
    startup = tuning.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if tuning.sampler == "tpe":
            # The lie keeps processes that draw at the same time from drawing the same.
            return samplers.TPESampler(
                n_startup_trials=startup,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=seed,
            )
        if tuning.sampler == "gp":
            return samplers.GPSampler(n_startup_trials=startup, seed=seed)
        if tuning.sampler == "qmc":
            return samplers.QMCSampler(scramble=True, seed=tuning.seed)
        if tuning.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.RandomSampler(seed=seed)


def make_pruner(tuning):
    """What ends trials early; it looks at their errors at RUNGS equal shares of their budget."""
    pruners = optuna.pruners
    if tuning.pruner == "none" or len(tuning.objectives) > 1:
        return pruners.NopPruner()
    if tuning.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=tuning.startup_trials, n_warmup_steps=2)
    if tuning.pruner == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return pruners.HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=3)


def open_study(storage, name, tuning, seed=(0,)):
    """The study of that name, made where it is not there."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=make_sampler(tuning, seed),
        pruner=make_pruner(tuning),
        directions=["minimize"] * len(tuning.objectives),
        load_if_exists=True,
    )


def process_name(pid=None):
    """How trials say who runs them: host and process id, this process's where None."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


def counted(study):
    """Trials that are over; those that were interrupted are run again and do not count."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in trials if "interrupted" not in trial.user_attrs]


def completed(study):
    """Trials that gave an error, the best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (trial.user_attrs["error"], trial.number))


def fail_trials_of(study, out, dead, reason, again=False):
    """Mark the running trials of processes that are `dead(worker)`; the numbers of these trials.

    again: they are no failures of their parameters, are not counted and put in line once more.
    """
    numbers = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if worker is None or not dead(worker):
            continue
        storage = study._storage
        attributes = {"reason": reason, **({"interrupted": True} if again else {})}
        for key, value in attributes.items():
            storage.set_trial_user_attr(trial._trial_id, key, value)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        write_record(
            out,
            {
                "number": trial.number,
                "state": "interrupted" if again else "died",
                "reason": reason,
                "params": trial.params,
            },
        )
        if again:
            # What it was to have, and what it had drawn before it was cut off.
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(params)
        numbers.append(trial.number)
    return numbers


def record_silent(study, out):
    """Write the records of the trials that Optuna counted as failed, because whatever ran them gave
    no sign of life any more."""
    recorded = {record["number"] for record in read_records(out)}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        if trial.number not in recorded:
            reason = f"{trial.user_attrs.get('worker', 'its process')} gave no sign of life"
            record = {"number": trial.number, "state": "died", "reason": reason}
            write_record(out, {**record, "params": trial.params})


def has_ended(worker: str) -> bool:
    """Return True where the process `host:id` of this machine has ended, otherwise False."""
    host, _, process = worker.rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def quiet_optuna():
    """Optuna's own lines are left out: the records of the trials say more."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def write_record(out, record):
    """Write `trials/<number>.json`."""
    write_json(Path(out) / "trials" / f"{record['number']:05d}.json", record)


def read_records(out):
    """The records of all trials, in the order of their numbers."""
    return [read_json(path) for path in sorted((Path(out) / "trials").glob("[0-9]*.json"))]


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Replace a JSON file as a whole."""
    with write_atomically(path) as file:
        file.write(json.dumps(to_json(content), indent=1).encode("utf8"))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf8"))
