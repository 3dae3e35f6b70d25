"""The skorch net that trains a potential."""

import torch
from skorch import NeuralNetRegressor

from amptorch.dataset import Batch


class PotentialNet(NeuralNetRegressor):
    """skorch's net for batches of frames and targets [energy, forces].

    `target_scaler` turns errors of scaled targets into eV and eV/Å for the scores.
    """

    def __init__(self, module, *args, target_scaler=None, **kwargs):
        super().__init__(module, *args, **kwargs)
        self.target_scaler = target_scaler

    def infer(self, x, **fit_params):
        """(energy, forces) of a batch, scaled."""
        return self.module_(to_tensor(x, self.device), **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Loss of a batch; y_true is [energy, forces], scaled."""
        return self.criterion_(y_pred, to_tensor(y_true, self.device))


def to_tensor(X, device, accept_sparse=False):
    """A batch, tensors or arrays, also in tuples and lists, as tensors on `device`."""
    if isinstance(X, Batch):
        return X.to(device)
    if isinstance(X, (tuple, list)):
        return type(X)(to_tensor(x, device) for x in X)
    return torch.as_tensor(X).to(device)
