"""The configuration of a checkpoint: into JSON, out of it, and out of v1.0's."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Any

from amptorch.config import SECTIONS, Config, OptimConfig
from amptorch.descriptor.Gaussian import GaussianDescriptorSet
from amptorch.descriptor.multipole.parameters import with_densities
from amptorch.plain import to_json

DESCRIPTOR_SET = "GaussianDescriptorSet"
# v1.0's keys for what the descriptor was made of, in its order.
DESCRIPTOR = ("fp_scheme", "fp_params", "cutoff_params", "elements")
DENSITY_SCHEMES = ("gmp", "gmpordernorm")
V1_KEYS = ("raw_data", "lmdb_path", "descriptor", "fp_length", "cutoff_func")


def config_to_json(config: Config) -> dict[str, Any]:
    """Return a `Config` as JSON types, without `raw_data`.

    Densities of elements are written as numbers: files may be gone where the potential is used, and
    the package's own table may be another one.
    """
    params = config.dataset.fp_params
    if config.dataset.fp_scheme in DENSITY_SCHEMES and params and config.dataset.elements:
        params = with_densities(params, config.dataset.elements)
        return replace(config, dataset=replace(config.dataset, fp_params=params)).to_dict()
    if not isinstance(params, GaussianDescriptorSet):
        return config.to_dict()
    written = replace(config, dataset=replace(config.dataset, fp_params={})).to_dict()
    written["dataset"]["fp_params"] = {
        DESCRIPTOR_SET: {
            "elements": params.elements,
            "cutoff": params.cutoff,
            "cutoff_params": to_json(params.cutoff_params),
            "descriptor_setup": to_json(params.descriptor_setup),
        }
    }
    return written


def config_from_json(config: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary for `Config.from_dict` out of what `config_to_json` gave.

    Raises ValueError or TypeError where it is not such a dictionary.
    """
    config = _sections(config)
    params = config["dataset"].get("fp_params")
    if isinstance(params, dict) and DESCRIPTOR_SET in params:
        config["dataset"]["fp_params"] = GaussianDescriptorSet.from_setup(**params[DESCRIPTOR_SET])
    return _checked(config)


def config_from_v1(config: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary for `Config.from_dict` out of v1.0's, which also holds what it made of
    the user's.

    Keys that v1.0 ignored are dropped, with a warning.
    """
    config = _sections(to_json(config))
    dataset = config["dataset"]
    dataset.update(zip(DESCRIPTOR, dataset.get("descriptor") or (), strict=False))
    if dataset.get("cutoff_params") is None:
        function = dataset.get("cutoff_func") or "Cosine"
        dataset["cutoff_params"] = {"cutoff_func": function}
    for name, section in SECTIONS.items():
        known = [*(key.name for key in fields(section)), *section.aliases]
        for key in list(config[name]):
            if name == "dataset" and key in V1_KEYS:
                del config[name][key]
            elif key not in known:
                warnings.warn(f"{name}.{key} of the checkpoint is unknown, ignored", stacklevel=2)
                del config[name][key]
    return _checked(config)


def _sections(config: object) -> dict[str, dict[str, Any]]:
    """Return a copy down to the sections, each of which is a dictionary."""
    if not isinstance(config, dict):
        raise TypeError(f"it holds {type(config).__name__}, not a configuration")
    return {name: dict(config.get(name) or {}) for name in SECTIONS}


def _checked(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    optim = config["optim"]
    for key in ("optimizer", "loss_fn", "scheduler"):
        try:
            OptimConfig.from_dict({key: optim[key]} if key in optim else {})
        except ValueError as error:
            # Prediction does not need it; training on takes it from the user's configuration.
            warnings.warn(f"{error}; the default stands in for it", stacklevel=2)
            del optim[key]
    if not Config.from_dict(config).dataset.elements:
        raise ValueError("it has no dataset.elements")
    return config
