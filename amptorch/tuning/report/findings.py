"""The findings of a study, read from its folder."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.files import read_json
from amptorch.tuning.final import BASELINE, PLAN, PREDICTIONS, TEST, result_file
from amptorch.tuning.jobs import SETTINGS
from amptorch.tuning.picking import pareto
from amptorch.tuning.predictions import load_predictions
from amptorch.tuning.prepare import CALLS, is_of_before
from amptorch.tuning.report.importance import Mattered
from amptorch.tuning.settings import split_config, tuning_config
from amptorch.tuning.space import SeenSpace, Space
from amptorch.tuning.study import read_records

# Draws of frames that say how far the ratio of two errors may be chance.
DRAWS = 1000


class Findings:
    """Read a study as its folder `out` has it, finished or not.

    about: settings.json; of_before: True for one of before the recommended defaults; calls:
    calls.json; plan: final/plan.json, or None before its trainings are decided; results: {name:
    result of a final training}; test: test.json, or None; summary: summary.json, or None; forces:
    True where potentials have forces.

    Raises FileNotFoundError where there is no study.
    """

    def __init__(self, out: str | os.PathLike[str]):
        self.out = out = Path(out).absolute()
        if not (out / SETTINGS).exists():
            raise FileNotFoundError(f"there is no study in {str(out)!r}: it has no {SETTINGS}")
        self.about: dict[str, Any] = read_json(out / SETTINGS)
        self.records = read_records(out)
        config = self.about["config"]
        self.tuning = tuning_config(config)
        self.of_before = is_of_before(out)
        if self.of_before:
            self.space: Space = SeenSpace([r["params"] for r in self.records if "params" in r])
        else:
            self.space = split_config(config)[2]
        self.forces = (config.get("model") or {}).get("get_forces", True)
        self.calls: list[dict[str, Any]] = _read(out / CALLS) or []
        plan = _read(out / "final" / PLAN) or {}
        # What is trained for long is decided later than the end of the search.
        self.plan: Any = plan if "trainings" in plan else None
        self.test = _read(out / TEST)
        self.summary = _read(out / "summary.json")
        names = (self.plan or {}).get("trainings", ())
        found = {name: _read(result_file(out, name)) for name in names}
        self.results = {name: one for name, one in found.items() if one is not None}
        self.seconds = sum(read_json(path)["seconds"] for path in out.glob("clock-*.json"))

    @cached_property
    def complete(self) -> list[dict[str, Any]]:
        """Return the records of the trials that gave an error, the best first."""
        found = [record for record in self.records if record["state"] == "complete"]
        return sorted(found, key=lambda record: (record["error"], record["number"]))

    @property
    def best(self) -> Any:
        """Return the record of the best trial, or None."""
        return self.complete[0] if self.complete else None

    @cached_property
    def baseline(self) -> Any:
        """Return the record of the trial with the settings of the baseline, or None where none of
        these gave an error."""
        params = self.space.baseline()
        return next((record for record in self.complete if record["params"] == params), None)

    @property
    def front(self) -> list[dict[str, Any]]:
        """Return the records of the Pareto front of error and cost."""
        return pareto(self.complete)

    @property
    def members(self) -> list[dict[str, Any]]:
        """Return the plans of the final trainings that succeeded, without the baseline."""
        done = [name for name, result in self.results.items() if "failed" not in result]
        return [self.plan["trainings"][name] for name in done if name != BASELINE]

    @property
    def chosen(self) -> str | None:
        """Return the path of the chosen model within the folder, or None."""
        return None if self.summary is None else self.summary["chosen"]

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Return {name: errors} of the models that are compared."""
        if self.test is not None:
            return {name: self.test[name] for name in ("chosen", BASELINE) if name in self.test}
        found = {f"trial {self.best['number']}": self.best["errors"]}
        if self.baseline not in (None, self.best):
            found["baseline trial"] = self.baseline["errors"]
        return found

    @cached_property
    def mattered(self) -> Mattered:
        """Return what the parameters did."""
        return Mattered(self.complete, self.records, self.space, self.tuning.seed)

    @cached_property
    def predictions(self) -> Any:
        """Return `HeldOut` of the test frames, or of the validation frames, or None."""
        if self.test is not None:
            return _held_out("test", self.out / PREDICTIONS)
        held = (self.out / "final" / name / "validation.npz" for name in self.results)
        return next(filter(None, (_held_out("validation", path) for path in held)), None)


def _held_out(kind: str, path: Path) -> "HeldOut | None":
    found = load_predictions(path)
    return None if found is None else HeldOut(kind, found)


class HeldOut:
    """Hold predictions on frames that were not trained on.

    kind: "test" or "validation"; arrays: see `predictions.save_predictions`. models: names.
    """

    def __init__(self, kind: str, arrays: dict[str, np.ndarray]):
        self.kind, self.arrays = kind, arrays
        self.models = [name for name in ("chosen", BASELINE) if f"{name}_energies" in arrays]
        self.energies, self.counts = arrays["energies"], arrays["counts"]
        self.forces: Any = arrays.get("forces")

    def energy_errors(self, name: str) -> np.ndarray:
        """Return (F,), meV/atom."""
        return 1000 * (self.arrays[f"{name}_energies"] - self.energies)

    def force_errors(self, name: str) -> np.ndarray:
        """Return (n, 3), eV/Å."""
        return self.arrays[f"{name}_forces"].astype(np.float64) - self.forces

    def frame_force_errors(self, name: str) -> np.ndarray:
        """Return the root mean square of each frame's force errors (F,), eV/Å."""
        squares = (self.force_errors(name) ** 2).mean(axis=1)
        frames = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.sqrt(np.bincount(frames, squares, len(self.counts)) / self.counts)

    def spreads(self, name: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Return (energies (F,), meV/atom, and forces (n, 3), eV/Å, or None) or None without an
        ensemble: standard deviations over its members."""
        energies = self.arrays.get(f"{name}_energies_spread")
        if energies is None:
            return None
        return 1000 * energies, self.arrays.get(f"{name}_forces_spread")

    def ratio(self, quantity: str) -> tuple[float, float] | None:
        """Return the bounds of the RMSE of the chosen model over that of the baseline, for
        95 % of sets of frames drawn with replacement; None without both, or with too few frames."""
        n = len(self.counts)
        if len(self.models) < 2 or n < 5 or (quantity == "forces" and self.forces is None):
            return None
        if quantity == "energy":
            squares = [self.energy_errors(name) ** 2 for name in self.models]
        else:
            squares = [self.frame_force_errors(name) ** 2 * self.counts for name in self.models]
        drawn = np.random.default_rng(0).integers(n, size=(DRAWS, n))
        first, second = (square[drawn].sum(axis=1) for square in squares)
        if not (second > 0).all():
            return None
        low, high = np.percentile(np.sqrt(first / second), [2.5, 97.5])
        return float(low), float(high)


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None
