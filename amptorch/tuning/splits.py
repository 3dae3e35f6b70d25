"""The split into training and validation frames: blocks of a trajectory, or frames at random.

Frames of one trajectory that follow each other are alike. Validating on frames whose neighbours in
time were trained on measures memory more than prediction, so blocks of consecutive frames are the
default; where frames are in no order, blocks cost nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from amptorch.checks import boolean, choice, number
from amptorch.sections import Section, count, option


@dataclass
class Validation(Section):
    """Hold how frames are split: `tuning.validation`.

    The frames are cut into equal parts, of which one is kept for validation: a fraction of 0.15 is
    a seventh, and more than a half is a half. One frame of very high energy can outweigh all others
    in an RMSE, and trials would be compared by it alone; so outliers (`errors.outlier_energy`) are
    trained on, unless `outliers` is True.
    """

    name_in_config: ClassVar[str] = "tuning.validation"

    method: str = option("blocked", choice("blocked", "random"), "of keeping frames")
    fraction: float = option(0.1, number(above=0, below=1), "kept for each training")
    folds: int = option(1, count, "trainings of a trial; each validates on other frames")
    blocks: int = option(5, count, "runs of consecutive frames that validate a training")
    gap: int = option(0, number(minimum=0, integer=True), "frames beside a block that are left out")
    outliers: bool = option(False, boolean, "validate on frames of very high energy, too")

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
        folds = []
        for validate in (kept[k] for k in chosen):
            train, usual = self._others(n_frames, validate), np.setdiff1d(validate, outliers)
            if len(usual) and not self.outliers:
                train, validate = np.union1d(train, np.setdiff1d(validate, usual)), usual
            folds.append((train, validate))
        return folds

    def _others(self, n_frames: int, kept: np.ndarray) -> np.ndarray:
        reach = self.gap if self.method == "blocked" else 0
        near = np.add.outer(np.arange(-reach, reach + 1), kept)
        others = np.setdiff1d(np.arange(n_frames), near)
        if not len(others):
            raise ValueError(
                f"a gap of {self.gap} frames (tuning.validation.gap) leaves none of {n_frames} to "
                "train on; make it smaller, or have fewer blocks"
            )
        return others

    def in_words(self) -> str:
        """Return one sentence that says how frames are split."""
        how = "frames drawn at random"
        if self.method == "blocked":
            how = f"blocks of consecutive frames, {self.blocks} for each training"
            how += f", {self.gap} frames left out beside each" if self.gap else ""
        if self.folds == 1:
            return f"validation on {1 / self.parts:.0%} of the training frames: {how}"
        return f"{self.folds}-fold validation on the training frames: {how}"


def correlation(energies: Sequence[float] | np.ndarray) -> float:
    """Return the correlation of the energies of consecutive frames, −1 to 1; 0 where undefined."""
    energies = np.asarray(energies, dtype=np.float64)
    if len(energies) < 3 or np.ptp(energies) == 0:
        return 0.0
    first, second = energies[:-1] - energies.mean(), energies[1:] - energies.mean()
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0
