"""After the search: the best trials and the baseline are trained for long, and tested once."""

import logging
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amptorch.config import DatasetConfig
from amptorch.ensemble import Ensemble
from amptorch.files import read_json, write_json
from amptorch.frames import Frames, read_images
from amptorch.potential import Potential
from amptorch.threads import use_threads
from amptorch.tuning.errors import summary
from amptorch.tuning.predictions import digest, save_predictions
from amptorch.tuning.settings import TuningConfig, configuration
from amptorch.tuning.study import completed
from amptorch.tuning.training import microseconds_per_atom

if TYPE_CHECKING:
    import optuna

    from amptorch.tuning.objective import Problem

logger = logging.getLogger(__name__)
PLAN, TEST = "plan.json", "test.json"
PREDICTIONS = "test.npz"
BASELINE = "baseline"
# Length of a final training in those of a trial, where no time is given.
LONGER = 10
# Share of the time that is left which starting, describing and predicting may take.
RESERVE = 0.05


def make_plan(
    problem: "Problem", study: "optuna.Study", seconds_left: float | None, workers: int
) -> dict[str, Any]:
    """Decide, once, what is trained and for how long; write and return `final/plan.json`.

    The best trials of different configurations (or the best one with different seeds) and the
    baseline, each for the same time, so that they can be compared; then the best trial on fewer
    and fewer frames.

    Raises ValueError where no trial gave an error.
    """
    path, tuning = problem.out / "final" / PLAN, problem.tuning
    if path.exists():
        return read_json(path)
    best: list[optuna.trial.FrozenTrial] = []
    for trial in completed(study):
        if all(trial.params != other.params for other in best):
            best.append(trial)
    if not best:
        raise ValueError(
            f"no trial gave an error, so that there is nothing to train; {problem.out}/trials says "
            "what went wrong in each"
        )
    members = tuning.members
    best = best[:1] * members if tuning.ensemble == "seeds" else best[:members]
    curve, curve_budget = _curve(problem, best[0].params, seconds_left, workers)
    if seconds_left is not None and curve:
        seconds_left *= 1 - tuning.curve_share
    budget = _budget(tuning, seconds_left, len(best) + 1, workers)
    params: dict[str, tuple] = {
        f"member-{k}": (trial.number, trial.params) for k, trial in enumerate(best, 1)
    }
    params[BASELINE] = None, problem.space.baseline()
    trainings = {}
    for k, (name, (number, values)) in enumerate(params.items()):
        functions = problem.functions(values)
        config = configuration(values, problem.base, functions, budget, tuning.seed + k)
        trainings[name] = {"trial": number, "params": values, "config": config}
    plan = {"budget": budget, "trainings": trainings, "curve": curve, "curve_budget": curve_budget}
    write_json(path, plan)
    return plan


def _curve(
    problem: "Problem", params: dict[str, Any], seconds_left: float | None, workers: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return ({name: {"share", "frames", "config"}}, budget) of the learning curve."""
    tuning, n_frames = problem.tuning, len(problem.folds[0][0])
    numbers = {max(1, round(share * n_frames)): share for share in tuning.curve}
    budget = tuning.trial_budget
    if seconds_left is not None and "seconds" in budget and numbers:
        rounds = math.ceil(len(numbers) / workers)
        budget = {"seconds": tuning.curve_share * (1 - RESERVE) * seconds_left / rounds}
    points = {}
    functions = problem.functions(params) if numbers else None
    for number, share in numbers.items():
        own = budget
        if "epochs" in budget:
            # As many steps for fewer frames as for all.
            own = {"epochs": round(budget["epochs"] * n_frames / number)}
        config = configuration(params, problem.base, functions, own, tuning.seed)
        points[f"curve-{number}"] = {"share": share, "frames": number, "config": config}
    return points, budget


def _budget(
    tuning: TuningConfig, seconds_left: float | None, n_trainings: int, workers: int
) -> dict[str, float]:
    if tuning.final_epochs is not None:
        return {"epochs": tuning.final_epochs}
    if tuning.final_seconds is not None:
        return {"seconds": tuning.final_seconds}
    if seconds_left is None:
        return {unit: LONGER * length for unit, length in tuning.trial_budget.items()}
    rounds = math.ceil(n_trainings / workers)
    return {"seconds": max((1 - RESERVE) * seconds_left / rounds, tuning.trial_seconds)}


def missing(out: Path, plan: dict[str, Any]) -> list[str]:
    """Return the names of trainings and points of the learning curve without a result."""
    names = [*plan["trainings"], *plan.get("curve", ())]
    return [name for name in names if not result_file(out, name).exists()]


def fail_missing(out: Path, plan: dict[str, Any], reason: str) -> None:
    """Write a result for each training that has none: that it failed for `reason`."""
    for name in missing(out, plan):
        about = {"trial": plan["trainings"][name]["trial"]} if name in plan["trainings"] else {}
        about |= {"frames": plan["curve"][name]["frames"]} if not about else {}
        write_json(result_file(out, name), {"name": name, "failed": reason, **about})


def result_file(out: Path, name: str) -> Path:
    """Return the path of the result of a training."""
    return out / "final" / name / "result.json"


def result_of(out: Path, name: str) -> dict[str, Any]:
    """Return the result of a training."""
    return read_json(result_file(out, name))


def collect(out: Path, plan: dict[str, Any]) -> tuple[Potential | Ensemble, Potential | None]:
    """Return the chosen model, and the baseline (None where it failed), after all trainings.

    The chosen model is an Ensemble of all members, saved in `final/ensemble`, or the only one.

    Raises ValueError where all members failed.
    """
    members, baseline, failed = [], None, []
    for name in plan["trainings"]:
        result = result_of(out, name)
        if "failed" in result:
            failed.append(f"{name}: {result['failed']}")
            logger.warning("the training %s failed: %s", name, result["failed"])
            continue
        potential = Potential.load(out / result["checkpoint"])
        if name == BASELINE:
            baseline = potential
        else:
            members.append(potential)
    if not members:
        raise ValueError(f"the trainings of the best trials all failed: {'; '.join(failed)}")
    if len(members) == 1:
        return members[0], baseline
    chosen = Ensemble(members)
    folder = out / "final" / "ensemble"
    if not (folder / "ensemble.json").exists():
        chosen.save(folder)
    return chosen, baseline


def test_once(
    problem: "Problem", chosen: Potential | Ensemble, baseline: Potential | None, test: Any
) -> dict[str, Any]:
    """Return the errors of the chosen model and of the baseline on the test frames.

    They are computed once, kept in `test.json`, and read from there in later calls. Predictions are
    in `test.npz`, see `predictions.save_predictions`.

    Raises ValueError where the study was tested on other frames.
    """
    path, above = problem.out / TEST, problem.outliers
    images = read_images(test, DatasetConfig.from_dict(problem.base["dataset"]).labels)
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
    result: dict[str, Any] = {"outliers_above": above, "opened": opened, "digest": checksum}
    predictions: dict[str, tuple] = {}
    for name, model in (("chosen", chosen), (BASELINE, baseline)):
        if model is None:
            continue
        prediction = model.predict(images)
        energies = np.array(prediction["energy"])
        forces = np.concatenate(prediction["forces"]) if chosen.has_forces else None
        result[name] = summary(frames, energies, forces, above)
        with use_threads(1):
            result[name]["cost"] = microseconds_per_atom(model, frames)
        result[name]["energies"] = energies.tolist()
        predictions[name] = energies, forces
        if "energy_uncertainty" in prediction:
            result[name]["energy_uncertainty_per_atom"] = prediction["energy_uncertainty_per_atom"]
            spread = None
            if forces is not None:
                spread = np.concatenate(prediction["forces_uncertainty"])
            predictions[name] += np.array(prediction["energy_uncertainty"]), spread
    save_predictions(problem.out / PREDICTIONS, frames, predictions)
    write_json(path, result)
    return result
