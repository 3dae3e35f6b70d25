"""Batches drawn from shards, and made ahead of time."""

import threading
import time

import numpy as np
import pytest
from torch.utils.data import Subset

from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.dataset.prefetch import BatchLoader, prefetched, root_of
from amptorch.dataset.samplers import BlockSampler
from amptorch.threads import num_threads, use_threads
from tests.small_frames import FP_PARAMS, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


def sizes(n, seed=0):
    return np.random.default_rng(seed).integers(35, 165, n)


@pytest.mark.parametrize("n_frames", [1, 15, 16, 17, 1000])
@pytest.mark.parametrize("by_size", [True, False])
def test_every_frame_is_in_one_batch(n_frames, by_size):
    shards = np.arange(n_frames) // 100
    sampler = BlockSampler(sizes(n_frames), 16, shards=shards, by_size=by_size, shards_together=3)
    batches = list(sampler.batches(epoch=0))
    assert len(batches) == len(sampler)
    assert sorted(np.concatenate(batches)) == list(range(n_frames))
    assert all(len(batch) == 16 for batch in batches[:-1])
    assert all((np.diff(batch) > 0).all() for batch in batches)


def test_batches_follow_from_seed_and_epoch():
    def drawn(seed, epoch):
        return [b.tolist() for b in BlockSampler(sizes(200), 16, seed=seed).batches(epoch)]

    assert drawn(3, 7) == drawn(3, 7)
    assert drawn(3, 7) != drawn(3, 8)
    assert drawn(3, 7) != drawn(4, 7)


def test_batches_hold_frames_of_one_size_and_differ_between_epochs():
    counts = sizes(2048)
    sampler = BlockSampler(counts, 16, by_size=True)
    first, second = (list(sampler.batches(epoch)) for epoch in (0, 1))
    assert np.mean([np.ptp(counts[batch]) for batch in first]) < 3
    mixed = BlockSampler(counts, 16).batches(0)
    assert np.mean([np.ptp(counts[batch]) for batch in mixed]) > 50
    # Neither the frames of a batch nor the order of sizes are the same again.
    assert len({tuple(b) for b in first} & {tuple(b) for b in second}) < len(first) / 10
    means = [[counts[batch].mean() for batch in epoch] for epoch in (first, second)]
    assert abs(np.corrcoef(means)[0, 1]) < 0.3


def test_shards_are_read_a_few_at_a_time():
    shards = np.arange(6400) // 64
    batches = list(BlockSampler(sizes(6400), 16, shards=shards, shards_together=5).batches(0))
    for first in range(0, len(batches), 20):  # 5 shards of 64 frames
        assert len(np.unique(shards[np.concatenate(batches[first : first + 20])])) == 5


@pytest.fixture(scope="module")
def dataset():
    return AtomsDataset(mixed_frames(10), SETUP, verbose=False)


def test_loader_gives_the_batches_of_the_data_set_in_order(dataset):
    part = Subset(Subset(dataset, [9, 8, 2, 3, 5, 0]), [0, 2, 3, 5])
    root, frame_ids = root_of(part)
    assert root is dataset
    assert frame_ids.tolist() == [9, 2, 3, 0]
    loader = BatchLoader(part, 3, DataCollater())
    batches = list(loader)
    assert len(loader) == len(batches) == 2
    assert [batch.frame_ids.tolist() for batch, _ in batches] == [[9, 2, 3], [0]]
    energies = np.concatenate([targets[0] for _, targets in batches])
    np.testing.assert_array_equal(energies, dataset.energy[[9, 2, 3, 0]])


def test_loader_draws_anew_each_epoch(dataset):
    epoch = [0]
    loader = BatchLoader(
        Subset(dataset, range(1, 10)), 4, DataCollater(), True, epoch=lambda: epoch[0]
    )
    first = [batch.frame_ids.tolist() for batch, _ in loader]
    again = [batch.frame_ids.tolist() for batch, _ in loader]
    epoch[0] = 1
    second = [batch.frame_ids.tolist() for batch, _ in loader]
    assert first == again != second
    assert sorted(frame for batch in second for frame in batch) == list(range(1, 10))


def test_the_next_one_is_made_while_this_one_is_used():
    made = []

    def make(k):
        made.append((k, threading.current_thread().name, num_threads()))
        return k * k

    with use_threads(3):
        squares = prefetched(make, range(4))
        assert next(squares) == 0
        deadline = time.monotonic() + 30
        while len(made) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert [k for k, _, _ in made] == [0, 1]
    assert list(squares) == [1, 4, 9]
    # In a thread, which was told how many threads the kernels may use.
    assert all("prefetch" in name and threads == 3 for _, name, threads in made)


def test_what_fails_ahead_is_raised_in_its_place_and_stops_the_rest():
    made = []

    def make(k):
        made.append(k)
        if k == 2:
            raise ValueError("frame 2 is damaged")
        return k

    results = prefetched(make, range(100))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="frame 2 is damaged"):
        next(results)
    assert max(made) <= 4


def test_an_iterator_that_is_left_leaves_no_thread():
    def names():
        return [t.name for t in threading.enumerate() if "prefetch" in t.name]

    results = prefetched(lambda k: k, range(100))
    next(results)
    assert names()
    results.close()
    assert not names()
