"""The findings of a study, read from its folder."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.tuning.final import BASELINE, PLAN, PREDICTIONS, TEST
from amptorch.tuning.jobs import SETTINGS
from amptorch.tuning.picking import pareto
from amptorch.tuning.predictions import load_predictions
from amptorch.tuning.prepare import CALLS
from amptorch.tuning.report.importance import Mattered
from amptorch.tuning.settings import TuningConfig, split_config
from amptorch.tuning.space import Space
from amptorch.tuning.study import read_json, read_records

# Draws of frames that say how far the ratio of two errors may be chance.
DRAWS = 1000


@dataclass
class Findings:
    """A study as its folder `out` has it, finished or not.

    about: settings.json; calls: calls.json; plan: final/plan.json, or None; results: {name: result
    of a final training}; curve: results of the learning curve, by frames; test: test.json, or None.
    """

    out: Path
    about: dict
    tuning: TuningConfig
    space: Space
    records: list
    calls: list = field(default_factory=list)
    plan: Any = None
    results: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)
    test: Any = None
    summary: dict | None = None
    seconds: float = 0.0

    @classmethod
    def read(cls, out: str | os.PathLike[str]) -> "Findings":
        """Return those of the study in the folder `out`; FileNotFoundError where there is none."""
        out = Path(out).absolute()
        if not (out / SETTINGS).exists():
            raise FileNotFoundError(f"there is no study in {str(out)!r}: it has no {SETTINGS}")
        about = read_json(out / SETTINGS)
        tuning, _, space = split_config(about["config"])
        plan = _read(out / "final" / PLAN)
        results, curve = {}, []
        if plan is not None:
            found = {
                name: _read(out / "final" / name / "result.json") for name in plan["trainings"]
            }
            results = {name: result for name, result in found.items() if result is not None}
            points = [_read(out / "final" / name / "result.json") for name in plan.get("curve", ())]
            curve = sorted(filter(None, points), key=lambda point: point["frames"])
        return cls(
            out,
            about,
            tuning,
            space,
            read_records(out),
            _read(out / CALLS) or [],
            plan,
            results,
            curve,
            _read(out / TEST),
            _read(out / "summary.json"),
            sum(read_json(path)["seconds"] for path in out.glob("clock-*.json")),
        )

    @cached_property
    def complete(self) -> list[dict[str, Any]]:
        """Records of the trials that gave an error, the best first."""
        found = [record for record in self.records if record["state"] == "complete"]
        return sorted(found, key=lambda record: (record["error"], record["number"]))

    @property
    def best(self) -> Any:
        """The record of the best trial, or None."""
        return self.complete[0] if self.complete else None

    @cached_property
    def baseline(self) -> Any:
        """The record of the trial with the settings of the baseline, or None where none of these
        gave an error."""
        params = self.space.baseline()
        return next((record for record in self.complete if record["params"] == params), None)

    @property
    def front(self) -> list[dict[str, Any]]:
        """Records of the Pareto front of error and cost."""
        return pareto(self.complete)

    @property
    def forces(self) -> bool:
        """Whether there are errors of forces."""
        return all("forces" in record["errors"] for record in self.complete)

    @property
    def base_forces(self) -> bool:
        """Whether the models of this study are to give forces."""
        model = self.about["config"].get("model") or {}
        return model.get("get_forces", True)

    @property
    def members(self) -> list[str]:
        """Names of the final trainings that succeeded, without the baseline."""
        done = [name for name, result in self.results.items() if "failed" not in result]
        return [name for name in done if name != BASELINE]

    @property
    def chosen(self) -> str | None:
        """Path of the chosen model within the folder, or None."""
        return None if self.summary is None else self.summary["chosen"]

    @property
    def searched(self) -> int:
        """Number of parameters that were searched."""
        return len(set(self.space.searched) & set(self.space.reachable))

    @property
    def member_trials(self) -> list[str]:
        """Numbers of the trials that the members of the chosen model were trained as."""
        return [str(self.plan["trainings"][name]["trial"]) for name in self.members]

    @property
    def same_as_baseline(self) -> bool:
        """Whether the chosen model has the configuration of the baseline."""
        trainings = self.plan["trainings"]
        own = [trainings[name]["params"] for name in self.members]
        return own == [trainings[BASELINE]["params"]]

    @property
    def weighted(self) -> bool:
        """Whether frames had weights."""
        return (self.about["config"].get("dataset") or {}).get("weights") is not None

    @property
    def points(self) -> list[dict[str, Any]]:
        """Points of the learning curve whose training succeeded."""
        return [point for point in self.curve if "failed" not in point]

    @cached_property
    def mattered(self) -> Mattered:
        """What the parameters did."""
        return Mattered(self.complete, self.records, self.space, self.tuning.seed)

    @cached_property
    def predictions(self) -> Any:
        """`HeldOut` of the test frames, or of the validation frames by the longest training of the
        learning curve on all others, or None."""
        if self.test is not None:
            found = load_predictions(self.out / PREDICTIONS)
            return None if found is None else HeldOut("test", found)
        if not self.curve or "failed" in self.curve[-1]:
            return None
        found = load_predictions(self.out / "final" / self.curve[-1]["name"] / "validation.npz")
        return None if found is None else HeldOut("validation", found)


class HeldOut:
    """Predictions on frames that were not trained on.

    kind: "test" or "validation"; arrays: see `predictions.save_predictions`. models: names.
    """

    def __init__(self, kind: str, arrays: dict[str, np.ndarray]):
        self.kind = kind
        self.arrays = arrays
        self.models = [name for name in ("chosen", BASELINE) if f"{name}_energies" in arrays]
        self.energies = arrays["energies"]
        self.counts = arrays["counts"]
        self.forces: Any = arrays.get("forces")
        self.atom_frames = np.repeat(np.arange(len(self.counts)), self.counts)

    def label(self, name: str) -> str:
        """Return the model's name for people.

        On validation frames it is not the chosen one that predicts, which was trained on them.
        """
        return name if self.kind == "test" else "configuration"

    def energy_errors(self, name: str) -> np.ndarray:
        """Return (F,), meV/atom."""
        return 1000 * (self.arrays[f"{name}_energies"] - self.energies)

    def force_errors(self, name: str) -> Any:
        """Return (n, 3), eV/Å, or None."""
        predicted = self.arrays.get(f"{name}_forces")
        return None if predicted is None else predicted.astype(np.float64) - self.forces

    def frame_force_errors(self, name: str) -> Any:
        """Return the root mean square of each frame's force errors (F,), eV/Å, or None."""
        errors = self.force_errors(name)
        if errors is None:
            return None
        squares = np.bincount(self.atom_frames, (errors**2).mean(axis=1), len(self.counts))
        return np.sqrt(squares / self.counts)

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
        if len(self.models) < 2 or len(self.counts) < 5:
            return None
        if quantity == "forces" and self.forces is None:
            return None
        if quantity == "energy":
            squares = [self.energy_errors(name) ** 2 for name in self.models]
        else:
            squares = [self.frame_force_errors(name) ** 2 * self.counts for name in self.models]
        n = len(self.counts)
        drawn = np.random.default_rng(0).integers(n, size=(DRAWS, n))
        first, second = (square[drawn].sum(axis=1) for square in squares)
        if not (second > 0).all():
            return None
        low, high = np.percentile(np.sqrt(first / second), [2.5, 97.5])
        return float(low), float(high)


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None
