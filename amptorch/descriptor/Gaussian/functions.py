"""From tables of symmetry functions to the flat arrays that the kernels run on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from amptorch.descriptor.Gaussian.setup import ANGULAR, CUTOFF_FUNCTIONS, TYPES, WEIGHTED_KINDS
from amptorch.kernels import cutoffs
from amptorch.kernels.moments import MAX_ZETA
from amptorch.kernels.structures import WEIGHTED, Angular, Functions, Radial

CUTOFFS = {name: getattr(cutoffs, name.upper()) for name in CUTOFF_FUNCTIONS}
# Lengths that `lanes.polynomial` takes; more terms cost more than the formula itself.
POLYNOMIAL_LENGTHS = (12, 16, 20, 24)
# Largest errors of the polynomial, relative to w(0) = 1, and of its derivative, relative to the
# largest slope (rounding of the coefficients of x^n comes out n² times as large at the ends).
POLYNOMIAL_ERROR = 5e-15
SLOPE_ERROR = 3e-13


def compile_functions(
    tables: Mapping[str, np.ndarray],
    elements: Sequence[int],
    cutoff: tuple[str, float],
    dtype: np.dtype | type,
) -> Functions:
    """Return the Functions for the tables {symbol: (n, 7 or 8)} of `Gaussian/setup.py`.

    elements: atomic numbers in the order of the tables; cutoff: `setup.cutoff_function`;
    dtype: the type the kernels compute in.
    """
    name, parameter = cutoff
    amp = name == "polynomial"
    index = {0: 0} | {number: e for e, number in enumerate(elements)}
    radial_kinds = [TYPES[kind] for kind in TYPES if kind not in ANGULAR]
    by_element = {TYPES[kind] for kind in ANGULAR if kind not in WEIGHTED_KINDS}
    # Weighted functions need no table by pairs of elements, which with fifty of them is large.
    any_pairs = any(not by_element.isdisjoint(table[:, 0]) for table in tables.values())
    n_channels = len(elements) if any_pairs else 1
    cutoff_start, radial_start, group_start, shape_start = [0], [0], [0], [0]
    all_cutoffs: list[float] = []
    radial: list[tuple[int, float, float, int]] = []
    groups: list[tuple[int, float, float]] = []
    polynomials: list[tuple[int, int]] = []
    degrees: list[tuple[int, int]] = []
    coefficients: list[float] = []
    shapes: list[tuple[float, float, np.ndarray]] = []
    for table in tables.values():
        table = np.asarray(table, dtype=np.float64)
        kinds = table[:, 0].astype(int)
        shifts = table[:, 7] if table.shape[1] > 7 else np.zeros(len(table))
        for radius in np.unique(table[:, 3]):
            all_cutoffs.append(radius)
            here = table[:, 3] == radius
            is_radial = np.isin(kinds, radial_kinds)
            # Weighted ones have the number 0.
            for number in (*elements, 0):
                chosen = np.flatnonzero(here & is_radial & (table[:, 1] == number)).tolist()
                radial.extend((kinds[k] % WEIGHTED, table[k, 4], table[k, 5], k) for k in chosen)
                radial_start.append(len(radial))
            own = np.column_stack([kinds, table[:, 4], shifts])
            angular = np.flatnonzero(here & ~is_radial)
            for group in sorted({tuple(own[k]) for k in angular}):
                chosen = [k for k in angular.tolist() if tuple(own[k]) == group]
                kind, eta, shift = group
                groups.append(group)
                series = [] if shift or parameter else damped_cutoff_series(name, eta, radius)
                polynomials.append((len(coefficients), len(coefficients) + len(series)))
                coefficients.extend(series)
                by_shape: dict[tuple[float, float, int], list[int]] = {}
                taken: Counter[tuple[float, ...]] = Counter()
                for k in chosen:
                    # The same function once more is a shape of its own.
                    function = (*sorted(table[k, 1:3]), *table[k, 5:7])
                    by_shape.setdefault((*table[k, 5:7], taken[function]), []).append(k)
                    taken[function] += 1
                by_moments = [
                    shape[0]
                    for shape in by_shape
                    if kind % WEIGHTED == 5 and shape[0] in range(1, MAX_ZETA + 1)
                ]
                degrees.append((int(max(by_moments, default=0)), len(by_moments)))
                order = sorted(by_shape, key=lambda shape: (shape[0] not in by_moments, shape))
                for shape in order:
                    zeta, lam, _ = shape
                    columns = np.full((n_channels, n_channels), -1, dtype=np.int64)
                    for k in by_shape[shape]:
                        a, b = (index[int(number)] for number in table[k, 1:3])
                        columns[a, b] = columns[b, a] = k
                    shapes.append((zeta, lam, columns))
                shape_start.append(len(shapes))
            group_start.append(len(groups))
        cutoff_start.append(len(all_cutoffs))

    def column(rows: Sequence[Any], k: int, dtype: np.dtype | type = dtype) -> np.ndarray:
        return np.array([row[k] for row in rows], dtype=dtype)

    def integers(values: Sequence[int] | Sequence[tuple[int, int]]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    zetas = column(shapes, 0)
    return Functions(
        weight=np.array(elements, dtype=dtype),
        cutoff_start=integers(cutoff_start),
        cutoffs=np.array(all_cutoffs, dtype=dtype),
        group_start=integers(group_start),
        radial=Radial(
            start=integers(radial_start),
            kind=column(radial, 0, np.int64),
            eta=column(radial, 1),
            shift=column(radial, 2),
            feature=column(radial, 3, np.int64),
        ),
        angular=Angular(
            cutoff_kind=CUTOFFS[name],
            cutoff_gamma=float(parameter) if amp else 0.0,
            cutoff_alpha=0.0 if amp else float(parameter),
            kind=column(groups, 0, np.int64),
            eta=column(groups, 1),
            shift=column(groups, 2),
            degree=column(degrees, 0, np.int64),
            moments=column(degrees, 1, np.int64),
            polynomial=integers(polynomials).reshape(-1, 2),
            coefficients=np.array(coefficients, dtype=dtype),
            shape_start=integers(shape_start),
            zeta=zetas,
            lam=column(shapes, 1),
            scale=(2.0 ** (1.0 - zetas)).astype(dtype),
            feature=np.array([s[2] for s in shapes], dtype=np.int64).reshape(
                -1, n_channels, n_channels
            ),
        ),
    )


def elements_of_features(
    tables: Mapping[str, np.ndarray], elements: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (E, S, E) bool: whether a feature of a central element depends on a neighbour element;
    (E, S) bool: whether it is a weighted one, which depends on all."""
    n_features = max(len(table) for table in tables.values())
    depends = np.zeros((len(elements), n_features, len(elements)), dtype=bool)
    weighted = np.zeros((len(elements), n_features), dtype=bool)
    for centre, table in enumerate(tables.values()):
        weighted[centre, : len(table)] = table[:, 0] > WEIGHTED
        neighbors = table[:, 1:3, None] == elements
        depends[centre, : len(table)] = neighbors.any(axis=1) | (table[:, :1] > WEIGHTED)
    return depends, weighted


def damped_cutoff_series(name: str, eta: float, cutoff: float) -> list[float]:
    """Return the coefficients of w(s) = exp(−ηs) fc(√s) in x = 2s/Rc² − 1, highest power first.

    cos(π√t) is an entire function of t, so for the cosine cutoff a dozen terms reach rounding error
    and spare a square root, a cosine, a sine and an exponential a pair. Empty where no short series
    does: for large η, and for other cutoff functions, which are not smooth in s at 0.
    """
    if name != "cosine":
        return []

    def values(x: Any) -> Any:
        return _damped_cosine(x, eta, cutoff)[0]

    fitted = chebyshev.chebinterpolate(values, 63)
    check = np.linspace(-1.0, 1.0, 501)
    exact, slope = _damped_cosine(check, eta, cutoff)
    for length in POLYNOMIAL_LENGTHS:
        series = chebyshev.cheb2poly(fitted[:length])
        error = np.abs(np.polynomial.polynomial.polyval(check, series) - exact).max()
        derivative = np.polynomial.polynomial.polyval(
            check, np.polynomial.polynomial.polyder(series)
        )
        slope_error = np.abs(derivative - slope).max() / np.abs(slope).max()
        if error < POLYNOMIAL_ERROR and slope_error < SLOPE_ERROR:
            return list(series[::-1])
    return []


def _damped_cosine(x: np.ndarray, eta: float, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Return w and dw/dx at x = 2s/Rc² − 1."""
    t = 0.5 * (np.asarray(x) + 1.0)
    root = np.sqrt(t)
    damping = np.exp(-eta * cutoff**2 * t)
    fc = 0.5 * (1.0 + np.cos(np.pi * root))
    # d cos(π√t)/dt = −π² sinc(√t)/2, with numpy's sinc(x) = sin(πx)/(πx).
    slope = -0.25 * np.pi**2 * np.sinc(root) - eta * cutoff**2 * fc
    return damping * fc, 0.5 * damping * slope
