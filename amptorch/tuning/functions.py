"""The symmetry functions of a trial, out of its parameters and the distances in the data."""

from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from amptorch.descriptor.Gaussian.recipes import RADIAL, PairDistances, pool, symmetry_functions
from amptorch.descriptor.Gaussian.setup import neighbor_elements
from amptorch.files import read_json, write_json
from amptorch.frames import Frames
from amptorch.tuning.selection import select_functions

CUTOFFS: dict[str, dict[str, Any]] = {
    "cosine": {"cutoff_func": "Cosine"},
    "polynomial": {"cutoff_func": "Polynomial", "gamma": 4.0},
}
ETAS = {"long": (1.0,), "short": (6.0,), "both": (1.0, 6.0)}
METHODS = {"cur": "cur", "fps": "farthest_points"}
# Å; the nearest of the shells, just below the shortest bond there is.
FIRST_SHELL = 0.9
# Atoms of each element whose fingerprints are looked at to choose functions.
ATOMS = 1000


def shells(cutoff: float, n: int) -> list[tuple[float, float]]:
    """Return n pairs (η in 1/Rc², Rs in Å): shells from 0.9 Å to 0.8 Rc in equal
    ratios. The width of each (standard deviation) is 0.6 of the distance to the next."""
    centres = np.geomspace(FIRST_SHELL, 0.8 * cutoff, n)
    widths = 0.6 * np.gradient(centres)
    return [
        (0.5 * (cutoff / width) ** 2, centre) for centre, width in zip(centres, widths, strict=True)
    ]


def by_recipe(params: dict[str, Any], distances: PairDistances) -> dict[str, Any]:
    """Return `fp_params` in Amp's list form of a trial whose `selection` is "none"."""
    cutoff, elements = params["cutoff"], distances.elements
    zetas = tuple(float(zeta) for zeta in params["angular_zetas"].split())
    placed: dict[str, list] = {symbol: [] for symbol in elements}
    if params["radial_recipe"] in RADIAL:
        rows = symmetry_functions(
            distances, cutoff, radial=params["radial_recipe"], n_radial=params["radial"], angular=()
        )
        for symbol in elements:
            placed[symbol] += rows[symbol]
    else:
        for symbol in elements:
            placed[symbol] += [
                {"type": "G2", "element": element, "eta": float(eta), "Rs": float(centre)}
                for element in elements
                for eta, centre in shells(cutoff, params["radial"])
            ]
    if params["angular_range"] in ETAS:
        angles = [
            {
                "type": params["angular_kind"],
                "elements": list(pair),
                "eta": eta,
                "zeta": zeta,
                "gamma": gamma,
            }
            for pair in neighbor_elements(params["angular_kind"], elements)
            for eta in ETAS[params["angular_range"]]
            for zeta in zetas
            for gamma in (1.0, -1.0)
        ]
        rows = dict.fromkeys(elements, angles)
    else:
        rows = symmetry_functions(
            distances, cutoff, radial=(), angular=params["angular_kind"], zetas=zetas
        )
    for symbol in elements:
        placed[symbol] += rows[symbol]
    return {"cutoff": cutoff, **placed}


def by_selection(
    params: dict[str, Any], distances: PairDistances, frames: Frames, ranked: Path, most: int
) -> dict[str, Any]:
    """Return `fp_params` of a trial whose `selection` is "cur" or "fps".

    Functions are chosen one after the other, so that a shorter list is the beginning of a longer
    one: `most` are put in order once, and kept in the folder `ranked` for all trials.
    """
    cutoff = params["cutoff"]
    name = f"{params['selection']}-{cutoff:g}-{params['cutoff_function']}-{most}.json"
    path = ranked / name
    ranked.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            chosen = select_functions(
                frames,
                pool(distances, cutoff),
                most,
                METHODS[params["selection"]],
                elements=distances.elements,
                cutoff_params=CUTOFFS[params["cutoff_function"]],
                atoms_per_element=ATOMS,
            )
            write_json(path, chosen)
    chosen = read_json(path)
    return {
        "cutoff": cutoff,
        **{symbol: chosen[symbol][: params["functions"]] for symbol in distances.elements},
    }
