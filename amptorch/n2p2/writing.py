"""Write a potential for n2p2 and LAMMPS: input.nn, scaling.data and weights.ZZZ.data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from amptorch.data.scalers import FeatureScaler
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.Gaussian.setup import KINDS, cutoff_function
from amptorch.ensemble import Ensemble
from amptorch.frames import Frames, read_images
from amptorch.model import BPNN, SingleNN
from amptorch.n2p2.functions import CUTOFFS, Row, counterpart, order, write_function
from amptorch.n2p2.networks import Layers, layers_of, weights_file, write_layers
from amptorch.potential import Potential
from amptorch.writing import write_atomically

# Frames whose functions are computed at once.
FRAMES = 100
# Of the largest energy: a mean of whole frames that is nothing but rounding.
NO_MEAN = 1e-13


def write_potential(
    potential: Potential | Ensemble, folder: str | os.PathLike[str], ranges: Any = None
) -> None:
    """Write a potential to a folder, in the files that n2p2 and LAMMPS's `pair_style hdnnp` read.

    potential : with symmetry functions, and a network for each element or one for all
    folder : made where it is missing; files in it are replaced
    ranges : frames whose atoms say the smallest and largest value of each function, as
        `read_images` takes them; None for what the checkpoint knows of its training frames. Beyond
        these values n2p2 warns, and LAMMPS stops

    Units are Å and eV. Raises ValueError or TypeError that names what has no counterpart in n2p2
    and what to train instead, before anything is written.
    """
    if not isinstance(potential, Potential):
        raise TypeError(
            f"{type(potential).__name__} is no single potential; n2p2 has one in a folder: export "
            "the members of an ensemble one by one"
        )
    tables = _tables(potential)
    cutoff = _cutoff(potential.descriptor)
    references, slope = _targets(potential)
    networks, letters = _networks(potential)
    limits = _limits(potential, ranges)

    conversion = []
    if letters[-1] != "l" and slope != 1:
        # The scale of the energy is behind an activation, where no weight can hold it.
        conversion = ["mean_energy 0.0", f"conv_energy {1 / slope!r}", "conv_length 1.0"]
        slope = 1.0
    # n2p2 numbers elements by their atomic numbers.
    elements = sorted(tables, key=atomic_numbers.__getitem__)
    functions: list[str] = []
    scaling = ["# element, function, min, max, mean, sigma; scaled: (value - mean) / sigma"]
    contents: dict[Path, str] = {}
    folder = Path(folder)
    for index, symbol in enumerate(elements, 1):
        number, rows = atomic_numbers[symbol], tables[symbol]
        places = order(rows)
        functions += [write_function(symbol, rows[place]) for place in places]
        offset, scale = _offset_and_scale(potential.feature_scaler, number)
        columns = np.stack([part[places] for part in (*limits[number], offset, scale)])
        for function, values in enumerate(columns.T.tolist(), 1):
            scaling.append(" ".join([str(index), str(function), *map(repr, values)]))
        layers = _of_scaled_functions(networks[symbol], potential.feature_scaler, number, len(rows))
        layers[0] = layers[0][0][:, places], layers[0][1]
        layers[-1] = layers[-1][0] * slope, layers[-1][1] * slope
        contents[weights_file(folder, number)] = write_layers(layers)
    contents[folder / "scaling.data"] = "\n".join([*scaling, ""])
    some_layers = next(iter(networks.values()))
    lines = [
        *_comment(potential.cutoff, elements),
        f"number_of_elements {len(elements)}",
        " ".join(["elements", *elements]),
        *(f"atom_energy {symbol} {energy!r}" for symbol, energy in references.items()),
        *conversion,
        cutoff,
        "scale_symmetry_functions_sigma",
        "scale_min_short 0.0",
        "scale_max_short 1.0",
        f"global_hidden_layers_short {len(some_layers) - 1}",
        " ".join(["global_nodes_short", *(str(len(bias)) for _, bias in some_layers[:-1])]),
        " ".join(["global_activation_short", *letters]),
        *functions,
    ]
    contents[folder / "input.nn"] = "\n".join([*lines, ""])
    for path, text in contents.items():
        with write_atomically(path) as file:
            file.write(text.encode("utf8"))


def _comment(cutoff: float, elements: Sequence[str]) -> list[str]:
    return [
        "# written by AMPTorch, in Angstrom and eV; LAMMPS, with units metal:",
        f'#   pair_style hdnnp {cutoff!r} dir "." showew no showewsum 1000 resetew yes maxew 100 '
        "cflength 1 cfenergy 1",
        f"#   pair_coeff * * {' '.join(elements)}",
    ]


def _tables(potential: Potential) -> dict[str, list[Row]]:
    """Return the rows of n2p2's functions of each element, in the order of ours."""
    descriptor = potential.descriptor
    if not isinstance(descriptor, Gaussian):
        raise ValueError(
            f"fingerprints of the kind {type(descriptor).__name__} have no counterpart in n2p2; "
            "train with dataset.fp_scheme 'gaussian'"
        )
    if potential.repulsion is not None:
        raise ValueError(
            "the repulsive pair potential (model.repulsion) has no counterpart in n2p2; train "
            "without it, or add `pair_style hybrid/overlay` with zbl in LAMMPS by hand"
        )
    untrained = [symbol for symbol in descriptor.elements if symbol not in potential.elements]
    if untrained:
        raise ValueError(
            f"the elements {untrained} were in no training frame, so that their networks mean "
            f"nothing; train with dataset.elements {potential.elements}"
        )
    tables: dict[str, list[Row]] = {}
    for symbol, table in descriptor.descriptor_setup.items():
        tables[symbol] = []
        for row in table.tolist():
            found = counterpart(tuple(row))
            if found is None:
                raise ValueError(
                    f"{symbol!r} has the function {KINDS[int(row[0])]}, which has no counterpart "
                    "in n2p2; train with G1, G2, G4, G5, G2W and G4W"
                )
            tables[symbol].append(found)
    return tables


def _cutoff(descriptor: Any) -> str:
    name, parameter = cutoff_function(descriptor.cutoff_params)
    if name == "polynomial":
        if parameter != 2:
            raise ValueError(
                f"the polynomial cutoff function with gamma {parameter} has no counterpart in "
                "n2p2; train with gamma 2 or another cutoff function"
            )
        name, parameter = "poly1", 0.0
    return f"cutoff_type {CUTOFFS.index(name)} {parameter!r}"


def _targets(potential: Potential) -> tuple[dict[str, float], float]:
    """Return the energies, eV, of elements that have one, and the scale of the energy, eV."""
    targets = potential.target_scaler
    references: dict[str, float] = {}
    if targets.atomic is not None:
        numbers = [atomic_numbers[symbol] for symbol in potential.elements]
        energies = targets.atomic.of_elements(numbers).tolist()
        references = dict(zip(potential.elements, energies, strict=True))
    largest = max([potential.std, *map(abs, references.values())])
    if abs(potential.mean) > NO_MEAN * largest:
        raise ValueError(
            f"the mean energy of whole frames, {potential.mean:.6g} eV, is added to every "
            "prediction, and n2p2 knows energies of atoms alone; train with "
            "dataset.target_scaling 'per_atom' and dataset.atomic_correction True"
        )
    return references, potential.std


def _networks(potential: Potential) -> tuple[dict[str, Layers], list[str]]:
    """Return the layers of each element, and the letters of their activations."""
    model: Any = potential.model
    elements = potential.descriptor.elements
    if isinstance(model, SingleNN):
        networks: list[Any] = [model.model] * len(elements)
    elif isinstance(model, BPNN) and model.element_mask.one_hot:
        networks = list(model.elementwise_models)
    else:
        raise ValueError(
            f"this {type(model).__name__} has no network of its own for each element (AMPTorch "
            "v1.0 mixed them by a trained mask), as n2p2 needs it; train model.name 'bpnn' anew"
        )
    found = [layers_of(network) for network in networks]
    return dict(zip(elements, (layers for layers, _ in found), strict=True)), found[0][1]


def _offset_and_scale(scaler: FeatureScaler, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and scale of (value − offset)/scale of each feature of an element."""
    part: Any = scaler.scales[number] if scaler.elementwise else scaler.scale
    offset, scale = part["offset"].numpy(), part["scale"].numpy()
    if scaler.transform == "standardize":
        return offset, scale
    return -offset / scale, 1 / scale


def _of_scaled_functions(
    layers: Layers, scaler: FeatureScaler, number: int, n_functions: int
) -> Layers:
    """Return the layers on the scaled functions of an element alone: principal components, and
    features that only fill up the rows of the descriptor, are put into the first of them."""
    weight, bias = layers[0]
    if scaler.pca is not None:
        mean, basis = scaler.pca.components[number if scaler.pca.elementwise else 0]
        weight = weight @ basis.numpy().T
        bias = bias - weight @ mean.numpy()
    # They are 0 before they are scaled.
    offset, scale = _offset_and_scale(scaler, number)
    filling = -offset[n_functions:] / scale[n_functions:]
    bias = bias + weight[:, n_functions:] @ filling
    return [(weight[:, :n_functions], bias), *layers[1:]]


def _limits(potential: Potential, ranges: Any) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return {atomic number: smallest and largest value of each of its functions}."""
    found = potential.feature_scaler.ranges
    if ranges is not None:
        found = _ranges_in(potential, ranges)
    elif found is None:
        raise ValueError(
            "the checkpoint does not know the smallest and largest value of its functions (older "
            "ones do not); give the frames that it was trained on"
        )
    limits = {}
    for symbol in potential.descriptor.elements:
        number, n = atomic_numbers[symbol], potential.descriptor.num_descriptors[symbol]
        if number not in found:
            raise ValueError(
                f"no frame has an atom of {symbol!r}, so that there is no smallest and largest "
                "value of its functions; give frames with all elements of the potential"
            )
        low, high = found[number]
        limits[number] = low.numpy()[:n], high.numpy()[:n]
    return limits


def _ranges_in(potential: Potential, ranges: Any) -> Any:
    images = read_images(ranges)

    def chunks() -> Any:
        for start in range(0, len(images), FRAMES):
            some = images[start : start + FRAMES]
            frames = Frames.from_atoms(some, potential.elements, first_index=start)
            yield potential.descriptor.values(frames), torch.as_tensor(frames.numbers)

    return FeatureScaler.from_chunks(chunks()).ranges
