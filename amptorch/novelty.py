"""Choose frames that differ from the training frames and from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from amptorch.data.domain import Domain, lengths
from amptorch.ensemble import Ensemble
from amptorch.extrapolation import NOT_KNOWN
from amptorch.frames import read_images
from amptorch.potential import Potential
from amptorch.prediction import batches_of, checked_frames

# Atoms of a frame that may be the reason to choose it: those farthest from the training atoms.
ATOMS = 8


class Place:
    """Hold where the atoms of a frame are: {atomic number: rows (n, S)} in units in which distances
    are those of the `Domain`; and number, row and distance of those that are farthest from its
    training atoms."""

    def __init__(self, domain: Domain, values: np.ndarray, numbers: np.ndarray) -> None:
        self.rows: dict[int, np.ndarray] = {}
        distances = np.zeros(len(numbers))
        places = np.zeros(len(numbers), dtype=np.int64)
        for number, element in domain.elements.items():
            own = np.flatnonzero(numbers == number)
            if len(own):
                self.rows[number] = element.whitened(values[own])
                distances[own] = lengths(self.rows[number])
                places[own] = np.arange(len(own))
        far = np.argsort(-distances, kind="stable")[:ATOMS]
        self.numbers, self.distances = numbers[far], distances[far]
        self.far = [
            self.rows[number][place]
            for number, place in zip(self.numbers.tolist(), places[far].tolist(), strict=True)
        ]

    def novelty(self, others: Sequence[Place]) -> float:
        """Return the distance of the atom that is farthest from the training atoms and from all
        atoms of the other frames."""
        nearest = self.distances.copy()
        for other in others:
            self.reduce(nearest, other)
        return float(nearest.max())

    def reduce(self, nearest: np.ndarray, other: Place) -> None:
        """Reduce the distances `nearest` of the farthest atoms to those from another frame, in
        place, where these are less."""
        for k, (number, row) in enumerate(zip(self.numbers.tolist(), self.far, strict=True)):
            if number in other.rows:
                distance = lengths(other.rows[number] - row).min()
                nearest[k] = min(nearest[k], float(distance))


def places_of(model: Potential | Ensemble, images: Any, quiet: bool = True) -> list[Place]:
    """Return the places of frames, a list of Atoms or what `read_images` reads.

    Raises ValueError that names the elements which the model does not know, or the frame which
    cannot be used.
    """
    images = read_images(images)
    check_elements(model, images)
    one = model.members[0] if isinstance(model, Ensemble) else model
    found = []
    for batch, part, _ in batches_of(one, checked_frames(one, images), quiet):
        for first, last in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            rows = slice(first, last)
            found.append(Place(_domain(one), batch.values[rows], part.numbers[rows]))
    return found


def check_elements(model: Any, images: Sequence[Atoms]) -> None:
    """Raise ValueError that names the elements of frames which the model does not know."""
    found = {symbol for atoms in images for symbol in set(atoms.get_chemical_symbols())}
    other = sorted(found - set(model.elements))
    if other:
        raise ValueError(
            f"the frames have {', '.join(other)}, which the model does not know (it knows "
            f"{', '.join(model.elements)}): leave those frames out, or train with some of them"
        )


def select(
    model: Potential | Ensemble, images: Any, number: int, quiet: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return which frames are worth labelling: indices, in the order of choice, and novelties.

    model : a potential or an ensemble (whose first member is asked) that knows where its training
        atoms were
    images : list of Atoms, or what `read_images` reads
    number : of frames to choose; fewer where fewer differ

    The next frame is the one with the atom that is farthest from the training atoms and from all
    atoms of the frames chosen before (T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985)). That
    distance is its novelty: 1 is as far as the farthest 1 % of the training atoms.

    Raises ValueError that names the elements which the model does not know, or where an older
    checkpoint does not know its training atoms.
    """
    places = places_of(model, images, quiet)
    nearest = [place.distances.copy() for place in places]
    indices: list[int] = []
    novelties: list[float] = []
    while len(indices) < min(number, len(places)):
        scores = np.array([float(left.max()) for left in nearest])
        scores[indices] = 0
        chosen = int(scores.argmax())
        if scores[chosen] <= 0:
            break
        indices.append(chosen)
        novelties.append(float(scores[chosen]))
        for place, left in zip(places, nearest, strict=True):
            place.reduce(left, places[chosen])
    return np.array(indices, dtype=np.int64), np.array(novelties)


def _domain(model: Any) -> Domain:
    if model.domain is None or not model.domain.has_distances:
        raise ValueError(NOT_KNOWN)
    return model.domain
