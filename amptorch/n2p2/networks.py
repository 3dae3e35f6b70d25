"""Networks as n2p2 has them: weights and biases, layer by layer, and a letter for each activation.

The input of a layer is x = W y + b; with `normalize_nodes` it is divided by the number of neurons
of the layer before, which is put into W and b here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from amptorch.model import activations
from amptorch.model.layers import Layer
from amptorch.model.mlp import MLP
from amptorch.n2p2.keywords import read_lines

# Weights (n_out, n_in) and biases (n_out,) of each layer.
Layers: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "t": nn.Tanh,
    "l": nn.Identity,
    "s": nn.Sigmoid,
    "p": activations.ExactSoftplus,
    "r": nn.ReLU,
    "g": activations.Gauss,
    "c": activations.Cosine,
    "S": activations.ReverseLogistic,
    "e": activations.Exponential,
    "h": activations.Harmonic,
}
LETTERS: dict[type[nn.Module], str] = {
    **{made: letter for letter, made in ACTIVATIONS.items()},
    nn.Softplus: "p",
}


def weights_file(folder: Path, number: int) -> Path:
    """Return the path of the weights of an element, by its atomic number."""
    return folder / f"weights.{number:03d}.data"


def read_layers(path: Path, widths: Sequence[int], normalized: bool) -> Layers:
    """Return the layers in a file of weights; only its first column counts.

    widths : number of inputs, of neurons in each hidden layer, and of outputs
    normalized : as `normalize_nodes` has it

    Raises FileNotFoundError where there is no such file, ValueError that names it where it has
    another number of lines, and the line where it is damaged.
    """
    values = np.array([line.as_number(line.words[0]) for line in read_lines(path)])
    sizes = [(n_in + 1) * n_out for n_in, n_out in pairwise(widths)]
    if len(values) != sum(sizes):
        shape = "-".join(map(str, widths))
        raise ValueError(
            f"{path} has {len(values)} weights and biases, but a network of {shape} nodes has "
            f"{sum(sizes)}; input.nn, scaling.data and weights must be of one potential"
        )
    layers: Layers = []
    for part, n_in in zip(np.split(values, np.cumsum(sizes)[:-1]), widths, strict=False):
        table = part.reshape(n_in + 1, -1) / (n_in if normalized else 1)
        layers.append((table[:-1].T, table[-1]))
    return layers


def write_layers(layers: Layers) -> str:
    """Return the text of a file of weights, without loss."""
    lines = ["# written by AMPTorch: for each layer its weights, inputs before neurons; its biases"]
    for weight, bias in layers:
        lines += map(repr, np.concatenate([weight.T.ravel(), bias]).tolist())
    return "\n".join([*lines, ""])


def load_layers(network: MLP, layers: Layers) -> None:
    """Copy layers into a network; inputs that the first of them lacks get weights of zero."""
    own = [layer for layer in network.model_net if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for linear, (weight, bias) in zip(own, layers, strict=True):
            linear.weight.zero_()
            linear.weight[:, : weight.shape[1]] = torch.from_numpy(weight.copy())
            linear.bias.copy_(torch.from_numpy(bias.copy()))


def letters_of(layers: Sequence[Layer]) -> list[str]:
    """Return the letter of each layer's activation; ValueError where n2p2 has no such
    activation."""
    for layer in layers:
        if layer.activation not in LETTERS:
            raise ValueError(
                f"the activation {layer.activation.__name__} has no counterpart in n2p2; train "
                "with model.activation Tanh, Sigmoid, ReLU or Softplus"
            )
    return [LETTERS[layer.activation] for layer in layers]
