"""Symmetry functions chosen for the frames at hand, where a configuration gives a recipe.

    fp_params: auto
    fp_params: {recipe: auto, size: large}
    fp_params: {recipe: gastegger-shifted, n_radial: 10, cutoff: 5.5, zetas: [1, 4]}

Radial functions stand where `recipes.symmetry_functions` puts them. Of the angular ones G5 with an
integer ζ up to 6 costs a time linear in the number of neighbours, so that many widths and powers of
it cost less than a few G4; G4, which sees the distance of the two neighbours too, has the shorter
cutoff. Where the pairs of elements would make too many functions, those weighted by atomic numbers
take their place, whose number does not grow with the elements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from amptorch.checks import choice, known_keys, number
from amptorch.descriptor.Gaussian.recipes import (
    RADIAL,
    PairDistances,
    pair_distances,
    symmetry_functions,
)
from amptorch.frames import Frames

# Functions of each element, in Amp's list form.
Entries: TypeAlias = dict[str, list[dict[str, Any]]]
AUTO = "auto"
LIMITLESS = 10_000
# Of each size: cutoff (Å), number of radial functions, and how many widths and which powers the
# angular ones have, for up to so many pairs of elements around an atom. The Kalman filter's time
# grows with the square of the number of functions, and so a pair has fewer where there are more.
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "cutoff": 5.0,
        "n_radial": 6,
        "angular": {
            1: {"G5": (2, (1.0, 4.0)), "G4": (2, (1.0, 4.0))},
            3: {"G4": (2, (1.0, 4.0))},
            LIMITLESS: {"G4": (2, (1.0,))},
        },
    },
    "medium": {
        "cutoff": 6.0,
        "n_radial": 8,
        "angular": {
            1: {"G5": (2, (1.0, 2.0, 4.0, 6.0)), "G4": (2, (1.0, 2.0, 4.0, 16.0))},
            3: {"G5": (2, (1.0, 4.0)), "G4": (2, (1.0, 4.0))},
            LIMITLESS: {"G4": (2, (1.0, 4.0))},
        },
    },
    "large": {
        "cutoff": 6.0,
        "n_radial": 10,
        "angular": {
            1: {"G5": (3, (1.0, 2.0, 4.0, 6.0)), "G4": (3, (1.0, 2.0, 4.0, 16.0))},
            3: {"G5": (2, (1.0, 2.0, 4.0)), "G4": (2, (1.0, 2.0, 4.0, 16.0))},
            LIMITLESS: {"G5": (2, (1.0, 4.0)), "G4": (2, (1.0, 4.0))},
        },
    },
}
ANGLES = ("G5", "G4")
KEYS = ("recipe", "size", "cutoff", "n_radial", "n_angular", "zetas", "angular", "angular_cutoff")
# Functions of an element, beyond which they are weighted by atomic numbers.
MOST_FUNCTIONS = 150
# Frames that are looked at.
SOME_FRAMES = 200


def is_recipe(fp_params: Any) -> bool:
    """Tell whether parameters of fingerprints are a recipe, which needs frames."""
    return isinstance(fp_params, Mapping) and "recipe" in fp_params


def functions_of(recipe: Mapping[str, Any], frames: Frames, elements: Sequence[str]) -> dict:
    """Return `fp_params`, in Amp's list form, of the symmetry functions that a recipe makes.

    recipe : {"recipe": "auto" or a name in `recipes.RADIAL`, "size": "small", "medium" (default) or
        "large"}, and any of "cutoff", "angular_cutoff" (Å), "n_radial", "n_angular", "zetas",
        "angular" ("G4", "G5" or both) in place of what the size has
    frames : at most 200 of them are looked at, evenly spread
    elements : symbols, in the order of the descriptor

    Raises ValueError or TypeError that names the key which cannot be used.
    """
    known_keys("dataset.fp_params", recipe, KEYS)
    radial = choice(AUTO, *RADIAL)("dataset.fp_params.recipe", recipe["recipe"])
    size = choice(*SIZES)("dataset.fp_params.size", recipe.get("size", "medium"))
    chosen = _with_changes(SIZES[size], len(elements) * (len(elements) + 1) // 2, recipe)
    cutoff = number(above=0)("dataset.fp_params.cutoff", chosen["cutoff"])
    several = np.flatnonzero((frames.counts > 1) | frames.pbc.any(axis=1))
    if not len(several):
        raise ValueError(
            "dataset.fp_params is a recipe, but every frame is a single atom: there is no distance "
            "to place functions at"
        )
    some = several[np.unique(np.linspace(0, len(several) - 1, SOME_FRAMES).astype(int))]
    some = frames.select(some)
    series = ("imbalzano-shifted",) if radial == AUTO else (radial,)
    angular = [chosen[kind].get("angular_cutoff", cutoff) for kind in ANGLES if kind in chosen]
    longest = max([cutoff, *angular])
    of_pairs = pair_distances(some, cutoff=longest, elements=elements)
    of_all = pair_distances(replace(some, numbers=np.ones_like(some.numbers)), cutoff=longest)
    radial_part = _radial(of_pairs, chosen, series)
    angular_part = _angular(of_pairs, chosen)
    params = {symbol: radial_part[symbol] + angular_part[symbol] for symbol in elements}
    if _largest(params) > MOST_FUNCTIONS:
        # One channel of all elements has room for as many shapes as one element.
        chosen = _with_changes(SIZES[size], 1, recipe)
        angular_part = _weighted(_angular(of_all, chosen), elements)
        params = {symbol: radial_part[symbol] + angular_part[symbol] for symbol in elements}
    if _largest(params) > MOST_FUNCTIONS:
        radial_part = _weighted(_radial(of_all, chosen, series), elements)
        params = {symbol: radial_part[symbol] + angular_part[symbol] for symbol in elements}
    return {"cutoff": cutoff, **params}


def angular_kinds(recipe: Mapping[str, Any], n_elements: int) -> list[str]:
    """Return which of G4 and G5 `functions_of` takes for frames of so many elements."""
    size = SIZES[recipe.get("size", "medium")]
    n_pairs = n_elements * (n_elements + 1) // 2
    chosen = _with_changes(size, n_pairs, recipe)
    # Of each width and power there are two, of both signs of λ.
    of_pair = sum(
        2 * chosen[kind]["n_angular"] * len(chosen[kind]["zetas"])
        for kind in ANGLES
        if kind in chosen
    )
    if n_elements * chosen["n_radial"] + n_pairs * of_pair > MOST_FUNCTIONS:
        chosen = _with_changes(size, 1, recipe)
    return [kind for kind in ANGLES if kind in chosen]


def _with_changes(
    size: Mapping[str, Any], n_pairs: int, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a size says for so many pairs of elements, with what the recipe says instead."""
    cutoff = recipe.get("cutoff", size["cutoff"])
    kinds = next(kinds for most, kinds in size["angular"].items() if n_pairs <= most)
    wanted = recipe.get("angular", tuple(kinds))
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    chosen = {"cutoff": cutoff, "n_radial": recipe.get("n_radial", size["n_radial"])}
    for kind in wanted:
        if kind not in ANGLES:
            raise ValueError(f"dataset.fp_params.angular: {kind!r} is not one of G4 and G5")
        n_angular, zetas = kinds.get(kind, kinds["G4"])
        chosen[kind] = {
            "n_angular": recipe.get("n_angular", n_angular),
            "zetas": recipe.get("zetas", zetas),
            "angular_cutoff": recipe.get("angular_cutoff", cutoff),
        }
    return chosen


def _radial(distances: PairDistances, chosen: Mapping[str, Any], series: Sequence[str]) -> Entries:
    return _entries(distances, chosen["cutoff"], series, chosen["n_radial"], angular=None)


def _angular(distances: PairDistances, chosen: Mapping[str, Any]) -> Entries:
    found: Entries = {symbol: [] for symbol in distances.elements}
    for kind in ANGLES:
        if kind in chosen:
            more = _entries(distances, chosen["cutoff"], None, angular=kind, **chosen[kind])
            found = {symbol: found[symbol] + more[symbol] for symbol in found}
    return found


def _entries(distances: PairDistances, cutoff: float, *radial: Any, **changes: Any) -> Entries:
    """Return `symmetry_functions` of each element, none for one that never has a neighbour."""
    changes["skip_lonely"] = True
    params = symmetry_functions(distances, cutoff, *radial, **changes)
    return {symbol: params[symbol] for symbol in distances.elements}


def _weighted(entries: Entries, elements: Sequence[str]) -> Entries:
    """Return functions of one element for all of them, weighted by the neighbours' numbers."""
    (of_one,) = entries.values()
    weighted = [
        {name: value for name, value in entry.items() if name not in ("element", "elements")}
        | {"type": entry["type"] + "W"}
        for entry in of_one
    ]
    return dict.fromkeys(elements, weighted)


def _largest(params: Entries) -> int:
    return max(len(entries) for entries in params.values())
