"""From training data to a potential: the parts of a training, and `fit`, which uses them."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ase.units import GPa
from skorch.callbacks import Callback

from amptorch.checkpoints.folder import HistoryText, remove_checkpoint, save_checkpoint
from amptorch.config import Config
from amptorch.data.batch import with_targets
from amptorch.data.loader import BatchLoader
from amptorch.data.protocol import Dataset
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.metrics import BothErrors, best_column, scoring_callbacks
from amptorch.model import AtomicModel, CustomLoss, make_model
from amptorch.model.mlp import Dropout
from amptorch.modes import ordinary_tensors
from amptorch.optimizers import EKF, Diverged
from amptorch.potential import Potential
from amptorch.threads import torch_threads, use_threads
from amptorch.training.callbacks import (
    BestCheckpoint,
    WandbRun,
    averaging_callbacks,
    optional_callbacks,
)
from amptorch.training.committee import Committee, mean_of, one_member, parts_of
from amptorch.training.divergence import (
    RecoverWhenDiverged,
    StopWhenDiverged,
    check_usable,
    load_best_parameters,
)
from amptorch.training.net import PotentialNet, criterion_args, optimizer_args
from amptorch.training.prepare import TrainingData
from amptorch.training.progress import Progress
from amptorch.training.random_state import RandomState, seeded_loader
from amptorch.training.ranks import Ranks
from amptorch.training.restart import EpochCheckpoint, newest_state
from amptorch.training.run_folder import EPOCHS
from amptorch.training.splits import make_split

logger = logging.getLogger(__name__)
NamedCallback = tuple[str, Callback]
# eV/Å that count as much as 1 meV/atom where the best epoch is chosen by both.
DEFAULT_FORCE_PER_MEV = 0.01
# GPa, likewise.
DEFAULT_STRESS_PER_MEV = 0.1


@ordinary_tensors()
def fit(
    data: TrainingData,
    start: Potential | None = None,
    folder: str | os.PathLike[str] | None = None,
    split: Callable[..., Any] | None = None,
    callbacks: Sequence[NamedCallback] = (),
    ranks: Ranks | None = None,
    resume: bool = False,
) -> Potential:
    """Train for `optim.epochs`, or until the time is over; return the potential of the best epoch.

    data : what `prepare` gave
    start : a potential with the same fingerprints, whose parameters the training begins with
    folder : where the checkpoint of the best epoch is written, as the training goes, in place of
        one that is there; None for none
    split : skorch's `train_split`; None for the one that `dataset.val_split` asks for
    callbacks : (name, skorch's callback) pairs, besides those that the settings ask for
    ranks : the processes that train together
    resume : keep the state after each epoch in `folder` too, and where there is one go on from it,
        with the numbers of a training that was not interrupted

    Raises ValueError that names the setting with which training is not possible, or the run cannot
    go on, `Diverged` (a ValueError) where it led to NaN or beyond all bounds, and OSError
    where a checkpoint cannot be written.
    """
    settings, epochs, state = data.settings, data.settings.optim.epochs, None
    ranks = Ranks() if ranks is None else ranks
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
    if folder is not None and resume:
        state = newest_state(Path(folder))
    if state is not None:
        state.check_settings(settings)
        state.check_frames(data.dataset)
        epochs = state.epochs_left(epochs)
    check_processes(settings, ranks)
    device = ranks.use_device(settings.optim.gpus)
    random = RandomState(settings.cmd.seed, device)
    n_inputs = data.feature_scaler.width(data.descriptor.n_features)
    model = fresh_model(settings, data.elements, n_inputs, random, data.target_scaler)
    starts = [] if start is None else parts_of(start.model, start.settings or settings, n_inputs)
    if starts:
        model.load_state_dict(starts[0])
    progress = Progress(data.seconds_left, ranks)
    arguments = settings, data.elements, n_inputs, random, data.target_scaler
    fresh = fresh_members(starts, *arguments)
    text, scalers = HistoryText(), (data.feature_scaler, data.target_scaler)

    def save(net: PotentialNet, to: str | os.PathLike[str] | None = None) -> None:
        # An epoch's state has the settings of the run; the best epoch is one network, a potential.
        if to is not None:
            save_net(to, settings, *scalers, text, net)
        elif folder is not None:
            save_net(folder, one_member(settings), *scalers, text, net)

    used = [*make_callbacks(settings, progress, save, fresh), *callbacks]
    if settings.cmd.logger and ranks.first:
        name = None if folder is None else Path(folder).name
        used.append(("logger", WandbRun(lambda: name, settings.to_dict())))
    if folder is not None and resume:
        own = folder if ranks.first else None
        used.append(("epochs", EpochCheckpoint(save, lambda: own, random, state)))
    net = make_net(
        settings,
        model,
        used,
        make_split_of(settings) if split is None else split,
        data.target_scaler,
        ranks,
        progress,
        random,
        device,
    )
    begun = time.perf_counter()
    with use_threads(settings.cmd.threads or ranks.threads):
        try:
            train_net(net, data.dataset, epochs)
        except Diverged as error:
            _, kept = kept_of(net, data.dataset, folder, ranks)
            raise Diverged(f"{error}; {kept}") from error
    if ranks.first:
        logger.info("training took %.1f s", time.perf_counter() - begun)
    if state is not None and len(net.history) == len(state.history):
        logger.warning(
            "nothing was trained: the run has had all its epochs, or all its time; give it more"
        )
    model, settings = mean_of(net, settings, n_inputs)
    potential = Potential(
        data.descriptor,
        model,
        data.feature_scaler,
        data.target_scaler,
        settings.cmd.dtype,
        device,
        settings,
        net.history,
    )
    saved = folder is None or (model is net.module_ and (Path(folder) / "params.pt").is_file())
    if not saved and folder is not None and ranks.first:
        potential.save(folder)
    return potential


def kept_of(
    net: PotentialNet, dataset: Dataset, folder: str | os.PathLike[str] | None, ranks: Ranks
) -> tuple[bool, str]:
    """Remove the checkpoint of a training that has diverged, unless it is sound; return whether it
    is, and words about it."""
    if load_best_parameters(net, dataset):
        where = "" if folder is None else f", in {folder}"
        return True, f"the best parameters of the epochs before are kept{where}"
    if folder is not None and ranks.first:
        remove_checkpoint(folder)
        shutil.rmtree(Path(folder) / EPOCHS, ignore_errors=True)
    return False, "no epoch before was any better, so no checkpoint is kept"


def fresh_model(
    settings: Config,
    elements: Sequence[str],
    n_inputs: int,
    random: RandomState,
    target_scaler: TargetScaler | None = None,
) -> AtomicModel:
    """Return the network, a single one of the members, with parameters, and dropout, drawn from
    `random`; it begins with the mean energies of atoms that the scaler has, if any."""
    with random.used_by_torch():
        model = make_model(one_member(settings).model, elements, n_inputs, settings.cmd.dtype)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.random = random
    if target_scaler is not None and target_scaler.start is not None:
        model.start_at(target_scaler.start / float(target_scaler.target_std))
    return model


def fresh_members(
    starts: Sequence[dict[str, Any]], *arguments: Any
) -> Callable[[int], dict[str, Any]]:
    """Return what gives the parameters that network `number` of several begins with: those in
    `starts`, or those of `fresh_model(*arguments)`."""

    def fresh(number: int) -> dict[str, Any]:
        if number < len(starts):
            return starts[number]
        return fresh_model(*arguments).state_dict()

    return fresh


def make_split_of(settings: Config) -> Callable[..., Any] | None:
    """Return skorch's `train_split` that the section `dataset` asks for."""
    options = settings.dataset
    return make_split(options.val_split, options.val_split_mode, settings.cmd.seed)


def make_callbacks(
    settings: Config,
    progress: Progress,
    save: Callable[[PotentialNet], None] | None = None,
    fresh: Callable[[int], dict[str, Any]] | None = None,
) -> list[NamedCallback]:
    """Return the callbacks that the settings ask for: scores, averaging, best epoch, scheduler,
    early stopping.

    save : called with the net whenever it is the best so far; None: the last epoch's stays
    fresh : see `Committee`; None: one network, whatever `model.members` says
    """
    fraction, metric = settings.dataset.val_split, settings.optim.metric
    monitor = best_column(fraction, settings.optim.cp_metric, metric)
    recover = settings.optim.recover
    callbacks: list[NamedCallback] = [
        ("divergence", RecoverWhenDiverged(monitor) if recover else StopWhenDiverged())
    ]
    stress = settings.optim.stress_coefficient > 0
    callbacks += scoring_callbacks(fraction, metric, settings.model.get_forces, stress)
    if settings.optim.cp_metric == "both":
        part, weight = "val" if fraction else "train", settings.optim.force_per_mev
        weights = [1e-3 / (weight or DEFAULT_FORCE_PER_MEV)]
        if stress:
            per_mev = settings.optim.stress_per_mev or DEFAULT_STRESS_PER_MEV
            weights.append(1e-3 / (per_mev * GPa))
        both = BothErrors(part, metric, *weights)
        callbacks.append(("both", both))
    callbacks += averaging_callbacks(settings, progress)
    if save is not None:
        callbacks.append(("checkpoint", BestCheckpoint(monitor, save)))
    if fresh is not None and settings.model.members > 1:
        callbacks.append(("committee", Committee(settings.model.members, progress, fresh)))
    return callbacks + optional_callbacks(settings, progress)


def make_net(
    settings: Config,
    model: AtomicModel,
    callbacks: Sequence[NamedCallback],
    split: Callable[..., Any] | None,
    target_scaler: TargetScaler,
    ranks: Ranks,
    progress: Progress,
    random: RandomState,
    device: torch.device,
    criterion: type | None = None,
    optimizer: type | None = None,
) -> PotentialNet:
    """Return the skorch net that trains `model`."""
    optim = settings.optim
    criterion = criterion or optim.loss_fn or CustomLoss
    return PotentialNet(
        module=model,
        criterion=criterion,
        optimizer=optimizer or optim.optimizer,
        lr=optim.lr,
        batch_size=optim.batch_size,
        max_epochs=optim.epochs,
        train_split=split,
        callbacks=list(callbacks),
        device=device,
        verbose=int(settings.cmd.verbose and ranks.first),
        target_scaler=target_scaler,
        ranks=ranks,
        progress=progress,
        random=random,
        **_iterators(settings, ranks, random),
        **criterion_args(criterion, optim),
        **optimizer_args(optim, tuple(model.networks)),
    )


def check_processes(settings: Config, ranks: Ranks) -> None:
    """Raise ValueError that names a setting with which several processes cannot train together."""
    if ranks.size > 1 and settings.model.batchnorm:
        raise ValueError(
            "model.batchnorm: each of several processes would see the mean of its own atoms; "
            "set it to False, or train in one process"
        )
    if ranks.size > 1 and settings.optim.optimizer is EKF:
        raise ValueError(
            "optim.optimizer: the Kalman filter corrects with one covariance, in one process; "
            "take another optimizer, or start one process"
        )


def train_net(net: PotentialNet, dataset: Dataset, epochs: int) -> None:
    """Train a net for so many epochs, from where it is; `Diverged` where it ends without sense."""
    if not net.initialized_:
        net.initialize()
    # Threads of torch and of BLAS spin for a while after their work. On two cores, the filter's
    # BLAS waited for torch's threads: an epoch took 3.5 times as long as on one.
    with torch_threads(1) if isinstance(net.optimizer_, EKF) else nullcontext():
        net.partial_fit(dataset, None, epochs=epochs)
    check_usable(net, dataset)


def save_net(
    folder: str | os.PathLike[str],
    settings: Config,
    feature_scaler: FeatureScaler,
    target_scaler: TargetScaler,
    history_text: HistoryText,
    net: PotentialNet,
) -> None:
    """Write the checkpoint of a net as it is now, in the process that writes."""
    if net.ranks is None or net.ranks.first:
        save_checkpoint(
            folder,
            settings,
            feature_scaler,
            target_scaler,
            net.module_.state_dict(),
            net.optimizer_.state_dict(),
            net.criterion_.state_dict(),
            net.history,
            history_text,
        )


def _iterators(settings: Config, ranks: Ranks, random: RandomState) -> dict[str, Any]:
    """Return skorch's arguments about how batches are taken from the data set.

    From a store or LMDB files, and where not all forces are trained on, batches follow from
    `cmd.seed` and the number of the epoch alone.
    """
    arguments = {
        "iterator_train__collate_fn": with_targets,
        "iterator_train__shuffle": True,
        "iterator_valid__collate_fn": with_targets,
        "iterator_valid__shuffle": False,
    }
    fraction, dataset = settings.optim.force_fraction, settings.dataset
    if dataset.store is not None or dataset.lmdb_path is not None or fraction < 1:
        arguments |= {
            "iterator_train": BatchLoader,
            "iterator_valid": BatchLoader,
            "iterator_train__seed": settings.cmd.seed,
            "iterator_train__force_fraction": fraction,
        }
        for name in ("train", "valid"):
            arguments[f"iterator_{name}__process"] = ranks.rank
            arguments[f"iterator_{name}__processes"] = ranks.size
    else:
        for name in ("train", "valid"):
            arguments[f"iterator_{name}"] = seeded_loader
            arguments[f"iterator_{name}__random"] = random
    return arguments
