"""What happens during training besides training."""

import copy
import os
import sys

from skorch.callbacks import Callback, EarlyStopping, LRScheduler, PrintLog, WandbLogger

from amptorch.checks import COSINE_TIME
from amptorch.metrics import best_column
from amptorch.training.averaging import WeightAveraging
from amptorch.training.progress import CosineTime


class BestCheckpoint(Callback):
    """Saves the net whenever `monitor` has improved, and loads the best parameters back at the end,
    also where training was interrupted or stopped early.

    monitor: column of the history that says so, such as "val_energy_mae_best". save: called with
    the net. Records `event_cp` in the history.
    """

    def __init__(self, monitor, save):
        self.monitor = monitor
        self.save = save

    def initialize(self):
        self.best_ = None
        return self

    def on_train_begin(self, net, **kwargs):
        self.best_ = None

    def on_epoch_end(self, net, **kwargs):
        improved = bool(net.history[-1, self.monitor])
        net.history.record("event_cp", improved)
        if improved:
            self.best_ = copy.deepcopy(net.module_.state_dict())
            self.save(net)

    def on_train_end(self, net, **kwargs):
        if self.best_ is not None:
            net.module_.load_state_dict(self.best_)


def averaging_callbacks(config, progress):
    """(name, callback) pairs of weight averaging and of `progress`, the `Progress` of a training;
    they come before the checkpoint."""
    averaging = config.optim.averaging
    callbacks = [("progress", progress)]
    if averaging is not None:
        callbacks.insert(0, ("averaging", WeightAveraging(progress=progress, **averaging)))
    return callbacks


def optional_callbacks(config, progress):
    """(name, callback) pairs of the learning rate scheduler and of early stopping, where `config`
    (a `Config`) asks for them."""
    callbacks = []
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
    """Logs the history to a run of Weights and Biases, which starts when training does.

    name: called for the name of the run. config: dictionary shown with it. Raises ValueError where
    the package wandb is not installed.
    """

    def __init__(self, name, config):
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

    def on_train_begin(self, net, **kwargs):
        self.wandb_run = self.init_(name=self.name(), config=self.config)
        super().on_train_begin(net, **kwargs)


class EpochTable(PrintLog):
    """skorch's table of the epochs. The best values are coloured on a terminal alone, and there not
    with NO_COLOR (no-color.org)."""

    def format_row(self, row, key, color):
        # Without its mark a best value is like any other.
        shown = row if _in_colours() else {key: row[key]}
        return super().format_row(shown, key, color)


def _in_colours():
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
