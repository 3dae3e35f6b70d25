"""The jobs of a study: to run a trial, to train one of the best for long or on fewer frames."""

import gc
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna import TrialPruned

from amptorch.files import read_json, write_json
from amptorch.potential import Potential
from amptorch.training.restart import newest_run
from amptorch.training.run_folder import lock_run, new_run_folder
from amptorch.tuning.cache import GB, Cache
from amptorch.tuning.errors import summary
from amptorch.tuning.objective import FAILURES, Objective, Problem
from amptorch.tuning.predictions import save_predictions
from amptorch.tuning.settings import split_config
from amptorch.tuning.study import open_storage, open_study, process_name, quiet_optuna
from amptorch.tuning.training import epoch_columns, finite_summary, fit_on_store, predicted

logger = logging.getLogger(__name__)
SETTINGS = "settings.json"


def load_problem(out: str | os.PathLike[str]) -> Problem:
    """Return the Problem of the study in the folder `out`, from its `settings.json`."""
    out = Path(out)
    about = read_json(out / SETTINGS)
    tuning, base, space = split_config(about["config"])
    forces = (base.get("model") or {}).get("get_forces", True)
    cache = Cache(out / "cache" / "store", about["data"], forces, tuning.disk * GB)
    folds = [(np.array(fold["train"]), np.array(fold["validate"])) for fold in about["folds"]]
    above = about["outliers_above"]
    return Problem(out, tuning, base, space, cache, about["elements"], folds, above)


class Jobs:
    """Do the jobs of one process: {"job": "trial"}, or {"job": a part of `final/plan.json` that
    holds trainings, "name": one of these}.

    seed: numbers that no other process has.
    """

    def __init__(self, out: str | os.PathLike[str], storage: str, study: str, seed: Sequence[int]):
        self.problem = load_problem(out)
        self.objective = Objective(self.problem)
        with quiet_optuna():
            self.study = open_study(
                open_storage(storage), study, self.problem.tuning, [self.problem.tuning.seed, *seed]
            )

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job and return the answer."""
        if job["job"] == "trainings":
            self._train(job["name"])
        elif job["job"] == "again":
            self._train_again(job["name"])
        else:
            with quiet_optuna():
                self.study.optimize(self.objective, n_trials=1, catch=FAILURES)
        # A net is part of cycles: it would keep its fingerprints and the covariance of its
        # Kalman filter, a gigabyte perhaps, through the next few jobs.
        gc.collect()
        return {"done": True, "worker": process_name()}

    def _train(self, name: str) -> None:
        """Train as `final/plan.json` says for `name`; the frames that validated the first fold
        choose the best epoch. A training that was begun is gone on with."""
        problem = self.problem
        folder = problem.out / "final" / name
        plan = read_json(folder.parent / "plan.json")["trainings"][name]
        train, validate = problem.folds[0]
        config = plan["config"]
        config["cmd"] |= {"run_dir": str(folder), "debug": False}
        run = newest_run(folder) or new_run_folder(folder)
        try:
            dataset, _ = problem.dataset(config, train)
            with lock_run(run):
                potential = fit_on_store(config, dataset, train, validate, run)
            result = self._trained(run, potential)
            found = predicted(potential, dataset, validate)
            result["errors"] = summary(*found, problem.outliers)
            frames, energies, forces = found
            save_predictions(folder / "validation.npz", frames, {"chosen": (energies, forces)})
        except FAILURES as error:
            logger.exception("training %s failed", name)
            reason = f"{type(error).__name__}: {error}"
            result = {"failed": reason}
            # A Kalman filter may diverge after many good epochs, of which the best is there.
            if (run / "params.pt").is_file():
                result = {**self._trained(run, Potential.load(run)), "cut_short": reason}
        write_json(folder / "result.json", {"name": name, "trial": plan["trial"], **result})

    def _trained(self, run: Path, potential: Potential) -> dict[str, Any]:
        checkpoint = str(run.relative_to(self.problem.out))
        return {"checkpoint": checkpoint, "epochs": epoch_columns(potential.history)}

    def _train_again(self, name: str) -> None:
        """Train as `final/plan.json` says on the first fold; its errors are those on the frames
        that validate this fold."""
        folder = self.problem.out / "final" / name
        point = read_json(folder.parent / "plan.json")["again"][name]
        train, validate = self.problem.folds[0]
        result: dict[str, Any]
        try:
            config = self.problem.resolved(point["config"])
            config["cmd"] |= {"debug": True}
            dataset, _ = self.problem.dataset(config, train)
            potential = fit_on_store(config, dataset, train, validate)
            found = predicted(potential, dataset, validate)
            result = {"errors": finite_summary(*found, self.problem.outliers)}
        except (*FAILURES, TrialPruned) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
            logger.warning("the training %s failed: %s", name, error)
        write_json(folder / "result.json", {"name": name, **result})
