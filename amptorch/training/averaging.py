"""Averages of the weights over the course of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from skorch.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from amptorch.training.net import PotentialNet
    from amptorch.training.progress import Progress


class WeightAveraging(Callback):
    """Validate, save and predict with an average of the weights; train the weights themselves.

    kind : "ema", an exponential average over the batches, which forgets with
        min(`decay`, (1 + n) / (10 + n)) after n of them; or "swa", the mean of the weights at the
        ends of the epochs in the last `share` of the training
    progress : the `Progress` of the training

    P. Izmailov et al., UAI 2018, arXiv:1803.05407. Running statistics of batch norm are averaged
    like weights. The module has the average from the validation until the next epoch begins;
    `trained_` has the weights meanwhile. This callback comes before all that use the module at
    the end of an epoch.
    """

    def __init__(
        self, kind: str, progress: Progress, decay: float = 0.999, share: float = 0.25
    ) -> None:
        self.kind = kind
        self.progress = progress
        self.decay = decay
        self.share = share

    def on_train_begin(self, net: PotentialNet, **kwargs: Any) -> None:
        """Start an average without any weights in it."""
        self.average_ = AveragedModel(net.module_)
        self.trained_: dict[str, torch.Tensor] | None = None
        # (average, weights) of each tensor: to look for them takes longer than to add them.
        self._pairs = list(zip(_tensors(self.average_.module), _tensors(net.module_), strict=True))

    def on_epoch_begin(self, net: PotentialNet, **kwargs: Any) -> None:
        """Give the module its own weights back."""
        if self.trained_ is not None:
            _copy_state(self.trained_, net.module_)
            self.trained_ = None
            net.align()

    def on_batch_begin(self, net: PotentialNet, training: bool = False, **kwargs: Any) -> None:
        """Load the average before the validation."""
        if not training:
            self._load_average(net)

    def on_batch_end(self, net: PotentialNet, training: bool = False, **kwargs: Any) -> None:
        """Add the weights after each batch to an exponential average."""
        if training and self.kind == "ema":
            self._add_weights()

    def on_epoch_end(self, net: PotentialNet, **kwargs: Any) -> None:
        """Load the average, also where there are no validation frames."""
        self._load_average(net)

    def on_train_end(self, net: PotentialNet, **kwargs: Any) -> None:
        """Leave the average in the module."""
        self._load_average(net)

    def _load_average(self, net: PotentialNet) -> None:
        """Load the average into the module, unless it is there already or there is none yet."""
        if self.trained_ is not None:
            return
        if self.kind == "swa" and self._in_last_share(net):
            self._add_weights()
        if self.average_.n_averaged > 0:
            state = net.module_.state_dict()
            self.trained_ = {name: tensor.clone() for name, tensor in state.items()}
            _copy_state(self.average_.module.state_dict(), net.module_)

    def _in_last_share(self, net: PotentialNet) -> bool:
        """Return whether this epoch belongs to the last `share` of the training."""
        epochs = net.max_epochs
        ending = self.progress.share(epochs) + 1 / max(epochs, 1)
        return ending > 1 - self.share

    @torch.no_grad()
    def _add_weights(self) -> None:
        """Add the weights to the average, after `n` times before."""
        n = int(self.average_.n_averaged)
        kept = n / (n + 1) if self.kind == "swa" else min(self.decay, (1 + n) / (10 + n))
        for average, weights in self._pairs:
            if n and average.is_floating_point():
                average.lerp_(weights, 1 - kept)
            else:
                average.copy_(weights)
        self.average_.n_averaged += 1


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    """Return the parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


@torch.no_grad()
def _copy_state(state: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    """Copy a state dict into the tensors of a module."""
    for name, tensor in module.state_dict().items():
        tensor.copy_(state[name])
