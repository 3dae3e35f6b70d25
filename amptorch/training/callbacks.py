"""Callbacks of a training: best checkpoint, learning rate, early stopping, log."""

import copy
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from ase.units import GPa
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, PrintLog, WandbLogger

from amptorch.checks import COSINE_TIME
from amptorch.config import Config
from amptorch.metrics import best_column
from amptorch.training.averaging import WeightAveraging
from amptorch.training.progress import CosineTime, Progress

NamedCallback = tuple[str, Callback]
# In what the epoch table shows an error, and how many of it are one of the history's.
UNITS = {
    "energy_per_atom": ("meV/atom", 1000.0),
    "forces": ("eV/Å", 1.0),
    "stress": ("GPa", 1 / GPa),
}
# Share of a training's time from one epoch that is printed to the next.
PRINTED = 0.01


class BestCheckpoint(Callback):
    """Save the net whenever it is better than before; load the best parameters back at the end.

    They are loaded back also where the training was interrupted or stopped early. Records
    `event_cp` in the history.

    monitor : column of the history that says whether an epoch is the best so far, such as
        "val_energy_mae_best"
    save : called with the net
    """

    def __init__(self, monitor: str, save: Callable[[Any], None]) -> None:
        self.monitor = monitor
        self.save = save

    def initialize(self) -> "BestCheckpoint":
        """Begin without best parameters."""
        self.best_: dict[str, Any] | None = None
        return self

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget the best parameters of a training before."""
        self.best_ = None

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the parameters, and save the net, where this epoch is the best so far."""
        improved = bool(net.history[-1, self.monitor])
        net.history.record("event_cp", improved)
        if improved:
            self.best_ = copy.deepcopy(net.module_.state_dict())
            # Of several networks the first is a potential already; the others are parts of one.
            if not getattr(dict(net.callbacks_).get("committee"), "parts_", None):
                self.save(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Load the best parameters."""
        if self.best_ is not None:
            net.module_.load_state_dict(self.best_)


def averaging_callbacks(config: Config, progress: Progress) -> list[NamedCallback]:
    """Return the callbacks of weight averaging and of `progress`, which come before the checkpoint.

    They are (name, callback) pairs.
    """
    averaging = config.optim.averaging
    callbacks: list[NamedCallback] = [("progress", progress)]
    if averaging is not None:
        callbacks.insert(0, ("averaging", WeightAveraging(progress=progress, **averaging)))
    return callbacks


def optional_callbacks(config: Config, progress: Progress) -> list[NamedCallback]:
    """Return the callbacks of the learning rate and of early stopping that `config` asks for.

    They are (name, callback) pairs.
    """
    callbacks: list[NamedCallback] = []
    optim, cmd = config.optim, config.cmd
    if optim.scheduler is not None:
        policy, params = optim.scheduler["policy"], optim.scheduler["params"]
        if policy == COSINE_TIME:
            scheduler = CosineTime(progress, **params)
        else:
            scheduler = LRScheduler(policy, **params)
        callbacks.append(("lr_scheduler", scheduler))
    if cmd.early_stopping:
        column = best_column(config.dataset.val_split, optim.cp_metric, optim.metric)
        stopping = EarlyStopping(column.removesuffix("_best"), patience=cmd.early_stopping_patience)
        callbacks.append(("early_stopping", stopping))
    return callbacks


class WandbRun(WandbLogger):
    """Log the history to a run of Weights and Biases, which starts when the training does.

    name : called for the name of the run
    config : dictionary that is shown with it

    Raises ValueError where the package wandb is not installed.
    """

    def __init__(self, name: Callable[[], str | None], config: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                "cmd.logger is True, but the package wandb is not installed; "
                "`pip install wandb`, or set cmd.logger to False"
            ) from error
        super().__init__(None, save_model=False)
        self.name = name
        self.config = config
        self.init_ = wandb.init

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Start the run."""
        self.wandb_run = self.init_(name=self.name(), config=self.config)
        super().on_train_begin(net, **kwargs)


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the history with the errors as they are printed, by the columns' names."""
    shown = {}
    for key, value in row.items():
        found = re.fullmatch(
            r"(train|val)_(energy|energy_per_atom|forces|stress|both)_(mae|mse)(_best)?", key
        )
        if found is None:
            shown[key] = value
            continue
        part, quantity, metric, best = found.groups()
        if quantity in ("energy", "both"):
            continue
        unit, factor = UNITS[quantity]
        name = f"{part} {unit} {'RMSE' if metric == 'mse' else 'MAE'}"
        if best:
            shown[f"{name}_best"] = value
        else:
            shown[name] = factor * (math.sqrt(value) if metric == "mse" else value)
    return shown


class EpochTable(PrintLog):
    """Print skorch's table of the epochs, with errors in meV/atom, eV/Å and GPa.

    They are root mean square errors where `optim.metric` is "mse", else mean absolute ones, and
    those of the history. Where the training has a time, in which there may be thousands of epochs,
    one is printed for each hundredth of it, and the last. The best values are coloured on a
    terminal only, and not where NO_COLOR is set (no-color.org).
    """

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the first epoch, whenever it ends."""
        self.next, self.left_out = 0.0, False

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print an epoch, if it is its turn."""
        timed = net.progress is not None and net.progress.seconds is not None
        share = net.progress.share(net.max_epochs) if timed else 1.0
        self.left_out = share < self.next
        if not self.left_out:
            self.next = min(1.0, share + PRINTED)
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the last epoch of a training that was ended before its time."""
        if self.left_out:
            super().on_epoch_end(net, **kwargs)

    def table(self, row: dict[str, Any]) -> str:
        """Return the text of an epoch, with its header."""
        return super().table(readable(row))

    def format_row(self, row: dict[str, Any], key: str, color: str) -> str:
        """Return the text of one value of an epoch."""
        # Without its mark a best value is like any other.
        shown = row if _colours_allowed() else {key: row[key]}
        return super().format_row(shown, key, color)


def _colours_allowed() -> bool:
    """Return whether the output may have colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
