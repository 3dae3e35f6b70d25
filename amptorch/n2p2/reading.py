"""Read a potential of n2p2 or RuNNer: a folder of input.nn, scaling.data and weights.ZZZ.data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from amptorch.config import Config
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian import GaussianDescriptorSet
from amptorch.model import make_model
from amptorch.n2p2.functions import CUTOFFS, Row, order, read_function
from amptorch.n2p2.keywords import Keywords, Line, read_lines
from amptorch.n2p2.networks import ACTIVATIONS, load_layers, read_layers, weights_file
from amptorch.n2p2.units import Units, factors
from amptorch.potential import Potential

# Keywords that make another potential of it.
NOT_READ = {
    "use_electrostatics": "electrostatic energies are not available here",
    "element_nodes_short": "the networks of all elements have one shape here",
    "element_hidden_layers_short": "the networks of all elements have one shape here",
    "element_activation_short": "the networks of all elements have one shape here",
    "global_symfunction_short": "write each function as symfunction_short",
    "element_symfunction_short": "write each function as symfunction_short",
}
NORMALIZATION = ("mean_energy", "conv_energy", "conv_length")


def read_potential(folder: str | os.PathLike[str], units: Units = "angstrom") -> Potential:
    """Return the potential in a folder of n2p2 or RuNNer, to predict with, save and train on.

    folder : holds input.nn, scaling.data and weights.ZZZ.data of each element. Symmetry functions
        of types 2, 3, 9, 12 and 13 are read, with every cutoff function, scaling and activation
    units : of the files, "angstrom" for Å and eV, "bohr" for Bohr and Hartree

    Its elements are sorted by atomic number. Raises FileNotFoundError that names a file which is
    missing, and ValueError that names file and line of what is damaged, or not available here.
    """
    length, energy = factors(units)
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to read a potential from")
    keywords = Keywords(folder / "input.nn")
    _refuse_others(keywords)
    numbers = _elements(keywords)
    rows = _functions(keywords, numbers, length)
    n_hidden, activations = _network(keywords)
    scaling = _Scaling(keywords, folder / "scaling.data", [len(rows[e]) for e in numbers])

    tables = {symbol: np.array(own) for symbol, own in rows.items()}
    cutoff = max(table[:, 3].max() for table in tables.values())
    descriptor_set = GaussianDescriptorSet.from_setup(
        list(numbers), cutoff, _cutoff(keywords), tables
    )
    settings = Config.from_dict(
        {
            "model": {"name": "bpnn", "hidden_layers": n_hidden, "activation": activations},
            "dataset": {
                "fp_scheme": "gaussian",
                "fp_params": descriptor_set,
                "cutoff_params": descriptor_set.cutoff_params,
                "elements": list(numbers),
                "scaling": {"type": "standardize", "elementwise": True},
            },
        }
    )
    descriptor = construct_descriptor(settings.dataset.descriptor_setup)
    # Its parameters are replaced at once: the user's random numbers are left alone.
    with torch.random.fork_rng(devices=[]):
        model: Any = make_model(
            settings.model, descriptor.elements, descriptor.n_features, torch.float64
        )
    scales, ranges = {}, {}
    for index, (symbol, number) in enumerate(numbers.items()):
        # Rows of a descriptor are sorted in another way: our feature k is n2p2's places[k].
        own = [rows[symbol][place] for place in order(rows[symbol])]
        places = sorted(range(len(own)), key=own.__getitem__)
        layers = read_layers(
            weights_file(folder, number), [len(own), *n_hidden, 1], "normalize_nodes" in keywords
        )
        layers[0] = layers[0][0][:, places], layers[0][1]
        load_layers(model.elementwise_models[index], layers)
        lacking = descriptor.n_features - len(own)
        offset, scale, low, high = (part[places] for part in scaling.of_element(index))
        zeros = np.zeros(lacking)
        scales[str(number)] = {
            "offset": [*offset.tolist(), *zeros],
            "scale": [*scale.tolist(), *(zeros + 1)],
        }
        ranges[str(number)] = [*low.tolist(), *zeros], [*high.tolist(), *zeros]
    feature_scaler = FeatureScaler.from_state(
        {
            "transform": "standardize",
            "forcetraining": True,
            "elementwise": True,
            "threshold": settings.dataset.scaling["threshold"],
            "scales": scales,
            "ranges": ranges,
        }
    )
    target_scaler = _targets(keywords, numbers, energy)
    return Potential(descriptor, model, feature_scaler, target_scaler, settings=settings)


def _refuse_others(keywords: Keywords) -> None:
    for keyword, reason in NOT_READ.items():
        for line in keywords.all(keyword):
            raise line.error(f"{keyword!r} is not read: {reason}")
    for line in keywords.all("nnp_type"):
        if len(line.words) < 2 or not line.words[1].upper().startswith(("2", "HDNNP_2G")):
            raise line.error(
                f"only the type 2G-HDNNP is available here, not {' '.join(line.words)}"
            )


def _elements(keywords: Keywords) -> dict[str, int]:
    """Return {symbol: atomic number}, sorted by number."""
    count = keywords.one("number_of_elements", 1, 1)
    line = keywords.one("elements", 1)
    symbols = line.words[1:]
    for symbol in symbols:
        if not atomic_numbers.get(symbol):
            raise line.error(f"{symbol!r} is no chemical element")
        if symbols.count(symbol) > 1:
            raise line.error(f"the element {symbol!r} is there twice")
    if count.as_integer(count.words[1]) != len(symbols):
        raise count.error(
            f"'number_of_elements' is {count.words[1]}, but line {line.number} has {len(symbols)}"
        )
    return {
        symbol: atomic_numbers[symbol] for symbol in sorted(symbols, key=atomic_numbers.__getitem__)
    }


def _functions(keywords: Keywords, numbers: dict[str, int], length: float) -> dict[str, list[Row]]:
    """Return the rows of each element, at least one, in the order of the file."""
    rows: dict[str, list[Row]] = {symbol: [] for symbol in numbers}
    for line in keywords.all("symfunction_short"):
        centre, row = read_function(line, numbers, length)
        rows[centre].append(row)
    for symbol, own in rows.items():
        if not own:
            raise ValueError(f"{keywords.path} has no symfunction_short of {symbol!r}")
    return rows


def _cutoff(keywords: Keywords) -> dict[str, Any]:
    """Return `cutoff_params` of the cutoff function."""
    line = keywords.one("cutoff_type", 1, 2)
    number = line.as_integer(line.words[1])
    if not 0 <= number < len(CUTOFFS):
        raise line.error(f"there is no cutoff_type {number}; known are 0 to {len(CUTOFFS) - 1}")
    alpha = line.numbers(2)[0] if len(line.words) > 2 else 0.0
    if not 0 <= alpha < 1:
        raise line.error(f"alpha of 'cutoff_type' must be from 0 to below 1, got {alpha}")
    if CUTOFFS[number] in ("hard", "tanh", "tanh_scaled"):
        # n2p2 ignores it, too.
        return {"cutoff_func": CUTOFFS[number]}
    return {"cutoff_func": CUTOFFS[number], "alpha": alpha}


def _network(keywords: Keywords) -> tuple[list[int], list[type[torch.nn.Module]]]:
    """Return the widths of the hidden layers, and the activation of each layer, without that of the
    output where it is the identity."""
    line = keywords.one("global_hidden_layers_short", 1, 1)
    count = line.as_integer(line.words[1])
    if count < 1:
        raise line.error(f"a network needs hidden layers, got {count}")
    line = keywords.one("global_nodes_short", count, count)
    widths = [line.as_integer(word) for word in line.words[1:]]
    if min(widths) < 1:
        raise line.error(f"a hidden layer needs nodes, got {min(widths)}")
    line = keywords.one("global_activation_short", count + 1, count + 1)
    letters = list(line.words[1:])
    for letter in letters:
        if letter not in ACTIVATIONS:
            raise line.error(f"there is no activation {letter!r}; known are {[*ACTIVATIONS]}")
    if letters[-1] == "l":
        letters.pop()
    return widths, [ACTIVATIONS[letter] for letter in letters]


def _targets(keywords: Keywords, numbers: dict[str, int], energy: float) -> TargetScaler:
    """Return the scale of the energies and the energies of the elements; `energy` is the unit."""
    given = [keyword for keyword in NORMALIZATION if keyword in keywords]
    if given and len(given) < len(NORMALIZATION):
        missing = next(keyword for keyword in NORMALIZATION if keyword not in given)
        line = keywords.all(given[0])[0]
        raise line.error(f"{given[0]!r} needs {missing!r} too, which the file lacks")
    mean, conv = keywords.number("mean_energy", 0.0), keywords.number("conv_energy", 1.0)
    for keyword in given[1:]:
        if keywords.number(keyword, 1) <= 0:
            raise keywords.all(keyword)[0].error(f"{keyword!r} must be positive")
    references = dict.fromkeys(numbers.values(), mean * energy)
    seen: set[str] = set()
    for line in keywords.all("atom_energy"):
        if len(line.words) != 3 or line.words[1] not in numbers:
            raise line.error(f"'atom_energy' needs one of the elements {[*numbers]} and an energy")
        if line.words[1] in seen:
            raise line.error(f"'atom_energy' of {line.words[1]!r} is there twice")
        seen.add(line.words[1])
        references[numbers[line.words[1]]] += line.as_number(line.words[2]) * energy
    state: dict[str, Any] = {
        "target_mean": 0.0,
        # No length enters: functions have no unit, and forces are derivatives of the energy.
        "target_std": energy / conv,
        "forcetraining": True,
    }
    if any(references.values()):
        state["references"] = references
    return TargetScaler.from_state(state)


class _Scaling:
    """Read scaling.data as the `scale` and `offset` of y = (G − offset)/scale.

    counts : functions of each element
    """

    def __init__(self, keywords: Keywords, path: Path, counts: Sequence[int]) -> None:
        self.path = path
        self.counts = counts
        self.scale = "scale_symmetry_functions" in keywords
        self.center = "center_symmetry_functions" in keywords
        # As in n2p2, the first two go before it.
        sigma = "scale_symmetry_functions_sigma" in keywords
        self.sigma = sigma and not (self.scale or self.center)
        self.low = keywords.number("scale_min_short", 0.0)
        self.width = keywords.number("scale_max_short", 1.0) - self.low
        if (self.scale or self.sigma) and self.width <= 0:
            place = keywords.all("scale_max_short") or keywords.all("scale_min_short")
            raise place[0].error("'scale_max_short' must be larger than 'scale_min_short'")
        self.lines = self._read()

    def _read(self) -> dict[tuple[int, int], Line]:
        found: dict[tuple[int, int], Line] = {}
        lines = read_lines(self.path)
        # RuNNer ends the file with the lowest and the highest energy.
        if lines and len(lines[-1].words) == 2:
            lines.pop()
        columns = 6 if self.sigma else 5
        for line in lines:
            if len(line.words) not in range(columns, 7):
                raise line.error(
                    "expected element, function, min, max, mean and sigma, "
                    f"got {len(line.words)} columns"
                )
            element, function = (line.as_integer(word) for word in line.words[:2])
            if not 1 <= element <= len(self.counts):
                raise line.error(f"there is no element {element} of {len(self.counts)}")
            if not 1 <= function <= self.counts[element - 1]:
                raise line.error(
                    f"element {element} has {self.counts[element - 1]} functions in input.nn, "
                    f"not a function {function}"
                )
            if (element, function) in found:
                first = found[element, function].number
                raise line.error(f"function {function} of element {element} is in line {first} too")
            found[element, function] = line
        for element, count in enumerate(self.counts, 1):
            for function in range(1, count + 1):
                if (element, function) not in found:
                    raise ValueError(
                        f"{self.path} has no line of function {function} of element {element}, "
                        f"which has {count} functions in input.nn"
                    )
        return found

    def of_element(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return offset, scale, min and max of the functions of an element, in n2p2's order."""
        rows = [
            self._function(self.lines[index + 1, function])
            for function in range(1, self.counts[index] + 1)
        ]
        offset, scale, low, high = np.array(rows).T
        return offset, scale, low, high

    def _function(self, line: Line) -> tuple[float, float, float, float]:
        low, high, mean, *rest = line.numbers(2)
        if low > high:
            raise line.error(f"the minimum {low} is larger than the maximum {high}")
        if not (self.scale or self.sigma):
            return (mean if self.center else 0.0), 1.0, low, high
        unit = rest[0] if self.sigma else high - low
        if unit <= 0:
            reason = "sigma is not positive" if self.sigma else "min and max are equal"
            raise line.error(f"the function cannot be scaled: {reason}")
        scale = unit / self.width
        zero = mean if self.sigma or self.center else low
        return zero - self.low * scale, scale, low, high
