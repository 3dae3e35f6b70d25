"""Energies of atoms and their gradients by numpy, without autograd: what a step of dynamics takes.

Networks here are a few small matrices. Of the 0.7 ms that 164 atoms take through autograd, the
arithmetic is a tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model import activations
from amptorch.model.atomic import AtomicModel
from amptorch.model.layers import Layer, layers_of
from amptorch.threads import blas_threads

# Of z, an activation and its derivative.
Activation: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def energies_and_gradient(model: AtomicModel, batch: Batch) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the energies (n,), scaled, of the atoms of a batch and the gradient (n, S) of their
    sum with respect to its fingerprint.

    None for a model that is not in double precision on the CPU, or has activations not known here.
    """
    if batch.fingerprint.dtype != torch.float64 or batch.fingerprint.device.type != "cpu":
        return None
    x = batch.fingerprint.detach().numpy()
    energies, gradient = np.zeros(len(x)), np.zeros(x.shape)
    with blas_threads(1):
        for network, rows, weights in model.groups(batch):
            layers = layers_of(network)
            if weights is not None or any(kind not in ACTIVATIONS for *_, kind in layers):
                return None
            if rows is None:
                energies, gradient = _evaluated(layers, x)
            else:
                own = rows.numpy()
                energies[own], gradient[own] = _evaluated(layers, x[own])
    return energies, gradient


def _evaluated(layers: list[Layer], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs (n,) of a network with one output, and their gradient (n, S)."""
    slopes: list[np.ndarray | None] = []
    for weight, bias, kind in layers:
        x = x @ weight.T
        x += bias
        slope = None
        if kind is not nn.Identity:
            x, slope = ACTIVATIONS[kind](x)
        slopes.append(slope)
    gradient = np.ones((len(x), 1))
    for (weight, _, _), slope in zip(reversed(layers), reversed(slopes), strict=True):
        gradient = (gradient if slope is None else gradient * slope) @ weight
    return x[:, 0], gradient


def _tanh(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.tanh(z)
    return y, 1.0 - y * y


def _sigmoid(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # exp of a number above 0 may be infinite.
    small = np.exp(-np.abs(z))
    y = np.where(z >= 0, 1.0, small) / (1.0 + small)
    return y, y * (1.0 - y)


def _reverse_logistic(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, slope = _sigmoid(-z)
    return y, -slope


def _softplus(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = np.exp(-np.abs(z))
    return np.maximum(z, 0.0) + np.log1p(small), np.where(z >= 0, 1.0, small) / (1.0 + small)


def _softplus_of_torch(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, slope = _softplus(z)
    return np.where(z > 20, z, y), np.where(z > 20, 1.0, slope)


def _silu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, slope = _sigmoid(z)
    return z * y, y + z * slope


def _relu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(z, 0.0), (z > 0).astype(np.float64)


def _identity(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return z, np.ones(z.shape)


def _gauss(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.exp(-0.5 * z * z)
    return y, -z * y


def _cosine(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(z), -np.sin(z)


def _exponential(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.exp(-z)
    return y, -y


def _harmonic(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return z * z, 2.0 * z


# Classes as they are without arguments: networks have no others.
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.SiLU: _silu,
    nn.ReLU: _relu,
    nn.Softplus: _softplus_of_torch,
    nn.Identity: _identity,
    activations.ExactSoftplus: _softplus,
    activations.Gauss: _gauss,
    activations.Cosine: _cosine,
    activations.ReverseLogistic: _reverse_logistic,
    activations.Exponential: _exponential,
    activations.Harmonic: _harmonic,
}
