"""Electron densities of atoms as sums of Gaussians, Σ_g B_g exp(−β_g r²)."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "valence.json"


def valence_gaussians(symbol):
    """The valence density of a free atom as an array (G, 2) of B (Å⁻³) and β (Å⁻²).

    These are the package's own fits, see docs/gmp.md. Raises ValueError that names an element which
    has none.
    """
    table = _table()
    if symbol not in table:
        raise ValueError(
            f"there is no valence density of {symbol!r} in the package; give one for each element "
            "in fp_params['atom_gaussians']"
        )
    return np.array(table[symbol]["gaussians"], dtype=np.float64)


def read_gaussians(path, where="the density"):
    """An array (G, 2) of B and β out of a text file of two columns, such as v1.0's `.g` files.

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


def check_gaussians(gaussians, where):
    """`gaussians`, or a ValueError where it is not (G, 2) finite numbers with β > 0."""
    if gaussians.ndim != 2 or gaussians.shape[1] != 2 or not len(gaussians):
        raise ValueError(f"{where} must have two columns, B and beta, and at least one row")
    if not np.isfinite(gaussians).all():
        raise ValueError(f"{where} holds a number that is not finite")
    if (gaussians[:, 1] <= 0).any():
        raise ValueError(f"{where} has beta {gaussians[:, 1].min()}, which must be positive")
    return gaussians


@lru_cache(maxsize=1)
def _table():
    return json.loads(TABLE.read_text(encoding="utf8"))["elements"]
