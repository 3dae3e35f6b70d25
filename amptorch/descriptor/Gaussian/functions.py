"""From tables of symmetry functions to the flat arrays that the kernels run on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial.polynomial import polyder, polyval

from amptorch.descriptor.Gaussian.setup import ANGULAR, CUTOFF_FUNCTIONS, TYPES, WEIGHTED_KINDS
from amptorch.kernels import cutoffs
from amptorch.kernels.factors import EVEN_TERMS, STEP_TERMS
from amptorch.kernels.moments import MAX_ZETA
from amptorch.kernels.structures import WEIGHTED, Angular, Functions, Radial

CUTOFFS = {name: getattr(cutoffs, name.upper()) for name in CUTOFF_FUNCTIONS}
# Most terms of a series in r; more cost more than the formula itself.
MOST_TERMS = 24
# Largest errors of a series, relative to the largest value, 1, and to the largest slope (rounding
# of the coefficients of x^n comes out n² times as large at the ends).
SERIES_ERROR = 2e-13
SLOPE_ERROR = 3e-12
# Of the series that has an exponential in it, which is only taken where it costs no accuracy.
DAMPED_ERROR = 1e-14
DAMPED_SLOPE_ERROR = 3e-13


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
    left: list[float] = []
    even, bare = cutoff_series(name, parameter)
    coefficients = list(bare)
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
            # Pairs of neighbours share one series, which may have the least η of all in it.
            shared, series = 0.0, (0, len(bare))
            if len(angular) and even and not own[angular, 2].any():
                shared = float(own[angular, 1].min())
                damped = damped_series(shared * radius**2)
                if shared and damped:
                    series = (len(coefficients), len(coefficients) + len(damped))
                    coefficients.extend(damped)
                else:
                    shared = 0.0
            for group in sorted({tuple(own[k]) for k in angular}):
                chosen = [k for k in angular.tolist() if tuple(own[k]) == group]
                kind, eta, _ = group
                groups.append(group)
                polynomials.append(series)
                left.append(eta - shared)
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
    moments = column(degrees, 1, np.int64)
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
            cutoff_even=int(even),
            cutoff_terms=len(bare),
            kind=column(groups, 0, np.int64),
            eta=column(groups, 1),
            shift=column(groups, 2),
            degree=column(degrees, 0, np.int64),
            moments=moments if moments.any() else None,
            polynomial=integers(polynomials).reshape(-1, 2),
            left=np.array(left, dtype=dtype),
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


def cutoff_series(name: str, parameter: float) -> tuple[bool, list[float]]:
    """Return whether a cutoff function is served by `factors.even`, and else by `factors.in_r`; and
    the coefficients, highest power first: none where no series of MOST_TERMS terms does."""
    if name == "cosine" and not parameter:
        return True, damped_series(0.0)
    amp = name == "polynomial"
    # Up to 1, which is the inner radius, there is nothing to fit.
    cutoff = cutoffs.Cutoff(CUTOFFS[name], parameter if amp else 0.0, 0.0, 1.0)

    def values(y: Any) -> tuple[np.ndarray, np.ndarray]:
        pairs = [cutoffs.cutoff_function(cutoff, 0.5 * (x + 1.0)) for x in np.asarray(y).tolist()]
        return np.array([pair[0] for pair in pairs]), 0.5 * np.array([pair[1] for pair in pairs])

    interpolate: Any = chebyshev.chebinterpolate
    fitted = interpolate(lambda y: values(y)[0], 63)
    check = np.linspace(-1.0, 1.0, 501)
    exact, slope = values(check)
    for length in range(STEP_TERMS, MOST_TERMS + 1, STEP_TERMS):
        series = chebyshev.cheb2poly(fitted[:length])
        error = np.abs(polyval(check, series) - exact).max()
        slope_error = np.abs(polyval(check, polyder(series)) - slope).max()
        if error < SERIES_ERROR and slope_error < SLOPE_ERROR * max(np.abs(slope).max(), 1e-3):
            return False, list(series[::-1])
    return False, []


def damped_series(exponent: float) -> list[float]:
    """Return the EVEN_TERMS coefficients of p in x = 2s/Rc² − 1, highest power first, where p² is
    exp(−ηs) fc(√s) with the cosine cutoff and ηRc² = `exponent`; none where they do not reach
    rounding error."""

    def root(x: Any) -> Any:
        t = 0.5 * (np.asarray(x) + 1.0)
        return np.exp(-0.5 * exponent * t) * np.cos(0.5 * np.pi * np.sqrt(t))

    series = chebyshev.cheb2poly(chebyshev.chebinterpolate(root, 63)[:EVEN_TERMS])
    check = np.linspace(-1.0, 1.0, 501)
    t = 0.5 * (check + 1.0)
    damping, fc = np.exp(-exponent * t), 0.5 * (1.0 + np.cos(np.pi * np.sqrt(t)))
    # d cos(π√t)/dt = −π² sinc(√t)/2, with numpy's sinc(x) = sin(πx)/(πx).
    slope = 0.5 * damping * (-0.25 * np.pi**2 * np.sinc(np.sqrt(t)) - exponent * fc)
    p = polyval(check, series)
    error = np.abs(p * p - damping * fc).max()
    slope_error = np.abs(2.0 * p * polyval(check, polyder(series)) - slope).max()
    good = error < DAMPED_ERROR and slope_error < DAMPED_SLOPE_ERROR * np.abs(slope).max()
    return list(series[::-1]) if good else []
