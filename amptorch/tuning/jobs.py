"""The jobs of a study: to run a trial, to train one of the best for long or on fewer frames."""

import gc
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna import TrialPruned

from amptorch.files import read_json, write_json
from amptorch.training.restart import newest_run
from amptorch.tuning.cache import GB, Cache
from amptorch.tuning.objective import FAILURES, Objective, Problem
from amptorch.tuning.predictions import save_predictions
from amptorch.tuning.settings import split_config
from amptorch.tuning.study import open_storage, open_study, process_name, quiet_optuna
from amptorch.tuning.training import StoreTrainer, epoch_columns, finite_summary, predicted

logger = logging.getLogger(__name__)
SETTINGS = "settings.json"


def load_problem(out: str | os.PathLike[str]) -> Problem:
    """Return the Problem of the study in the folder `out`, from its `settings.json`."""
    out = Path(out)
    about = read_json(out / SETTINGS)
    tuning, base, space = split_config(about["config"])
    forces = base["model"].get("get_forces", True)
    cache = Cache(out / "cache" / "store", about["data"], forces, tuning.disk * GB)
    folds = [(np.array(fold["train"]), np.array(fold["validate"])) for fold in about["folds"]]
    above = about["outliers_above"]
    return Problem(out, tuning, base, space, cache, about["elements"], folds, above)


class Jobs:
    """Do the jobs of one process: {"job": "trial"}, {"job": "train", "name": …} or {"job":
    "curve", "name": …}.

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
        if job["job"] == "train":
            self._train(job["name"])
        elif job["job"] == "curve":
            self._curve(job["name"])
        else:
            with quiet_optuna():
                self.study.optimize(self.objective, n_trials=1, catch=FAILURES)
        # A trainer is part of cycles: it would keep its fingerprints and the covariance of its
        # Kalman filter, a gigabyte perhaps, through the next few jobs.
        gc.collect()
        return {"done": True, "worker": process_name()}

    def _train(self, name: str) -> None:
        """Train as `final/plan.json` says for `name`, on all training frames; a training that was
        begun is gone on with."""
        folder = self.problem.out / "final" / name
        plan = read_json(folder.parent / "plan.json")["trainings"][name]
        config = plan["config"]
        config["cmd"] |= {"run_dir": str(folder), "debug": False}
        trainer = None
        try:
            n_frames = self.problem.cache.store().n_frames
            dataset, _ = self.problem.dataset(config, np.arange(n_frames))
            trainer = StoreTrainer(config, dataset)
            trainer.train(resume=newest_run(folder) is not None)
            result = self._trained(trainer)
        except FAILURES as error:
            logger.exception("training %s failed", name)
            reason = f"{type(error).__name__}: {error}"
            result = {"failed": reason}
            # A Kalman filter may diverge after many good epochs, of which the best is there.
            if trainer and trainer.cp_dir and Path(trainer.cp_dir, "params.pt").is_file():
                result = {**self._trained(trainer), "cut_short": reason}
        write_json(folder / "result.json", {"name": name, "trial": plan["trial"], **result})

    def _trained(self, trainer: StoreTrainer) -> dict[str, Any]:
        folder = Path(trainer.cp_dir).relative_to(self.problem.out)
        return {"checkpoint": str(folder), "epochs": epoch_columns(trainer.net.history)}

    def _curve(self, name: str) -> None:
        """Train a point of the learning curve, as `final/plan.json` says, on some of the first
        fold's training frames; its errors are those on the frames that validate this fold."""
        folder = self.problem.out / "final" / name
        point = read_json(folder.parent / "plan.json")["curve"][name]
        train, validate = self.problem.folds[0]
        # A smaller share is part of every larger one.
        drawn = np.random.default_rng(self.problem.tuning.seed).permutation(len(train))
        train = train[np.sort(drawn[: point["frames"]])]
        config = point["config"]
        config["cmd"] |= {"debug": True}
        start = time.perf_counter()
        try:
            dataset, _ = self.problem.dataset(config, train)
            trainer = StoreTrainer(config, dataset, train)
            trainer.train()
            frames, energies, forces = predicted(trainer.potential, dataset, validate)
            errors = finite_summary(frames, energies, forces, self.problem.outliers)
            result = {"errors": errors, "epochs": len(trainer.net.history)}
            save_predictions(folder / "validation.npz", frames, {"chosen": (energies, forces)})
        except (*FAILURES, TrialPruned) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
            logger.warning("%s of the learning curve failed: %s", name, error)
        result["seconds"] = time.perf_counter() - start
        write_json(folder / "result.json", {"name": name, "frames": len(train), **result})
