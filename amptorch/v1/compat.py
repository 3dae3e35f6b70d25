"""Offer helpers of the training and attributes of the trainer that scripts for v1.0 use."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from skorch.callbacks import Callback

from amptorch.frames import Frames, elements_of
from amptorch.v1.collate import DataCollater
from amptorch.v1.parallel import ParallelCollater

logger = logging.getLogger(__name__)


def _setting(section: str, key: str) -> property:
    """Return a property that reads `settings.<section>.<key>`."""
    return property(lambda trainer: getattr(getattr(trainer.settings, section), key))


class AttributesOfV1:
    """Give a trainer v1.0's names of what its `settings` and other attributes hold."""

    settings: Any
    descriptor: Any
    device: Any
    identifier: str | None
    forcetraining: bool
    target_scaler: Any

    fp_scheme = _setting("dataset", "fp_scheme")
    fp_params = _setting("dataset", "fp_params")
    cutoff_params = _setting("dataset", "cutoff_params")
    save_fps = _setting("dataset", "save_fps")
    val_split = _setting("dataset", "val_split")
    split_mode = _setting("dataset", "val_split_mode")
    gpus = _setting("optim", "gpus")

    @property
    def input_dim(self) -> Any:
        """Return the number of inputs of the network; None before there is a descriptor."""
        if self.settings.dataset.pca is not None:
            return self.settings.dataset.pca["num_pc"]
        return None if self.descriptor is None else self.descriptor.n_features

    @input_dim.setter
    def input_dim(self, value: Any) -> None:
        """Take what v1.0 had to be told before `load(load_dataset=False)`; the descriptor says it
        here."""

    def get_unique_elements(self, training_images: Any) -> list[str]:
        """Return the symbols of the elements in a list of ase.Atoms, sorted."""
        return elements_of(Frames.from_atoms(training_images))

    @property
    def output_device(self) -> int:
        """Return the number of the GPU, as torch counts them: -1 on the CPU."""
        return -1 if self.device.type == "cpu" else self.device.index or 0

    @property
    def timestamp(self) -> str | None:
        """Return when the run began, YYYY-MM-DD-HH-MM-SS; None before."""
        return None if self.identifier is None else self.identifier[:19]

    @property
    def parallel_collater(self) -> ParallelCollater:
        """Return the `ParallelCollater` of training batches."""
        return ParallelCollater(self.gpus, DataCollater(True, self.forcetraining))

    @property
    def atomic_correction_scaler(self) -> Any:
        """Return the `AtomicCorrectionScaler`, where `dataset.atomic_correction` asked for one."""
        return None if self.target_scaler is None else self.target_scaler.atomic


def save_normalizers(normalizers: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write {"target": TargetScaler, "feature": FeatureScaler} as JSON, as checkpoints do."""
    states = {name: scaler.state() for name, scaler in normalizers.items()}
    Path(path).write_text(json.dumps(states, indent=1), encoding="utf8")


class train_end_load_best_loss(Callback):
    """Load `params.pt` of a checkpoint folder when training ends.

    filename: the folder, or the name of one under `./checkpoints`.
    """

    def __init__(self, filename: str | os.PathLike[str]):
        self.filename = filename

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        folder = Path(self.filename)
        if not folder.is_dir():
            folder = Path("checkpoints") / folder
        net.load_params(f_params=os.fspath(folder / "params.pt"))


class check_memory(Callback):
    """Log, after each batch, the largest memory that this process has had so far.

    Attribute: `peak_`, MB, that of the last batch.
    """

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_ = peak / (1e6 if sys.platform == "darwin" else 1e3)
        logger.info("largest memory so far: %.0f MB", self.peak_)
