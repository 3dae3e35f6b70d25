"""Splits of a data set into training and validation frames."""

import math
from typing import Any

import numpy as np
from skorch.dataset import ValidSplit
from torch.utils.data import Subset

Split = tuple[Subset, Subset]


class InOrderSplit:
    """Keep the last frames of a data set for validation; `split(dataset)` gives both parts.

    val_frac: fraction, 0 to 1; the number of frames is rounded up.
    """

    def __init__(self, val_frac: float = 0.1) -> None:
        self.val_frac = val_frac

    def __call__(self, dataset: Any, y: Any = None, groups: Any = None) -> Split:
        """Return (training frames, validation frames)."""
        first = len(dataset) - validation_size(len(dataset), self.val_frac)
        return (
            Subset(dataset, range(first)),
            Subset(dataset, range(first, len(dataset))),
        )


class BlockSplit:
    """Keep blocks of consecutive frames for validation; `split(dataset)` gives both parts.

    The blocks are spread evenly. Frames of a trajectory are like those before and after them.
    Validating on frames whose neighbours in time are trained on gives errors that are too small.

    val_frac: fraction, 0 to 1; the number of frames is rounded up. blocks: how many, at most.
    """

    def __init__(self, val_frac: float = 0.1, blocks: int = 5) -> None:
        self.val_frac = val_frac
        self.blocks = blocks

    def __call__(self, dataset: Any, y: Any = None, groups: Any = None) -> Split:
        """Return (training frames, validation frames)."""
        frames = np.arange(len(dataset))
        size = validation_size(len(frames), self.val_frac)
        n_blocks = min(self.blocks, size)
        parts = []
        for k, stretch in enumerate(np.array_split(frames, n_blocks)):
            # Each in the middle of its stretch; sizes that differ by one at most.
            own = (k + 1) * size // n_blocks - k * size // n_blocks
            first = (len(stretch) - own) // 2
            parts.append(stretch[first : first + own])
        kept = np.concatenate(parts)
        rest = np.setdiff1d(frames, kept)
        return Subset(dataset, rest.tolist()), Subset(dataset, kept.tolist())


def validation_size(n_frames: int, fraction: float) -> int:
    """Return the number of frames for validation; ValueError where none are left to train on."""
    size = math.ceil(fraction * n_frames)
    if size >= n_frames:
        raise ValueError(
            f"dataset.val_split {fraction} of {n_frames} frame{'s' * (n_frames > 1)} leaves none "
            "to train on; give more frames, a smaller fraction, or frames to validate on (--valid)"
        )
    return size


def make_split(
    fraction: float, mode: str, seed: int
) -> InOrderSplit | BlockSplit | ValidSplit | None:
    """Return skorch's `train_split`; None without validation.

    It keeps the last frames for "inorder", blocks for "block", and frames drawn with `seed` for
    "cv".
    """
    if not fraction:
        return None
    if mode == "inorder":
        return InOrderSplit(fraction)
    if mode == "block":
        return BlockSplit(fraction)
    # scikit-learn takes 32 bits.
    return ValidSplit(cv=fraction, random_state=seed % 2**32)
