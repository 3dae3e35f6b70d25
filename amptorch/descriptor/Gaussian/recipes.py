"""Symmetry functions placed by published recipes, within the distances that occur in the data.

- M. Gastegger, L. Schwiedrzik, M. Bittermann, F. Berzsenyi, P. Marquetand,
  J. Chem. Phys. 148, 241709 (2018): radial functions on an even grid.
- G. Imbalzano, A. Anelli, D. Giofré, S. Klees, J. Behler, M. Ceriotti,
  J. Chem. Phys. 148, 241730 (2018): radial functions on a geometric grid; angular functions of the
  centred widths with every ζ and λ; a large pool of them to select from.

docs/symmetry_functions.md has the formulas and says what is ours in them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from amptorch.checks import nearest as did_you_mean
from amptorch.descriptor.Gaussian.setup import check_cutoff, neighbor_elements
from amptorch.frames import Frames, elements_of
from amptorch.neighbors import NeighborList, neighbor_list

ANGULAR = ("G4", "G5")
# Å; width of the bins of the histogram of distances.
BIN = 0.01
# Å; the even grids end so far before the cutoff, beyond which a function would see nothing.
MARGIN = 0.5
# A function whose largest term in all the data is smaller than this is left out.
FAINT = 1e-3
# In 1/Rc², the largest eta of a G4, from when steeper ones cost five times as much. They no longer
# do; what they would add to a potential has not been measured.
LARGEST_G4_ETA = 10.0
# Share of the atoms whose nearest neighbour may be nearer than where the recipes begin: one frame
# that went wrong, with two atoms in each other, shall not place the functions of all others.
NEAREST = 0.01


@dataclass(frozen=True)
class PairDistances:
    """Hold the distances below `cutoff` (Å) that occur between each two elements.

    elements: symbols; counts: {(a, b): (B,) int} for every two symbols in either order, how many
    ordered pairs have their distance in each bin around `centers` (B,), Å.
    smallest: {(a, b): Å} of all these distances. nearest: {(a, b): Å}, the distance from an atom of
    `a` to its nearest of `b` that only one atom in a hundred goes below (of those that have one
    within the cutoff). Both are infinite where there is none.
    """

    elements: list[str]
    cutoff: float
    centers: np.ndarray
    counts: dict[tuple[str, str], np.ndarray]
    smallest: dict[tuple[str, str], float]
    nearest: dict[tuple[str, str], float]

    def occurring(self, a: str, b: str) -> np.ndarray:
        """Return the distances (Å, bin centres) that occur from an atom of `a` to one of `b`."""
        return self.centers[self.counts[a, b] > 0]

    def reach(self, symbol: str) -> float:
        """Return the nearest distance (Å) of any element to `symbol`; infinite where none is."""
        return min(self.nearest[symbol, neighbor] for neighbor in self.elements)


def pair_distances(
    frames: Frames,
    neighbors: NeighborList | None = None,
    cutoff: float | None = None,
    elements: Sequence[str] | None = None,
) -> PairDistances:
    """Return the `PairDistances` of `frames`.

    neighbors: their NeighborList; without one it is made, for `cutoff` (Å). elements: symbols, in
    the order of the descriptor; those of the frames, sorted, where None.
    """
    if neighbors is None:
        neighbors = neighbor_list(frames, check_cutoff("pair_distances", cutoff))
    if elements is None:
        elements = elements_of(frames)
    index = np.full(len(chemical_symbols), -1)
    index[[chemical_symbols.index(symbol) for symbol in elements]] = np.arange(len(elements))
    species = index[frames.numbers]
    if species.min() < 0:
        frame, atom = frames.place(int(np.argmin(species)))
        raise ValueError(f"frame {frame}, atom {atom}: this element is not in elements {elements}")
    distances = np.linalg.norm(neighbors.vectors, axis=1)
    n_elements, n_bins = len(elements), int(np.ceil(neighbors.cutoff / BIN))
    bins = np.minimum((distances / BIN).astype(np.int64), n_bins - 1)
    neighbor_species = species[neighbors.neighbors]
    pairs = species[neighbors.centers] * n_elements + neighbor_species
    counts = np.bincount(pairs * n_bins + bins, minlength=n_elements**2 * n_bins)
    counts = counts.reshape(n_elements, n_elements, n_bins)
    of_atoms = np.full((frames.n_atoms, n_elements), np.inf)
    np.minimum.at(of_atoms, (neighbors.centers, neighbor_species), distances)
    places = {(a, b): (i, j) for i, a in enumerate(elements) for j, b in enumerate(elements)}
    found = {pair: of_atoms[species == i, j] for pair, (i, j) in places.items()}
    found = {pair: values[np.isfinite(values)] for pair, values in found.items()}
    return PairDistances(
        elements=list(elements),
        cutoff=neighbors.cutoff,
        centers=(np.arange(n_bins) + 0.5) * BIN,
        counts={pair: counts[place] for pair, place in places.items()},
        smallest={pair: float(min(values, default=np.inf)) for pair, values in found.items()},
        nearest={
            pair: float(np.quantile(values, NEAREST)) if len(values) else np.inf
            for pair, values in found.items()
        },
    )


# --- series of n radial functions: (n, 2) arrays of η (1/Å²) and Rs (Å) ---


def gastegger_centered(n: int, cutoff: float, nearest: float) -> np.ndarray:
    """Return η_i = 1/(2 R_i²), Rs = 0, R_i on an even grid from `nearest` to `cutoff` − 0.5 Å.

    Gaussians around the atom whose standard deviations are the R_i."""
    return np.column_stack((1 / (2 * _even_grid(n, cutoff, nearest) ** 2), np.zeros(n)))


def gastegger_shifted(n: int, cutoff: float, nearest: float) -> np.ndarray:
    """Return Rs on an even grid from `nearest` to `cutoff` − 0.5 Å, η = 1/(2 ΔR²), ΔR its step.

    Shells of one width, whose standard deviation is their distance."""
    grid = _even_grid(n, cutoff, nearest)
    return np.column_stack((np.full(n, 1 / (2 * (grid[1] - grid[0]) ** 2)), grid))


def imbalzano_centered(n: int, cutoff: float, nearest: float) -> np.ndarray:
    """Return η_m = (ρ^(m/(n−1)) / Rc)², Rs = 0, for m = 0 … n − 1, with ρ = Rc / `nearest`.

    Widths from the cutoff down to the nearest distance in equal ratios. The paper has ρ = n − 1
    (its n is the number of steps), which knows nothing of the data."""
    steps = np.arange(n) / (n - 1)
    return np.column_stack((((cutoff / nearest) ** steps / cutoff) ** 2, np.zeros(n)))


def imbalzano_shifted(n: int, cutoff: float, nearest: float) -> np.ndarray:
    """Return Rs,m = Rc / ρ^(m/n), η_m = 1/(Rs,m−1 − Rs,m)² for m = 1 … n, with ρ = Rc / `nearest`.

    Shells that grow wider with the distance, from the nearest one outwards. The paper has ρ = n;
    the shell at the cutoff itself (m = 0) would see nothing."""
    grid = cutoff / (cutoff / nearest) ** (np.arange(n + 1) / n)
    return np.column_stack((1 / np.diff(grid) ** 2, grid[1:]))[::-1]


RADIAL: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "gastegger-centered": gastegger_centered,
    "gastegger-shifted": gastegger_shifted,
    "imbalzano-centered": imbalzano_centered,
    "imbalzano-shifted": imbalzano_shifted,
}
CENTERED = ("gastegger-centered", "imbalzano-centered")


def _even_grid(n: int, cutoff: float, nearest: float) -> np.ndarray:
    # Where the nearest neighbour is almost at the cutoff, half of what is left is the margin.
    last = max(cutoff - MARGIN, (nearest + cutoff) / 2)
    return np.linspace(nearest, last, n)


# --- sets of functions ---


def symmetry_functions(
    distances: PairDistances,
    cutoff: float,
    radial: str | Iterable[str] | None = ("imbalzano-shifted",),
    n_radial: int = 8,
    angular: str | Iterable[str] | None = ("G4",),
    n_angular: int = 2,
    zetas: Sequence[float] = (1.0, 4.0),
    lambdas: Sequence[float] = (1.0, -1.0),
    angular_widths: str = "imbalzano-centered",
    angular_cutoff: float | None = None,
    skip_lonely: bool = False,
) -> dict[str, Any]:
    """Return `fp_params` (Amp's list form, plain numbers and strings) by the recipes.

    Parameters
    ----------
    distances : PairDistances of the data, up to `cutoff` at least
    cutoff : Å
    radial : names in RADIAL; each gives `n_radial` G2 functions to every two elements, from their
        own nearest distance on
    angular : any of "G4", "G5"; each gets every combination of `n_angular` widths, `zetas` and
        `lambdas`, around every element and for every two neighbour elements
    angular_widths : name in CENTERED, the series of η, from the element's nearest neighbour on. One
        series an element, because functions that share η share most of their cost; that of G4 ends
        at η = 10/Rc²
    angular_cutoff : Å, of G4 and G5; `cutoff` where None
    skip_lonely : no functions, rather than an error, for an element that never has a neighbour

    Functions that see none of the data are left out: those of elements that are never within the
    cutoff, and those whose largest possible term at the distances that occur is below 1e-3. The
    list of an element is empty where only angles are asked for and there are none.

    Raises ValueError that names the argument, or the element that has no neighbours.
    """
    radial, angular = _names(radial), _names(angular)
    _check("radial", radial, RADIAL)
    _check("angular", angular, ANGULAR)
    _check("angular_widths", [angular_widths], CENTERED)
    cutoff = _reached("cutoff", cutoff, distances)
    angular_cutoff = cutoff if angular_cutoff is None else angular_cutoff
    angular_cutoff = _reached("angular_cutoff", angular_cutoff, distances)
    for name, count in (("n_radial", n_radial), ("n_angular", n_angular)):
        if count != int(count) or count < 2:
            raise ValueError(f"{name} is {count}; a series needs two functions or more")
    params: dict[str, Any] = {"cutoff": cutoff}
    for symbol in distances.elements:
        if distances.reach(symbol) >= cutoff:
            if skip_lonely:
                params[symbol] = []
                continue
            raise ValueError(
                f"{symbol} has no neighbour within {cutoff} Å in these frames, so that no symmetry "
                "function of it would see anything; use a longer cutoff or leave these frames out"
            )
        entries = [
            entry
            for neighbor in distances.elements
            for recipe in radial
            for entry in _radial_entries(recipe, n_radial, symbol, neighbor, cutoff, distances)
        ]
        widths = RADIAL[angular_widths], n_angular
        for kind in angular:
            for eta in _angular_etas(kind, widths, symbol, angular_cutoff, distances):
                shapes = [(zeta, gamma) for zeta in zetas for gamma in lambdas]
                for pair in _seen_pairs(kind, eta, symbol, angular_cutoff, distances):
                    entries += [
                        _angular_entry(kind, pair, eta, shape, angular_cutoff) for shape in shapes
                    ]
        params[symbol] = _without_repetition(entries)
    return params


def pool(distances: PairDistances, cutoff: float, **changes: Any) -> dict[str, Any]:
    """Return `symmetry_functions` of every recipe: a few hundred an element, to select from.

    `changes` are arguments of `symmetry_functions`.
    """
    every: dict[str, Any] = {
        "radial": tuple(RADIAL),
        "n_radial": 10,
        "angular": ANGULAR,
        "n_angular": 3,
        "zetas": (1.0, 2.0, 4.0),
    }
    return symmetry_functions(distances, cutoff, **{**every, **changes})


def _radial_entries(
    recipe: str, n: int, symbol: str, neighbor: str, cutoff: float, distances: PairDistances
) -> Iterator[dict[str, Any]]:
    nearest = distances.nearest[symbol, neighbor]
    if nearest >= cutoff:
        return
    occurring = distances.occurring(symbol, neighbor)
    occurring = occurring[occurring < cutoff]
    for eta, shift in RADIAL[recipe](n, cutoff, nearest):
        terms = np.exp(-eta * (occurring - shift) ** 2) * _cosine_cutoff(occurring, cutoff)
        if terms.max(initial=0.0) >= FAINT:
            yield {
                "type": "G2",
                "element": neighbor,
                "eta": _short(eta * cutoff**2),
                "Rs": _short(shift),
                "cutoff": cutoff,
            }


def _angular_etas(
    kind: str, widths: tuple, symbol: str, cutoff: float, distances: PairDistances
) -> Iterable[float]:
    series, n = widths
    nearest = distances.reach(symbol)
    if nearest >= cutoff:
        return []
    if kind == "G4":
        nearest = max(nearest, cutoff / np.sqrt(LARGEST_G4_ETA))
    return series(n, cutoff, nearest)[:, 0]


def _seen_pairs(
    kind: str, eta: float, symbol: str, cutoff: float, distances: PairDistances
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of neighbour elements so near that exp(−η Σ r²) is not negligible."""
    for pair in neighbor_elements(kind, distances.elements):
        lengths = [distances.nearest[symbol, neighbor] for neighbor in pair]
        if kind == "G4":
            lengths.append(distances.nearest[pair])
        sides = np.array(lengths)
        if (sides < cutoff).all():
            largest = np.exp(-eta * (sides**2).sum()) * _cosine_cutoff(sides, cutoff).prod()
            # 2^(1−ζ) (1 + λ cosθ)^ζ is 2 at most.
            if 2 * largest >= FAINT:
                yield pair


def _angular_entry(
    kind: str, pair: tuple[str, str], eta: float, shape: tuple[float, float], cutoff: float
) -> dict[str, Any]:
    return {
        "type": kind,
        "elements": list(pair),
        "eta": _short(eta * cutoff**2),
        "zeta": float(shape[0]),
        "gamma": float(shape[1]),
        "cutoff": cutoff,
    }


def _cosine_cutoff(r: np.ndarray, cutoff: float) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * r / cutoff))


def _short(number: float) -> float:
    """Round to six digits, which are enough to place a function and are easy to read."""
    return float(f"{number:.6g}")


def _without_repetition(entries: list) -> list:
    return [entry for place, entry in enumerate(entries) if entry not in entries[:place]]


def _names(given: str | Iterable[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def _check(argument: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{argument}: {name!r} is not known{did_you_mean(name, list(known))}")


def _reached(argument: str, cutoff: float, distances: PairDistances) -> float:
    cutoff = check_cutoff(argument, cutoff)
    if cutoff > distances.cutoff:
        raise ValueError(
            f"{argument} is {cutoff} Å, but the distances are known up to {distances.cutoff} Å; "
            "list neighbours up to the longest cutoff"
        )
    return cutoff
