"""The recommended defaults: what a configuration starts from that says `defaults: recommended`.

Without that word a configuration means what it meant in v1.0. Every value here can be set to
another in the configuration. What depends on the frames stands as "auto", and is chosen when they
are known: functions by `descriptor.Gaussian.auto`, the batch by `training.prepare`.
"""

from collections.abc import Mapping
from typing import Any

from amptorch.checks import choice

V1, RECOMMENDED = "v1.0", "recommended"
# Nodes of the two hidden layers. On large functions 30 make an epoch of the filter 2.5 times as
# long, and the errors after 15 minutes were larger.
NODES = {"small": 12, "medium": 20, "large": 20}
SIZES = tuple(NODES)
# Networks whose mean is taken, at most.
MEMBERS = 4
# Seconds, of everything from reading the frames to the last epoch.
TIME = 900.0


def recommended(size: str = "medium") -> dict[str, dict[str, Any]]:
    """Return the sections of a configuration with all values that differ from v1.0's.

    size : "small", "medium" or "large", of functions and networks: from fast to accurate

    Raises ValueError for another size.
    """
    size = choice(*SIZES)("size", size)
    return {
        "model": {
            "get_forces": True,
            "hidden_layers": [NODES[size]] * 2,
            "activation": "Softplus",
            "initialization": "small",
            "members": MEMBERS,
        },
        "optim": {
            "optimizer": "ekf",
            "optimizer_args": {"memory": 8.0, "precision": "float32"},
            "batch_size": "auto",
            "epochs": 100_000,
            "total_seconds": TIME,
            "energy_per_atom": True,
            "force_per_mev": 0.01,
            "stress_per_mev": 0.1,
            "loss": "mse",
            "metric": "mae",
            "cp_metric": "both",
            "averaging": {"kind": "ema", "decay": 0.98},
        },
        "dataset": {
            "fp_scheme": "gaussian",
            "fp_params": {"recipe": "auto", "size": size},
            "scaling": {"type": "standardize"},
            "atomic_correction": True,
            "target_scaling": "per_atom",
            "missing_forces": "ignore",
            "val_split": 0.05,
            "val_split_mode": "block",
            "save_fps": False,
            "memory_budget": 6.0,
            "derivative_dtype": "float32",
        },
    }


# What stands aside where the key before is given.
INSTEAD = {
    ("optim", "optimizer"): [
        ("optim", "averaging"),
        ("optim", "optimizer_args"),
        ("model", "members"),
    ],
    ("optim", "force_coefficient"): [("optim", "force_per_mev")],
    ("optim", "stress_coefficient"): [("optim", "stress_per_mev")],
    ("optim", "energy_per_atom"): [("optim", "force_per_mev"), ("optim", "stress_per_mev")],
    ("model", "get_forces"): [("optim", "stress_per_mev")],
    ("optim", "epochs"): [("optim", "total_seconds"), ("model", "members")],
    ("optim", "scheduler"): [("model", "members")],
    ("optim", "recover"): [("model", "members")],
    ("model", "batchnorm"): [("model", "members")],
    ("model", "dropout"): [("model", "members")],
    ("optim", "max_seconds"): [("optim", "total_seconds")],
    ("model", "num_layers"): [("model", "hidden_layers")],
    ("model", "num_nodes"): [("model", "hidden_layers")],
    ("dataset", "fp_scheme"): [("dataset", "fp_params")],
    ("dataset", "val_data"): [("dataset", "val_split"), ("dataset", "val_split_mode")],
    ("dataset", "lmdb_path"): [("dataset", "fp_params")],
}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a configuration, with the recommended values where it gives none if it
    says `defaults: recommended`, and without that word and `size`.

    Raises ValueError for other defaults or sizes, TypeError for a section that is no dictionary.
    """
    sections = {name: value for name, value in config.items() if name not in ("defaults", "size")}
    kind = choice(V1, RECOMMENDED)("defaults", config.get("defaults", V1))
    if kind == V1:
        if "size" in config:
            raise ValueError("config gives size, which needs defaults: recommended")
        return sections
    result = recommended(config.get("size", "medium"))
    for section, values in sections.items():
        if values is not None and not isinstance(values, Mapping):
            raise TypeError(f"config section {section!r} must be a dictionary, got {values!r}")
    given = {(section, key) for section, values in sections.items() for key in values or ()}
    for section, key in given:
        same = sections[section][key] == result.get(section, {}).get(key)
        for other, name in [] if same else INSTEAD.get((section, key), []):
            if (other, name) not in given:
                result[other].pop(name, None)
    for section, values in sections.items():
        result[section] = {**result.get(section, {}), **(values or {})}
    return result
