"""Picking a trial out of a study's records, by its error or its cost."""

import os
from pathlib import Path
from typing import Any

from amptorch.tuning.study import read_records

Record = dict[str, Any]
# Keys of a trial's configuration that belong to its short training.
BUDGET = ("max_seconds", "epochs", "scheduler")


def completed_records(out: str | os.PathLike[str]) -> list[Record]:
    """Return the records of the trials that gave an error.

    Raises FileNotFoundError where there is no study, and ValueError where no trial gave an error.
    """
    if not (Path(out) / "trials").is_dir():
        raise FileNotFoundError(f"there is no study in {str(out)!r}: it has no trials")
    records = [record for record in read_records(out) if record["state"] == "complete"]
    if not records:
        raise ValueError(f"no trial in {str(out)!r} gave an error yet")
    return records


def front_of(out: str | os.PathLike[str]) -> list[Record]:
    """Return the Pareto front of a study: records of trials, the cheapest first."""
    return pareto(completed_records(out))


def pareto(records: list[Record]) -> list[Record]:
    """Return the records of completed trials than which no other is both more accurate and cheaper,
    the cheapest first."""
    front: list[Record] = []
    for record in sorted(records, key=lambda r: (r["cost"], r["error"])):
        if not front or record["error"] < front[-1]["error"]:
            front.append(record)
    return front


def pick_trial(
    out: str | os.PathLike[str],
    trial: int | None = None,
    max_cost: float | None = None,
    max_error: float | None = None,
) -> Record:
    """Return the record of one trial.

    trial: its number; max_cost: take the most accurate within this cost, µs/atom; max_error: take
    the cheapest within this error. Give exactly one of these.

    Raises ValueError where there is no such trial.
    """
    if sum(value is not None for value in (trial, max_cost, max_error)) != 1:
        raise ValueError("give one of trial, max_cost and max_error")
    records = completed_records(out)
    if trial is not None:
        found = [record for record in records if record["number"] == trial]
        if not found:
            raise ValueError(f"trial {trial} is not among those that gave an error")
        return found[0]
    front = front_of(out)
    if max_cost is not None:
        within = [record for record in front if record["cost"] <= max_cost]
        if not within:
            raise ValueError(f"the cheapest trial takes {front[0]['cost']:.3g} µs/atom")
        return within[-1]
    within = [record for record in front if record["error"] <= max_error]
    if not within:
        raise ValueError(f"the most accurate trial has an error of {front[-1]['error']:.4g}")
    return within[0]


def train_config(record: Record, minutes: float = 30) -> dict[str, dict]:
    """Return the configuration of a trial for `amptorch train`, for a training of `minutes`."""
    config = {name: dict(section) for name, section in record["config"].items()}
    optim = config["optim"]
    timed: dict[str, dict] = {"optim": {"max_seconds": 60.0 * minutes, "epochs": 1_000_000}}
    if record["params"].get("schedule") == "cosine":
        timed["optim"]["scheduler"] = {"policy": "cosine_time", "params": {}}
    config["optim"] = {key: value for key, value in optim.items() if key not in BUDGET}
    config["optim"] |= timed["optim"]
    config["cmd"] = {key: value for key, value in config["cmd"].items() if key != "verbose"}
    return config
