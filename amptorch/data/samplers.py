"""Which frames make a batch, and which of their forces are trained on: drawn anew each epoch.

Everything drawn follows from a seed, the number of the epoch and that of the batch, so that a run
that was interrupted goes on with the batches it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from amptorch.data.batch import Batch

# Parts of a data set on disk of which each batch holds its share. One shard of each is drawn from
# at a time: enough for batches that differ from epoch to epoch, and few enough that what they hold
# stays in the page cache.
GROUPS = 8


def generator(seed: int, *place: int) -> np.random.Generator:
    """Return numpy's generator of the random numbers of one epoch, or of one batch of it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def groups_for(processes: int) -> int:
    """Return the number of groups that a data set on disk is in for so many processes: each has as
    many."""
    return -(-GROUPS // processes) * processes


def cuts_of(counts: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Return the (n+1,) places where frames of `counts` (F,) atoms are cut into n ranges of about
    as many."""
    counts = np.asarray(counts)
    middles = np.cumsum(counts) - counts / 2
    inner = np.searchsorted(middles, counts.sum() * np.arange(1, n) / n)
    return np.concatenate(([0], inner, [len(counts)])).astype(np.int64)


class BlockSampler:
    """Draw batches of frames, each with its share of every group of them.

    Within a group frames are drawn shard by shard; the sequences of all groups are merged evenly
    and cut into batches. So as many shards are drawn from at a time as there are groups, and where
    the groups belong to several processes, each has about as much of every batch. Every frame is in
    one batch; all batches have `batch_size` frames but the last.

    Batches mix sizes: they are flat arrays without padding, and with batches of one size an epoch
    of 2,000 frames of 35 to 164 atoms took as long (1.18 s of CPU time against 1.14 s stored, 10.8
    against 10.8 s recomputed, medians in turns), while the validation errors of energies were a
    quarter larger after 25 epochs.

    groups, shards : (F,) numbers of the group and of the shard of each frame; None: all are in one
    shuffle : False takes the frames of each group in their order
    """

    def __init__(
        self,
        n_frames: int,
        batch_size: int,
        seed: int = 0,
        groups: np.ndarray | None = None,
        shards: np.ndarray | None = None,
        shuffle: bool = True,
    ) -> None:
        self.n_frames = n_frames
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        shards = np.zeros(n_frames, dtype=np.int64) if shards is None else np.asarray(shards)
        groups = np.zeros(n_frames, dtype=np.int64) if groups is None else np.asarray(groups)
        self._groups = [
            [rows[shards[rows] == shard] for shard in np.unique(shards[rows])]
            for rows in (np.flatnonzero(groups == group) for group in np.unique(groups))
        ]

    def __len__(self) -> int:
        return -(-self.n_frames // self.batch_size)

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the batches of an epoch, one after the other: int64 arrays of frames, ascending."""
        rng = generator(self.seed, epoch)
        phases = rng.permutation(len(self._groups)) / len(self._groups)
        drawn = [self._sequence(shards, rng) for shards in self._groups]
        places = [
            (np.arange(len(frames)) + phase) / len(frames)
            for frames, phase in zip(drawn, phases, strict=True)
        ]
        order = np.argsort(np.concatenate(places), kind="stable")
        frames = np.concatenate(drawn)[order]
        for first in range(0, len(frames), self.batch_size):
            yield np.sort(frames[first : first + self.batch_size])

    def _sequence(self, shards: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        if not self.shuffle:
            return np.concatenate(shards)
        return np.concatenate(
            [rng.permutation(shards[number]) for number in rng.permutation(len(shards))]
        )


def drawn_rows(n_atoms: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return sorted rows of the atoms whose forces are trained on: the share `fraction` of
    `n_atoms`, at least one if there are any, drawn without replacement.

    Every atom is as likely to be among them as any other and their number is fixed, so the mean
    over their components is an exactly unbiased estimate of that over all, and so is its gradient.
    """
    wanted = min(n_atoms, max(1, round(fraction * n_atoms)))
    return np.sort(rng.choice(n_atoms, wanted, replace=False))


def with_forces_of(batch: Batch, places: np.ndarray) -> Batch:
    """Return the batch with those of its forces alone that are at `places`."""
    drawn = {
        name: getattr(batch, name)[torch.from_numpy(places)]
        for name in ("forces", "force_weights")
        if getattr(batch, name) is not None
    }
    rows = places if batch.force_rows is None else batch.force_rows[places]
    return replace(batch, force_rows=rows, **drawn)


def known_rows(forces: torch.Tensor) -> np.ndarray | None:
    """Return the rows of forces (n, 3), a tensor, of frames that have some, NaN in those of the
    others; None where all have."""
    known = ~torch.isnan(forces[:, 0])
    return None if known.all() else torch.nonzero(known).squeeze(1).numpy()


def with_known_forces(batch: Batch) -> Batch:
    """Return the batch with the forces of those frames alone that have some."""
    rows = None if batch.forces is None else known_rows(batch.forces)
    return batch if rows is None else with_forces_of(batch, rows)
