"""From frames to what a training takes: a data set, in memory or in a store, and its scalers."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from ase import Atoms
from tqdm import tqdm

from amptorch.config import Config, DatasetConfig
from amptorch.data.fill import (
    elements_of_store,
    fill_store,
    frames_to_look_at,
    labelled_to_look_at,
    stress_in_store,
)
from amptorch.data.from_store import StoreDataset
from amptorch.data.in_memory import MemoryDataset
from amptorch.data.inspection import wrong_stresses
from amptorch.data.plan import GB, Plan, make_plan, sample_of
from amptorch.data.protocol import Dataset
from amptorch.data.repulsion import Repulsion
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.data.weights import checked_weights, weights_of, weights_of_groups
from amptorch.descriptor.base import STORE, BaseDescriptor
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian.auto import functions_of, is_recipe
from amptorch.descriptor.store import FingerprintStore
from amptorch.distances import check_distances
from amptorch.frames import Frames, elements_of, read_images
from amptorch.labels import keys_there, other_stress_keys, stress_of
from amptorch.memory import available_memory
from amptorch.modes import ordinary_tensors
from amptorch.potential import Potential
from amptorch.store.sources import usable
from amptorch.threads import use_threads
from amptorch.training.ranks import Ranks
from amptorch.training.splits import validation_size

logger = logging.getLogger(__name__)


class Trained(Protocol):
    """Hold what gives parameters their meaning; a `Potential`, a `Checkpoint`, a trainer do."""

    @property
    def elements(self) -> list[str]:
        """Return the symbols, in the order of the networks."""

    feature_scaler: FeatureScaler
    target_scaler: TargetScaler


@dataclass(frozen=True)
class TrainingData:
    """Hold frames that are ready for training, and how they became so.

    settings : the `Config`, with the elements that were found in `dataset.elements`
    dataset : the frames, described and scaled
    plan : the `Plan` of the derivatives, where one was made
    began : when it was begun, by `time.monotonic`
    """

    settings: Config
    dataset: Dataset
    plan: Plan | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def descriptor(self) -> BaseDescriptor:
        """Return the descriptor of the frames."""
        return self.dataset.descriptor

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the training may take from now on; None without a limit."""
        return seconds_left(self.settings, self.began)

    @property
    def elements(self) -> list[str]:
        """Return the symbols, in the order that numbers networks and features."""
        return self.dataset.elements

    @property
    def feature_scaler(self) -> FeatureScaler:
        """Return the scaler of the fingerprints."""
        return self.dataset.feature_scaler

    @property
    def target_scaler(self) -> TargetScaler:
        """Return the scaler of energies and forces."""
        return self.dataset.target_scaler


@ordinary_tensors()
def prepare(
    settings: Config | dict[str, Any],
    frames: Any = None,
    trained: Trained | None = None,
    ranks: Ranks | None = None,
    memory: Callable[..., MemoryDataset] = MemoryDataset,
) -> TrainingData:
    """Read and check frames, compute their fingerprints, fit the scalers.

    settings : the `Config`, or a dictionary of its sections
    frames : what `read_images` reads; None for `dataset.raw_data`, or what `dataset.store` holds
    trained : of a potential that is trained on: its elements and scalers are kept
    ranks : the processes that train together
    memory : class of the data set, where there is no store

    Raises ValueError, TypeError or FileNotFoundError that names the key, frame or file which cannot
    be used.
    """
    began = time.monotonic()
    settings = settings if isinstance(settings, Config) else Config.from_dict(settings)
    ranks = Ranks() if ranks is None else ranks
    frames = settings.dataset.raw_data if frames is None else frames
    if frames is None:
        settings.dataset.require_data()
    if settings.dataset.store is not None:
        data = _in_store(settings, frames, trained, ranks)
    elif frames is None:
        raise ValueError(
            "dataset.lmdb_path: LMDB files are read by AtomsTrainer; give it the configuration"
        )
    else:
        data = _in_memory(settings, frames, trained, ranks, memory)
    validation_size(len(data.dataset), data.settings.dataset.val_split)
    return replace(data, began=began)


def seconds_left(settings: Config, began: float) -> float | None:
    """Return the seconds that a training begun at `began` may still take; None without limit."""
    optim = settings.optim
    limits = [] if optim.max_seconds is None else [optim.max_seconds]
    if optim.total_seconds is not None:
        limits.append(max(1.0, optim.total_seconds - (time.monotonic() - began)))
    return min(limits, default=None)


def wanted_images(images: list[Atoms], options: DatasetConfig, forces: bool) -> list[Atoms]:
    """Return those of the Atoms in `images` to train on: all, or with `options.skip_bad` those that
    can be used (with `forces` where asked for); why the others cannot is logged."""
    if options.skip_bad:
        images, reasons = usable(images, options.elements, forces, options.missing_forces)
        _warn_of_skipped(reasons)
    return images


def with_stress(settings: Config, found: Callable[[], bool]) -> Config:
    """Return the settings as they are where stresses are trained on and `found()` some; without
    them where `optim.stress_per_mev` asks for them if there are any.

    Raises ValueError where `optim.stress_coefficient` asks for them and there are none.
    """
    optim = settings.optim
    if not optim.stress_coefficient or found():
        return settings
    if optim.stress_per_mev is None:
        raise ValueError(
            f"optim.stress_coefficient is {optim.stress_coefficient:g}, but no frame has a stress "
            "and a cell; name them by dataset.stress_key, or leave the coefficient out"
        )
    optim = replace(optim, stress_per_mev=None, stress_coefficient=0.0)
    return replace(settings, optim=optim)


def _with_right_stress(settings: Config, images: Callable[[], list[Atoms]]) -> Config:
    """Return the settings without stresses where those of `images()` look wrong, and
    `optim.stress_per_mev` asks for them if there are any."""
    wrong = None if settings.optim.stress_per_mev is None else wrong_stresses(images())
    if wrong is None:
        return settings
    logger.warning("warning: the stresses are not trained on, because they look wrong: %s", wrong)
    return with_stress(settings, lambda: False)


def fingerprint_store(settings: Config) -> FingerprintStore:
    """Return the file in `cmd.run_dir` where fingerprints are kept."""
    return FingerprintStore(Path(settings.cmd.run_dir) / STORE)


def with_elements(settings: Config, elements: Sequence[str]) -> Config:
    """Return the settings with these elements in `dataset.elements`."""
    return replace(settings, dataset=replace(settings.dataset, elements=list(elements)))


def _in_memory(
    settings: Config,
    frames: Any,
    trained: Trained | None,
    ranks: Ranks,
    memory: Callable[..., MemoryDataset],
) -> TrainingData:
    options, cmd, forces = settings.dataset, settings.cmd, settings.model.get_forces
    images = wanted_images(read_images(frames, options.labels), options, forces)
    settings, images = _with_validation(settings, images)
    settings, images = _with_isolated(settings, images)
    options = settings.dataset
    settings = with_stress(settings, lambda: _any_has_stress(images))
    settings = _with_right_stress(settings, lambda: images)
    settings = _with_found_elements(settings, elements_of(Frames.from_atoms(images)), trained)
    validation_size(len(images), options.val_split)
    settings = with_functions(settings, lambda: Frames.from_atoms(images))
    settings = _with_batch_size(settings, len(images))
    options = settings.dataset
    plan = None
    derivatives = options.derivatives if forces else None
    if derivatives == "auto":
        plan = _plan_derivatives(settings, images, ranks)
        derivatives = plan.derivatives
    keep = options.save_fps and derivatives != "stored"
    dataset = memory(
        images,
        store=fingerprint_store(settings) if keep else None,
        cores=cmd.threads,
        derivatives=derivatives or "stored",
        derivative_dtype=options.derivative_dtype,
        verbose=cmd.verbose and ranks.first,
        **_dataset_options(settings, trained, images),
    )
    if forces and np.isnan(dataset.frames.forces).all():
        logger.warning(
            "warning: no frame has forces, so that the training is on energies alone; frame 0: %s",
            keys_there(images[0], known=["energy"]),
        )
    return TrainingData(settings, cast(Dataset, dataset), plan)


def _with_validation(settings: Config, images: list[Atoms]) -> tuple[Config, list[Atoms]]:
    """Return the settings and images with those of `dataset.val_data` at the end, kept to
    validate."""
    options = settings.dataset
    if options.val_data is None:
        return settings, images
    kept = wanted_images(
        read_images(options.val_data, options.labels), options, settings.model.get_forces
    )
    images = [*images, *kept]
    # The number of frames is rounded up.
    fraction = (len(kept) - 0.5) / len(images)
    options = replace(options, val_data=None, val_split=fraction, val_split_mode="inorder")
    return replace(settings, dataset=options), images


def _with_isolated(settings: Config, images: list[Atoms]) -> tuple[Config, list[Atoms]]:
    """Return the settings with the energies of isolated atoms as reference energies, where
    `dataset.isolated_atoms`, or single atoms among the images, have one for each element."""
    options = settings.dataset
    given = options.isolated_atoms
    given = [] if given is None else read_images(given, options.labels)
    single = [*given] + [atoms for atoms in images if len(atoms) == 1 and not atoms.pbc.any()]
    energies = {atoms[0].symbol: float(atoms.get_potential_energy()) for atoms in single}
    found = set(elements_of(Frames.from_atoms(images)))
    if options.target_scaling != "per_atom" or options.atomic_correction is not True or not single:
        return settings, images
    if not found <= set(energies):
        logger.warning(
            "isolated atoms of %s, but not of %s: reference energies are fitted to the frames",
            ", ".join(sorted(energies)),
            ", ".join(sorted(found - set(energies))),
        )
        return settings, images
    references = {symbol: energies[symbol] for symbol in sorted(found)}
    # As many frames are kept to validate as without these.
    share = options.val_split * len(images) / (len(given) + len(images))
    options = replace(options, atomic_correction=references, isolated_atoms=None, val_split=share)
    return replace(settings, dataset=options), [*given, *images]


def batch_size_for(n_frames: int) -> int:
    """Return the frames in a batch: a few, so that there are many corrections in an epoch."""
    return 8 if n_frames < 5000 else 32


def with_functions(settings: Config, frames: Callable[[], Frames]) -> Config:
    """Return the settings with symmetry functions in place of a recipe for them."""
    options = settings.dataset
    if not is_recipe(options.fp_params):
        return settings
    elements: Any = options.elements
    found = functions_of(options.fp_params, frames(), elements)
    return replace(settings, dataset=replace(options, fp_params=found))


def _with_batch_size(settings: Config, n_frames: int) -> Config:
    """Return the settings with a number for a batch size of "auto"."""
    optim = settings.optim
    if optim.batch_size != "auto":
        return settings
    return replace(settings, optim=replace(optim, batch_size=batch_size_for(n_frames)))


def _plan_derivatives(settings: Config, images: list[Atoms], ranks: Ranks) -> Plan:
    """Return the plan for the derivatives of these frames, kept in memory."""
    options = settings.dataset
    chosen = sample_of([len(atoms) for atoms in images])
    sample = Frames.from_atoms([images[index] for index in chosen], options.elements)
    check_distances(sample)
    plan = make_plan(
        construct_descriptor(options.descriptor_setup),
        replace(sample, indices=chosen),
        len(images),
        options.derivative_dtype,
        GB * options.memory_budget,
        threads=settings.cmd.threads,
        available=available_memory(),
        strains=settings.optim.stress_coefficient > 0,
    )
    _show_plan(settings, ranks, plan)
    return plan


def _in_store(settings: Config, frames: Any, trained: Trained | None, ranks: Ranks) -> TrainingData:
    options, cmd, forces = settings.dataset, settings.cmd, settings.model.get_forces
    for key in ("val_data", "isolated_atoms"):
        if getattr(options, key) is not None:
            raise ValueError(
                f"dataset.{key} cannot be used with dataset.store: leave one of them out"
            )
    # One process fills the store, on all cores; the others find it full.
    with ranks.first_before_others(), use_threads(ranks.threads_alone):
        folder = str(options.store)
        settings = with_stress(settings, lambda: stress_in_store(folder, frames, options.labels))
        settings = _with_right_stress(
            settings, lambda: labelled_to_look_at(folder, frames, options.labels)
        )
        found = elements_of_store(folder, frames, options.skip_bad, forces, options.labels)
        settings = _with_found_elements(settings, found, trained)
        elements: Any = settings.dataset.elements
        settings = with_functions(
            settings, lambda: frames_to_look_at(folder, frames, elements, options.skip_bad)
        )
        store, plan, derivative_dtype = fill_store(
            folder,
            construct_descriptor(settings.dataset.descriptor_setup),
            frames,
            options,
            forces=forces,
            threads=cmd.threads,
            verbose=cmd.verbose and ranks.first,
            show=lambda plan: _show_plan(settings, ranks, plan),
            stress=settings.optim.stress_coefficient > 0,
        )
    _warn_of_skipped([reason for _, _, reason in store.skipped])
    settings = _with_batch_size(settings, store.n_frames)
    kind = options.derivatives if plan is None else plan.derivatives
    dataset = partial(
        StoreDataset,
        store,
        derivatives="stored" if kind == "auto" else kind,
        derivative_dtype=derivative_dtype,
    )
    common = _dataset_options(settings, trained)
    # One process goes through all fingerprints to fit the scaler, for all.
    common["feature_scaler"] = ranks.from_first(lambda: _scaler_of(dataset(**common)))
    return TrainingData(settings, dataset(**common), plan)


def _scaler_of(dataset: StoreDataset) -> FeatureScaler:
    """Return the scaler of the frames in a store, with their domain."""
    return dataset.feature_scaler.with_domain(dataset.domain())


def _dataset_options(
    settings: Config, trained: Trained | None, images: list[Atoms] | None = None
) -> dict[str, Any]:
    """Return what both data sets are made with; the scalers of what was trained are kept."""
    options = settings.dataset
    weights = options.weights
    if isinstance(weights, str):
        if images is None:
            raise ValueError(
                f"dataset.weights is {weights!r}, but a store does not hold Atoms.info; give the "
                "list of the frames' weights"
            )
        weights = weights_of(images, weights)
    if options.group_weights is not None:
        if images is None:
            raise ValueError(
                "dataset.group_weights: a store does not hold Atoms.info; give the list of the "
                "frames' weights in dataset.weights"
            )
        of_groups = weights_of_groups(images, options.group_key, options.group_weights)
        weights = (
            of_groups if weights is None else of_groups * checked_weights(weights, len(images))
        )
    return {
        "descriptor_setup": options.descriptor_setup,
        "forcetraining": settings.model.get_forces,
        "scaling": options.scaling,
        "pca": options.pca,
        "target_scaling": options.target_scaling,
        "atomic_correction": options.atomic_correction,
        "weights": weights,
        "missing_forces": options.missing_forces,
        "stress": settings.optim.stress_coefficient > 0,
        "repulsion": Repulsion.of(settings.model.repulsion),
        "dtype": settings.cmd.dtype,
        "feature_scaler": None if trained is None else trained.feature_scaler,
        "target_scaler": None if trained is None else trained.target_scaler,
    }


def _any_has_stress(images: list[Atoms]) -> bool:
    """Tell whether a frame with a cell has a stress; say so where only other names look like it."""
    found = any(atoms.cell.rank == 3 and stress_of(atoms) is not None for atoms in images)
    if not found and (keys := other_stress_keys(images[0])):
        logger.warning(
            "warning: the frames have no 'stress' or 'virial', so that stresses are not trained "
            "on; frame 0 has %s: name one in dataset.stress_key (--stress-key)",
            ", ".join(map(repr, keys)),
        )
    return found


def _with_found_elements(settings: Config, found: list[str], trained: Trained | None) -> Config:
    """Number the elements as what was trained does, else as the configuration, else as found."""
    if trained is None:
        return with_elements(settings, settings.dataset.elements or found)
    # A potential's own are those that it can predict, which may be fewer.
    networks = trained.descriptor.elements if isinstance(trained, Potential) else trained.elements
    if not set(found) <= set(networks):
        raise ValueError(
            f"the checkpoint was trained on the elements {networks}, "
            f"the frames hold {found}; train a new model, or leave those frames out"
        )
    return with_elements(settings, networks)


def _warn_of_skipped(reasons: list[str]) -> None:
    if reasons:
        logger.warning("left out %d of the frames:\n%s", len(reasons), "\n".join(reasons))


def _show_plan(settings: Config, ranks: Ranks, plan: Plan) -> None:
    """Print the plan, or log it where nothing is to be printed; in one process of several."""
    if not ranks.first:
        return
    if settings.cmd.verbose:
        tqdm.write(plan.table())
    else:
        logger.info("%s", plan.table())
