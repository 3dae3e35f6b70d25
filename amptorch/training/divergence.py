"""Trainings that lead to NaN, or to errors without bound."""

import copy
import logging
import math
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from amptorch.data.protocol import Dataset
from amptorch.optimizers import Diverged
from amptorch.training.net import PotentialNet

# Largest mean squared error of energies, in units of their own mean square, of a net that is used.
LARGEST_ERROR = 1e12
MOST_RECOVERIES = 5
logger = logging.getLogger(__name__)


class StopWhenDiverged(Callback):
    """Raise `Diverged` at the first batch whose loss is NaN or infinite."""

    def on_batch_end(
        self,
        net: NeuralNet,
        loss: torch.Tensor | None = None,
        training: bool = False,
        **kwargs: Any,
    ) -> None:
        """Raise `Diverged` where the loss of this batch is not finite."""
        value = 0.0 if loss is None else loss.item()
        if not math.isfinite(value):
            where = "a batch" if training else "the validation"
            raise Diverged(
                f"the training has diverged: the loss of {where} in epoch {len(net.history)} is "
                f"{value}; lower optim.lr (it is {net.lr:g}), or take optim.optimizer Adam, "
                "dataset.scaling {'type': 'standardize'} and model.initialization 'small'"
            )


class RecoverWhenDiverged(Callback):
    """Go back to the best weights, with half of the learning rate, where a training has diverged.

    It has where a loss or a weight is not finite, or a loss `LARGEST_ERROR` times as large as the
    first. After `MOST_RECOVERIES` the training ends, as if it had been interrupted from the
    keyboard. The optimizer begins anew; weight averages go on. Comes before the other callbacks.

    monitor : column of the history that says whether an epoch is the best so far

    Attributes: `recoveries_`, how often it had to. A resumed training goes on with it.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget the training before."""
        self.best_: dict[str, torch.Tensor] | None = None
        self.first_: float | None = None
        self.recoveries_ = 0

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the weights where the epoch before was the best so far, or none is kept."""
        before = net.history[-2] if len(net.history) > 1 else {}
        if self.best_ is None or before.get(self.monitor):
            self.best_ = copy.deepcopy(net.module_.state_dict())

    def on_batch_end(
        self,
        net: NeuralNet,
        loss: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Recover where this batch shows that the training has diverged."""
        value = 0.0 if loss is None else loss.item()
        if self.first_ is None and math.isfinite(value):
            self.first_ = max(1.0, value)
        finite = all(bool(torch.isfinite(p).all()) for p in net.module_.parameters())
        if finite and self.first_ is not None and value <= LARGEST_ERROR * self.first_:
            return
        net.module_.load_state_dict(self.best_)
        epoch = len(net.history)
        if self.recoveries_ == MOST_RECOVERIES:
            logger.warning("the training has diverged again, in epoch %d, and ends", epoch)
            raise KeyboardInterrupt
        self.recoveries_ += 1
        net.optimizer_.state.clear()
        for group in net.optimizer_.param_groups:
            for name in {"lr", "initial_lr"} & group.keys():
                group[name] *= 0.5
        scheduler: Any = getattr(dict(net.callbacks_).get("lr_scheduler"), "lr_scheduler_", None)
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [0.5 * lr for lr in scheduler.base_lrs]
        logger.warning(
            "the training has diverged in epoch %d; it goes on from the best weights with half of "
            "the learning rate, %.3g (%d of at most %d times)",
            *(epoch, net.optimizer_.param_groups[0]["lr"], self.recoveries_, MOST_RECOVERIES),
        )


def is_usable(net: PotentialNet, dataset: Dataset) -> bool:
    """Return whether the energies that a net predicts are finite and not wrong without bound.

    They are those of one batch of `dataset`. Their error may be at most a million times as large
    as if all were predicted as the mean.
    """
    batch, targets = next(iter(net.get_iterator(dataset)))
    net.module.eval()
    with torch.no_grad():
        energy = net.infer(batch)[0]
    expected = targets[0].to(net.device)
    usual = max(1.0, float(expected.square().mean()))
    return bool((energy - expected).square().double().mean() <= LARGEST_ERROR * usual)


def check_usable(net: PotentialNet, dataset: Dataset) -> None:
    """Raise `Diverged` unless `is_usable`."""
    if not is_usable(net, dataset):
        raise Diverged(
            "the training has diverged: what it predicts for the frames that it was trained on is "
            f"of no meaning; lower optim.lr (it is {net.lr:g})"
        )


def load_best_parameters(net: PotentialNet, dataset: Dataset) -> bool:
    """Load the parameters of the best epoch into a net whose training has diverged.

    Return whether there are such parameters and they can be used.
    """
    best = getattr(dict(net.callbacks_).get("checkpoint"), "best_", None)
    if best is None:
        return False
    net.module.load_state_dict(best)
    return is_usable(net, dataset)
