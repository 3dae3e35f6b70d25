"""Batches that are ready when the network is: the next one is assembled in a thread."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
from torch.utils.data import Subset

from amptorch.dataset.samplers import BlockSampler, draw_forces, generator


def prefetched(make, items, ahead=1):
    """`make(item)` for each item in order, `ahead` of them made in a thread before they are asked
    for. What `make` raises is raised where its result would have come."""
    context = copy_context()
    pending = deque()
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
    """What skorch iterates over instead of torch's DataLoader: `(batch, targets)` of whole batches,
    the next of them assembled while the network works on one.

    dataset : AtomsDataset, StoreDataset, or a Subset of one
    collate_fn : a DataCollater
    shuffle : batches of a `BlockSampler`, other ones each epoch; otherwise frames in their order
    seed, epoch : of all that is drawn; `epoch` is called for the number of the epoch
    force_fraction : share of the atoms of each batch whose forces are trained on
    by_size : see `BlockSampler`
    """

    def __init__(
        self,
        dataset,
        batch_size,
        collate_fn,
        shuffle=False,
        seed=0,
        epoch=lambda: 0,
        force_fraction=1.0,
        by_size=False,
    ):
        self.dataset, self._frame_ids = root_of(dataset)
        self.batch_size = batch_size
        self.collate_fn = collate_fn
        self.seed = seed
        self.epoch = epoch
        self.force_fraction = force_fraction
        self.sampler = None
        if shuffle:
            shards = self.dataset.shards
            self.sampler = BlockSampler(
                self.dataset.counts[self._frame_ids],
                batch_size,
                seed,
                None if shards is None else shards[self._frame_ids],
                by_size,
            )

    def __len__(self):
        return -(-len(self._frame_ids) // self.batch_size)

    def __iter__(self):
        epoch = self.epoch()

        def make(numbered):
            number, positions = numbered
            batch = self.dataset.__getitems__(self._frame_ids[positions])
            if self.force_fraction < 1 and batch.derivatives is not None:
                rng = generator(self.seed, epoch, number)
                batch = draw_forces(batch, self.force_fraction, rng)
            return self.collate_fn(batch)

        return prefetched(make, enumerate(self._batches(epoch)))

    def _batches(self, epoch):
        if self.sampler is not None:
            return self.sampler.batches(epoch)
        places = np.arange(len(self._frame_ids))
        return (places[k : k + self.batch_size] for k in range(0, len(places), self.batch_size))


def root_of(dataset):
    """The data set that a torch Subset (of a Subset …) is a part of, and the frames of it."""
    if isinstance(dataset, Subset):
        root, frame_ids = root_of(dataset.dataset)
        return root, frame_ids[np.asarray(dataset.indices, dtype=np.int64)]
    return dataset, np.arange(len(dataset))
