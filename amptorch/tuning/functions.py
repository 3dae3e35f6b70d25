"""The symmetry functions of a trial, out of its parameters and the distances in the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amptorch.descriptor.Gaussian.auto import AUTO
from amptorch.descriptor.Gaussian.recipes import PairDistances, pool
from amptorch.files import read_json, write_json
from amptorch.frames import Frames
from amptorch.locks import locked
from amptorch.tuning.selection import select_functions
from amptorch.tuning.settings import CUTOFFS

OWN = "own"
METHODS = {"cur": "cur", "fps": "farthest_points"}
# Atoms of each element whose fingerprints are looked at to choose functions.
ATOMS = 1000


def recipe_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe, `fp_params` in a configuration, of a trial whose `selection` is "none"."""
    if params["size"] != OWN:
        return {"recipe": AUTO, "size": params["size"]}
    return {
        "recipe": AUTO,
        "cutoff": params["cutoff"],
        "n_radial": params["n_radial"],
        "n_angular": params["n_angular"],
        "zetas": [float(zeta) for zeta in params["zetas"].split()],
        "angular": params["angular"].split(),
        "angular_cutoff": min(params["angular_cutoff"], params["cutoff"]),
    }


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
    with locked(path.with_suffix(".lock")):
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
