"""Training of a potential from a configuration, as AMPTorch v1.0 does it."""

import logging
import shutil
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from skorch.history import History

from amptorch.calculator import AmpTorch
from amptorch.checkpoints.folder import HistoryText, load_checkpoint, save_checkpoint
from amptorch.config import Config, known_part
from amptorch.descriptor.base import STORE
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.store import FingerprintStore
from amptorch.frames import Frames, read_images
from amptorch.metrics import best_column, scoring_callbacks
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.model.mlp import Dropout
from amptorch.optimizers import EKF, Diverged
from amptorch.potential import Potential
from amptorch.prediction import predict
from amptorch.threads import use_threads
from amptorch.training.callbacks import (
    BestCheckpoint,
    WandbRun,
    averaging_callbacks,
    optional_callbacks,
)
from amptorch.training.divergence import StopWhenDiverged, check_sound, take_best
from amptorch.training.net import PotentialNet, criterion_args, optimizer_args
from amptorch.training.prepare import iterators, training_set
from amptorch.training.pretrained import resume_optimizer, settings_for
from amptorch.training.progress import Progress
from amptorch.training.random_state import RandomState
from amptorch.training.ranks import Ranks
from amptorch.training.restart import EpochCheckpoint, newest_state, run_to_resume
from amptorch.training.run_folder import alone_in, new_run_folder, remove_if_empty
from amptorch.training.splits import make_split, validation_size
from amptorch.v1.compat import AttributesOfV1

logger = logging.getLogger(__name__)
MODELS = {"bpnn": BPNN, "singlenn": SingleNN}


class AtomsTrainer(AttributesOfV1):
    """Trains a potential on frames with energies and forces, and predicts with it.

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

    def __init__(self, config=None):
        self.config = {} if config is None else config
        self.pretrained = False
        self.net = self.model = self.train_dataset = self.descriptor = self.elements = None
        self.feature_scaler = self.target_scaler = self.plan = None
        self.cp_dir = self.identifier = None
        self._raw_data = None
        self._loaded = False
        self._ignored = set()
        self.ranks = Ranks()
        self._history_text = HistoryText()
        # That there is no GPU is no matter yet: `load_pretrained(gpu2cpu=True)` needs none.
        self._apply(Config.from_dict(self._known_config()), not torch.cuda.is_available())

    # --- set-up, in the order of `load` ---

    def load(self, load_dataset=True):
        """Everything up to the point where training can start; without the data set, where
        `dataset.elements` is given, up to the point where parameters can be loaded."""
        self.load_config()
        self.load_rng_seed()
        with self._new_run() if load_dataset else nullcontext():
            self.load_logger()
            if load_dataset:
                self.load_dataset()
            self._load_network()
        self._loaded = load_dataset

    def _load_network(self):
        self.load_model()
        self.load_criterion()
        self.load_optimizer()
        self.load_extras()
        self.load_skorch()

    def load_config(self):
        """Check `config` and take from it what does not need any data."""
        self._apply(Config.from_dict(self._known_config()))

    def _known_config(self):
        """Return `config` without the keys that v1.0 ignored, each of which is warned of once."""
        known, messages = known_part(self.config)
        for message in messages:
            if message not in self._ignored:
                warnings.warn(message, stacklevel=3)
        self._ignored.update(messages)
        return known

    def _apply(self, settings, gpu2cpu=False):
        self.settings = settings
        self.debug = settings.cmd.debug
        self.dtype = settings.cmd.dtype
        self.forcetraining = settings.model.get_forces
        self.device = self.ranks.use_device(0 if gpu2cpu else settings.optim.gpus)

    def load_rng_seed(self):
        """Start the trainer's stream of random numbers at `cmd.seed`."""
        self.random_state = RandomState(self.settings.cmd.seed, self.device)

    def load_dataset(self):
        """Read and check the frames, compute their fingerprints, fit the scalers.

        The scalers of a checkpoint, once loaded, are kept: its parameters mean nothing without.
        """
        options = self.settings.dataset
        raw_data = options.raw_data if self._raw_data is None else self._raw_data
        if options.lmdb_path is not None and options.raw_data is not None:
            warnings.warn(
                "dataset.raw_data is ignored: the training is on the files in dataset.lmdb_path; "
                "leave one of them out",
                stacklevel=2,
            )
            raw_data = self._raw_data
        if raw_data is None:
            options.require_data()
        self.train_dataset = training_set(self, raw_data)
        validation_size(len(self.train_dataset), options.val_split)
        self.descriptor = self.train_dataset.descriptor
        self.feature_scaler = self.train_dataset.feature_scaler
        self.target_scaler = self.train_dataset.target_scaler

    def get_unique_elements(self, training_images):
        """Symbols of the elements in a list of ase.Atoms, sorted."""
        numbers = np.unique(Frames.from_atoms(training_images).numbers)
        return sorted(chemical_symbols[number] for number in numbers)

    def load_model(self):
        """A network with fresh parameters."""
        if self.descriptor is None:
            self._make_descriptor()
        options = dict(vars(self.settings.model))
        network = MODELS[options.pop("name")]
        with self.random_state.as_torchs_own():
            self.model = network(
                elements=self.elements,
                input_dim=self.input_dim,
                dtype=self.dtype,
                **options,
            )
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.random = self.random_state

    def load_criterion(self):
        """The class of the loss."""
        self.criterion = self.settings.optim.loss_fn or CustomLoss

    def load_optimizer(self):
        """The class of the optimizer."""
        self.optimizer = self.settings.optim.optimizer

    def load_logger(self):
        """The callback of Weights and Biases, where `cmd.logger` asks for it."""
        self.logger = None
        if self.settings.cmd.logger and self.ranks.first:
            self.logger = WandbRun(lambda: self.identifier, self.settings.to_dict())

    def load_extras(self):
        """Callbacks (scores, checkpoint, scheduler, early stopping, logger) and the split."""
        options = self.settings
        fraction, metric = options.dataset.val_split, options.optim.metric
        self.progress = Progress(options.optim.max_seconds, self.ranks)
        self.callbacks = [("divergence", StopWhenDiverged())]
        self.callbacks += scoring_callbacks(fraction, metric, self.forcetraining)
        self.callbacks += averaging_callbacks(options, self.progress)
        if not self.debug:
            monitor = best_column(fraction, options.optim.cp_metric, metric)
            self.callbacks.append(("checkpoint", BestCheckpoint(monitor, self._save)))
        self.callbacks += optional_callbacks(options, self.progress)
        if self.logger is not None:
            self.callbacks.append(("logger", self.logger))
        if not self.debug:
            written = EpochCheckpoint(self._save, self._folder_to_write, self.random_state)
            self.callbacks.append(("epochs", written))
        self.split = make_split(fraction, options.dataset.val_split_mode, options.cmd.seed)

    def load_skorch(self):
        """The skorch net."""
        optim = self.settings.optim
        self.net = PotentialNet(
            module=self.model,
            criterion=self.criterion,
            optimizer=self.optimizer,
            lr=optim.lr,
            batch_size=optim.batch_size,
            max_epochs=optim.epochs,
            train_split=self.split,
            callbacks=self.callbacks,
            device=self.device,
            verbose=int(self.settings.cmd.verbose and self.ranks.first),
            target_scaler=self.target_scaler,
            ranks=self.ranks,
            progress=self.progress,
            random=self.random_state,
            **iterators(self),
            **criterion_args(self.criterion, optim),
            **optimizer_args(optim, self.model.networks),
        )

    # --- training ---

    def train(self, raw_data=None, resume=False):
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

    def _train(self, raw_data, resume):
        if raw_data is not None:
            self._raw_data = raw_data
        if self.ranks.size > 1 and self.settings.model.batchnorm:
            raise ValueError(
                "model.batchnorm: each of several processes would see the mean of its own atoms; "
                "set it to False, or train in one process"
            )
        if self.ranks.size > 1 and self.settings.optim.optimizer is EKF:
            raise ValueError(
                "optim.optimizer: the Kalman filter corrects with one covariance, in one process; "
                "take another optimizer, or start one process"
            )
        run = None
        if resume:
            remove_if_empty(self._folder_to_write())
            run = self.ranks.tell(lambda: run_to_resume(resume, self.settings.cmd))
        if run is not None:
            with alone_in(run if self.ranks.first else None):
                self._fit(self._load_run(run))
            return
        if self.pretrained:
            with self._new_run():
                if raw_data is not None or self.train_dataset is None:
                    self.load_dataset()
        elif raw_data is not None or not self._loaded:
            self.load()
        with alone_in(self._folder_to_write()):
            self._fit(None)

    def _fit(self, state):
        """Train, from a `TrainingState` where there is one."""
        self._loaded = False
        start = time.perf_counter()
        if not self.net.initialized_:
            self.net.initialize()
        epochs = self.net.max_epochs
        if state is not None:
            epochs = state.epochs_left(epochs)
        try:
            self.net.partial_fit(self.train_dataset, None, epochs=epochs)
            check_sound(self.net, self.train_dataset)
        except Diverged as error:
            raise Diverged(f"{error}; {self._after_divergence()}") from error
        if self.ranks.first:
            logger.info("training took %.1f s", time.perf_counter() - start)

    def _after_divergence(self):
        """Keep the best epoch of a training that has diverged if it is sound, else nothing; return
        words about it."""
        if take_best(self.net, self.train_dataset):
            return f"the best parameters of the epochs before are kept, in {self.cp_dir}"
        if self.ranks.first and self.cp_dir is not None:
            shutil.rmtree(self.cp_dir, ignore_errors=True)
        self.cp_dir = None
        return "no epoch before was any better, so no checkpoint is kept"

    def _load_run(self, run):
        """`load` for a run that was begun; its last `TrainingState`, or None where it has none."""
        state = newest_state(run)
        if state is None:
            self.pretrained = False
            self.load_config()
        else:
            known = self._known_config() or state.checkpoint.config
            settings = settings_for(known, state.checkpoint)
            state.check_settings(settings)
            self._apply(settings)
            self._adopt(state.checkpoint)
        self.cp_dir, self.identifier = str(run), run.name
        self.load_rng_seed()
        self.load_logger()
        self.load_dataset()
        self._load_network()
        if state is not None:
            state.check_frames(self.train_dataset)
            dict(self.callbacks)["epochs"].start = state
            # Like the uninterrupted run: a further `train` starts where that would have.
            self.pretrained = state.first_epoch > 0
        return state

    @contextmanager
    def _new_run(self):
        """Make the folder of a run, to find out at once whether it can be written to; it goes
        again where the block fails."""
        remove_if_empty(self._folder_to_write())
        self.cp_dir = None
        if not self.debug:
            cmd = self.settings.cmd
            run = self.ranks.tell(lambda: new_run_folder(cmd.run_dir, cmd.identifier))
            self.cp_dir, self.identifier = str(run), run.name
        try:
            with alone_in(self._folder_to_write()):
                yield
        except BaseException:
            remove_if_empty(self._folder_to_write())
            self.cp_dir = None
            raise

    def _folder_to_write(self):
        """The run's folder, in the process that writes."""
        return self.cp_dir if self.ranks.first else None

    def load_pretrained(self, checkpoint_path=None, gpu2cpu=False):
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
        self._adopt(checkpoint)
        self.descriptor = construct_descriptor(self.descriptor_setup())
        self._load_network()
        checkpoint.load_params(self.model)
        self.net.initialize()
        resume_optimizer(self.net.optimizer_, optimizer, trained.optim, self.settings.optim)
        self.net.history = History(history)
        dataset = self.settings.dataset
        if any(given is not None for given in (dataset.raw_data, dataset.store, dataset.lmdb_path)):
            self.load_dataset()

    def _adopt(self, checkpoint):
        """Take what a checkpoint's parameters mean nothing without."""
        self.pretrained, self.train_dataset = True, None
        self.elements = checkpoint.elements
        self.feature_scaler = checkpoint.feature_scaler
        self.target_scaler = checkpoint.target_scaler

    # --- prediction ---

    @property
    def potential(self):
        """The `Potential` of the parameters as they are now."""
        if self.net is None or self.feature_scaler is None:
            raise ValueError("there is no model yet: call train() or load_pretrained() first")
        return Potential(
            self.descriptor,
            self.net.module,
            self.feature_scaler,
            self.target_scaler,
            self.dtype,
            self.device,
        )

    def predict(
        self, images, disable_tqdm=True, get_latent=None, get_descriptor=False, save_fps=False
    ):
        """Energies and forces of frames (list of Atoms, or what `read_images` reads), in order.

        Returns a dictionary: `energy` list of float, eV; `forces` list of (n_atoms, 3) arrays,
        eV/Å, empty ones where `model.get_forces` is False; `latent` with `get_latent=k`, list of
        the output of `model_net[k]` averaged over the atoms; `descriptors` with `get_descriptor`,
        list of scaled fingerprints (with `dataset.pca` their principal components) averaged over
        the atoms; `t_fingerPrint` and `t_forwardPass` in
        seconds. `save_fps` keeps the fingerprints on disk. For no frames at all it is an empty
        list, as in v1.0, with a warning.

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
                store=self.fingerprint_store() if save_fps else None,
                quiet=disable_tqdm,
            )

    def get_calc(self):
        """The ASE calculator of this trainer."""
        return AmpTorch(self)

    def _save(self, net, folder=None):
        """Write the checkpoint of the net as it is now, into the run's folder or another."""
        if not self.ranks.first:
            return
        dataset = replace(self.settings.dataset, elements=self.elements)
        save_checkpoint(
            folder or self.cp_dir,
            replace(self.settings, dataset=dataset),
            self.feature_scaler,
            self.target_scaler,
            net.module_.state_dict(),
            net.optimizer_.state_dict(),
            net.criterion_.state_dict(),
            net.history,
            self._history_text,
        )

    def descriptor_setup(self):
        """(fp_scheme, fp_params, cutoff_params, elements), which `construct_descriptor` takes."""
        options = self.settings.dataset
        return (options.fp_scheme, options.fp_params, options.cutoff_params, self.elements)

    def _make_descriptor(self):
        if self.elements is None:
            self.elements = self.settings.dataset.elements
        if self.elements is None:
            raise ValueError("without a data set, the config needs dataset.elements")
        self.descriptor = construct_descriptor(self.descriptor_setup())

    def fingerprint_store(self):
        """Where fingerprints are kept."""
        return FingerprintStore(Path(self.settings.cmd.run_dir) / STORE)
