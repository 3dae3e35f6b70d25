"""Describe what a training takes as a data set."""

from typing import Protocol

import numpy as np

from amptorch.data.batch import Batch
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.base import BaseDescriptor


class Dataset(Protocol):
    """Give frames that are described and scaled, from which batches are taken.

    elements : symbols, in the order that numbers networks and features
    forcetraining : whether batches have forces
    counts, energies : (F,) number of atoms, and energy in eV, of each frame
    weights : (F,) of the frames' errors in the loss; None for equal ones
    shards : (F,) the part of a data set on disk that each frame is in; None in memory

    One with `shards` also has `sizes` (F,), what reading a frame takes, and
    `share(frame_ids, first, last, draw)`, the `Share` of one of several processes.
    """

    descriptor: BaseDescriptor
    elements: list[str]
    feature_scaler: FeatureScaler
    target_scaler: TargetScaler
    forcetraining: bool
    weights: np.ndarray | None

    @property
    def counts(self) -> np.ndarray: ...

    @property
    def energies(self) -> np.ndarray: ...

    @property
    def shards(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Batch:
        """Return the batch of the frames at `indices`, with their targets."""
        ...
