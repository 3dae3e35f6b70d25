"""The section `tuning` of a configuration: every key with its default and its meaning."""

# ruff: noqa: RUF009 (`option` only wraps dataclasses.field)

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from amptorch.checks import choice, mapping, number
from amptorch.config import Config, _Section, count, option
from amptorch.tuning.errors import FORCE_WEIGHT
from amptorch.tuning.space import BY_NAME, Space
from amptorch.tuning.splits import Validation

# A trial is begun while at least this share of its time is left.
WORTH_BEGINNING = 0.5
SAMPLERS = ("tpe", "random", "qmc", "gp", "nsga2")
PRUNERS = ("hyperband", "asha", "median", "none")

# Settings of all trials unless the configuration says otherwise: large frames train to far smaller
# errors with these than with the defaults of v1.0.
DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"initialization": "small"},
    "optim": {"metric": "mse"},
    "dataset": {"fp_scheme": "gaussian", "scaling": {"type": "standardize"}},
    "cmd": {"verbose": False},
}
CUTOFFS: dict[str, dict[str, Any]] = {
    "cosine": {"cutoff_func": "Cosine"},
    "polynomial": {"cutoff_func": "Polynomial", "gamma": 4.0},
}
# Keys of `optim` that are not the value of the parameter that stands for them.
INDIRECT = ("scheduler", "optimizer_args", "averaging")
# Keys that the study has to set itself.
OWN = {
    "dataset": (
        *("raw_data", "store", "lmdb_path", "val_split", "val_split_mode"),
        *("pca", "target_scaling", "weights", "missing_forces"),
    ),
    "optim": ("epochs", "max_seconds"),
    "cmd": ("run_dir", "identifier", "debug", "seed"),
}


def validation(key: str, value: Any) -> Validation:
    """Return the `Validation` that the key describes."""
    return Validation.from_dict(mapping(key, value))


def shares(key: str, value: Any) -> list[float]:
    """Return a sorted list of shares between 0 and 1."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return sorted({float(number(above=0, maximum=1)(key, item)) for item in values})


def objectives(key: str, value: Any) -> list[str]:
    """Return ["error"] or ["error", "cost"]; raises ValueError for anything else."""
    values = [value] if isinstance(value, str) else list(value)
    checked = [choice("error", "cost")(key, item) for item in values]
    if checked not in (["error"], ["error", "cost"]):
        raise ValueError(f"{key} must be [error] or [error, cost], got {value!r}")
    return checked


@dataclass
class TuningConfig(_Section):
    """Hold the section `tuning` of a configuration."""

    name_in_config: ClassVar[str] = "tuning"

    space: dict = option({}, mapping, "ranges of the search space, see amptorch.tuning.space")
    validation: Any = option({}, validation, "method, fraction, folds, blocks, gap, outliers")
    objectives: list = option(["error"], objectives, "[error], or [error, cost] without pruning")
    metric: str = option("rmse", choice("rmse", "mae", "median"), "of the error")
    force_weight: float = option(FORCE_WEIGHT, number(minimum=0), "meV/atom for 1 eV/Å")
    trial_seconds: float = option(60.0, number(above=0), "of training in a trial")
    trial_epochs: int | None = option(None, count, "epochs of a trial, instead of seconds")
    sampler: str = option("tpe", choice(*SAMPLERS), "what draws the parameters")
    pruner: str = option("hyperband", choice(*PRUNERS), "what ends trials early")
    startup_trials: int = option(10, count, "random trials before the sampler learns")
    seed: int = option(
        0,
        number(minimum=0, integer=True),
        "of splits and networks; each process draws trials by one of its own",
    )
    search_share: float = option(
        0.4, number(above=0, below=1), "of the time, for the search; the rest trains the best"
    )
    members: int = option(3, number(minimum=0, integer=True), "potentials that are trained longer")
    ensemble: str = option(
        "trials", choice("trials", "seeds"), "members: the best trials, or the best with more seeds"
    )
    final_seconds: float | None = option(None, number(above=0), "of training of each of these")
    final_epochs: int | None = option(None, count, "epochs of each, instead of seconds")
    curve: list = option(
        [0.125, 0.25, 0.5, 1.0], shares, "of the frames, trained on for the learning curve"
    )
    curve_share: float = option(
        0.1, number(above=0, below=1), "of the time after the search, for the learning curve"
    )
    disk: float = option(10.0, number(above=0), "GB that fingerprints may take")

    def seconds_of_search(self, seconds: float) -> float:
        """Return the part of the whole time that the search has; the rest trains the best."""
        return seconds * (self.search_share if self.members else 1)

    @property
    def seconds_to_begin(self) -> float:
        """Return the seconds that must be left for a trial to begin; 0 for trials by epochs."""
        return 0.0 if self.trial_epochs is not None else WORTH_BEGINNING * self.trial_seconds

    @property
    def trial_budget(self) -> dict[str, float]:
        """Return {"epochs": n} or {"seconds": s} of a trial."""
        if self.trial_epochs is not None:
            return {"epochs": self.trial_epochs}
        return {"seconds": self.trial_seconds}

    def identity(self) -> dict[str, Any]:
        """Return the settings that a continued study must share, in JSON types."""
        kept = ("metric", "force_weight", "objectives", "trial_seconds", "trial_epochs", "seed")
        return {key: getattr(self, key) for key in kept} | {"validation": vars(self.validation)}


def split_config(
    config: Mapping[str, Any] | None,
) -> tuple[TuningConfig, dict[str, dict], Space]:
    """Return the section `tuning` of a configuration, its other sections with DEFAULTS, and the
    space that both leave to search.

    Raises ValueError or TypeError that names the key which is unknown, wrong, or the study's own.
    """
    base: dict[str, dict] = {name: dict(section or {}) for name, section in (config or {}).items()}
    tuning = TuningConfig.from_dict(base.pop("tuning", {}))
    Config.from_dict(base)
    for section, keys in OWN.items():
        for key in keys:
            if base.get(section, {}).get(key) is not None:
                raise ValueError(f"{section}.{key} is set by the study itself; leave it out")
    if str(base.get("dataset", {}).get("fp_scheme", "gaussian")).lower() != "gaussian":
        raise ValueError("dataset.fp_scheme: only 'gaussian' functions are tuned")
    space = Space(tuning.space, base)
    if not set(space.searched) & set(space.reachable):
        raise ValueError(
            "the search space excludes everything: each parameter has one value only; give some "
            "of them a range, or use `amptorch train`"
        )
    return tuning, merged(DEFAULTS, base), space


def merged(first: Mapping[str, dict], second: Mapping[str, dict]) -> dict[str, dict]:
    """Return copies of the sections of `first`, with the keys of `second` in place or added."""
    names = {**first, **second}
    return {name: copy.deepcopy({**first.get(name, {}), **second.get(name, {})}) for name in names}


def configuration(
    params: Mapping[str, Any],
    base: Mapping[str, dict],
    fp_params: dict[str, Any] | None,
    budget: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Return the dictionary for AtomsTrainer of a trial with `params`.

    fp_params: its symmetry functions, None for those of `base`; budget: {"seconds": s} or
    {"epochs": n}.
    """
    config: dict[str, Any] = copy.deepcopy(dict(base))
    optim, dataset, cmd = (config[name] for name in ("optim", "dataset", "cmd"))
    cmd["seed"] = seed
    for name, value in params.items():
        section, _, key = BY_NAME[name].keys[0].partition(".")
        if section == "model" or (section == "optim" and key not in INDIRECT):
            config[section][key] = value
    if fp_params is not None:
        dataset["fp_params"] = fp_params
    if "cutoff_function" in params:
        dataset["cutoff_params"] = copy.deepcopy(CUTOFFS[params["cutoff_function"]])
    if params.get("averaging", "none") != "none":
        optim["averaging"] = params["averaging"]
    if "weight_decay" in params:
        optim["optimizer_args"] = {"weight_decay": params["weight_decay"]}
    if params.get("early_stopping"):
        cmd |= {"early_stopping": True, "early_stopping_patience": params["early_stopping"]}
    if params.get("optimizer") in ("lbfgs", "ekf"):
        # Both know the length of their steps.
        optim["lr"] = 1.0
    schedule: dict[str, Any] = {"policy": "cosine_time", "params": {}}
    if "epochs" in budget:
        optim["epochs"] = budget["epochs"]
        schedule = {"policy": "CosineAnnealingLR", "params": {"T_max": budget["epochs"]}}
    else:
        optim |= {"epochs": 1_000_000, "max_seconds": budget["seconds"]}
    if params.get("schedule") == "cosine":
        optim["scheduler"] = schedule
    return config
