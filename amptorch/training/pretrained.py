"""Training that goes on from a checkpoint."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from amptorch.checkpoints.folder import Checkpoint
from amptorch.config import Config, DatasetConfig, OptimConfig
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian.auto import is_recipe
from amptorch.recommended import completed

# Keys that define the fingerprints, in the order in which `construct_descriptor` takes it.
SETUP_KEYS = ("fp_scheme", "fp_params", "cutoff_params", "elements")


def settings_for(config: dict[str, Any], checkpoint: Checkpoint) -> Config:
    """Return the `Config` of a user's dictionary, completed from the checkpoint.

    What the dictionary does not say about the model and the fingerprints is as in the checkpoint.

    Raises ValueError where the elements or the fingerprints are not those of the checkpoint.
    """
    Config.from_dict(config)
    # Recommended values stand behind those of the checkpoint; a recipe has been followed already.
    recommended = completed(config)
    of_user = {name: dict(config.get(name) or {}) for name in recommended}
    model = {
        **recommended.get("model", {}),
        **checkpoint.config["model"],
        **of_user.get("model", {}),
    }
    dataset = of_user.get("dataset", {})
    if is_recipe(dataset.get("fp_params")):
        del dataset["fp_params"]
    trained = {key: checkpoint.config["dataset"][key] for key in SETUP_KEYS}
    # Older checkpoints have no such key.
    trained["pca"] = checkpoint.config["dataset"].get("pca")
    given = {key: value for key, value in dataset.items() if value is not None}
    dataset = {**recommended.get("dataset", {}), **trained, **given}
    settings = Config.from_dict({**recommended, "model": model, "dataset": dataset})
    checkpoint.check_elements(settings.dataset.elements or ())
    if settings.dataset.pca != DatasetConfig.from_dict({"pca": trained["pca"]}).pca:
        raise ValueError(
            f"dataset.pca is {settings.dataset.pca}, but the checkpoint {checkpoint.folder} was "
            f"trained with {trained['pca']}; leave it out to take it from there"
        )
    before = vars(Config.from_dict(checkpoint.config).dataset)
    before["fp_params"] = _with_moved_files(before["fp_params"], settings.dataset.fp_params)
    if _fingerprint_hash(vars(settings.dataset), checkpoint) != _fingerprint_hash(
        before, checkpoint
    ):
        raise ValueError(
            f"dataset.fp_params or dataset.cutoff_params are not those that the checkpoint "
            f"{checkpoint.folder} was trained with; leave them out to take them from there"
        )
    return settings


def _with_moved_files(
    params: dict[str, Any] | None, given: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return the `fp_params` of a checkpoint, with the user's paths for files that are gone.

    These are files of densities. v1.0 kept the paths that they had on its machine.

    params, given : `fp_params` of the checkpoint and of the user
    """
    files, others = (
        options.get("atom_gaussians") if isinstance(options, Mapping) else None
        for options in (params, given)
    )
    if not isinstance(files, Mapping) or not isinstance(others, Mapping):
        return params
    gone = {
        symbol
        for symbol, file in files.items()
        if isinstance(file, (str, os.PathLike)) and not os.path.isfile(file)
    }
    found = {symbol: others[symbol] for symbol in gone & set(others)}
    return {**(params or {}), "atom_gaussians": {**files, **found}}


def _fingerprint_hash(options: dict[str, Any], checkpoint: Checkpoint) -> str:
    """Return the hash of the fingerprints that a section `dataset` asks for."""
    try:
        return construct_descriptor([options[key] for key in SETUP_KEYS]).descriptor_setup_hash
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; the checkpoint {checkpoint.folder} was made with it: give the trainer a "
            "configuration with the fp_params that it was trained with, and in atom_gaussians the "
            "paths that the files have now"
        ) from error


def resume_optimizer(
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    trained: OptimConfig,
    wanted: OptimConfig,
) -> None:
    """Load the optimizer's state from a checkpoint, where both have the same optimizer.

    A learning rate that differs is that of the run.

    state : state dict of the checkpoint's optimizer
    trained, wanted : section `optim` of the checkpoint and of the run
    """
    if trained.optimizer is not wanted.optimizer:
        warnings.warn(
            f"the checkpoint was trained with {trained.optimizer.__name__}; "
            f"{wanted.optimizer.__name__} starts without its state",
            stacklevel=3,
        )
    elif state:
        optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        if trained.lr != wanted.lr:
            group["lr"] = group["initial_lr"] = wanted.lr
        # A scheduler that goes on from a later epoch needs it.
        group.setdefault("initial_lr", wanted.lr)
