"""One trial: parameters in, error and cost out, and a record of how it went."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from optuna import Trial, TrialPruned

from amptorch import optimizers
from amptorch.config import Config
from amptorch.data.from_store import StoreDataset
from amptorch.descriptor.Gaussian.auto import SOME_FRAMES, functions_of, is_recipe
from amptorch.descriptor.Gaussian.recipes import PairDistances, pair_distances
from amptorch.frames import Frames
from amptorch.potential import Potential
from amptorch.reports import Stages
from amptorch.training.prepare import batch_size_for
from amptorch.tuning.cache import Cache
from amptorch.tuning.errors import combined, mean_of
from amptorch.tuning.functions import by_selection, recipe_of
from amptorch.tuning.settings import TuningConfig, configuration
from amptorch.tuning.space import Space
from amptorch.tuning.study import process_name, write_record
from amptorch.tuning.training import (
    RUNGS,
    Diverged,
    Reports,
    epoch_columns,
    finite_summary,
    fit_on_store,
    microseconds_per_atom,
    predicted,
    some_of,
    untrained,
)

# Errors that a trial's parameters may lead to; any other is a bug and ends the worker.
FAILURES = (ValueError, TypeError, ArithmeticError, RuntimeError, OSError, MemoryError)
# Frames, at most, whose distances and fingerprints say which functions there are.
SAMPLE = SOME_FRAMES
# Cost of a trial, in those of the baseline, where `tuning.max_cost` does not say it.
COST_LIMIT = 1.1


@dataclass
class Problem:
    """Hold the frames of a study as its trials see them.

    out: the study's folder; tuning, base, space: see `settings.split_config`; cache: a Cache that
    has begun; folds: [(train, validate)]; outliers: eV per atom, see `errors.outlier_energy`.
    """

    out: Path
    tuning: TuningConfig
    base: dict[str, dict]
    space: Space
    cache: Cache
    elements: Sequence[str]
    folds: list[tuple[np.ndarray, np.ndarray]]
    outliers: float

    def configuration(
        self, params: dict[str, Any], budget: dict[str, float], seed: int = 0
    ) -> dict[str, Any]:
        """Return the configuration of a trial; `seed` is added to that of the study."""
        fp_params = None
        if params.get("selection") == "none":
            fp_params = recipe_of(params)
        elif "selection" in params:
            most = int(self.space.domains["functions"].highest())
            ranked = self.out / "cache" / "ranked"
            fp_params = by_selection(params, self.distances, self._sample, ranked, most)
        return configuration(params, self.base, fp_params, budget, self.tuning.seed + seed)

    def resolved(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration with functions in place of a recipe, placed in frames that the
        first fold trains on, and with a number for the batch size."""
        dataset, optim = dict(config["dataset"]), dict(config["optim"])
        recipe = Config.from_dict(config).dataset.fp_params
        if is_recipe(recipe):
            key = json.dumps(recipe, default=list)
            if key not in self._functions:
                self._functions[key] = functions_of(recipe, self._sample, self.elements)
            dataset["fp_params"] = self._functions[key]
        if optim["batch_size"] == "auto":
            optim["batch_size"] = batch_size_for(self.cache.store().n_frames)
        return {**config, "dataset": dataset, "optim": optim}

    def costs(self, config: dict[str, Any]) -> tuple[float, float]:
        """Return µs per atom of a resolved configuration, and the most that a trial may take."""
        frames = self._validation_frames
        potential = untrained(config, frames, self.elements)
        cost, base = microseconds_per_atom(frames, potential, self._untrained_baseline)
        if len(self.tuning.objectives) > 1 and self.tuning.max_cost is None:
            return cost, np.inf
        return cost, self.tuning.max_cost or COST_LIMIT * base

    @cached_property
    def _functions(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _validation_frames(self) -> Frames:
        validate = self.folds[0][1]
        return self.cache.store().frames(validate[some_of(len(validate))])

    @cached_property
    def _untrained_baseline(self) -> Potential:
        config = self.configuration(self.space.baseline(), self.tuning.trial_budget)
        return untrained(self.resolved(config), self._validation_frames, self.elements)

    @cached_property
    def distances(self) -> PairDistances:
        """Return the distances by which functions are placed."""
        neighbors = self.cache.store().neighbors(self._sample_ids)
        return pair_distances(self._sample, neighbors, elements=self.elements)

    @cached_property
    def _sample(self) -> Frames:
        return self.cache.store().frames(self._sample_ids)

    @cached_property
    def _sample_ids(self) -> np.ndarray:
        # Training frames of the first fold: no frame that validates it says where functions stand.
        train = self.folds[0][0]
        return train[np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(np.int64))]

    def dataset(self, config: dict[str, Any], train: np.ndarray) -> tuple[StoreDataset, float]:
        """Return the data set of a resolved configuration, and the seconds that its fingerprints
        took."""
        settings = Config.from_dict(config)
        options = settings.dataset
        setup = (options.fp_scheme, options.fp_params, options.cutoff_params, self.elements)
        return self.cache.dataset(
            setup,
            train,
            options.scaling,
            settings.cmd.dtype,
            options.atomic_correction,
            options.target_scaling,
        )

    def error(self, result: dict[str, Any]) -> float:
        """Return the number that is minimised, see `errors.combined`."""
        return combined(result, self.tuning.metric, self.tuning.force_weight)


class Objective:
    """Run a trial for Optuna; return its error, or [error, cost]."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def __call__(self, trial: Trial) -> float | list[float]:
        trial.set_user_attr("worker", process_name())
        stage, begun = Stages(), time.time()
        stage.seconds |= dict.fromkeys(("fingerprints", "training", "evaluation"), 0.0)
        record: dict[str, Any] = {"number": trial.number, "worker": process_name(), "begun": begun}
        record["seconds"] = stage.seconds
        try:
            self._run(trial, record, stage)
            record["state"] = "complete"
        except TrialPruned as ended:
            record["state"] = "diverged" if isinstance(ended, Diverged) else "pruned"
            record["reason"] = str(ended)
            raise
        except FAILURES as error:
            record["state"] = "failed"
            record["reason"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            if "reason" in record:
                trial.set_user_attr("reason", record["reason"])
            if "state" in record:
                write_record(self.problem.out, record)
        values = [record["error"], record["cost"]]
        return values if len(self.problem.tuning.objectives) > 1 else values[0]

    def _run(self, trial: Trial, record: dict[str, Any], stage: Stages) -> None:
        problem = self.problem
        params = record["params"] = problem.space.suggest(trial)
        budget = problem.tuning.trial_budget
        if "seconds" in budget:
            budget["seconds"] /= len(problem.folds)
        record["config"] = problem.configuration(params, budget)
        with stage("fingerprints"):
            config = problem.resolved(record["config"])
        with stage("evaluation"):
            record["cost"], most = problem.costs(config)
        if record["cost"] > most and params != problem.space.baseline():
            raise TrialPruned(
                f"it costs {record['cost']:.4g} µs/atom, and a trial may cost {most:.4g}"
            )
        record["epochs"], record["folds"] = [], []
        for fold, (train, validate) in enumerate(problem.folds):
            dataset, taken = problem.dataset(config, train)
            stage.seconds["fingerprints"] += taken
            reports = Reports(budget, self._error_of_row, self._reporter(trial, record, fold))
            own = {**config, "cmd": {**config["cmd"], "debug": True}}
            watched = [("reports", reports)]
            try:
                with stage("training"):
                    potential = fit_on_store(own, dataset, train, validate, callbacks=watched)
            except optimizers.Diverged as error:
                raise Diverged(str(error)) from error
            finally:
                if reports.history:
                    record["epochs"].append(epoch_columns(reports.history))
            with stage("evaluation"):
                found = predicted(potential, dataset, validate)
                record["folds"].append(finite_summary(*found, problem.outliers))
        record["errors"] = mean_of(record["folds"])
        record["error"] = problem.error(record["errors"])
        if not np.isfinite(record["error"]):
            raise Diverged("the error is not finite")
        record["n_functions"] = dataset.descriptor.n_features
        record["n_parameters"] = potential.model.num_params
        for name in ("error", "cost", "n_functions", "n_parameters"):
            trial.set_user_attr(name, record[name])

    def _reporter(
        self, trial: Trial, record: dict[str, Any], fold: int
    ) -> Callable[[float, float], None]:
        """Return a function that takes the error of a training of fold `fold`, and the share of its
        budget; it raises TrialPruned where the trial is to end."""
        problem, folds = self.problem, len(self.problem.folds)

        def report(share: float, error: float) -> None:
            before = [problem.error(result) for result in record["folds"]]
            mean = float(np.mean([*before, error]))
            step = max(1, int(RUNGS * (fold + share) / folds))
            reports = record.setdefault("reports", [])
            # Folds share the steps; Optuna keeps the first error of each.
            if reports and reports[-1][0] == step:
                return
            reports.append([step, mean])
            trial.report(mean, step)
            # The others are compared with the baseline.
            if trial.should_prune() and record["params"] != problem.space.baseline():
                raise TrialPruned(
                    f"its error of {mean:.4g} after {(fold + share) / folds:.0%} of its budget was "
                    "not among the best of the trials that got so far"
                )

        # Optuna takes no reports of two objectives.
        return report if len(problem.tuning.objectives) == 1 else lambda share, error: None

    def _error_of_row(self, row: dict[str, Any]) -> float:
        """Return the error in a row of the history."""
        name, power = ("mse", 0.5) if "val_energy_mse" in row else ("mae", 1.0)
        error = 1000 * row[f"val_energy_per_atom_{name}"] ** power
        if f"val_forces_{name}" in row:
            error += self.problem.tuning.force_weight * row[f"val_forces_{name}"] ** power
        return float(error)
