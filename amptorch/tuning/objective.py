"""One trial: parameters in, error and cost out, and a record of how it went."""

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
from amptorch.descriptor.Gaussian.recipes import PairDistances, pair_distances
from amptorch.frames import Frames
from amptorch.reports import Stages
from amptorch.tuning.cache import Cache
from amptorch.tuning.errors import combined, mean_of
from amptorch.tuning.functions import by_recipe, by_selection
from amptorch.tuning.settings import TuningConfig, configuration
from amptorch.tuning.space import Space
from amptorch.tuning.study import process_name, write_record
from amptorch.tuning.training import (
    RUNGS,
    Diverged,
    Reports,
    StoreTrainer,
    epoch_columns,
    finite_summary,
    microseconds_per_atom,
    predicted,
)

# Errors that a trial's parameters may lead to; any other is a bug and ends the worker.
FAILURES = (ValueError, TypeError, ArithmeticError, RuntimeError, OSError, MemoryError)
# Frames, at most, whose distances and fingerprints say which functions there are.
SAMPLE = 100


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

    def functions(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """Return `fp_params` of a trial, or None where the configuration fixes them."""
        if "cutoff" not in params:
            return None
        if params["selection"] == "none":
            return by_recipe(params, self.distances)
        most = int(self.space.domains["functions"].highest())
        ranked = self.out / "cache" / "ranked"
        return by_selection(params, self.distances, self._sample, ranked, most)

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
        """Return the data set of a configuration, and the seconds that its fingerprints took."""
        settings = Config.from_dict(config)
        options = settings.dataset
        setup = (options.fp_scheme, options.fp_params, options.cutoff_params, self.elements)
        return self.cache.dataset(
            setup, train, options.scaling, settings.cmd.dtype, options.atomic_correction
        )

    def error(self, result: dict[str, Any]) -> float:
        """Return the number that is minimised, see `errors.combined`."""
        return combined(result, self.tuning.metric, self.tuning.force_weight)


class Objective:
    """Run a trial for Optuna; return its error, or [error, cost]."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.counts = problem.cache.store().counts

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
        with stage("fingerprints"):
            fp_params = problem.functions(params)
        budget = problem.tuning.trial_budget
        if "seconds" in budget:
            budget["seconds"] /= len(problem.folds)
        config = record["config"] = configuration(
            params, problem.base, fp_params, budget, problem.tuning.seed
        )
        record["epochs"], record["folds"] = [], []
        for fold, (train, validate) in enumerate(problem.folds):
            dataset, taken = problem.dataset(config, train)
            stage.seconds["fingerprints"] += taken
            reports = Reports(budget, self._error_of_row, self._reporter(trial, record, fold))
            own = {**config, "cmd": {**config["cmd"], "debug": True}}
            trainer = StoreTrainer(own, dataset, train, validate, [("reports", reports)])
            try:
                with stage("training"):
                    trainer.train()
            except optimizers.Diverged as error:
                raise Diverged(str(error)) from error
            finally:
                if trainer.net is not None and getattr(trainer.net, "initialized_", False):
                    record["epochs"].append(epoch_columns(trainer.net.history))
            with stage("evaluation"):
                found = predicted(trainer.potential, dataset, validate)
                record["folds"].append(finite_summary(*found, problem.outliers))
        record["errors"] = mean_of(record["folds"])
        record["error"] = problem.error(record["errors"])
        if not np.isfinite(record["error"]):
            raise Diverged("the error is not finite")
        with stage("evaluation"):
            frames = dataset.store.frames(validate)
            record["cost"] = microseconds_per_atom(trainer.potential, frames)
        record["n_functions"] = dataset.descriptor.n_features
        record["n_parameters"] = trainer.model.num_params
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
            if trial.should_prune():
                raise TrialPruned(
                    f"its error of {mean:.4g} after {(fold + share) / folds:.0%} of its budget was "
                    "not among the best of the trials that got so far"
                )

        # Optuna takes no reports of two objectives.
        return report if len(problem.tuning.objectives) == 1 else lambda share, error: None

    def _error_of_row(self, row: dict[str, Any]) -> float:
        """Return the error in a row of the history. Its energies are per frame; divided by the mean
        number of atoms they are near enough to compare trials."""
        name, power = ("mse", 0.5) if "val_energy_mse" in row else ("mae", 1.0)
        error = 1000 * row[f"val_energy_{name}"] ** power / self.counts.mean()
        if f"val_forces_{name}" in row:
            error += self.problem.tuning.force_weight * row[f"val_forces_{name}"] ** power
        return float(error)
