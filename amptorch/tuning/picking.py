"""Picking a trial out of a study's records, by its error or its cost."""

import os
from pathlib import Path
from typing import Any

from amptorch.tuning.study import read_records

Record = dict[str, Any]


def front_of(out: str | os.PathLike[str]) -> list[Record]:
    """Return the Pareto front of a study: records of trials, the cheapest first.

    Raises FileNotFoundError where there is no study, and ValueError where no trial gave an error.
    """
    return pareto(_completed(out))


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
    records = _completed(out)
    front = pareto(records)
    if trial is not None:
        found = [record for record in records if record["number"] == trial]
        missing = f"trial {trial} is not among those that gave an error"
    elif max_cost is not None:
        found = [record for record in front if record["cost"] <= max_cost][-1:]
        missing = f"the cheapest trial takes {front[0]['cost']:.3g} µs/atom"
    else:
        found = [record for record in front if record["error"] <= max_error]
        missing = f"the most accurate trial has an error of {front[-1]['error']:.4g}"
    if not found:
        raise ValueError(missing)
    return found[0]


def train_config(record: Record, minutes: float = 30) -> dict[str, dict]:
    """Return the configuration of a trial for `amptorch train`, for a training of `minutes`."""
    config = {name: dict(section) for name, section in record["config"].items()}
    config["optim"].pop("scheduler", None)
    config["optim"] |= {"max_seconds": 60.0 * minutes, "epochs": 1_000_000}
    if record["params"].get("schedule") == "cosine":
        config["optim"]["scheduler"] = {"policy": "cosine_time", "params": {}}
    config["cmd"].pop("verbose", None)
    return config


def _completed(out: str | os.PathLike[str]) -> list[Record]:
    if not (Path(out) / "trials").is_dir():
        raise FileNotFoundError(f"there is no study in {str(out)!r}: it has no trials")
    records = [record for record in read_records(out) if record["state"] == "complete"]
    if not records:
        raise ValueError(f"no trial in {str(out)!r} gave an error yet")
    return records
