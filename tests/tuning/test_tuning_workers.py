"""Studies in processes of their own: one that dies in a trial, all of them killed at once."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from ase.io import write

from amptorch.tuning import tune
from amptorch.tuning import workers as processes
from amptorch.tuning.jobs import load_problem
from amptorch.tuning.study import (
    has_ended,
    open_storage,
    open_study,
    quiet_optuna,
    read_json,
    read_records,
)
from amptorch.tuning.workers import Workers
from tests.tuning.test_tuning_study import TRAIN, options

# Long enough to be caught in the middle, short enough to wait for.
CONFIG = options(trial_epochs=60, pruner="none")
SCRIPT = "import sys, json; from amptorch.tuning import tune; tune(**json.loads(sys.argv[1]))"


def wait_for(found, seconds=120):
    """What `found()` gives, as soon as it is anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = found()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def running_worker(out):
    """Process id of a worker that is in the middle of a trial, once there is one."""
    if not (out / "study.db").exists():
        return None
    query = (
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
        "WHERE state = 'RUNNING' AND key = 'worker'"
    )
    try:
        with closing(sqlite3.connect(out / "study.db")) as study:
            found = study.execute(query).fetchall()
    except sqlite3.OperationalError:  # its tables are not there yet
        return None
    return int(json.loads(found[0][0]).rpartition(":")[2]) if found else None


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_trial_alone(tmp_path):
    out = tmp_path / "study"
    killed = []

    def kill():
        killed.append(wait_for(lambda: running_worker(out)))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    tuned = tune(TRAIN, out, trials=2, config=CONFIG, workers=1)
    killer.join()
    records = read_records(out)
    assert [record["state"] for record in records] == ["died", "complete"]
    assert "was killed by signal 9" in records[0]["reason"]
    assert "killed by signal 9" in tuned.study.trials[0].user_attrs["reason"]
    assert tuned.best["number"] == 1
    assert has_ended(records[1]["worker"])


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on(tmp_path):
    out = tmp_path / "study"
    write(tmp_path / "frames.traj", TRAIN)
    call = {"train": str(tmp_path / "frames.traj"), "out": str(out), "trials": 2}
    call |= {"config": CONFIG, "workers": 1}
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(call)])
    worker = wait_for(lambda: running_worker(out))
    parent.kill()
    parent.wait()
    # Nobody counts what it does any more.
    wait_for(lambda: has_ended(f"{os.uname().nodename}:{worker}"))
    tuned = tune(**{**call, "workers": 0})
    records = read_records(out)
    assert [r["state"] for r in records] == ["interrupted", "complete", "complete"]
    # The trial that was cut off, the baseline, was run again.
    assert records[0]["params"].items() <= records[1]["params"].items()
    assert records[1]["params"]["lr"] == 4e-3
    assert len(tuned.study.trials) == 3


@pytest.mark.slow
def test_two_calls_at_once_share_a_study(tmp_path):
    out = tmp_path / "study"
    write(tmp_path / "frames.traj", TRAIN)
    config = options(trial_epochs=80, pruner="none", ensemble=1, final_epochs=2)
    call = {"train": str(tmp_path / "frames.traj"), "out": str(out), "trials": 4}
    call |= {"config": config, "workers": 0, "report": False}
    other = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(call)])
    wait_for(lambda: running_worker(out))
    tune(**call)
    assert other.wait(timeout=120) == 0
    records = read_records(out)
    assert {record["state"] for record in records} == {"complete"}
    numbers = [int(record["worker"].rpartition(":")[2]) for record in records]
    assert set(numbers) == {os.getpid(), other.pid}
    # Each may have begun its last trial without knowing of the other's.
    assert len(records) in (4, 5)
    # The baseline is put in line, and what came out is trained, once.
    assert records[0]["params"] == load_problem(out).space.baseline()
    assert len(read_json(out / "calls.json")) == 2
    assert (out / read_json(out / "summary.json")["chosen"]).is_dir()


def test_workers_that_cannot_start_end_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "MODULE", "amptorch.no_such_module")
    deaths = []
    workers = Workers(tmp_path, 1, {"storage": "x", "study": "y"}, lambda *why: deaths.append(why))
    with pytest.raises(RuntimeError, match=r"die again and again[\s\S]*no_such_module"):
        workers.run(lambda: {"job": "trial"})
    workers.close()
    assert (tmp_path / "logs" / "worker-0.log").is_file()


@pytest.mark.slow
def test_processes_that_share_a_study_draw_differently(tmp_path):
    from amptorch.tuning.settings import TuningConfig

    drawn = []
    for number in range(2):
        with quiet_optuna():
            study = open_study(
                open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "s", TuningConfig(), [0, number]
            )
        drawn.append(study.ask().suggest_float("x", 0, 1))
    assert drawn[0] != drawn[1]
