"""The skorch net that trains a potential."""

import inspect

import torch
from skorch import NeuralNetRegressor
from skorch.dataset import unpack_data

from amptorch.dataset import Batch
from amptorch.optimizers import EKF
from amptorch.trainer.kalman import kalman_step
from amptorch.trainer.ranks import Ranks


class PotentialNet(NeuralNetRegressor):
    """skorch's net for batches of frames and targets [energy, forces].

    `target_scaler` turns errors of scaled targets into eV and eV/Å for the scores. `ranks`: the
    `Ranks` that train together; losses and scores are those of whole batches in every process.
    """

    def __init__(self, module, *args, target_scaler=None, ranks=None, **kwargs):
        super().__init__(module, *args, **kwargs)
        self.target_scaler = target_scaler
        self.ranks = ranks

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
            return kalman_step(self, batch)
        return super().train_step(batch, **fit_params)

    def train_step_single(self, batch, **fit_params):
        """skorch's, with the gradients of all ranks."""
        self._set_training(True)
        step = self._step(batch, True, fit_params)
        step["loss"].backward()
        self._ranks.sum_gradients(self.module_.parameters())
        return step

    def validation_step(self, batch, **fit_params):
XX
    def on_epoch_begin(self, net, **kwargs):
        super().on_epoch_begin(net, **kwargs)
        self._ranks.align(self.module_)

    @property
    def _ranks(self):
        return Ranks() if self.ranks is None else self.ranks


def criterion_args(criterion, optim):
    """force_coefficient and loss of the section `optim`, as far as the criterion takes them."""
    given = {"force_coefficient": optim.force_coefficient, "loss": optim.loss}
    taken = inspect.signature(criterion).parameters
    return {f"criterion__{name}": value for name, value in given.items() if name in taken}


def optimizer_args(arguments, networks):
    """Arguments of the optimizer by skorch's names, from such names or the optimizer's own.

    `decoupled` makes a group of parameters of each of the `networks`, patterns of names.
    """
    prefix = "optimizer__"
    arguments = {name.removeprefix(prefix): value for name, value in arguments.items()}
    if arguments.pop("decoupled", False):
        arguments["param_groups"] = [(pattern, {}) for pattern in networks]
    return {f"{prefix}{name}": value for name, value in arguments.items()}


def to_tensor(X, device, accept_sparse=False):
    """A batch, tensors or arrays, also in tuples and lists, as tensors on `device`."""
    if isinstance(X, Batch):
        return X.to(device)
    if isinstance(X, (tuple, list)):
        return type(X)(to_tensor(x, device) for x in X)
    return torch.as_tensor(X).to(device)
