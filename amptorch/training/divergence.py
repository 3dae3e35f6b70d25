"""Trainings that lead to NaN, or beyond all bounds."""

import math

import torch
from skorch.callbacks import Callback

from amptorch.optimizers import Diverged

# Squared errors of energies, in units of their own mean square, beyond which they mean nothing.
MEANINGLESS = 1e12


class StopWhenDiverged(Callback):
    """Raises `Diverged` at the first batch whose loss is NaN or infinite."""

    def on_batch_end(self, net, loss=None, training=False, **kwargs):
        loss = 0.0 if loss is None else loss.item()
        if not math.isfinite(loss):
            where = "a batch" if training else "the validation"
            raise Diverged(
                f"the training has diverged: the loss of {where} in epoch {len(net.history)} is "
                f"{loss}; lower optim.lr (it is {net.lr:g}), or take optim.optimizer Adam, "
                "dataset.scaling {'type': 'standardize'} and model.initialization 'small'"
            )


def is_sound(net, dataset):
    """Return whether a net predicts energies of a batch of `dataset` that are finite and at most a
    million times as far off as if all were the mean."""
    batch, targets = next(iter(net.get_iterator(dataset)))
    net.module.eval()
    with torch.no_grad():
        energy, _ = net.infer(batch)
    expected = targets[0].to(net.device)
    usual = max(1.0, float(expected.square().mean()))
    return bool((energy - expected).square().double().mean() <= MEANINGLESS * usual)


def check_sound(net, dataset):
    """Raise `Diverged` unless `is_sound`."""
    if not is_sound(net, dataset):
        raise Diverged(
            "the training has diverged: what it predicts for the frames that it was trained on is "
            f"of no meaning; lower optim.lr (it is {net.lr:g})"
        )


def take_best(net, dataset):
    """Load the parameters of the best epoch back into a net whose training has diverged; return
    whether there are such parameters that are sound."""
    best = getattr(dict(net.callbacks_).get("checkpoint"), "best_", None)
    if best is None:
        return False
    net.module.load_state_dict(best)
    return is_sound(net, dataset)
