"""The skorch net that trains a potential."""

import inspect
from itertools import takewhile

import torch
from skorch import NeuralNetRegressor
from skorch.utils import to_device

from amptorch.data.batch import Batch
from amptorch.data.loader import BatchLoader
from amptorch.optimizers import EKF
from amptorch.training.callbacks import EpochTable
from amptorch.training.kalman import kalman_step
from amptorch.training.ranks import Ranks


class PotentialNet(NeuralNetRegressor):
    """skorch's net for batches of frames and targets [energy, forces].

    `target_scaler` turns errors of scaled targets into eV and eV/Å for the scores. `ranks`: the
    `Ranks` that train together; losses and scores are those of whole batches in every process.
    `progress`: the `Progress` of the training, which ends with its time. `random`: the
    `RandomState` that is drawn from.
    """

    def __init__(
        self, module, *args, target_scaler=None, ranks=None, progress=None, random=None, **kwargs
    ):
        super().__init__(module, *args, **kwargs)
        self.target_scaler = target_scaler
        self.ranks = ranks
        self.progress = progress
        self.random = random

    def get_iterator(self, dataset, training=False):
        """skorch's; what a `BatchLoader` draws follows from the number of epochs that are over."""
        iterator = super().get_iterator(dataset, training)
        if isinstance(iterator, BatchLoader):
            iterator.epoch = lambda: len(self.history)
        return iterator

    def infer(self, x, **fit_params):
        """(energy, forces) of a batch, scaled. Under several ranks each does its share, so that all
        have to call it."""

        def evaluate(part):
            return self.module_(to_tensor(part, self.device), **fit_params)

        return self._ranks.evaluate(x, evaluate)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Loss of a batch; y_true is [energy, forces], scaled."""
        return self.criterion_(y_pred, to_tensor(y_true, self.device))

    def train_step(self, batch, **fit_params):
        """skorch's, or a step of the Kalman filter, which no gradient of the loss is for."""
        if isinstance(self.optimizer_, EKF):
            self._set_training(True)
            return kalman_step(self, batch)
        return super().train_step(batch, **fit_params)

    def train_step_single(self, batch, **fit_params):
        """skorch's, with the gradients of all ranks."""
        step = super().train_step_single(batch, **fit_params)
        self._ranks.sum_gradients(self.module_.parameters())
        return step

    @property
    def _default_callbacks(self):
        callbacks = dict(super()._default_callbacks)
        return list({**callbacks, "print_log": EpochTable()}.items())

    def run_single_epoch(self, iterator, training, *args, **kwargs):
        """skorch's; of an epoch in which the time is over, the rest is left out."""
        if training and self.progress is not None:
            iterator = takewhile(lambda _: not self.progress.over, iterator)
        super().run_single_epoch(iterator, training, *args, **kwargs)

    def forward_iter(self, X, training=False, device="cpu"):
        """skorch's; predictions come in the order of the frames, from any data set."""
        if training:
            yield from super().forward_iter(X, training, device)
            return
        iterator = self.get_iterator(self.get_dataset(X))
        if isinstance(iterator, BatchLoader):
            # Out of a store, batches have their share of every part of it.
            iterator = iterator.in_order()
        for batch in iterator:
            yield to_device(self.evaluation_step(batch), device)

    def on_epoch_begin(self, net, **kwargs):
        if self.progress is not None and self.progress.over:
            # Before the epoch is in the history; skorch ends the training.
            raise KeyboardInterrupt
        self._forget_batches()
        super().on_epoch_begin(net, **kwargs)
        self.align()

    def on_train_end(self, net, **kwargs):
        super().on_train_end(net, **kwargs)
        self._forget_batches()

    def _forget_batches(self):
        """Keep of the epoch that is over its own values: those of its batches, of which skorch has
        made them, would grow with frames times epochs."""
        if self.history:
            self.history[-1]["batches"] = []

    def align(self):
        """Give all ranks the parameters, and the random numbers, of the first."""
        self._ranks.align(self.module_, self.random)

    @property
    def _ranks(self):
        return Ranks() if self.ranks is None else self.ranks


def criterion_args(criterion, optim):
    """force_coefficient and loss of the section `optim`, as far as the criterion takes them."""
    given = {"force_coefficient": optim.force_coefficient, "loss": optim.loss}
    taken = inspect.signature(criterion).parameters
    return {f"criterion__{name}": value for name, value in given.items() if name in taken}


def optimizer_args(optim, networks):
    """Arguments of the optimizer by skorch's names, from those of the section `optim`, which are
    such names or the optimizer's own.

    For the Kalman filter the parameters of each of the `networks`, patterns of names, are a group
    of their own, unless `decoupled` is False.
    """
    prefix = "optimizer__"
    arguments = {name.removeprefix(prefix): value for name, value in optim.optimizer_args.items()}
    if optim.optimizer is EKF and arguments.pop("decoupled", True):
        arguments.setdefault("param_groups", [(pattern, {}) for pattern in networks])
    return {f"{prefix}{name}": value for name, value in arguments.items()}


def to_tensor(X, device, accept_sparse=False):
    """A batch, tensors or arrays, also in tuples and lists, as tensors on `device`."""
    if isinstance(X, Batch):
        return X.to(device)
    if isinstance(X, (tuple, list)):
        return type(X)(to_tensor(x, device) for x in X)
    return torch.as_tensor(X).to(device)
