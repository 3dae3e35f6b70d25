"""The domain of a potential: where the fingerprints of its training atoms are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from amptorch.data.fingerprints import chunks_of_frames
from amptorch.data.pca import Chunks
from amptorch.data.statistics import Covariance
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.threads import blas_threads

# Share of the training atoms that are nearer than the distance 1.
QUANTILE = 0.99
# Variance, beside the 1 that each function has, of what the training atoms do not say.
RIDGE = 1e-3
# Of the largest standard deviation: what a function varies by at least, for there are some that do
# not vary at all over the training atoms.
LEAST = 1e-4
# The same where none varies.
NOTHING = 1e-6
# Å, up to which distances of training atoms are looked at.
REACH = 4.0


class Measured(NamedTuple):
    """Hold how far n atoms are from the domain.

    distance (n,): as of `ElementDomain`, infinite for an element that the domain does not know, and
    NaN where no distances are known. outside (n,): functions off their range. excess (n,): of the
    one that is farthest off, in widths of its range; 0 where none is. function (n,): its column.
    """

    distance: np.ndarray
    outside: np.ndarray
    excess: np.ndarray
    function: np.ndarray


@dataclass(frozen=True)
class ElementDomain:
    """Hold the ranges of the functions over the training atoms of an element, and a distance to
    these atoms.

    lowest, highest : (S,), of each function
    mean, whitening : (S,), (S, S); None where only the ranges are known

    The distance of a fingerprint G is d = |(G − mean) whitening|, that of P. C. Mahalanobis, Proc.
    Natl. Inst. Sci. India 2, 49 (1936), in units that make it 1 where 99 % of the training atoms
    are nearer. With the standard deviations σ of the functions and their correlations C = V λ Vᵀ,
    `whitening` is V / √(λ + ridge), each row divided by σ, and all by that quantile.
    """

    lowest: np.ndarray
    highest: np.ndarray
    mean: np.ndarray | None = None
    whitening: np.ndarray | None = None

    def widths(self) -> np.ndarray:
        """Return (S,), what an excess is measured in: the widths of the ranges, or a little where
        a function does not vary."""
        width = self.highest - self.lowest
        return np.maximum(width, max(LEAST * width.max(), NOTHING))

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Return the distances (n,) of fingerprints `values` (n, S); NaN where none are known."""
        if self.mean is None or self.whitening is None:
            return np.full(len(values), np.nan)
        with blas_threads(1):
            return lengths(self.whitened(values))

    def whitened(self, values: np.ndarray) -> np.ndarray:
        """Return the rows (n, S) whose lengths are the distances of fingerprints `values`."""
        return (values - self.mean) @ self.whitening


class Domain:
    """Hold where the training atoms of each element are, and how near they are to each other.

    elements : {atomic number: ElementDomain}
    pairs : {(Z, Z'): Å}, Z <= Z', the smallest distance of two training atoms of these elements;
        `REACH` where there were none as near as that; empty where it is not known

    All of it is in fingerprints as the descriptor gives them, not scaled.
    """

    def __init__(
        self,
        elements: Mapping[int, ElementDomain],
        pairs: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        self.elements = dict(elements)
        self.pairs = dict(pairs or {})
        self._widths = {number: element.widths() for number, element in elements.items()}

    @classmethod
    def fitted(cls, chunks: Callable[[], Chunks], frames: Iterable[Frames] = ()) -> Domain:
        """Return the domain of training atoms.

        chunks : called twice, for (fingerprints (n, S), atomic numbers (n,)) of some after others
        frames : the structures, some after others, for the distances of atoms
        """
        found: dict[int, Covariance] = {}
        ranges: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for number, rows in _by_element(chunks()):
            here = Covariance.of(torch.as_tensor(rows))
            found[number] = found[number].merged(here) if number in found else here
            low, high = ranges.get(number, (rows[0], rows[0]))
            low = np.minimum(low, rows.min(axis=0))
            ranges[number] = low, np.maximum(high, rows.max(axis=0))
        elements = {
            number: ElementDomain(*ranges[number], *_whitened(found[number])) for number in found
        }
        distances: dict[int, list[np.ndarray]] = {number: [] for number in found}
        for number, rows in _by_element(chunks()):
            distances[number].append(elements[number].distances(rows))
        for number, element in elements.items():
            scale = _quantile(np.concatenate(distances[number]))
            whitening: Any = element.whitening
            elements[number] = ElementDomain(
                element.lowest, element.highest, element.mean, whitening / scale
            )
        return cls(elements, smallest_distances(frames, sorted(found)))

    @classmethod
    def of_ranges(cls, ranges: Mapping[int, tuple[Any, Any]]) -> Domain:
        """Return a domain without distances, of the `ranges` of a `FeatureScaler`."""
        return cls(
            {
                number: ElementDomain(np.asarray(low), np.asarray(high))
                for number, (low, high) in ranges.items()
            }
        )

    @property
    def has_distances(self) -> bool:
        """Return whether atoms have a distance, and not ranges alone."""
        return all(element.whitening is not None for element in self.elements.values())

    def measure(self, values: np.ndarray, numbers: np.ndarray) -> Measured:
        """Return how far atoms with fingerprints `values` (n, S) and `numbers` (n,) are from the
        training atoms."""
        n = len(numbers)
        found = Measured(
            np.full(n, np.inf), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
        )
        for number, element in self.elements.items():
            rows = np.flatnonzero(numbers == number)
            if not len(rows):
                continue
            own = values[rows]
            found.distance[rows] = element.distances(own)
            excess = np.maximum(element.lowest - own, own - element.highest)
            excess /= self._widths[number]
            highest = excess.max(axis=1)
            # What rounding does is no excess.
            outside = np.flatnonzero(highest > NOTHING)
            if len(outside):
                rows, excess = rows[outside], excess[outside]
                found.function[rows] = excess.argmax(axis=1)
                found.outside[rows] = (excess > NOTHING).sum(axis=1)
                found.excess[rows] = highest[outside]
        return found

    def state(self) -> dict[str, Any]:
        """Return tensors, lists and numbers, from which `from_state` makes the domain again."""
        return {
            "numbers": list(self.elements),
            "elements": [
                {
                    name: None if array is None else torch.from_numpy(array)
                    for name, array in vars(element).items()
                }
                for element in self.elements.values()
            ],
            "pairs": [[*pair, distance] for pair, distance in self.pairs.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Domain:
        """Return the domain of a `state`; KeyError or TypeError where it is none."""
        elements = []
        for given in state["elements"]:
            arrays: dict[str, Any] = {
                name: None if part is None else part.numpy() for name, part in given.items()
            }
            elements.append(ElementDomain(**arrays))
        pairs = {(int(a), int(b)): float(distance) for a, b, distance in state["pairs"]}
        return cls(dict(zip(state["numbers"], elements, strict=True)), pairs)


def lengths(rows: np.ndarray) -> np.ndarray:
    """Return the lengths (n,) of rows (n, S)."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def smallest_distances(
    frames: Iterable[Frames], numbers: Sequence[int]
) -> dict[tuple[int, int], float]:
    """Return {(Z, Z'): Å} of all pairs of the atomic `numbers`, sorted: the smallest distance of
    two such atoms in the frames, or `REACH`; nothing for no frames."""
    places = {number: place for place, number in enumerate(numbers)}
    found = np.full((len(numbers), len(numbers)), REACH)
    known = False
    for some in frames:
        for chunk in chunks_of_frames(some):
            part = some.select(chunk)
            known = True
            pairs = neighbor_list(part, REACH)
            kinds = np.array([places[number] for number in part.numbers.tolist()])
            lengths = np.linalg.norm(pairs.vectors, axis=1)
            np.minimum.at(found, (kinds[pairs.centers], kinds[pairs.neighbors]), lengths)
    if not known:
        return {}
    return {(a, b): float(found[places[a], places[b]]) for a in numbers for b in numbers if a <= b}


def _by_element(chunks: Chunks) -> Iterable[tuple[int, np.ndarray]]:
    """Yield the rows of each element in each chunk, with its atomic number; float64."""
    for values, numbers in chunks:
        rows, kinds = np.asarray(values, dtype=np.float64), np.asarray(numbers)
        for number in np.unique(kinds).tolist():
            yield number, rows[kinds == number]


def _whitened(covariance: Covariance) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (S,) and whitening (S, S), with √n taken out, so that squared distances are
    leverages."""
    products = covariance.products.numpy()
    deviation = np.sqrt(np.diag(products) / covariance.n)
    deviation = np.maximum(deviation, max(LEAST * deviation.max(), NOTHING))
    values, vectors = np.linalg.eigh(products / covariance.n / np.outer(deviation, deviation))
    scale = np.sqrt(covariance.n * (np.maximum(values, 0.0) + RIDGE))
    return covariance.mean.numpy(), vectors / scale / deviation[:, None]


def _quantile(distances: np.ndarray) -> float:
    """Return the quantile of the distances that atoms have from all others.

    With the leverage h = d², the squared distance from the mean and the correlations of all other
    atoms is h / (1 − h) (S. Weisberg, Applied Linear Regression, Wiley 2005, section 8.1).
    """
    leverage = np.minimum(distances**2, 1 - 1e-9)
    found = float(np.quantile(np.sqrt(leverage / (1 - leverage)), QUANTILE))
    # Atoms that are all alike have no distance: then any unit will do.
    return found if found > NOTHING else 1 / np.sqrt(len(distances))
