"""Write a potential as the text file that `pair_style amptorch` reads (`pair_amptorch.cpp`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from torch import nn

from amptorch import __version__
from amptorch.descriptor.Gaussian.setup import (
    ANGULAR,
    KINDS,
    PARAMETERS,
    WEIGHTED_KINDS,
    cutoff_function,
)
from amptorch.ensemble import Ensemble
from amptorch.exports import element_parts, exportable
from amptorch.model import activations
from amptorch.potential import Potential
from amptorch.writing import write_atomically

# Of the file; the plugin refuses others.
VERSION = 1
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
INSTEAD = ", or run it by `amptorch lammps MODEL in.lammps`, which takes every model"


def write_potential(potential: Potential | Ensemble, path: str | os.PathLike[str]) -> None:
    """Write a potential to the file `path`, which is replaced, for `pair_style amptorch`.

    potential : with symmetry functions, and a network for each element or one for all

    Units are Å and eV; all numbers are written without loss. Raises ValueError or TypeError that
    names what the pair style does not have, and what to do instead, before anything is written.
    """
    potential = exportable(potential, "pair_style amptorch", INSTEAD)
    if not potential.has_forces:
        raise ValueError(
            "the model gives no forces (model.get_forces: false), which LAMMPS needs; train with "
            "model.get_forces true"
        )
    descriptor: Any = potential.descriptor
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
    parts = element_parts(potential)
    for symbol, reference in zip(elements, references.tolist(), strict=True):
        rows, offset, scale, layers = parts[symbol]
        lines += [
            "",
            f"element {symbol}",
            f"reference_energy {reference!r}",
            f"functions {len(rows)}  # kind, neighbours, Rc, parameters, shift and factor",
            f"# {_parameters(rows)}",
        ]
        for row, *scaling in zip(rows.tolist(), offset.tolist(), (1 / scale).tolist(), strict=True):
            lines.append(" ".join([_function(row), *map(repr, scaling)]))
        lines.append(f"layers {len(layers)}  # inputs, neurons, activation; each bias and weights")
        for weight, bias, activation in layers:
            lines.append(f"layer {weight.shape[1]} {weight.shape[0]} {_activation(activation)}")
            table = np.column_stack([bias, weight])
            lines += [" ".join(map(repr, row)) for row in table.tolist()]
    with write_atomically(Path(path)) as file:
        file.write("\n".join([*lines, "end", ""]).encode("utf8"))


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


def _activation(kind: type[nn.Module]) -> str:
    if kind not in ACTIVATIONS:
        raise ValueError(
            f"the activation {kind.__name__} has no counterpart in pair_style amptorch; train with "
            f"model.activation Tanh, Sigmoid, ReLU, SiLU or Softplus{INSTEAD}"
        )
    return ACTIVATIONS[kind]
