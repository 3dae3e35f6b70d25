"""The section `tuning` of a configuration: every key with its default and its meaning."""

# ruff: noqa: RUF009 (`option` only wraps dataclasses.field)

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from amptorch.checks import choice, mapping, number
from amptorch.config import SECTIONS, Config
from amptorch.recommended import RECOMMENDED, completed, recommended
from amptorch.sections import Section, count, option
from amptorch.tuning.errors import FORCE_WEIGHT
from amptorch.tuning.space import BY_NAME, Space
from amptorch.tuning.splits import Validation

SAMPLERS = ("tpe", "random", "qmc", "gp", "nsga2")
PRUNERS = ("hyperband", "asha", "median", "none")

CUTOFFS: dict[str, dict[str, Any]] = {
    "cosine": {"cutoff_func": "Cosine"},
    "polynomial": {"cutoff_func": "Polynomial", "gamma": 4.0},
}
EMA_OF_EKF: dict[str, Any] = recommended()["optim"]["averaging"]
# Keys of `optim` that are not the value of the parameter that stands for them.
INDIRECT = ("scheduler", "optimizer_args", "averaging")
# Keys of `tuning` that meant something before, and are passed over.
OBSOLETE = ("curve", "curve_share")
# Keys that the study has to set itself.
OWN = {
    "dataset": (
        *("raw_data", "store", "lmdb_path", "val_split", "val_split_mode", "val_data"),
        *("pca", "weights", "group_weights", "isolated_atoms", "missing_forces"),
    ),
    "optim": ("epochs", "max_seconds", "total_seconds"),
    "cmd": ("run_dir", "identifier", "debug", "seed"),
}


# Times of a trial at the end of the search: of the last trial, and of one training more of the
# best and of the baseline.
AGAIN = 3


def validation(key: str, value: Any) -> Validation:
    """Return the `Validation` that the key describes."""
    return Validation.from_dict(mapping(key, value))


def objectives(key: str, value: Any) -> list[str]:
    """Return ["error"] or ["error", "cost"]; raises ValueError for anything else."""
    values = [value] if isinstance(value, str) else list(value)
    checked = [choice("error", "cost")(key, item) for item in values]
    if checked not in (["error"], ["error", "cost"]):
        raise ValueError(f"{key} must be [error] or [error, cost], got {value!r}")
    return checked


@dataclass
class TuningConfig(Section):
    """Hold the section `tuning` of a configuration."""

    name_in_config: ClassVar[str] = "tuning"
    aliases: ClassVar[dict] = {"members": "ensemble"}

    space: dict = option({}, mapping, "what is searched: {parameter: value, list or range}")
    validation: Any = option(
        {}, validation, "frames to validate on: {method, fraction, folds, blocks, gap, outliers}"
    )
    objectives: list = option(
        ["error"],
        objectives,
        "what is minimised: [error], or [error, cost], which ends no trial early",
    )
    metric: str = option("rmse", choice("rmse", "mae", "median"), "measure of the errors")
    force_weight: float = option(
        FORCE_WEIGHT, number(minimum=0), "meV/atom that weigh as much as 1 eV/Å"
    )
    max_cost: float | None = option(
        None,
        number(above=0),
        "µs/atom that a prediction may take; by default 1.1 times the baseline's",
    )
    trial_seconds: float = option(60.0, number(above=0), "seconds of training in a trial")
    trial_epochs: int | None = option(None, count, "epochs of a trial, instead of seconds")
    sampler: str = option("tpe", choice(*SAMPLERS), "what draws the parameters of a trial")
    pruner: str = option("hyperband", choice(*PRUNERS), "what ends trials early")
    startup_trials: int = option(10, count, "random trials before the sampler learns")
    seed: int = option(
        0,
        number(minimum=0, integer=True),
        "seed of splits and networks; each process draws trials by one of its own",
    )
    search_share: float = option(
        0.25,
        number(above=0, below=1),
        "share of the time for the search; in the rest the best is trained",
    )
    ensemble: int = option(
        1, number(minimum=0, integer=True), "potentials that are trained at the end; 0 for none"
    )
    final_seconds: float | None = option(
        None, number(above=0), "seconds of training for each of these"
    )
    final_epochs: int | None = option(None, count, "epochs for each, instead of seconds")
    disk: float = option(10.0, number(above=0), "GB that fingerprints may take on disk")

    def seconds_of_search(self, seconds: float) -> float:
        """Return the part of the whole time in which trials begin; the rest trains the best.

        Trials by seconds are begun while they end in the search's share, and while the best and the
        baseline can be trained once more in it.
        """
        if not self.ensemble:
            return seconds
        own = 0.0 if self.trial_epochs is not None else self.trial_seconds
        return self.search_share * seconds - AGAIN * own

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


def tuning_config(config: Mapping[str, Any]) -> TuningConfig:
    """Return the section `tuning` of a configuration; raises ValueError or TypeError."""
    section = dict(config.get("tuning") or {})
    for key in OBSOLETE:
        section.pop(key, None)
    # Before, `members` was the number, and this the kind.
    if section.get("ensemble") in ("trials", "seeds"):
        section["ensemble"] = section.pop("members", 3)
    return TuningConfig.from_dict(section)


def split_config(
    config: Mapping[str, Any] | None,
) -> tuple[TuningConfig, dict[str, Any], Space]:
    """Return the section `tuning` of a configuration, what else it says, and the space that this
    leaves to search.

    Raises ValueError or TypeError that names the key which is unknown, wrong, or the study's own.
    """
    base: dict[str, Any] = copy.deepcopy(dict(config or {}))
    tuning = tuning_config(base)
    base.pop("tuning", None)
    sections = {name: base.get(name) or {} for name in SECTIONS}
    for section, keys in OWN.items():
        for key in keys:
            if sections[section].get(key) is not None:
                raise ValueError(f"{section}.{key} is set by the study itself; leave it out")
    if base.get("defaults", RECOMMENDED) != RECOMMENDED:
        raise ValueError("defaults: a search begins with the recommended ones; leave it out")
    Config.from_dict({"defaults": RECOMMENDED, **base})
    if str(sections["dataset"].get("fp_scheme", "gaussian")).lower() != "gaussian":
        raise ValueError("dataset.fp_scheme: only 'gaussian' functions are tuned")
    space = Space(tuning.space, sections, base.get("size", "medium"))
    if not set(space.searched) & set(space.reachable):
        raise ValueError(
            "the search space excludes everything: each parameter has one value only; give some "
            "of them a range, or use `amptorch train`"
        )
    return tuning, base, space


def configuration(
    params: Mapping[str, Any],
    base: Mapping[str, Any],
    fp_params: Mapping[str, Any] | None,
    budget: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Return the sections for AtomsTrainer of a trial with `params`.

    base: what the study's configuration says; fp_params: its symmetry functions or the recipe for
    them, None for those of `base`; budget: {"seconds": s} or {"epochs": n}.
    """
    config: dict[str, Any] = {"defaults": RECOMMENDED, **copy.deepcopy(dict(base))}
    _, optim, dataset, cmd = (config.setdefault(name, {}) for name in SECTIONS)
    cmd["seed"] = seed
    cmd.setdefault("verbose", False)
    for name, value in params.items():
        section, _, key = BY_NAME[name].keys[0].partition(".")
        if section == "model" or (section == "optim" and key not in INDIRECT):
            config[section][key] = value
    if fp_params is not None:
        dataset["fp_params"] = dict(fp_params)
    if "cutoff_function" in params:
        dataset["cutoff_params"] = copy.deepcopy(CUTOFFS[params["cutoff_function"]])
    optimizer = optim.get("optimizer", "ekf")
    ekf = str(getattr(optimizer, "__name__", optimizer)).lower() == "ekf"
    if "averaging" in params:
        kinds = {"none": None, "ema": EMA_OF_EKF if ekf else "ema", "swa": "swa"}
        optim["averaging"] = copy.deepcopy(kinds[params["averaging"]])
    if "weight_decay" in params:
        optim["optimizer_args"] = {"weight_decay": params["weight_decay"]}
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
    dataset["missing_forces"] = "error"
    # A trial is one network, whose stresses are not looked at.
    config["model"].setdefault("members", 1)
    if not optim.get("stress_coefficient"):
        optim["stress_per_mev"] = None
    return completed(config)
