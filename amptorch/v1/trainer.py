"""Training of a potential from a configuration, as AMPTorch v1.0 does it."""

import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from skorch.history import History

from amptorch.calculator import AmpTorch
from amptorch.checkpoints.folder import Checkpoint, HistoryText, load_checkpoint
from amptorch.config import Config, known_part
from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import read_images
from amptorch.model import AtomicModel, CustomLoss, make_model
from amptorch.modes import ordinary_tensors
from amptorch.optimizers import Diverged
from amptorch.potential import Potential
from amptorch.prediction import predict
from amptorch.threads import use_threads
from amptorch.training.callbacks import WandbRun
from amptorch.training.committee import mean_of, one_member, parts_of
from amptorch.training.fit import (
    check_processes,
    fresh_members,
    fresh_model,
    kept_of,
    make_callbacks,
    make_net,
    make_split_of,
    save_net,
    train_net,
)
from amptorch.training.prepare import fingerprint_store, prepare, seconds_left, with_elements
from amptorch.training.pretrained import resume_optimizer, settings_for
from amptorch.training.progress import Progress
from amptorch.training.random_state import RandomState
from amptorch.training.ranks import Ranks
from amptorch.training.restart import (
    EpochCheckpoint,
    TrainingState,
    newest_state,
    run_to_resume,
)
from amptorch.training.run_folder import lock_run, new_run, remove_if_empty
from amptorch.v1.compat import AttributesOfV1
from amptorch.v1.dataset import AtomsDataset
from amptorch.v1.lmdb_training import prepare_lmdb

logger = logging.getLogger(__name__)


class AtomsTrainer(AttributesOfV1):
    """Train a potential on frames with energies and forces, and predict with it.

    config : dictionary with the sections `model`, `optim`, `dataset` and `cmd`; see `Config`. It is
        never changed. A key that is not known is ignored, as in v1.0, with a warning that names it.
        Without a configuration, `load_pretrained` gives the trainer that of a checkpoint.

    Attributes
    ----------
    net : the skorch net (`net.history`, `net.module`); model : the network itself
    train_dataset, feature_scaler, target_scaler, elements, descriptor, forcetraining, device
    cp_dir : path of this run's checkpoint folder, a str, or None; identifier : the folder's name
    settings : the checked `Config`; v1.0's names of its parts, see `AttributesOfV1`

    Raises ValueError, TypeError or FileNotFoundError that names the key, frame or file which cannot
    be used. torch's random numbers, default type and threads, and the working directory, are left
    alone: `cmd.seed` starts a stream of random numbers of the trainer's own.
    """

    def __init__(self, config: Any = None):
        self.config = {} if config is None else config
        self.pretrained = False
        self.net: Any = None
        self.model: Any = None
        self.train_dataset: Any = None
        self.descriptor: Any = None
        self.elements: Any = None
        self.feature_scaler: Any = None
        self.target_scaler: Any = None
        self.plan: Any = None
        self.cp_dir: Any = None
        self.identifier: str | None = None
        self._raw_data: Any = None
        self._loaded = False
        self._began = time.monotonic()
        self._potential: Potential | None = None
        self._parts: tuple[Any, ...] = ()
        self._ignored: set[str] = set()
        # Of several networks: what they begin with, what `fresh_model` takes, and their mean.
        self._starts: list[dict[str, Any]] = []
        self._mean: tuple[AtomicModel, Config] | None = None
        self._fresh: tuple[Any, ...] = ()
        self.ranks = Ranks()
        self._history_text = HistoryText()
        # That there is no GPU is no matter yet: `load_pretrained(gpu2cpu=True)` needs none.
        self._apply(Config.from_dict(self._known_config()), not torch.cuda.is_available())

    # --- set-up, in the order of `load` ---

    @ordinary_tensors()
    def load(self, load_dataset: bool = True) -> None:
        """Do everything up to the point where training can start; without the data set, where
        `dataset.elements` is given, up to the point where parameters can be loaded."""
        self.load_config()
        self.load_rng_seed()
        with self._new_run() if load_dataset else nullcontext():
            self.load_logger()
            if load_dataset:
                self.load_dataset()
            self._load_network()
        self._loaded = load_dataset

    def _load_network(self) -> None:
        self.load_model()
        self.load_criterion()
        self.load_optimizer()
        self.load_extras()
        self.load_skorch()

    def load_config(self) -> None:
        """Check `config` and take from it what does not need any data."""
        self._apply(Config.from_dict(self._known_config()))

    def _known_config(self) -> Any:
        """Return `config` without the keys that v1.0 ignored, each of which is warned of once."""
        known, messages = known_part(self.config)
        for message in messages:
            if message not in self._ignored:
                warnings.warn(message, stacklevel=3)
        self._ignored.update(messages)
        return known

    def _apply(self, settings: Config, gpu2cpu: bool = False) -> None:
        self.settings = settings
        self.debug = settings.cmd.debug
        self.dtype = settings.cmd.dtype
        self.forcetraining = settings.model.get_forces
        self.device = self.ranks.use_device(0 if gpu2cpu else settings.optim.gpus)

    def load_rng_seed(self) -> None:
        """Start the trainer's stream of random numbers at `cmd.seed`."""
        self.random_state = RandomState(self.settings.cmd.seed, self.device)

    def load_dataset(self) -> None:
        """Read and check the frames, compute their fingerprints, fit the scalers.

        The scalers of a checkpoint, once loaded, are kept: its parameters mean nothing without.
        """
        options = self.settings.dataset
        trained = self if self.pretrained else None
        if options.lmdb_path is not None and self._raw_data is None:
            if options.raw_data is not None:
                warnings.warn(
                    "dataset.raw_data is ignored: the training is on the files in "
                    "dataset.lmdb_path; leave one of them out",
                    stacklevel=2,
                )
            data = prepare_lmdb(self.settings, trained, self.ranks)
        else:
            data = prepare(self.settings, self._raw_data, trained, self.ranks, AtomsDataset)
        self.settings, self.plan, self._began = data.settings, data.plan, data.began
        self.train_dataset, self.elements = data.dataset, data.elements
        self.descriptor = data.descriptor
        self.feature_scaler, self.target_scaler = data.feature_scaler, data.target_scaler

    def load_model(self) -> None:
        """Make a network with fresh parameters."""
        if self.descriptor is None:
            self._make_descriptor()
        self._fresh = self.settings, self.elements, self.input_dim, self.random_state
        self._fresh += (self.target_scaler,)
        self._starts, self._mean, self.model = [], None, fresh_model(*self._fresh)

    def load_criterion(self) -> None:
        """Take the class of the loss."""
        self.criterion = self.settings.optim.loss_fn or CustomLoss

    def load_optimizer(self) -> None:
        """Take the class of the optimizer."""
        self.optimizer = self.settings.optim.optimizer

    def load_logger(self) -> None:
        """Make the callback of Weights and Biases, where `cmd.logger` asks for it."""
        self.logger = None
        if self.settings.cmd.logger and self.ranks.first:
            self.logger = WandbRun(lambda: self.identifier, self.settings.to_dict())

    def load_extras(self) -> None:
        """Make callbacks (scores, checkpoint, scheduler, early stopping, logger) and split."""
        self.progress = Progress(seconds_left(self.settings, self._began), self.ranks)
        save = None if self.debug else self._save
        fresh = fresh_members(self._starts, *self._fresh)
        self.callbacks = make_callbacks(self.settings, self.progress, save, fresh)
        if self.logger is not None:
            self.callbacks.append(("logger", self.logger))
        if not self.debug:
            written = EpochCheckpoint(self._save, self._folder_to_write, self.random_state)
            self.callbacks.append(("epochs", written))
        self.split = make_split_of(self.settings)

    def load_skorch(self) -> None:
        """Make the skorch net."""
        self.net = make_net(
            self.settings,
            self.model,
            self.callbacks,
            self.split,
            self.target_scaler,
            self.ranks,
            self.progress,
            self.random_state,
            self.device,
            self.criterion,
            self.optimizer,
        )

    # --- training ---

    @ordinary_tensors()
    def train(self, raw_data: Any = None, resume: Any = False) -> None:
        """Train for `optim.epochs` (or `optim.max_seconds`), then load back the parameters of the
        best epoch; with `cmd.debug` those of the last one stay.

        raw_data: frames to train on instead of `dataset.raw_data`. A trainer with a loaded
        checkpoint goes on from its parameters; otherwise each call starts afresh. An interruption
        from the keyboard ends the training as if that had been the last epoch.

        resume: folder of a run that was ended by whatever, or True for the newest one in
        `cmd.run_dir` (a new one where there is none): it goes on from its last whole epoch, in its
        folder, with the numbers that it would have had (bit for bit with one thread), until
        `optim.epochs` are done. The settings and the frames must be those that it began with.

        Under torchrun all processes train together, see `trainer.ranks`; the first one writes.

        A training that diverges, to NaN or beyond all bounds, ends with a ValueError that says what
        to change; the best epoch before is loaded back, and its checkpoint kept, if it is sound.

        Raises ValueError that names the setting with which the run cannot go on, OSError where a
        checkpoint cannot be written, those of the epochs before being left as they are, and
        BlockingIOError where another training is writing to the run's folder.
        """
        with use_threads(self.settings.cmd.threads or self.ranks.threads):
            self._train(raw_data, resume)

    def _train(self, raw_data: Any, resume: Any) -> None:
        if raw_data is not None:
            self._raw_data = raw_data
        check_processes(self.settings, self.ranks)
        run = None
        if resume:
            remove_if_empty(self._folder_to_write())
            run = self.ranks.from_first(lambda: run_to_resume(resume, self.settings.cmd))
        if run is not None:
            with lock_run(run if self.ranks.first else None):
                self._fit(self._load_run(run))
            return
        if self.pretrained:
            with self._new_run():
                if raw_data is not None or self.train_dataset is None:
                    self.load_dataset()
        elif raw_data is not None or not self._loaded:
            self.load()
        with lock_run(self._folder_to_write()):
            self._fit()

    def _fit(self, state: Any = None) -> None:
        """Train, from a `TrainingState` where there is one."""
        self._loaded = False
        start = time.perf_counter()
        epochs = self.net.max_epochs if state is None else state.epochs_left(self.net.max_epochs)
        try:
            train_net(self.net, self.train_dataset, epochs)
        except Diverged as error:
            sound, kept = kept_of(self.net, self.train_dataset, self.cp_dir, self.ranks)
            if not sound:
                if self.ranks.first and self.cp_dir is not None:
                    shutil.rmtree(self.cp_dir, ignore_errors=True)
                self.cp_dir = None
            raise Diverged(f"{error}; {kept}") from error
        trained = with_elements(self.settings, self.elements)
        model, settings = mean_of(self.net, trained, self.input_dim)
        self._mean = None if model is self.net.module_ else (model, settings)
        run = self._folder_to_write()
        if run and (self._mean or not Path(run, "params.pt").is_file()):
            self.potential.save(run)
        if self.ranks.first:
            logger.info("training took %.1f s", time.perf_counter() - start)

    def _load_run(self, run: Path) -> "TrainingState | None":
        """Load a run that was begun; return its last `TrainingState`, None where it has none."""
        state = newest_state(run)
        if state is None:
            self.pretrained = False
            self.load_config()
        else:
            known = self._known_config() or state.checkpoint.config
            self._apply(settings_for(known, state.checkpoint))
            self._use_scalers_of(state.checkpoint)
        self.cp_dir, self.identifier = str(run), run.name
        self.load_rng_seed()
        self.load_logger()
        self.load_dataset()
        if state is not None:
            state.check_settings(self.settings)
        self._load_network()
        if state is not None:
            state.check_frames(self.train_dataset)
            dict(self.callbacks)["epochs"].start = state
            # Like the uninterrupted run: a further `train` starts where that would have.
            self.pretrained = state.first_epoch > 0
        return state

    @contextmanager
    def _new_run(self) -> Iterator[None]:
        """Make the folder of a run; see `new_run`."""
        remove_if_empty(self._folder_to_write())
        self.cp_dir = None
        try:
            with new_run(self.settings.cmd, self.ranks) as run:
                if run is not None:
                    self.cp_dir, self.identifier = str(run), run.name
                yield
        except BaseException:
            self.cp_dir = None
            raise

    def _folder_to_write(self) -> Any:
        """Return the run's folder, in the process that writes."""
        return self.cp_dir if self.ranks.first else None

    @ordinary_tensors()
    def load_pretrained(
        self, checkpoint_path: str | os.PathLike[str] | None = None, gpu2cpu: bool = False
    ) -> None:
        """Take parameters, scalers, optimizer and history from a checkpoint folder.

        checkpoint_path: the folder, also one of v1.0's; None is that of the last training.
        gpu2cpu: use the CPU, whatever `optim.gpus` says; so does a trainer without a configuration
        where there is no GPU, and it does without Weights and Biases where it is not installed.

        A trainer without a configuration predicts and goes on training as the checkpoint says. With
        one, its optimizer and run settings and its data are used; what it leaves out of the model
        and of the fingerprints is as in the checkpoint, and what it says there must agree.

        Raises FileNotFoundError or ValueError that names the missing or damaged file, and
        ValueError where the checkpoint is one of another model, or of other elements.
        """
        folder = self.cp_dir if checkpoint_path is None else checkpoint_path
        if folder is None:
            raise ValueError("load_pretrained needs the folder of a checkpoint")
        checkpoint = load_checkpoint(folder)
        optimizer, history = checkpoint.optimizer, checkpoint.history
        trained = Config.from_dict(checkpoint.config)
        # What the machine had on which it was trained is not asked of this one.
        asked = bool(self.config)
        self.config = self.config or checkpoint.config
        self._apply(
            settings_for(self._known_config(), checkpoint),
            gpu2cpu or not (asked or torch.cuda.is_available()),
        )
        self.load_rng_seed()
        try:
            self.load_logger()
        except ValueError as error:
            if asked:
                raise
            warnings.warn(f"{error}; a training will not be logged", stacklevel=2)
        self._use_scalers_of(checkpoint)
        self.descriptor = construct_descriptor(self.descriptor_setup())
        if not asked:
            # v1.0 had these in the configuration; where that is the caller's, it stays as it is.
            self.config["dataset"]["descriptor"] = self.descriptor_setup()
            self.config["dataset"]["fp_length"] = self.input_dim
        self._load_network()
        self._load_params(checkpoint)
        self.net.initialize()
        resume_optimizer(self.net.optimizer_, optimizer, trained.optim, self.settings.optim)
        self.net.history = History(history)
        dataset = self.settings.dataset
        if any(given is not None for given in (dataset.raw_data, dataset.store, dataset.lmdb_path)):
            self.load_dataset()

    def _load_params(self, checkpoint: Checkpoint) -> None:
        """Load parameters into the model; of several networks, each begins with its own."""
        if self.settings.model.members == 1:
            checkpoint.load_params(self.model)
            return
        settings = with_elements(self.settings, self.elements)
        mean = make_model(settings.model, self.elements, self.input_dim, self.dtype)
        checkpoint.load_params(mean)
        self._starts += parts_of(mean, settings, self.input_dim)
        self._mean = mean.to(self.device), settings
        self.model.load_state_dict(self._starts[0])

    def _use_scalers_of(self, checkpoint: Checkpoint) -> None:
        """Take what a checkpoint's parameters mean nothing without."""
        self.pretrained, self.train_dataset = True, None
        self.elements = checkpoint.elements
        self.feature_scaler = checkpoint.feature_scaler
        self.target_scaler = checkpoint.target_scaler

    # --- prediction ---

    @property
    def potential(self) -> Potential:
        """Return the `Potential` of the parameters as they are now."""
        if self.net is None or self.feature_scaler is None:
            raise ValueError("there is no model yet: call train() or load_pretrained() first")
        model, settings = self._mean or (self.net.module, None)
        parts = (
            self.descriptor,
            model,
            self.feature_scaler,
            self.target_scaler,
            self.dtype,
            self.device,
            self.settings,
        )
        if self._potential is None or any(
            one is not other for one, other in zip(parts, self._parts, strict=True)
        ):
            self._parts = parts
            settings = with_elements(settings or one_member(self.settings), self.elements)
            self._potential = Potential(*parts[:-1], settings)
        self._potential.history = self.net.history
        return self._potential

    def predict(
        self,
        images: Any,
        disable_tqdm: bool = True,
        get_latent: int | None = None,
        get_descriptor: bool = False,
        save_fps: Any = False,
    ) -> Any:
        """Return energies and forces of frames (list of Atoms, or what `read_images` reads).

        Returns a dictionary: `energy` list of float, eV; `forces` list of (n_atoms, 3) arrays,
        eV/Å, empty ones where `model.get_forces` is False; `latent` with `get_latent=k`, list of
        the output of `model_net[k]` averaged over the atoms; `descriptors` with `get_descriptor`,
        list of scaled fingerprints (with `dataset.pca` their principal components) averaged over
        the atoms; `t_fingerPrint` and `t_forwardPass`, seconds. `save_fps` keeps the fingerprints
        on disk. For no frames at all it is an empty list, as in v1.0, with a warning.

        Raises ValueError that names the frame which cannot be used.
        """
        images = read_images(images)
        if not images:
            warnings.warn("there are no frames to predict", stacklevel=2)
            return []
        with use_threads(self.settings.cmd.threads):
            return predict(
                self.potential,
                images,
                forces=self.forcetraining,
                layer=get_latent,
                descriptors=get_descriptor,
                store=fingerprint_store(self.settings) if save_fps else None,
                quiet=disable_tqdm,
            )

    def get_calc(self) -> AmpTorch:
        """Return the ASE calculator of this trainer."""
        return AmpTorch(self)

    def _save(self, net: Any, folder: str | os.PathLike[str] | None = None) -> None:
        """Write the checkpoint of the net as it is now, into the run's folder or another."""
        # Where the steps of `load` were called one by one there is no folder yet.
        if folder is None and self.cp_dir is None:
            with self._new_run():
                return self._save(net)
        save_net(
            folder or self.cp_dir,
            # A run goes on with its settings; the best epoch is one network, a potential.
            with_elements(self.settings if folder else one_member(self.settings), self.elements),
            self.feature_scaler,
            self.target_scaler,
            self._history_text,
            net,
        )

    def descriptor_setup(self) -> tuple[Any, ...]:
        """Return what `construct_descriptor` takes."""
        return with_elements(self.settings, self.elements).dataset.descriptor_setup

    def _make_descriptor(self) -> None:
        if self.elements is None:
            self.elements = self.settings.dataset.elements
        if self.elements is None:
            raise ValueError("without a data set, the config needs dataset.elements")
        self.descriptor = construct_descriptor(self.descriptor_setup())
