"""Going on from a checkpoint."""

import os
import warnings
from collections.abc import Mapping

from amptorch.config import Config, DatasetConfig
from amptorch.descriptor.construct import construct_descriptor

# What fingerprints depend on, in the order in which `construct_descriptor` takes it.
SETUP = ("fp_scheme", "fp_params", "cutoff_params", "elements")


def settings_for(config, checkpoint):
    """`Config` of a user's dictionary, with what it leaves out of the model and of the fingerprints
    as in the checkpoint.

    Raises ValueError where the elements or the fingerprints are not those of the checkpoint.
    """
    Config.from_dict(config)
    of_user = {name: dict(section or {}) for name, section in config.items()}
    model = {**checkpoint.config["model"], **of_user.get("model", {})}
    dataset = of_user.get("dataset", {})
    trained = {key: checkpoint.config["dataset"][key] for key in SETUP}
    # One that was written before there was any has none.
    trained["pca"] = checkpoint.config["dataset"].get("pca")
    given = {key: value for key, value in dataset.items() if value is not None}
    settings = Config.from_dict({**of_user, "model": model, "dataset": {**trained, **given}})
    checkpoint.check_elements(settings.dataset.elements)
    if settings.dataset.pca != DatasetConfig.from_dict({"pca": trained["pca"]}).pca:
        raise ValueError(
            f"dataset.pca is {settings.dataset.pca}, but the checkpoint {checkpoint.folder} was "
            f"trained with {trained['pca']}; leave it out to take it from there"
        )
    before = vars(Config.from_dict(checkpoint.config).dataset)
    before["fp_params"] = _found_again(before["fp_params"], settings.dataset.fp_params)
    if _hash(vars(settings.dataset), checkpoint) != _hash(before, checkpoint):
        raise ValueError(
            f"dataset.fp_params or dataset.cutoff_params are not those that the checkpoint "
            f"{checkpoint.folder} was trained with; leave them out to take them from there"
        )
    return settings


def _found_again(params, given):
    """`fp_params` of a checkpoint; where files of densities are gone (v1.0 kept the paths that they
    had on its machine), those that the user has `given` in theirs."""
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
    return {**params, "atom_gaussians": {**files, **found}}


def _hash(options, checkpoint):
    """The hash of the fingerprints that a section `dataset` asks for."""
    try:
        return construct_descriptor([options[key] for key in SETUP]).descriptor_setup_hash
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; the checkpoint {checkpoint.folder} was made with it: give the trainer a "
            "configuration with the fp_params that it was trained with, and in atom_gaussians the "
            "paths that the files have now"
        ) from error


def resume_optimizer(optimizer, state, trained, wanted):
    """Load the optimizer's state from a checkpoint, if it is one of the same optimizer.

    trained, wanted: section `optim` of the checkpoint and of the run; a learning rate that differs
    between them is taken from the run.
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
        # What a scheduler that goes on from a later epoch asks for.
        group.setdefault("initial_lr", wanted.lr)
