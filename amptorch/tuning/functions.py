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
from amptorch.tuning.settings import CUTOFFS

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
    etas = 0.5 * (cutoff / (0.6 * np.gradient(centres))) ** 2
    return list(zip(etas.tolist(), centres.tolist(), strict=True))


def by_recipe(params: dict[str, Any], distances: PairDistances) -> dict[str, Any]:
    """Return `fp_params` in Amp's list form of a trial whose `selection` is "none"."""
    cutoff, elements, kind = params["cutoff"], distances.elements, params["angular_kind"]
    zetas = tuple(float(zeta) for zeta in params["angular_zetas"].split())
    recipe, n = params["radial_recipe"], params["radial"]
    if recipe in RADIAL:
        radial = symmetry_functions(distances, cutoff, recipe, n, angular=())
    else:
        rows = [
            {"type": "G2", "element": element, "eta": eta, "Rs": centre}
            for element in elements
            for eta, centre in shells(cutoff, n)
        ]
        radial = dict.fromkeys(elements, rows)
    if params["angular_range"] in ETAS:
        rows = [
            {"type": kind, "elements": list(pair), "eta": eta, "zeta": zeta, "gamma": gamma}
            for pair in neighbor_elements(kind, elements)
            for eta in ETAS[params["angular_range"]]
            for zeta in zetas
            for gamma in (1.0, -1.0)
        ]
        angular = dict.fromkeys(elements, rows)
    else:
        angular = symmetry_functions(distances, cutoff, radial=(), angular=kind, zetas=zetas)
    return {"cutoff": cutoff, **{symbol: radial[symbol] + angular[symbol] for symbol in elements}}


def by_selection(
    params: dict[str, Any], distances: PairDistances, frames: Frames, ranked: Path, most: int
) -> dict[str, Any]:
    """Return `fp_params` of a trial whose `selection` is "cur" or "fps".

    Functions are chosen one after the other, so that a shorter list is the beginning of a longer
    one: `most` are put in order once, and kept in the folder `ranked` for all trials.
    """
    cutoff, method, form = params["cutoff"], params["selection"], params["cutoff_function"]
    path = ranked / f"{method}-{cutoff:g}-{form}-{most}.json"
    ranked.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            chosen = select_functions(
                frames,
                pool(distances, cutoff),
                most,
                METHODS[method],
                elements=distances.elements,
                cutoff_params=CUTOFFS[form],
                atoms_per_element=ATOMS,
            )
            write_json(path, chosen)
    chosen = read_json(path)
    return {"cutoff": cutoff, **{s: chosen[s][: params["functions"]] for s in distances.elements}}
