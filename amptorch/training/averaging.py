"""Averages of the weights over the course of a training."""

import torch
from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn


class WeightAveraging(Callback):
    """Validates, keeps and predicts with an average of the weights, while the weights themselves
    are trained on.

    kind : "ema", an exponential average over the batches, which forgets with
        min(`decay`, (1 + n) / (10 + n)) after n of them; or "swa", the mean of the weights at the
        ends of the epochs in the last `share` of the training
    progress : the `Progress` of the training

    P. Izmailov et al., UAI 2018, arXiv:1803.05407. Running statistics of batch norm are averaged
    like weights. From validation until the next epoch begins the module has the average, and
    `trained_` the weights; comes before whatever looks at the module when an epoch ends.
    """

    def __init__(self, kind, progress, decay=0.999, share=0.25):
        self.kind = kind
        self.progress = progress
        self.decay = decay
        self.share = share

    def on_train_begin(self, net, **kwargs):
        average = get_swa_avg_fn() if self.kind == "swa" else self._exponential
        self.average_ = AveragedModel(net.module_, avg_fn=average, use_buffers=True)
        self.trained_ = None

    def on_epoch_begin(self, net, **kwargs):
        if self.trained_ is not None:
            _copy(self.trained_, net.module_)
            self.trained_ = None
            net.align()

    def on_batch_begin(self, net, training=False, **kwargs):
        if not training:
            self._show_average(net)

    def on_batch_end(self, net, training=False, **kwargs):
        if training and self.kind == "ema":
            self.average_.update_parameters(net.module_)

    def on_epoch_end(self, net, **kwargs):
        self._show_average(net)

    def on_train_end(self, net, **kwargs):
        self._show_average(net)

    def _show_average(self, net):
        """Give the module the average, unless it has it or there is none yet."""
        if self.trained_ is not None:
            return
        if self.kind == "swa" and self._in_tail(net):
            self.average_.update_parameters(net.module_)
        if self.average_.n_averaged > 0:
            state = net.module_.state_dict()
            self.trained_ = {name: tensor.clone() for name, tensor in state.items()}
            _copy(self.average_.module.state_dict(), net.module_)

    def _in_tail(self, net):
        """Whether the epoch that is ending belongs to the last share of the training."""
        epochs = net.max_epochs
        ending = self.progress.share(epochs) + 1 / max(epochs, 1)
        return ending > 1 - self.share

    def _exponential(self, average, weights, number):
        n = int(number)
        return weights + min(self.decay, (1 + n) / (10 + n)) * (average - weights)


@torch.no_grad()
def _copy(state, module):
    for name, tensor in module.state_dict().items():
        tensor.copy_(state[name])
