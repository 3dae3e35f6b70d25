"""The training set of a trainer, in memory or in a store, and how batches are taken from it."""

import logging
from dataclasses import replace
from functools import partial

from tqdm import tqdm

from amptorch.config import DatasetConfig
from amptorch.data.batch import DataCollater
from amptorch.data.fill import elements_of_store, fill_store
from amptorch.data.from_store import StoreDataset
from amptorch.data.in_memory import AtomsDataset
from amptorch.data.loader import BatchLoader
from amptorch.data.plan import GB, make_plan, sample_of
from amptorch.data.weights import weights_of
from amptorch.descriptor.construct import construct_descriptor
from amptorch.distances import check_distances
from amptorch.frames import Frames, read_images
from amptorch.memory import available_memory
from amptorch.store.sources import usable
from amptorch.threads import use_threads
from amptorch.training.random_state import seeded_loader
from amptorch.training.splits import validation_size
from amptorch.v1.lmdb import get_lmdb_dataset

logger = logging.getLogger(__name__)


def training_set(trainer, raw_data):
    """The data set of `raw_data` (or of what the store holds, where it is None); sets the trainer's
    `elements`, unless they are a checkpoint's, and its `plan`."""
    if trainer.settings.dataset.store is not None:
        return _in_store(trainer, raw_data)
    return _in_lmdb(trainer) if raw_data is None else _in_memory(trainer, raw_data)


def wanted_images(images, options, forces):
    """Those of the Atoms in `images` to train on: all, or with `options.skip_bad` those that can be
    used (with `forces` where asked for); why the others cannot is logged."""
    if options.skip_bad:
        images, reasons = usable(images, options.elements, forces, options.missing_forces)
        _warn_of(reasons)
    return images


def iterators(trainer):
    """skorch's arguments about how batches are taken from the data set.

    From a store or LMDB files, and where not all forces are trained on, batches follow from
    `cmd.seed` and the number of the epoch alone.
    """
    collate = DataCollater(train=True, forcetraining=trainer.forcetraining)
    arguments = {
        "iterator_train__collate_fn": collate,
        "iterator_train__shuffle": True,
        "iterator_valid__collate_fn": collate,
        "iterator_valid__shuffle": False,
    }
    fraction, dataset = trainer.settings.optim.force_fraction, trainer.settings.dataset
    if dataset.store is not None or dataset.lmdb_path is not None or fraction < 1:
        arguments |= {
            "iterator_train": BatchLoader,
            "iterator_valid": BatchLoader,
            "iterator_train__seed": trainer.settings.cmd.seed,
            # No lambda: a copy of the trainer counts epochs of its own, and it can be pickled.
            "iterator_train__epoch": partial(_epochs_done, trainer),
            "iterator_train__force_fraction": fraction,
        }
        for name in ("train", "valid"):
            arguments[f"iterator_{name}__process"] = trainer.ranks.rank
            arguments[f"iterator_{name}__processes"] = trainer.ranks.size
    else:
        for name in ("train", "valid"):
            arguments[f"iterator_{name}"] = seeded_loader
            arguments[f"iterator_{name}__random"] = trainer.random_state
    return arguments


def _epochs_done(trainer):
    return len(trainer.net.history)


def _in_memory(trainer, raw_data):
    options, cmd = trainer.settings.dataset, trainer.settings.cmd
    images = read_images(raw_data, options.labels)
    images = wanted_images(images, options, trainer.forcetraining)
    _take_elements(trainer, trainer.get_unique_elements(images))
    validation_size(len(images), options.val_split)
    derivatives = _planned(trainer, images) if trainer.forcetraining else None
    keep = options.save_fps and derivatives != "stored"
    return AtomsDataset(
        images,
        store=trainer.fingerprint_store() if keep else None,
        cores=cmd.threads,
        derivatives=derivatives or "stored",
        derivative_dtype=options.derivative_dtype,
        verbose=cmd.verbose and trainer.ranks.first,
        **_common(trainer, images),
    )


def _planned(trainer, images):
    """Whether derivatives of these frames, kept in memory, are "stored" or "recompute"."""
    options = trainer.settings.dataset
    if options.derivatives != "auto":
        return options.derivatives
    chosen = sample_of([len(atoms) for atoms in images])
    sample = Frames.from_atoms([images[index] for index in chosen], trainer.elements)
    check_distances(sample)
    trainer.plan = make_plan(
        construct_descriptor(trainer.descriptor_setup()),
        replace(sample, indices=chosen),
        len(images),
        options.derivative_dtype,
        GB * options.memory_budget,
        threads=trainer.settings.cmd.threads,
        available=available_memory(),
    )
    _show(trainer, trainer.plan)
    return trainer.plan.derivatives


def _in_store(trainer, raw_data):
    options, cmd = trainer.settings.dataset, trainer.settings.cmd
    # One process fills the store, on all cores; the others find it full.
    with trainer.ranks.in_order(), use_threads(trainer.ranks.threads_alone):
        found = elements_of_store(
            options.store, raw_data, options.skip_bad, trainer.forcetraining, options.labels
        )
        _take_elements(trainer, found)
        store, trainer.plan, derivative_dtype = fill_store(
            options.store,
            construct_descriptor(trainer.descriptor_setup()),
            raw_data,
            options,
            forces=trainer.forcetraining,
            threads=cmd.threads,
            verbose=cmd.verbose and trainer.ranks.first,
            show=lambda plan: _show(trainer, plan),
        )
    _warn_of([reason for _, _, reason in store.skipped])
    kind = options.derivatives if trainer.plan is None else trainer.plan.derivatives
    dataset = partial(
        StoreDataset,
        store,
        derivatives="stored" if kind == "auto" else kind,
        derivative_dtype=derivative_dtype,
    )
    common = _common(trainer)
    # One process goes through all fingerprints to fit the scaler, for all.
    common["feature_scaler"] = trainer.ranks.tell(lambda: dataset(**common).feature_scaler)
    return dataset(**common)


def _in_lmdb(trainer):
    options = trainer.settings.dataset
    if options.cache != "full" and trainer.ranks.size > 1:
        raise ValueError(
            f"dataset.cache {options.cache!r} is for one process; take 'full', or make a store of "
            "the files with amptorch.v1.lmdb_store.lmdb_to_store"
        )
    defaults = DatasetConfig()
    for key in ("pca", "target_scaling", "atomic_correction"):
        if not trainer.pretrained and getattr(options, key) != getattr(defaults, key):
            raise ValueError(
                f"dataset.{key} is not for LMDB files, whose entries are scaled already; leave it "
                "out, or train on dataset.raw_data or dataset.store"
            )
    if isinstance(options.weights, str):
        raise ValueError(_NO_INFO.format(options.weights, "LMDB files do"))
    dataset = get_lmdb_dataset(
        options.lmdb_path,
        options.cache,
        forcetraining=trainer.forcetraining,
        dtype=trainer.dtype,
        derivative_dtype=options.derivative_dtype,
        feature_scaler=trainer.feature_scaler if trainer.pretrained else None,
        target_scaler=trainer.target_scaler if trainer.pretrained else None,
        memory_budget=GB * options.memory_budget,
        weights=options.weights,
    )
    _take_setup(trainer, dataset)
    return dataset


def _take_setup(trainer, dataset):
    """Take elements and fingerprints from LMDB files; what is said of them must agree."""
    options = trainer.settings.dataset
    wanted = trainer.elements if trainer.pretrained else options.elements
    if wanted is not None and list(wanted) != dataset.elements:
        raise ValueError(
            f"dataset.lmdb_path: the files hold the elements {dataset.elements}, in this order; "
            f"the {'checkpoint' if trainer.pretrained else 'configuration'} has {list(wanted)}"
        )
    trainer.elements = dataset.elements
    if options.fp_params is not None:
        hashed = construct_descriptor(trainer.descriptor_setup()).descriptor_setup_hash
        if hashed != dataset.descriptor.descriptor_setup_hash:
            raise ValueError(
                "dataset.fp_scheme, fp_params or cutoff_params are not those of the files in "
                "dataset.lmdb_path; leave them out to take them from there"
            )
        return
    scheme, fp_params, cutoff_params, _ = dataset.descriptor_setup
    found = {"fp_scheme": scheme, "fp_params": fp_params}
    if cutoff_params is not None:
        found["cutoff_params"] = cutoff_params
    trainer.settings = replace(trainer.settings, dataset=replace(options, **found))


_NO_INFO = (
    "dataset.weights is {!r}, but {} not hold Atoms.info; give the list of the frames' weights"
)


def _common(trainer, images=None):
    """What both data sets are made with; the scalers of a checkpoint are kept."""
    options = trainer.settings.dataset
    weights = options.weights
    if isinstance(weights, str):
        if images is None:
            raise ValueError(_NO_INFO.format(weights, "a store does"))
        weights = weights_of(images, weights)
    return {
        "descriptor_setup": trainer.descriptor_setup(),
        "forcetraining": trainer.forcetraining,
        "scaling": options.scaling,
        "pca": options.pca,
        "target_scaling": options.target_scaling,
        "atomic_correction": options.atomic_correction,
        "weights": weights,
        "missing_forces": options.missing_forces,
        "dtype": trainer.dtype,
        "feature_scaler": trainer.feature_scaler if trainer.pretrained else None,
        "target_scaler": trainer.target_scaler if trainer.pretrained else None,
    }


def _take_elements(trainer, found):
    """Number the elements as the configuration says, else as they were found."""
    if not trainer.pretrained:
        trainer.elements = trainer.settings.dataset.elements or found
    elif not set(found) <= set(trainer.elements):
        raise ValueError(
            f"the checkpoint was trained on the elements {trainer.elements}, "
            f"the frames hold {found}; train a new model, or leave those frames out"
        )


def _warn_of(reasons):
    if reasons:
        logger.warning("left out %d of the frames:\n%s", len(reasons), "\n".join(reasons))


def _show(trainer, plan):
    """Print the plan, or log it where nothing is to be printed; in one process of several."""
    if not trainer.ranks.first:
        return
    if trainer.settings.cmd.verbose:
        tqdm.write(plan.table())
    else:
        logger.info("%s", plan.table())
