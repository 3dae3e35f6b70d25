"""Trainings that lead to NaN, or to errors without bound."""

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


def is_usable(net: PotentialNet, dataset: Dataset) -> bool:
    """Return whether the energies that a net predicts are finite and not wrong without bound.

    They are those of one batch of `dataset`. Their error may be at most a million times as large
    as if all were predicted as the mean.
    """
    batch, targets = next(iter(net.get_iterator(dataset)))
    net.module.eval()
    with torch.no_grad():
        energy, _ = net.infer(batch)
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
