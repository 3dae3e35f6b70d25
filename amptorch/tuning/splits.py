"""The split into training and validation frames: blocks of a trajectory, or frames at random.

Frames of one trajectory that follow each other are alike. Validating on frames whose neighbours in
time were trained on measures memory more than prediction, so blocks of consecutive frames are the
default; where frames are in no order, blocks cost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amptorch.checks import boolean, choice, known_keys, number


@dataclass(frozen=True)
class Validation:
    """Hold how frames are split.

    method : "blocked" or "random"
    fraction : of the frames, kept for the validation of each training; they are cut into equal
        parts, of which one is kept: 0.15 is a seventh, and more than a half is a half
    folds : trainings of a trial: 1 is hold-out; with more, each validates on other frames
    blocks : runs of consecutive frames that make up the validation frames of a training
    gap : frames on each side of a block that are neither trained on nor validated
    outliers : whether frames of very high energy (`errors.outlier_energy`) may validate. One of
        them can outweigh all others in an RMSE, and trials would be compared by it alone; so they
        are trained on instead, unless this is set
    """

    method: str = "blocked"
    fraction: float = 0.15
    folds: int = 1
    blocks: int = 5
    gap: int = 0
    outliers: bool = False

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Validation":
        """Return the `Validation` of `tuning.validation`.

        Raises ValueError or TypeError that names the key.
        """
        where = "tuning.validation"
        known_keys(where, given, list(cls.__dataclass_fields__))
        checks: dict[str, Callable[[str, Any], Any]] = {
            "method": choice("blocked", "random"),
            "fraction": number(above=0, below=1),
            "folds": number(minimum=1, integer=True),
            "blocks": number(minimum=1, integer=True),
            "gap": number(minimum=0, integer=True),
            "outliers": boolean,
        }
        return cls(**{key: checks[key](f"{where}.{key}", value) for key, value in given.items()})

    @property
    def parts(self) -> int:
        """Return the number of equal parts of the frames; one of them validates a training."""
        return max(self.folds, round(1 / self.fraction), 2)

    def split(
        self, n_frames: int, seed: int = 0, outliers: Sequence[int] | np.ndarray = ()
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return [(frames to train on, frames to validate on)], sorted int64 arrays, for each fold.

        outliers: frames that do not validate (but where a part would have no others).

        Raises ValueError where there are too few frames.
        """
        parts = self.parts
        if n_frames < parts:
            raise ValueError(
                f"{n_frames} frames cannot be split into {parts} parts; give more frames, fewer "
                "folds or a larger fraction (tuning.validation)"
            )
        if self.method == "random":
            shuffled = np.random.default_rng(seed).permutation(n_frames)
            kept = [np.sort(part) for part in np.array_split(shuffled, parts)]
        else:
            # With fewer frames than blocks, the blocks are single frames.
            pieces = np.array_split(np.arange(n_frames), min(parts * self.blocks, n_frames))
            kept = [np.concatenate(pieces[k::parts]) for k in range(parts)]
        # Hold-out takes the part in the middle, whose blocks lie farthest from both ends.
        chosen = [parts // 2] if self.folds == 1 else list(range(self.folds))
        return [self._fold(n_frames, kept[k], np.asarray(outliers, dtype=np.int64)) for k in chosen]

    def _fold(
        self, n_frames: int, kept: np.ndarray, outliers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        usual = np.setdiff1d(kept, outliers)
        if self.outliers or not len(usual):
            return self._others(n_frames, kept), kept
        return np.union1d(self._others(n_frames, kept), np.setdiff1d(kept, usual)), usual

    def _others(self, n_frames: int, kept: np.ndarray) -> np.ndarray:
        near = np.zeros(n_frames, dtype=bool)
        reach = self.gap if self.method == "blocked" else 0
        for shift in range(-reach, reach + 1):
            moved = kept + shift
            near[moved[(moved >= 0) & (moved < n_frames)]] = True
        others = np.flatnonzero(~near)
        if not len(others):
            raise ValueError(
                f"a gap of {self.gap} frames (tuning.validation.gap) leaves none of {n_frames} to "
                "train on; make it smaller, or have fewer blocks"
            )
        return others

    def describe(self) -> str:
        """Return one sentence that says how frames are split."""
        how = (
            f"blocks of consecutive frames, {self.blocks} for each training"
            + (f", {self.gap} frames left out beside each" if self.gap else "")
            if self.method == "blocked"
            else "frames drawn at random"
        )
        if self.folds == 1:
            return f"validation on {1 / self.parts:.0%} of the training frames: {how}"
        return f"{self.folds}-fold validation on the training frames: {how}"


def correlation(energies: Sequence[float] | np.ndarray) -> float:
    """Return the correlation of the energies of consecutive frames, −1 to 1; 0 where undefined."""
    energies = np.asarray(energies, dtype=np.float64)
    if len(energies) < 3:
        return 0.0
    first, second = energies[:-1] - energies.mean(), energies[1:] - energies.mean()
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0
