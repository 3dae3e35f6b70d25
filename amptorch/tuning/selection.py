"""A few symmetry functions out of a large pool, chosen by their values on the data.

G. Imbalzano, A. Anelli, D. Giofré, S. Klees, J. Behler, M. Ceriotti, J. Chem. Phys. 148, 241730
(2018): the values of the pool's functions on the atoms of the data are the columns of a matrix X,
and columns are chosen that say most about all of it (CUR), or that differ most (farthest points).
No energies or forces are looked at.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from scipy.linalg import eigh, qr
from threadpoolctl import threadpool_limits

from amptorch.checks import nearest
from amptorch.data.fingerprints import chunks_of_frames
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.Gaussian.setup import (
    ANGULAR,
    KINDS,
    PARAMETERS,
    check_keys,
    descriptor_setup,
)
from amptorch.frames import Frames, elements_of
from amptorch.neighbors import NeighborList

# Scores that differ by less than this share are a tie, which the lower index wins.
TIE = 1e-9
# A column is constant, or a combination of others, where no more than this share of it is left.
NOTHING = 1e-10
# Standard deviation below which the feature scaler takes a function for constant.
CONSTANT = 1e-6

logger = logging.getLogger(__name__)


def cur(X: np.ndarray, k: int, costs: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Return the indices of `k` columns of X (rows, n) by leverage scores, in order of choice.

    Columns are standardised. The score of a column is π_c = (v_c)², v the first right singular
    vector; the column with the highest is taken, all others are made orthogonal to it, and so on
    with the singular vector of what is left (one vector a step, as the paper does it).

    costs: (n,), by which the scores are divided. Deterministic; ties go to the lower index.

    Raises ValueError where X is not finite, or fewer than `k` of its columns are independent.
    """
    chosen = _cur(_prepared(X, _positive("k", k), costs), k)
    if len(chosen) < k:
        raise ValueError(
            f"k is {k}, but only {len(chosen)} of the {np.shape(X)[1]} columns are independent of "
            "each other"
        )
    return chosen


def farthest_points(
    X: np.ndarray,
    k: int,
    costs: Sequence[float] | np.ndarray | None = None,
    metric: str = "correlation",
) -> np.ndarray:
    """Return the indices of `k` columns of X (rows, n) by farthest-point sampling, in order.

    The next column is the one whose distance to the nearest of those chosen is largest. metric:
    "euclidean", the distance √(2 − 2ρ) of standardised columns with correlation ρ, or
    "correlation", √(1 − ρ²), to which a column and its negative are one: both say the same. The
    first is the column that has most in common with all (largest Σ ρ²).

    costs: (n,), by which the distances are divided. Deterministic; ties go to the lower index.

    Raises ValueError where X is not finite or has fewer than `k` columns that vary.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}{nearest(metric, list(METRICS))}")
    k = _positive("k", k)
    columns, varying, prices = _prepared(X, k, costs)
    correlation = np.clip(columns.T @ columns, -1, 1)
    distances = METRICS[metric](correlation)
    chosen = [_first_largest((correlation**2).sum(axis=0) / prices)]
    to_chosen = distances[chosen[0]].copy()
    while len(chosen) < k:
        to_chosen[chosen] = -1
        chosen.append(_first_largest(to_chosen / prices))
        np.minimum(to_chosen, distances[chosen[-1]], out=to_chosen)
    return varying[chosen]


METRICS = {
    "euclidean": lambda correlation: np.sqrt(2 - 2 * correlation),
    "correlation": lambda correlation: np.sqrt(1 - correlation**2),
}
METHODS = ("cur", "farthest_points")


def reconstruction_error(X: np.ndarray, columns: Sequence[int] | np.ndarray) -> float:
    """Return ‖X − X_c X_c⁺ X‖ / ‖X‖ of the standardised columns: the share of all columns that is
    no linear combination of the chosen ones (0: nothing is lost; 1: nothing is kept)."""
    standard, varying, _ = _prepared(X, 0, None)
    places = np.searchsorted(varying, np.intersect1d(columns, varying))
    basis = qr(standard[:, places], mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(basis[1])) > NOTHING).sum())
    basis = basis[0][:, :rank]
    return float(np.linalg.norm(standard - basis @ (basis.T @ standard)) / np.sqrt(len(varying)))


def select_functions(
    frames: Frames,
    pool: Any,
    k: int | Mapping[str, int] | None,
    method: str = "cur",
    elements: Sequence[str] | None = None,
    cutoff_params: dict[str, Any] | None = None,
    neighbors: NeighborList | None = None,
    costs: Mapping[str, float] | None = None,
    atoms_per_element: int = 2000,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, list]:
    """Return `fp_params` with `k` functions of `pool` for every element, by values on `frames`.

    Parameters
    ----------
    pool : fp_params of the scheme "gaussian" in any form, such as `recipes.pool` makes
    k : functions of an element, or {symbol: number}; None for all that vary. An element of which
        fewer vary (standard deviation above 1e-6) keeps all these, with a warning in the log
    method : "cur" or "farthest_points"
    neighbors : NeighborList of `frames`, if there is one, up to the pool's cutoff or beyond
    costs : {"G2": 1.0, "G4": 3.0, ...}, by which scores are divided; all 1 where None
    atoms_per_element : so many, drawn with `seed`, are looked at

    Returns Amp's list form, {symbol: [entries]}, in the order of choice, of plain numbers and
    strings. What was chosen from how many, what that leaves unsaid, and the time go to the log.

    Raises ValueError that names the argument or the element.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}{nearest(method, METHODS)}")
    check_keys("costs", costs or {}, PARAMETERS)
    start = time.perf_counter()
    elements = elements_of(frames) if elements is None else elements
    descriptor = Gaussian(pool, elements, cutoff_params)
    samples = _sample(frames, descriptor, neighbors, atoms_per_element, seed, threads)
    described = time.perf_counter()
    selected = {}
    for symbol, entries in as_entries(pool, elements).items():
        X, number = samples[symbol], k.get(symbol) if isinstance(k, Mapping) else k
        prices = np.array([(costs or {}).get(entry["type"], 1.0) for entry in entries])
        chosen = _choose(symbol, X, number, method, prices)
        selected[symbol] = [entries[column] for column in chosen]
        text = "%s: %d of %d functions by %s, reconstruction error %.3g on %d atoms"
        error = reconstruction_error(X, chosen)
        logger.info(text, symbol, len(chosen), X.shape[1], method, error, len(X))
    seconds = described - start, time.perf_counter() - described
    logger.info("values of the pool took %.1f s, the choice %.1f s", *seconds)
    return selected


def as_entries(fp_params: Any, elements: Sequence[str]) -> dict[str, list]:
    """Return {symbol: [entry]}: the functions of `fp_params` in Amp's list form.

    Every entry has its own cutoff; the order is that of the fingerprint's columns. Functions of
    `recipes` do not change by a bit; an eta given in 1/Å² may change by its last bit.
    """
    return {
        symbol: [_entry(*row) for row in rows.tolist()]
        for symbol, rows in descriptor_setup(fp_params, elements).items()
    }


def _entry(
    number: float, first: float, second: float, cutoff: float, *values: float
) -> dict[str, Any]:
    kind = KINDS[int(number)]
    neighbors = [chemical_symbols[int(z)] for z in (first, second) if z]
    names = ["Rs" if name == "rs" else name for name in PARAMETERS[kind]]
    entry: dict[str, Any] = {"type": kind, "cutoff": cutoff}
    if neighbors:
        entry |= {"elements": neighbors} if kind in ANGULAR else {"element": neighbors[0]}
    entry |= dict(zip(names, values, strict=False))
    if "eta" in entry:
        # The shortest number that, divided by Rc², is the eta to the last bit.
        product = entry["eta"] * cutoff**2
        shortest = (float(f"{product:.{digits}g}") for digits in range(1, 18))
        entry["eta"] = next((x for x in shortest if x / cutoff**2 == entry["eta"]), product)
    return entry


def _sample(
    frames: Frames,
    descriptor: BaseDescriptor,
    neighbors: NeighborList | None,
    atoms_per_element: int,
    seed: int,
    threads: int | None,
) -> dict[str, np.ndarray]:
    """Return {symbol: values (n, S)} of atoms drawn at random, n at most `atoms_per_element`, out
    of as few frames as possible."""
    rng = np.random.default_rng(seed)
    kinds, kind = np.unique(frames.numbers, return_inverse=True)
    counts = np.zeros((len(frames), len(kinds)), dtype=np.int64)
    np.add.at(counts, (frames.frame_of_atom, kind), 1)
    missing, drawn = np.full(len(kinds), atoms_per_element), []
    for frame in rng.permutation(len(frames)):
        if (counts[frame][missing > 0] > 0).any():
            drawn.append(frame)
            missing -= counts[frame]
    part = frames.select(drawn)
    listed = None if neighbors is None else neighbors.select(frames, drawn)
    values = []
    for chunk in chunks_of_frames(part):
        own = None if listed is None else listed.select(part, chunk)
        values.append(descriptor.values(part.select(chunk), own, threads=threads))
    table, samples = np.concatenate(values), {}
    for symbol in descriptor.elements:
        rows = np.flatnonzero(part.numbers == atomic_numbers[symbol])
        rows = rng.permutation(rows)[:atoms_per_element]
        samples[symbol] = table[rows, : descriptor.num_descriptors[symbol]]
    return samples


def _choose(
    symbol: str, X: np.ndarray, k: int | None, method: str, costs: np.ndarray
) -> np.ndarray:
    """Return columns of X in the order of choice; fewer than `k` where there are no more."""
    if not len(X):
        raise ValueError(f"{symbol}: no atom of it in these frames, to choose functions by")
    varying = np.flatnonzero(X.std(axis=0) > CONSTANT)
    if not len(varying):
        raise ValueError(f"{symbol}: no function of the pool varies over these frames")
    if k is None:
        return varying
    wanted = min(_positive(f"k of {symbol}", k), len(varying))
    # The matrices are small: on a busy machine BLAS's threads wait for each other a hundred times
    # longer than the work takes.
    with threadpool_limits(1, "blas"):
        if method == "cur":
            chosen = _cur(_prepared(X[:, varying], wanted, costs[varying]), wanted)
        else:
            chosen = farthest_points(X[:, varying], wanted, costs[varying])
    if len(chosen) < k:
        text = "%s: %d functions of the pool are independent and vary over these frames, not %d"
        logger.warning(text, symbol, len(chosen), k)
    return varying[chosen]


def _prepared(X: np.ndarray, k: int, costs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (columns (rows, m) that vary, with mean 0 and norm 1; their indices; their costs)."""
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or not X.size:
        raise ValueError(f"X has the shape {X.shape}, expected (rows, columns)")
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        raise ValueError(f"column {column} of X is {X[row, column]} in row {row}")
    costs = np.ones(X.shape[1]) if costs is None else np.asarray(costs, dtype=np.float64)
    if costs.shape != X.shape[1:] or not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError(f"costs must be {X.shape[1]} positive numbers, one a column")
    centered = X - X.mean(axis=0)
    norms = np.linalg.norm(centered, axis=0)
    varying = np.flatnonzero(norms > NOTHING * np.linalg.norm(X, axis=0))
    if k > len(varying):
        raise ValueError(f"k is {k}, but of {X.shape[1]} columns only {len(varying)} vary")
    return centered[:, varying] / norms[varying], varying, costs[varying]


def _cur(prepared: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> np.ndarray:
    columns, varying, costs = prepared
    # Rotating the rows changes no scalar product of columns, and leaves as few rows as columns.
    left = qr(columns, mode="r")[0][: columns.shape[1]]
    chosen: list[int] = []
    while len(chosen) < k:
        norms = np.linalg.norm(left, axis=0)
        left[:, norms < NOTHING] = 0
        if not left.any():
            break
        n = left.shape[1]
        vector = eigh(left.T @ left, subset_by_index=[n - 1, n - 1])[1][:, 0]
        chosen.append(_first_largest(vector**2 / costs))
        direction = left[:, chosen[-1]] / np.linalg.norm(left[:, chosen[-1]])
        left -= np.outer(direction, direction @ left)
        left[:, chosen[-1]] = 0
    return varying[chosen]


def _positive(name: str, k: float) -> int:
    if k != int(k) or k < 1:
        raise ValueError(f"{name} is {k}; expected a whole number, 1 or more")
    return int(k)


def _first_largest(scores: np.ndarray) -> int:
    return int(np.flatnonzero(scores >= scores.max() * (1 - TIE))[0])
