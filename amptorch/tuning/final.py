"""After the search: the best trial, or the baseline, is trained for long, and tested once."""

import logging
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amptorch.config import Config, DatasetConfig
from amptorch.ensemble import Ensemble
from amptorch.files import read_json, write_json
from amptorch.frames import Frames, read_images
from amptorch.optimizers import EKF
from amptorch.potential import Potential
from amptorch.recommended import MEMBERS
from amptorch.tuning.errors import summary
from amptorch.tuning.predictions import digest, save_predictions
from amptorch.tuning.settings import TuningConfig
from amptorch.tuning.study import completed, read_records
from amptorch.tuning.training import microseconds_per_atom

if TYPE_CHECKING:
    import optuna

    from amptorch.tuning.objective import Problem

logger = logging.getLogger(__name__)
PLAN, TEST = "plan.json", "test.json"
PREDICTIONS = "test.npz"
BASELINE = "baseline"
# Keys of the plan that hold trainings.
TRAININGS = ("again", "trainings")
# Prefix of trainings with another seed.
AGAIN = "again"
# Length of a final training in those of a trial, where no time is given.
LONGER = 10
# Share of the time that is left which starting, describing and predicting may take.
RESERVE = 0.05


def make_plan(problem: "Problem", study: "optuna.Study") -> dict[str, Any]:
    """End the search, once: write and return `final/plan.json`, as yet without the final trainings.

    It has the best trial, the baseline, and what is trained before `decide`: both once more with
    another seed, each in the time of a trial, unless they are the same.

    Raises ValueError where no trial gave an error.
    """
    path = problem.out / "final" / PLAN
    if path.exists():
        return read_json(path)
    trials = completed(study)
    if not trials:
        raise ValueError(
            f"no trial gave an error, so that there is nothing to train; {problem.out}/trials says "
            "what went wrong in each"
        )
    start = problem.space.baseline()
    base = next((trial for trial in trials if trial.params == start), None)
    plan: dict[str, Any] = {
        name: trial and {"trial": trial.number, "params": trial.params}
        for name, trial in (("best", trials[0]), (BASELINE, base))
    }
    plan["again"] = {}
    if base is not None and base.params != trials[0].params and problem.tuning.ensemble:
        for name, trial in (("best", trials[0]), (BASELINE, base)):
            config = problem.configuration(trial.params, problem.tuning.trial_budget, seed=1)
            plan["again"][f"{AGAIN}-{name}"] = {"config": config}
    write_json(path, plan)
    return plan


def decide(
    problem: "Problem", plan: dict[str, Any], seconds_left: float | None, workers: int
) -> dict[str, Any]:
    """Decide, once, what is trained for long, in all the time that is left; write and return the
    plan.

    That is the best trial where its error, the mean of two trainings, is below that of the baseline
    by more than the noise: the larger of the differences between two trainings of one with
    different seeds. Otherwise it is the baseline.
    """
    if "trainings" in plan:
        return plan
    tuning = problem.tuning
    errors = {name: _errors(problem, plan, name) for name in ("best", BASELINE)}
    better = plan[BASELINE] is None
    if all(len(found) == 2 for found in errors.values()):
        noise = max(abs(first - second) for first, second in errors.values())
        better = float(np.mean(errors["best"])) < float(np.mean(errors[BASELINE])) - noise
        plan["noise"] = noise
    plan["errors"], plan["chosen"] = errors, "best" if better else BASELINE
    plan["budget"] = _budget(tuning, seconds_left, workers)
    number, params = plan[plan["chosen"]]["trial"], plan[plan["chosen"]]["params"]
    plan["trainings"] = {
        f"member-{k + 1}": {
            "trial": number,
            "params": params,
            "config": _for_long(
                problem.resolved(problem.configuration(params, plan["budget"], seed=k)),
                problem.base,
            ),
        }
        for k in range(tuning.ensemble)
    }
    write_json(problem.out / "final" / PLAN, plan)
    return plan


def _for_long(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a trial for a long training: the mean of several networks where
    these are recommended and `base`, what the study's configuration says, has no number of them."""
    checked = Config.from_dict(config)
    alone = checked.optim.optimizer is not EKF or checked.optim.scheduler is not None
    if alone or "members" in (base.get("model") or {}):
        return config
    return {**config, "model": {**config["model"], "members": MEMBERS}}


def _errors(problem: "Problem", plan: dict[str, Any], name: str) -> list[float]:
    """Return the errors on the first fold of a trial, and of its training with another seed."""
    if plan[name] is None:
        return []
    records = {record["number"]: record for record in read_records(problem.out)}
    found = [records[plan[name]["trial"]]["folds"][0]]
    if f"{AGAIN}-{name}" in plan["again"]:
        result = result_of(problem.out, f"{AGAIN}-{name}")
        found += [result["errors"]] if "errors" in result else []
    return [problem.error(errors) for errors in found]


def _budget(tuning: TuningConfig, seconds_left: float | None, workers: int) -> dict[str, float]:
    if tuning.final_epochs is not None:
        return {"epochs": tuning.final_epochs}
    if tuning.final_seconds is not None:
        return {"seconds": tuning.final_seconds}
    if seconds_left is None:
        return {unit: LONGER * length for unit, length in tuning.trial_budget.items()}
    rounds = math.ceil(tuning.ensemble / workers)
    return {"seconds": max((1 - RESERVE) * seconds_left / rounds, tuning.trial_seconds)}


def missing(out: Path, plan: dict[str, Any]) -> list[str]:
    """Return the names of all trainings of the plan without a result."""
    names = [name for part in TRAININGS for name in plan.get(part, ())]
    return [name for name in names if not result_file(out, name).exists()]


def fail_missing(out: Path, plan: dict[str, Any], reason: str) -> None:
    """Write a result for each training that has none: that it failed for `reason`."""
    for name in missing(out, plan):
        write_json(result_file(out, name), {"name": name, "failed": reason})


def result_file(out: Path, name: str) -> Path:
    """Return the path of the result of a training."""
    return out / "final" / name / "result.json"


def result_of(out: Path, name: str) -> dict[str, Any]:
    """Return the result of a training."""
    return read_json(result_file(out, name))


def collect(out: Path, plan: dict[str, Any]) -> Potential | Ensemble:
    """Return the chosen model after all trainings: an Ensemble of all members, saved in
    `final/ensemble`, or the only one.

    Raises ValueError where all members failed.
    """
    members, failed = [], []
    for name in plan["trainings"]:
        result = result_of(out, name)
        if "failed" in result:
            failed.append(f"{name}: {result['failed']}")
            logger.warning("the training %s failed: %s", name, result["failed"])
        else:
            members.append(Potential.load(out / result["checkpoint"]))
    if not members:
        raise ValueError(f"the final training failed: {'; '.join(failed)}")
    if len(members) == 1:
        return members[0]
    chosen = Ensemble(members)
    folder = out / "final" / "ensemble"
    if not (folder / "ensemble.json").exists():
        chosen.save(folder)
    return chosen


def test_once(problem: "Problem", chosen: Potential | Ensemble, test: Any) -> dict[str, Any]:
    """Return the errors of the chosen model on the test frames.

    They are computed once, kept in `test.json`, and read from there in later calls. Predictions are
    in `test.npz`, see `predictions.save_predictions`.

    Raises ValueError where the study was tested on other frames.
    """
    path, above = problem.out / TEST, problem.outliers
    images = read_images(test, DatasetConfig.from_dict(problem.base.get("dataset") or {}).labels)
    frames = Frames.from_atoms(images, problem.elements, energies=True, forces=chosen.has_forces)
    checksum = digest(frames)
    if path.exists():
        before = read_json(path)
        if before.get("digest", checksum) != checksum:
            raise ValueError(
                f"this study was tested on other frames already ({path}), once and for all; use "
                "`amptorch evaluate` with its models for more"
            )
        return before
    opened = datetime.now(timezone.utc).isoformat(timespec="seconds")
    prediction = chosen.predict(images)
    energies = np.array(prediction["energy"])
    forces = np.concatenate(prediction["forces"]) if chosen.has_forces else None
    errors = summary(frames, energies, forces, above)
    (errors["cost"],) = microseconds_per_atom(frames, chosen)
    errors["energies"] = energies.tolist()
    spreads: tuple = ()
    if "energy_uncertainty" in prediction:
        errors["energy_uncertainty_per_atom"] = prediction["energy_uncertainty_per_atom"]
        of_forces = None if forces is None else np.concatenate(prediction["forces_uncertainty"])
        spreads = np.array(prediction["energy_uncertainty"]), of_forces
    save_predictions(problem.out / PREDICTIONS, frames, {"chosen": (energies, forces, *spreads)})
    result = {"outliers_above": above, "opened": opened, "digest": checksum, "chosen": errors}
    write_json(path, result)
    return result
