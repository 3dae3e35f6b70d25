"""Electron densities of atoms as sums of Gaussians, Σ_g B_g exp(−β_g r²)."""

import json
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

# "v1" has what AMPTorch v1.0 uses where no files are given, "valence" the package's own fits; see
# docs/gmp.md.
TABLES = ("v1", "valence")
DEFAULT_TABLE = "v1"


def table_densities(elements: Sequence[str], table: str = DEFAULT_TABLE) -> dict[str, np.ndarray]:
    """Return {symbol: array (G, 2) of B (Å⁻³) and β (Å⁻²)} out of one of `TABLES`.

    Elements that "v1" lacks are filled in from "valence", with a warning that names them. Raises
    ValueError that names an element which has no density there either.
    """
    own, filled_in = _table("valence"), []
    densities = {}
    for symbol in elements:
        entry = _table(table).get(symbol)
        if entry is None:
            entry = own.get(symbol)
            filled_in.append(symbol)
        if entry is None:
            raise ValueError(
                f"there is no density of {symbol!r} in the package; give one for each element in "
                "fp_params['atom_gaussians']"
            )
        densities[symbol] = np.array(entry["gaussians"], dtype=np.float64)
    if filled_in:
        warnings.warn(
            f"AMPTorch v1.0 has no densities of {', '.join(filled_in)}: the package's own stand in "
            "for them (fp_params['densities']: 'valence' has all elements from there)",
            stacklevel=2,
        )
    return densities


def read_gaussians(path: str | os.PathLike[str], where: str = "the density") -> np.ndarray:
    """Read an array (G, 2) of B and β out of a text file of two columns, such as v1.0's `.g` files.

    Raises FileNotFoundError or ValueError that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no file {path}")
    try:
        gaussians = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{where}: {path} is not a table of numbers ({error})") from error
    return check_gaussians(gaussians, f"{where}: {path}")


def check_gaussians(gaussians: np.ndarray, where: str) -> np.ndarray:
    """Return `gaussians`; raise ValueError where they are not (G, 2) finite numbers with β > 0."""
    if gaussians.ndim != 2 or gaussians.shape[1] != 2 or not len(gaussians):
        raise ValueError(f"{where} must have two columns, B and beta, and at least one row")
    if not np.isfinite(gaussians).all():
        raise ValueError(f"{where} holds a number that is not finite")
    if (gaussians[:, 1] <= 0).any():
        raise ValueError(f"{where} has beta {gaussians[:, 1].min()}, which must be positive")
    return gaussians


@lru_cache(maxsize=len(TABLES))
def _table(name: str) -> dict[str, Any]:
    path = Path(__file__).parent / f"{name}.json"
    return json.loads(path.read_text(encoding="utf8"))["elements"]
