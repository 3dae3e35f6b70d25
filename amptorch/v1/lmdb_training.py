"""Prepare training data out of LMDB files."""

from dataclasses import replace
from typing import Any

from amptorch.config import Config, DatasetConfig
from amptorch.data.plan import GB
from amptorch.descriptor.construct import construct_descriptor
from amptorch.training.prepare import Trained, TrainingData, with_elements, with_stress
from amptorch.training.ranks import Ranks
from amptorch.training.splits import validation_size
from amptorch.v1.lmdb import get_lmdb_dataset


def prepare_lmdb(settings: Config, trained: Trained | None, ranks: Ranks) -> TrainingData:
    """Return the training data in the files `dataset.lmdb_path`; parameters as of `prepare`.

    Elements and fingerprints are those of the files. Raises ValueError that names the key which
    says otherwise, or which is not for LMDB files.
    """
    options = settings.dataset
    if options.cache != "full" and ranks.size > 1:
        raise ValueError(
            f"dataset.cache {options.cache!r} is for one process; take 'full', or make a store of "
            "the files with amptorch.v1.lmdb_store.lmdb_to_store"
        )
    defaults = DatasetConfig()
    for key in ("pca", "target_scaling", "atomic_correction"):
        if trained is None and getattr(options, key) != getattr(defaults, key):
            raise ValueError(
                f"dataset.{key} is not for LMDB files, whose entries are scaled already; leave it "
                "out, or train on dataset.raw_data or dataset.store"
            )
    if settings.model.repulsion is not None:
        raise ValueError(
            "model.repulsion: LMDB files hold no structures to compute it for; train on "
            "dataset.raw_data or dataset.store"
        )
    if isinstance(options.weights, str):
        raise ValueError(
            f"dataset.weights is {options.weights!r}, but LMDB files do not hold Atoms.info; give "
            "the list of the frames' weights"
        )
    if options.group_weights is not None:
        raise ValueError(
            "dataset.group_weights: LMDB files do not hold Atoms.info; give the list of the "
            "frames' weights in dataset.weights"
        )
    dataset = get_lmdb_dataset(
        options.lmdb_path,
        options.cache,
        forcetraining=settings.model.get_forces,
        dtype=settings.cmd.dtype,
        derivative_dtype=options.derivative_dtype,
        feature_scaler=None if trained is None else trained.feature_scaler,
        target_scaler=None if trained is None else trained.target_scaler,
        memory_budget=GB * options.memory_budget,
        weights=options.weights,
    )
    dataset.feature_scaler = dataset.feature_scaler.with_domain(dataset.domain())
    settings = with_stress(settings, lambda: False)
    validation_size(len(dataset), options.val_split)
    frames: Any = dataset
    return TrainingData(_settings_of(settings, dataset, trained), frames)


def _settings_of(settings: Config, dataset: Any, trained: Trained | None) -> Config:
    """Take elements and fingerprints from the files; what is said of them must agree."""
    options = settings.dataset
    wanted = options.elements if trained is None else trained.elements
    if wanted is not None and list(wanted) != dataset.elements:
        raise ValueError(
            f"dataset.lmdb_path: the files hold the elements {dataset.elements}, in this order; "
            f"the {'configuration' if trained is None else 'checkpoint'} has {list(wanted)}"
        )
    settings = with_elements(settings, dataset.elements)
    options = settings.dataset
    if options.fp_params is not None:
        descriptor = construct_descriptor(options.descriptor_setup)
        if descriptor.descriptor_setup_hash != dataset.descriptor.descriptor_setup_hash:
            raise ValueError(
                "dataset.fp_scheme, fp_params or cutoff_params are not those of the files in "
                "dataset.lmdb_path; leave them out to take them from there"
            )
        return settings
    scheme, fp_params, cutoff_params, _ = dataset.descriptor_setup
    found = {"fp_scheme": scheme, "fp_params": fp_params}
    if cutoff_params is not None:
        found["cutoff_params"] = cutoff_params
    return replace(settings, dataset=replace(options, **found))
