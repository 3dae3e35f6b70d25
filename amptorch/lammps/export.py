"""Write a potential as the text file that `pair_style amptorch` reads (`pair_amptorch.cpp`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import nn

from amptorch import __version__
from amptorch.data.scalers import FeatureScaler
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.Gaussian.setup import (
    ANGULAR,
    KINDS,
    PARAMETERS,
    WEIGHTED_KINDS,
    cutoff_function,
)
from amptorch.ensemble import Ensemble
from amptorch.model import BPNN, SingleNN, activations
from amptorch.model.mlp import MLP, BatchNorm, Dropout
from amptorch.potential import Potential
from amptorch.writing import write_atomically

# Of the file; the plugin refuses others.
VERSION = 1
# Weights (n_out, n_in), biases (n_out,) and the name of the activation of a layer.
Layer: TypeAlias = tuple[np.ndarray, np.ndarray, str]
ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Identity: "identity",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.Softplus: "softplus20",
    activations.ExactSoftplus: "softplus",
    activations.Gauss: "gauss",
    activations.Cosine: "cosine",
    activations.ReverseLogistic: "reverse_logistic",
    activations.Exponential: "exponential",
    activations.Harmonic: "harmonic",
}
INSTEAD = "or run it by `amptorch lammps MODEL in.lammps`, which takes every model"


def write_potential(potential: Potential | Ensemble, path: str | os.PathLike[str]) -> None:
    """Write a potential to the file `path`, which is replaced, for `pair_style amptorch`.

    potential : with symmetry functions, and a network for each element or one for all

    Units are Å and eV; all numbers are written without loss. Raises ValueError or TypeError that
    names what the pair style does not have, and what to do instead, before anything is written.
    """
    if not isinstance(potential, Potential):
        raise TypeError(
            f"{type(potential).__name__} is no single potential, and pair_style amptorch has one: "
            f"export a member of it, train with model.members, {INSTEAD}"
        )
    descriptor = _checked(potential)
    elements = descriptor.elements
    name, parameter = cutoff_function(descriptor.cutoff_params)
    targets = potential.target_scaler
    references = np.zeros(len(elements))
    if targets.atomic is not None:
        references = targets.atomic.of_elements([atomic_numbers[s] for s in elements])
    lines = [
        f"# Potential of AMPTorch {__version__} for LAMMPS, in Å and eV: pair_style amptorch, and",
        f"# pair_coeff * * FILE {' '.join(elements)} (the element of each atom type)",
        f"amptorch_potential {VERSION}",
        f"elements {' '.join(elements)}",
        f"atomic_numbers {' '.join(str(atomic_numbers[s]) for s in elements)}",
        f"cutoff_function {name} {parameter!r}  # {'gamma' if name == 'polynomial' else 'alpha'}",
        f"energy_scale {potential.std!r}  # of the outputs of the networks",
        f"mean_energy {potential.mean!r}  # of the whole, which the atoms share",
    ]
    for symbol, reference in zip(elements, references.tolist(), strict=True):
        rows = descriptor.descriptor_setup[symbol]
        shift, factor = _shift_and_factor(potential.feature_scaler, atomic_numbers[symbol])
        layers = _layers(_network(potential, elements.index(symbol)))
        layers[0] = _on_functions(layers[0], potential.feature_scaler, symbol, len(rows))
        lines += [
            "",
            f"element {symbol}",
            f"reference_energy {reference!r}",
            f"functions {len(rows)}  # kind, neighbours, Rc, parameters, shift and factor",
            f"# {_parameters(rows)}",
        ]
        for row, *scaling in zip(rows.tolist(), shift.tolist(), factor.tolist(), strict=False):
            lines.append(" ".join([_function(row), *map(repr, scaling)]))
        lines.append(f"layers {len(layers)}  # inputs, neurons, activation; each bias and weights")
        for weight, bias, activation in layers:
            lines.append(f"layer {weight.shape[1]} {weight.shape[0]} {activation}")
            table = np.column_stack([bias, weight])
            lines += [" ".join(map(repr, row)) for row in table.tolist()]
    with write_atomically(Path(path)) as file:
        file.write("\n".join([*lines, "end", ""]).encode("utf8"))


def _checked(potential: Potential) -> Gaussian:
    """Return the descriptor of a potential that the pair style can evaluate."""
    descriptor = potential.descriptor
    if not isinstance(descriptor, Gaussian):
        raise ValueError(
            f"pair_style amptorch has no fingerprints of the kind {type(descriptor).__name__}; "
            f"train with dataset.fp_scheme 'gaussian', {INSTEAD}"
        )
    if not potential.has_forces:
        raise ValueError(
            "the model gives no forces (model.get_forces: false), which LAMMPS needs; train with "
            "model.get_forces true"
        )
    if potential.repulsion is not None:
        raise ValueError(
            "pair_style amptorch has no repulsion of near atoms (model.repulsion); train without "
            f"it, {INSTEAD}"
        )
    untrained = [symbol for symbol in descriptor.elements if symbol not in potential.elements]
    if untrained:
        raise ValueError(
            f"the elements {untrained} were in no training frame, so that their networks mean "
            f"nothing; train with dataset.elements {potential.elements}"
        )
    return descriptor


def _parameters(rows: np.ndarray) -> str:
    """Return the names of the parameters of the functions in a table, for a comment."""
    kinds = dict.fromkeys(KINDS[int(kind)] for kind in rows[:, 0])
    return " | ".join(f"{kind}: {' '.join(PARAMETERS[kind]) or '-'}" for kind in kinds)


def _function(row: Sequence[float]) -> str:
    """Return kind, neighbours, Rc and parameters of a function, without loss."""
    kind = KINDS[int(row[0])]
    n_neighbors = 0 if kind in WEIGHTED_KINDS else 2 if kind in ANGULAR else 1
    symbols = [chemical_symbols[int(number)] for number in row[1 : 1 + n_neighbors]]
    values = [*row[4:], 0.0][: len(PARAMETERS[kind])]
    return " ".join([kind, *symbols, *map(repr, [row[3], *values])])


def _shift_and_factor(scaler: FeatureScaler, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shift and factor of the scaling (value − shift)·factor of each feature."""
    part: Any = scaler.scales[number] if scaler.elementwise else scaler.scale
    offset, scale = part["offset"].numpy(), part["scale"].numpy()
    if scaler.transform == "standardize":
        return offset, 1 / scale
    return -offset / scale, scale


def _network(potential: Potential, element: int) -> MLP:
    """Return the network of an element, by its place."""
    model: Any = potential.model
    if isinstance(model, SingleNN):
        return model.model
    if isinstance(model, BPNN) and model.element_mask.one_hot:
        networks: list[Any] = list(model.elementwise_models)
        return networks[element]
    raise ValueError(
        f"this {type(model).__name__} has no network of its own for each element (AMPTorch v1.0 "
        f"mixed them by a trained mask); train model.name 'bpnn' anew, {INSTEAD}"
    )


def _layers(network: MLP) -> list[Layer]:
    """Return the layers of a network in double precision, batch norm included as it is in
    prediction."""
    layers: list[Layer] = []
    every: Any = network.model_net
    for layer in every:
        if isinstance(layer, nn.Linear):
            layers.append((_array(layer.weight), _array(layer.bias), "identity"))
        elif isinstance(layer, BatchNorm):
            slope = _array(layer.weight) / np.sqrt(_array(layer.running_var) + layer.eps)
            weight, bias, name = layers[-1]
            shifted = slope * (bias - _array(layer.running_mean)) + _array(layer.bias)
            layers[-1] = slope[:, None] * weight, shifted, name
        elif type(layer) in ACTIVATIONS:
            layers[-1] = (*layers[-1][:2], ACTIVATIONS[type(layer)])
        elif not isinstance(layer, Dropout):
            raise ValueError(
                f"pair_style amptorch has no activation {type(layer).__name__}; train with "
                f"model.activation Tanh, Sigmoid, ReLU, SiLU or Softplus, {INSTEAD}"
            )
    return layers


def _on_functions(first: Layer, scaler: FeatureScaler, symbol: str, n_functions: int) -> Layer:
    """Return the first layer on the scaled functions of an element alone: principal components, and
    features that only fill up the rows of the descriptor, are put into it."""
    weight, bias, activation = first
    number = atomic_numbers[symbol]
    if scaler.pca is not None:
        mean, basis = scaler.pca.components[number if scaler.pca.elementwise else 0]
        weight = weight @ basis.numpy().T
        bias = bias - weight @ mean.numpy()
    shift, factor = _shift_and_factor(scaler, number)
    # They are 0 before they are scaled.
    bias = bias - weight[:, n_functions:] @ (shift * factor)[n_functions:]
    return weight[:, :n_functions], bias, activation


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().cpu().double().numpy()
