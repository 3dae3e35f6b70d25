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
from amptorch.descriptor.Gaussian.setup import KINDS, cutoff_function
from amptorch.ensemble import Ensemble
from amptorch.exports import element_parts, exportable
from amptorch.frames import Frames, read_images
from amptorch.n2p2.functions import CUTOFFS, Row, counterpart, order, write_function
from amptorch.n2p2.networks import letters_of, weights_file, write_layers
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
    potential = exportable(potential, "n2p2")
    parts = element_parts(potential)
    tables = {symbol: _rows(symbol, part.functions) for symbol, part in parts.items()}
    cutoff = _cutoff(potential.descriptor)
    references, slope = _targets(potential)
    some_layers = next(iter(parts.values())).layers
    letters = letters_of(some_layers)
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
        _, offset, scale, own = parts[symbol]
        columns = np.stack([part[places] for part in (*limits[number], offset, scale)])
        for function, values in enumerate(columns.T.tolist(), 1):
            scaling.append(" ".join([str(index), str(function), *map(repr, values)]))
        layers = [(weight, bias) for weight, bias, _ in own]
        layers[0] = layers[0][0][:, places], layers[0][1]
        layers[-1] = layers[-1][0] * slope, layers[-1][1] * slope
        contents[weights_file(folder, number)] = write_layers(layers)
    contents[folder / "scaling.data"] = "\n".join([*scaling, ""])
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
        " ".join(["global_nodes_short", *(str(len(bias)) for _, bias, _ in some_layers[:-1])]),
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


def _rows(symbol: str, functions: np.ndarray) -> list[Row]:
    """Return n2p2's counterparts of the functions of an element, in their order."""
    rows: list[Row] = []
    for row in functions.tolist():
        found = counterpart(tuple(row))
        if found is None:
            raise ValueError(
                f"{symbol!r} has the function {KINDS[int(row[0])]}, which has no counterpart "
                "in n2p2; train with G1, G2, G4, G5, G2W and G4W"
            )
        rows.append(found)
    return rows


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
