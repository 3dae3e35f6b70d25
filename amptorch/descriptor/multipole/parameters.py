"""Checks of `fp_params` that the schemes `gmp` and `gmpordernorm` share."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amptorch.checks import choice, known_keys, number
from amptorch.descriptor.densities import (
    DEFAULT_TABLE,
    TABLES,
    check_gaussians,
    read_gaussians,
    table_densities,
)
from amptorch.frames import symbol_numbers

# Where the probe has fallen to this, v1.0's default cutoff ends.
TAIL = 1e-8
# Above this a power of r or a factorial leaves the range of float64.
MAX_ORDER = 40

order_number = number(minimum=0, maximum=MAX_ORDER, integer=True)
length = number(above=0)


def check_fp_params(fp_params: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise TypeError where it is no dictionary, ValueError where it has a key that is not
    known."""
    if not isinstance(fp_params, Mapping):
        raise TypeError(f"fp_params is {type(fp_params).__name__}, expected a dictionary")
    known_keys("fp_params", fp_params, known)


def listed(where: str, values: Any, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """Return the checked values of a list that is not empty, as a tuple."""
    if isinstance(values, (str, Mapping)) or not np.iterable(values):
        raise TypeError(f"{where} must be a list, got {values!r}")
    values = tuple(check(f"{where}[{k}]", value) for k, value in enumerate(values))
    if not values:
        raise ValueError(f"{where} is empty; give at least one value")
    return values


def probe_cutoff(fp_params: Mapping[str, Any], sigmas: Sequence[float]) -> float:
    """Return the cutoff of `fp_params` in Å, or `default_cutoff` where it has none."""
    given = fp_params.get("cutoff")
    return default_cutoff(sigmas) if given is None else length("fp_params['cutoff']", given)


def default_cutoff(sigmas: Sequence[float], threshold: float = TAIL) -> float:
    """Return where the widest probe Gaussian has fallen to `threshold`, in Å, rounded to 0.01 Å.

    √(ln(threshold/A₁)/(−α)) with A₁ = 1/(σ√(2π)), α = 1/(2σ²), as in v1.0. Raises ValueError where
    it is nowhere above.
    """
    sigma = max(sigmas)
    height = 1 / (sigma * np.sqrt(2 * np.pi))
    if height <= threshold:
        raise ValueError(
            f"the probe of sigma {sigma} Å is nowhere above {threshold}, so there is no default "
            "cutoff; give fp_params['cutoff']"
        )
    return round(float(np.sqrt(-2 * sigma**2 * np.log(threshold / height))), 2)


def element_densities(
    fp_params: Mapping[str, Any], elements: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return {symbol: (G, 2) array of B (Å⁻³) and β (Å⁻²)} of every element.

    They are those of `fp_params["atom_gaussians"]`, {symbol: path of a text file of two columns, or
    rows [B, β]}; without it those of the table that `fp_params["densities"]` names. Raises
    ValueError that names an element without a density.
    """
    symbol_numbers(elements)
    atom_gaussians = fp_params.get("atom_gaussians")
    table = choice(*TABLES)("fp_params['densities']", fp_params.get("densities", DEFAULT_TABLE))
    if atom_gaussians is None:
        return table_densities(elements, table)
    if not isinstance(atom_gaussians, Mapping):
        raise TypeError(
            "fp_params['atom_gaussians'] must be a dictionary of an element's symbol and its file, "
            f"got {atom_gaussians!r}"
        )
    missing = [symbol for symbol in elements if symbol not in atom_gaussians]
    if missing:
        raise ValueError(
            f"fp_params['atom_gaussians'] has no {missing[0]!r}; give the densities of all of "
            f"{list(elements)}, or leave it out to use those of the package"
        )
    return {symbol: _density(symbol, atom_gaussians[symbol]) for symbol in elements}


def with_densities(fp_params: Mapping[str, Any], elements: Sequence[str]) -> dict[str, Any]:
    """Return `fp_params` with the numbers of all densities in it, so that it depends on no file and
    on no version of the package's table. Raises what `element_densities` raises."""
    densities = element_densities(fp_params, elements)
    numbers = {symbol: gaussians.tolist() for symbol, gaussians in densities.items()}
    others = {key: value for key, value in fp_params.items() if key != "densities"}
    return {**others, "atom_gaussians": numbers}


def setup_hash(*parts: str | float) -> str:
    """Return the md5 that names a set-up: strings as they are, numbers with all their digits."""
    text = (part if isinstance(part, str) else np.format_float_scientific(part) for part in parts)
    return hashlib.md5(" ".join(text).encode()).hexdigest()


def _density(symbol: str, given: Any) -> np.ndarray:
    where = f"fp_params['atom_gaussians'][{symbol!r}]"
    if isinstance(given, (str, os.PathLike)):
        return read_gaussians(given, where)
    try:
        gaussians = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        gaussians = np.empty(0)
    return check_gaussians(gaussians, where)
