"""Turn a list of features into the arrays that the kernels work on."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from math import factorial, prod
from typing import TypeAlias

import numpy as np

from amptorch.descriptor.multipole.radial import Channel, double_factorial
from amptorch.kernels.gmp_structures import (
    ROOT,
    SIGNED,
    SQUARE,
    TILE,
    Features,
    Moments,
    Multipoles,
    Tiles,
)

# Powers of x, y and z; and what is multiplied with such monomials.
Exponents: TypeAlias = tuple[int, ...]
Polynomial: TypeAlias = dict[Exponents, float]


@dataclass(frozen=True)
class Segment:
    """Describe consecutive features that differ only in their width.

    order: l; sigmas: Å; group: the exponents (a, b, c) of a group of components of the Cartesian
    tensor of order l, None for the norm of the whole tensor; solid: with solid harmonics, or with
    surface harmonics; square: whether the square of a norm is meant. A group of one component is
    that component, with its sign.
    """

    order: int
    sigmas: tuple[float, ...]
    group: Exponents | None = None
    solid: bool = True
    square: bool = True

    @property
    def ranks(self) -> list[int]:
        """Return the orders of the solid harmonics that the features depend on."""
        return [self.order] if self.solid else list(range(self.order, -1, -2))

    @property
    def kind(self) -> int:
        """Return how the components become the value: SQUARE, ROOT or SIGNED."""
        if self.group is not None and len(set(self.group)) == 1:
            return SIGNED
        return SQUARE if self.square else ROOT


def groups_of(order: int) -> list[Exponents]:
    """Return the groups of components of a Cartesian tensor as exponents: (2, 0, 0), (1, 1, 0)."""
    return [
        (a, b, order - a - b)
        for a in range(order, -1, -1)
        for b in range(min(a, order - a), -1, -1)
        if order - a - b <= b
    ]


def harmonic_norm(order: int, row: int) -> int:
    """Return n_lm² of a row of harmonics, see `kernels/harmonics.py`."""
    m = (row + 1) // 2
    return (1 if m == 0 else 2) * factorial(order - m) * factorial(order + m)


def compile_features(
    segments: list[Segment], cutoff: float, amplitude: Callable[[float], float]
) -> tuple[Multipoles, list[Channel]]:
    """Return (Multipoles, channels): features in the order of `segments`, and the radial functions
    that they need as a list of (order, rank, sigma, amplitude).

    cutoff: Å; amplitude: A of the probe from its sigma.
    """
    channels: list[Channel] = []
    moments: dict[tuple[int, int, tuple[float, ...]], tuple[int, int, int, int]] = {}
    features: dict[str, list[float]] = defaultdict(list)
    tiles = []
    column = n_moments = n_derivatives = 0
    entries = 0
    for segment in segments:
        count = len(segment.sigmas)
        features["kind"].append(segment.kind)
        features["first"].append(column)
        features["n_columns"].append(count)
        features["components"].append(len(features["entries"]))
        features["terms"].append(len(features["term_moment"]))
        places = {}
        for rank in segment.ranks:
            key = (segment.order, rank, segment.sigmas)
            if key not in moments:
                moments[key] = (rank, len(channels), count, n_moments)
                channels += [(segment.order, rank, s, amplitude(s)) for s in segment.sigmas]
                n_moments += (2 * rank + 1) * count
            places[rank] = (moments[key][3], n_derivatives)
            features["term_moment"].append(list(moments).index(key))
            features["term_start"].append(n_derivatives)
            features["term_scale"].append(_scale(segment.order, rank))
            for first in range(0, count, TILE):
                width = min(TILE, count - first)
                channel, start = moments[key][1] + first, n_derivatives + first
                tiles.append((rank, channel, start, count, width, column + first))
            n_derivatives += (2 * rank + 1) * count
        for component in _components(segment):
            features["entries"].append(entries)
            entries += len(component)
            for rank, row, coefficient in component:
                moment, derivative = places[rank]
                features["entry_moment"].append(moment + row * count)
                features["entry_term"].append(derivative + row * count)
                features["coefficient"].append(coefficient)
        column += count
    features["components"].append(len(features["entries"]))
    features["entries"].append(entries)
    features["terms"].append(len(features["term_moment"]))
    floats = ("term_scale", "coefficient")
    multipoles = Multipoles(
        cutoff=float(cutoff),
        order=max(segment.order for segment in segments),
        n_moments=n_moments,
        n_derivatives=n_derivatives,
        roots=any(segment.kind == ROOT for segment in segments),
        moments=Moments(*_columns(moments.values())),
        features=Features(
            **{
                name: np.array(features[name], dtype=np.float64 if name in floats else np.int64)
                for name in Features._fields
            }
        ),
        tiles=Tiles(*_columns(tiles)),
    )
    return multipoles, channels


def _columns(rows: Iterable[tuple[int, ...]]) -> np.ndarray:
    return np.ascontiguousarray(np.array(list(rows), dtype=np.int64).T)


def _scale(order: int, rank: int) -> float:
    """Return what Σ_m n_lm² |A_lm|² of one rank contributes to the squared norm of the whole
    tensor.

    l! over the square of r^{2Q} S_λm, S = n Y, in the inner product ⟨p, q⟩ = p(∂)q, in which x^n
    has the square n!.
    """
    steps = (order - rank) // 2
    square = double_factorial(2 * rank - 1) * prod(
        2 * (steps - q) * (2 * (steps - q) + 2 * rank + 1) for q in range(steps)
    )
    return factorial(order) / square


def _components(segment: Segment) -> list[list[tuple[int, int, float]]]:
    """Return each component as a list of (rank, row of harmonics, coefficient)."""
    if segment.group is None:
        return [
            [(rank, row, np.sqrt(_scale(segment.order, rank) * harmonic_norm(rank, row)))]
            for rank in segment.ranks
            for row in range(2 * rank + 1)
        ]
    members = sorted(
        {
            tuple(segment.group[k] for k in order)
            for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        }
    )
    return [_tensor_component(member, segment.ranks) for member in members]


def _tensor_component(exponents: Exponents, ranks: list[int]) -> list[tuple[int, int, float]]:
    """Return the coefficients of x^a y^b z^c in r^{2Q} Y_λm: projections in the inner product of
    `_scale`."""
    order = sum(exponents)
    power = prod(factorial(n) for n in exponents)
    result = []
    for rank in ranks:
        for row in range(2 * rank + 1):
            held = _times_r2(_harmonic(rank, row), (order - rank) // 2).get(exponents, 0.0)
            if held:
                # ⟨p, p⟩ of p = r^{2Q} Y = r^{2Q} S / n.
                weight = _scale(order, rank) * harmonic_norm(rank, row) / factorial(order)
                result.append((rank, row, power * held * weight))
    return result


@cache
def _harmonic(order: int, row: int) -> Polynomial:
    """Return Y_lm as {(a, b, c): coefficient}, by the recurrences of `kernels/harmonics.py`."""
    if order == 0:
        return {(0, 0, 0): 1.0}
    m = (row + 1) // 2
    if m == order:
        cosine, sine = (max(2 * m - 3, 0), 2 * m - 2) if m > 1 else (0, None)
        c = _harmonic(order - 1, cosine)
        s = {} if sine is None else _harmonic(order - 1, sine)
        x, y = (1, 0, 0), (0, 1, 0)
        half = 0.5 / order
        if row == 2 * m - 1:
            return _sum((half, _shift(c, x)), (-half, _shift(s, y)))
        return _sum((half, _shift(c, y)), (half, _shift(s, x)))
    scale = 1 / (order**2 - m**2)
    along = _shift(_harmonic(order - 1, row), (0, 0, 1))
    below = _times_r2(_harmonic(order - 2, row), 1) if m < order - 1 else {}
    return _sum(((2 * order - 1) * scale, along), (-scale, below))


def _shift(polynomial: Polynomial, by: Exponents) -> Polynomial:
    return {tuple(np.add(e, by).tolist()): c for e, c in polynomial.items()}


def _times_r2(polynomial: Polynomial, times: int) -> Polynomial:
    for _ in range(times):
        polynomial = _sum(
            *((1.0, _shift(polynomial, by)) for by in ((2, 0, 0), (0, 2, 0), (0, 0, 2)))
        )
    return polynomial


def _sum(*weighted: tuple[float, Polynomial]) -> Polynomial:
    result: dict[Exponents, float] = defaultdict(float)
    for weight, polynomial in weighted:
        for exponents, coefficient in polynomial.items():
            result[exponents] += weight * coefficient
    return dict(result)
