"""Potentials as other programs have them: symmetry functions and a network for each element."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from amptorch.data.scalers import FeatureScaler
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.ensemble import Ensemble
from amptorch.model import BPNN, SingleNN
from amptorch.model.layers import Layer, layers_of
from amptorch.potential import Potential


class ElementPart(NamedTuple):
    """Hold what gives the energy of the atoms of an element.

    functions : (n, columns), rows of the descriptor's set-up
    offset, scale : (n,); the network is given (value − offset)/scale of each function
    layers : of the network
    """

    functions: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    layers: list[Layer]


def exportable(potential: Potential | Ensemble, program: str, instead: str = "") -> Potential:
    """Return the potential; raise TypeError or ValueError that names what of it another program
    does not have, and what to do. `instead`: what else to do, such as ", or run it by …"."""
    if not isinstance(potential, Potential):
        raise TypeError(
            f"{type(potential).__name__} is no single potential, and {program} has one: export a "
            f"member of it, or train with model.members{instead}"
        )
    descriptor = potential.descriptor
    if not isinstance(descriptor, Gaussian):
        raise ValueError(
            f"fingerprints of the kind {type(descriptor).__name__} have no counterpart in "
            f"{program}; train with dataset.fp_scheme 'gaussian'{instead}"
        )
    if potential.repulsion is not None:
        raise ValueError(
            f"the repulsive pair potential (model.repulsion) has no counterpart in {program}; "
            f"train without it, and add `pair_style hybrid/overlay` with zbl in LAMMPS{instead}"
        )
    untrained = [symbol for symbol in descriptor.elements if symbol not in potential.elements]
    if untrained:
        raise ValueError(
            f"the elements {untrained} were in no training frame, so that their networks mean "
            f"nothing; train with dataset.elements {potential.elements}"
        )
    model: Any = potential.model
    if isinstance(model, BPNN) and not model.element_mask.one_hot:
        raise ValueError(
            "this BPNN has no network of its own for each element (AMPTorch v1.0 mixed them by a "
            f"trained mask), as {program} needs it; train model.name 'bpnn' anew{instead}"
        )
    return potential


def element_parts(potential: Potential) -> dict[str, ElementPart]:
    """Return the part of each element of a potential that `exportable` has passed."""
    model: Any = potential.model
    parts = {}
    for place, symbol in enumerate(potential.descriptor.elements):
        functions = potential.descriptor.descriptor_setup[symbol]
        number, n = atomic_numbers[symbol], len(functions)
        network = model.model if isinstance(model, SingleNN) else model.elementwise_models[place]
        first, *others = layers_of(network)
        layers = [_on_functions(first, potential.feature_scaler, number, n), *others]
        offset, scale = _offset_and_scale(potential.feature_scaler, number)
        parts[symbol] = ElementPart(functions, offset[:n], scale[:n], layers)
    return parts


def _offset_and_scale(scaler: FeatureScaler, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and scale of (value − offset)/scale of each feature of an element."""
    part: Any = scaler.scales[number] if scaler.elementwise else scaler.scale
    offset, scale = part["offset"].numpy(), part["scale"].numpy()
    if scaler.transform == "standardize":
        return offset, scale
    return -offset / scale, 1 / scale


def _on_functions(first: Layer, scaler: FeatureScaler, number: int, n_functions: int) -> Layer:
    """Return the first layer on the scaled functions of an element alone: principal components, and
    features that only fill up the rows of the descriptor, are put into it."""
    weight, bias, activation = first
    if scaler.pca is not None:
        mean, basis = scaler.pca.components[number if scaler.pca.elementwise else 0]
        weight = weight @ basis.numpy().T
        bias = bias - weight @ mean.numpy()
    # They are 0 before they are scaled.
    offset, scale = _offset_and_scale(scaler, number)
    filling = -offset[n_functions:] / scale[n_functions:]
    bias = bias + weight[:, n_functions:] @ filling
    return Layer(weight[:, :n_functions], bias, activation)
