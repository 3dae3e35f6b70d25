"""Batches that are ready when the network is: the next one is assembled in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from copy import copy
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Subset

from amptorch.data.batch import Batch, Share
from amptorch.data.protocol import Dataset
from amptorch.data.samplers import (
    BlockSampler,
    cuts_of,
    drawn_rows,
    generator,
    groups_for,
    with_forces_of,
)

Item = TypeVar("Item")
Made = TypeVar("Made")
Collated = tuple[Batch | Share, list[torch.Tensor]]


def prefetched(
    make: Callable[[Item], Made], items: Iterable[Item], ahead: int = 1
) -> Iterator[Made]:
    """Yield `make(item)` for each item in order, `ahead` of them made in a thread before they are
    asked for. What `make` raises is raised where its result would have come."""
    context = copy_context()
    pending: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="amptorch-prefetch")
    try:
        for item in items:
            pending.append(pool.submit(context.run, make, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class BatchLoader:
    """Give skorch what it iterates over instead of torch's DataLoader: `(batch, targets)` of whole
    batches, the next of them assembled while the network works on one.

    Out of a store, each batch has its share of every eighth of it (see `BlockSampler`), also
    without `shuffle`. With several processes the batch is a `Share`: each process reads only frames
    of its own part of the store, which are consecutive ones with about as many atoms as the others
    have. Batches are the same for 1, 2, 4 or 8 processes; for other numbers n they have their share
    of n parts, or of the next multiple of n from eight on.

    dataset : AtomsDataset, StoreDataset, AtomsLMDBDataset, or a Subset of one
    collate_fn : a DataCollater
    shuffle : other batches each epoch; otherwise frames in their order
    seed, epoch : of all that is drawn; `epoch` is called for the number of the epoch
    force_fraction : share of the atoms of each batch whose forces are trained on
    process, processes : number of this process, and how many train together
    """

    def __init__(
        self,
        dataset: Dataset | Subset,
        batch_size: int,
        collate_fn: Callable[[Batch | Share], Collated],
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        force_fraction: float = 1.0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.dataset, self._frame_ids = root_of(dataset)
        self.collate_fn = collate_fn
        self.seed = seed
        self.epoch = epoch
        self.force_fraction = force_fraction
        self._own = groups = shards = None
        self._given = self._frame_ids
        if self.dataset.shards is not None:
            self._frame_ids = np.sort(self._frame_ids)
            n_groups = groups_for(processes)
            cuts = cuts_of(self.dataset.sizes, n_groups)
            groups = np.searchsorted(cuts[1:-1], self._frame_ids, side="right")
            shards = self.dataset.shards[self._frame_ids]
            if processes > 1:
                each = n_groups // processes
                self._own = cuts[each * process], cuts[each * (process + 1)]
        self.sampler = BlockSampler(len(self._frame_ids), batch_size, seed, groups, shards, shuffle)

    def in_order(self) -> BatchLoader:
        """Return a loader of the same frames in the order in which they were given, whole batches
        in every process: for predictions, which are told apart by their places."""
        loader = copy(self)
        loader._frame_ids, loader._own = self._given, None
        loader.sampler = BlockSampler(len(self._given), self.sampler.batch_size, shuffle=False)
        return loader

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Collated]:
        epoch = self.epoch()

        def make(numbered: tuple[int, np.ndarray]) -> Collated:
            number, positions = numbered
            return self.collate_fn(self._batch(epoch, number, self._frame_ids[positions]))

        return prefetched(make, enumerate(self.sampler.batches(epoch)))

    def _batch(self, epoch: int, number: int, frame_ids: np.ndarray) -> Batch | Share:
        some = self.force_fraction < 1 and self.dataset.forcetraining

        def drawn(n_forces: int) -> np.ndarray:
            return drawn_rows(n_forces, self.force_fraction, generator(self.seed, epoch, number))

        if self._own is not None:
            return self.dataset.share(frame_ids, *self._own, drawn if some else None)
        batch = self.dataset.batch(frame_ids)
        return with_forces_of(batch, drawn(len(batch.forces))) if some else batch


def root_of(dataset: Any) -> tuple[Any, np.ndarray]:
    """Return the data set that a torch Subset (of a Subset …) is a part of, and the frames of
    it."""
    if isinstance(dataset, Subset):
        root, frame_ids = root_of(dataset.dataset)
        return root, frame_ids[np.asarray(dataset.indices, dtype=np.int64)]
    return dataset, np.arange(len(dataset))
