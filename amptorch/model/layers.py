"""Networks as lists of layers: to evaluate them by numpy, and to write them for other programs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from amptorch.model.mlp import MLP, BatchNorm, Dropout


class Layer(NamedTuple):
    """Hold W x + b, W (n_out, n_in), and the class of the activation that follows it."""

    weight: np.ndarray
    bias: np.ndarray
    activation: type[nn.Module]


def layers_of(network: MLP) -> list[Layer]:
    """Return the layers of a network as it predicts, in double precision: batch norm is in the
    weights, dropout is left out. Arrays are those of the parameters, or made of them."""
    layers: list[Layer] = []
    for layer in network.model_net:
        if isinstance(layer, nn.Linear):
            layers.append(Layer(_array(layer.weight), _array(layer.bias), nn.Identity))
        elif isinstance(layer, BatchNorm):
            slope = _array(layer.weight) / np.sqrt(_array(layer.running_var) + layer.eps)
            weight, bias, activation = layers[-1]
            shifted = slope * (bias - _array(layer.running_mean)) + _array(layer.bias)
            layers[-1] = Layer(slope[:, None] * weight, shifted, activation)
        elif not isinstance(layer, Dropout):
            layers[-1] = layers[-1]._replace(activation=type(layer))
    return layers


def _array(tensor: torch.Tensor | Any) -> np.ndarray:
    return tensor.numpy(force=True).astype(np.float64, copy=False)
