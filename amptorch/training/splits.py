"""Splits of a data set into training and validation frames."""

import math

import numpy as np
from skorch.dataset import ValidSplit
from torch.utils.data import Subset


class InOrderSplit:
    """The last fraction of the data set is for validation; `split(dataset)` gives both parts.

    val_frac: fraction, 0 to 1; the number of frames is rounded up.
    """

    def __init__(self, val_frac=0.1):
        self.val_frac = val_frac

    def __call__(self, dataset, y=None, groups=None):
        first = len(dataset) - validation_size(len(dataset), self.val_frac)
        return (
            Subset(dataset, np.arange(first)),
            Subset(dataset, np.arange(first, len(dataset))),
        )


class BlockSplit:
    """Blocks of consecutive frames, spread evenly, are for validation; `split(dataset)` gives both.

    Frames of a trajectory are like those before and after them: to validate on frames whose
    neighbours in time were trained on measures memory rather than prediction.

    val_frac: fraction, 0 to 1; the number of frames is rounded up. blocks: how many, at most.
    """

    def __init__(self, val_frac=0.1, blocks=5):
        self.val_frac = val_frac
        self.blocks = blocks

    def __call__(self, dataset, y=None, groups=None):
        frames = np.arange(len(dataset))
        size = validation_size(len(frames), self.val_frac)
        n_blocks = min(self.blocks, size)
        kept = []
        for k, stretch in enumerate(np.array_split(frames, n_blocks)):
            # Each in the middle of its stretch; sizes that differ by one at most.
            own = (k + 1) * size // n_blocks - k * size // n_blocks
            first = (len(stretch) - own) // 2
            kept.append(stretch[first : first + own])
        kept = np.concatenate(kept)
        return Subset(dataset, np.setdiff1d(frames, kept)), Subset(dataset, kept)


def validation_size(n_frames, fraction):
    """Number of frames kept for validation; ValueError where none would be left for training."""
    size = math.ceil(fraction * n_frames)
    if size >= n_frames:
        raise ValueError(
            f"dataset.val_split {fraction} of {n_frames} frames leaves none to train on; "
            "give more frames or a smaller fraction"
        )
    return size


def make_split(fraction, mode, seed):
    """The `train_split` of skorch: None without validation, the last frames for "inorder", blocks
    for "block", frames drawn with `seed` for "cv"."""
    if not fraction:
        return None
    if mode == "inorder":
        return InOrderSplit(fraction)
    if mode == "block":
        return BlockSplit(fraction)
    # scikit-learn takes 32 bits.
    return ValidSplit(cv=fraction, random_state=seed % 2**32)
