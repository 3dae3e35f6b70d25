"""How far atoms are from those that a potential was trained on, and what is done about it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from amptorch.checks import choice, number

if TYPE_CHECKING:
    from amptorch.potential import Potential

NOT_KNOWN = (
    "the checkpoint does not know where its training atoms were, so that nobody can tell which "
    "atoms are far from them: train again, or go on training from it (--from)"
)
KINDS = ("warn", "raise", "ignore")
# Beyond the distance within which 99 % of the training atoms are, in units of it; see
# docs/extrapolation.md for how often atoms of known kind come as far.
MARGIN = 1.0
# A warning is repeated where the distance, or the number of atoms, has grown so many times.
GROWTH = 2.0


class ExtrapolationError(ValueError):
    """Tell that atoms are farther from the training atoms than was allowed."""


@dataclass(frozen=True)
class Extrapolation:
    """Hold how far n atoms are from the training atoms of their elements.

    distance (n,) : 1 is as far as the farthest 1 % of the training atoms; NaN where the checkpoint
        is an older one, which knows ranges alone
    outside (n,) : number of functions that are outside of their range over the training atoms
    excess (n,) : of the function that is farthest outside, in widths of its range; 0 for none
    worst : words for that function of the atom that is farthest off
    spread (n,) : of an ensemble, the standard deviation of the force, eV/Å; None without one
    """

    distance: np.ndarray
    outside: np.ndarray
    excess: np.ndarray
    worst: str
    spread: np.ndarray | None = None

    @cached_property
    def score(self) -> np.ndarray:
        """Return (n,) what is compared with 1 + margin: the distance, or where it is not known,
        1 + the excess."""
        return _score(self.distance, self.excess)

    def beyond(self, margin: float = MARGIN) -> np.ndarray:
        """Return the indices of the atoms that are farther off than 1 + margin."""
        return np.flatnonzero(self.score > 1 + margin)

    def __str__(self) -> str:
        atom = int(self.score.argmax())
        words = f"atom {atom} is farthest from the training atoms of its element"
        if not np.isnan(self.distance[atom]):
            words += f", at {self.distance[atom]:.3g} times the distance of their farthest 1 %"
        if self.outside[atom]:
            words += (
                f"; {self.outside[atom]} of its functions are out of range, {self.worst} by "
                f"{self.excess[atom]:.2g} of its width"
            )
        return words


def measure(potential: Potential, values: np.ndarray, numbers: np.ndarray) -> Extrapolation | None:
    """Return how far atoms with fingerprints `values` (n, S), not scaled, and `numbers` (n,) are
    from the training atoms; None where a checkpoint knows nothing of these."""
    if potential.domain is None:
        return None
    found = potential.domain.measure(values, numbers)
    atom = int(np.where(np.isnan(found.distance), found.excess, found.distance).argmax())
    worst = ""
    if found.outside[atom]:
        symbol = chemical_symbols[int(numbers[atom])]
        worst = potential.descriptor.feature_name(symbol, int(found.function[atom]))
    return Extrapolation(found.distance, found.outside, found.excess, worst)


def farthest(found: list[Extrapolation]) -> Extrapolation:
    """Return what the members of an ensemble say as one: each atom as far as it is for the member
    for which it is farthest."""
    scores = [one.score for one in found]
    most = np.argmax(scores, axis=0)
    atoms = np.arange(len(most))
    return Extrapolation(
        np.stack([one.distance for one in found])[most, atoms],
        np.stack([one.outside for one in found])[most, atoms],
        np.stack([one.excess for one in found])[most, atoms],
        found[int(most[np.max(scores, axis=0).argmax()])].worst,
    )


def far_frames(prediction: Mapping[str, Any], margin: float = MARGIN) -> str:
    """Return a line about the frames of a prediction, with `extrapolation`, in which an atom is
    farther than 1 + margin; an empty one where there is none."""
    distances, excess = prediction.get("extrapolation", ()), prediction.get("range_excess", ())
    scores = [_score(*columns).max() for columns in zip(distances, excess, strict=True)]
    far = np.flatnonzero(np.array(scores) > 1 + margin)
    if not len(far):
        return ""
    worst = int(np.argmax(scores))
    return (
        f"{len(far)} of {len(scores)} frames have atoms far from those of the training, frame "
        f"{worst} the farthest ({scores[worst]:.3g}, where 1 is as far as the farthest 1 % of them)"
    )


def _score(distance: np.ndarray, excess: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(distance), 1 + excess, distance)


class Watch:
    """Warn, or raise, where atoms are farther from the training atoms than 1 + margin.

    kind : "warn", "raise" or "ignore"
    margin : at least 0

    A warning is not repeated at each step: there is another when the distance, or the number of
    such atoms, is twice that of the last one. `steps` and `lost` are how many times atoms were
    looked at, and how many times some were too far.

    Raises ValueError for another kind or margin.
    """

    def __init__(self, kind: str = "warn", margin: float = MARGIN) -> None:
        self.kind = choice(*KINDS)("extrapolation", kind)
        self.margin = number(minimum=0)("extrapolation_margin", margin)
        self.start()

    def start(self) -> None:
        """Begin to count anew, as with other atoms."""
        self.steps = self.lost = 0
        self._said = 0.0, 0

    def __call__(self, found: Extrapolation) -> None:
        """Look at the atoms of one step; ExtrapolationError where some are too far and the kind is
        "raise"."""
        self.steps += 1
        highest = float(found.score.max())
        if highest <= 1 + self.margin:
            return
        self.lost += 1
        count = len(found.beyond(self.margin))
        far = f"{count} of {len(found.score)} atoms are far from the training"
        message = f"{far} (limit {1 + self.margin:g}): {found}"
        if self.kind == "raise":
            raise ExtrapolationError(message)
        if highest < GROWTH * self._said[0] and count < GROWTH * self._said[1]:
            return
        self._said = max(highest, self._said[0]), max(count, self._said[1])
        more = f" (in {self.lost} of {self.steps} steps so far)" if self.lost > 1 else ""
        warnings.warn(
            f"{message}{more}; energies and forces may be wrong: see docs/extrapolation.md",
            stacklevel=4,
        )
