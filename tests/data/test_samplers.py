"""Batches drawn from shards, and made ahead of time."""

import threading
import time

import numpy as np
import pytest
from torch.utils.data import Subset

from amptorch.data.loader import BatchLoader, prefetched, root_of
from amptorch.data.samplers import BlockSampler, cuts_of
from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.threads import num_threads, use_threads
from tests.small_frames import FP_PARAMS, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


def sizes(n, seed=0):
    return np.random.default_rng(seed).integers(35, 165, n)


@pytest.mark.parametrize("n_frames", [1, 15, 16, 17, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_frame_is_in_one_batch(n_frames, shuffle):
    groups, shards = np.arange(n_frames) * 3 // n_frames, np.arange(n_frames) // 100
    sampler = BlockSampler(n_frames, 16, groups=groups, shards=shards, shuffle=shuffle)
    batches = list(sampler.batches(epoch=0))
    assert len(batches) == len(sampler)
    assert sorted(np.concatenate(batches)) == list(range(n_frames))
    assert all(len(batch) == 16 for batch in batches[:-1])
    assert all((np.diff(batch) > 0).all() for batch in batches)


def test_batches_follow_from_seed_and_epoch():
    def drawn(seed, epoch):
        return [b.tolist() for b in BlockSampler(200, 16, seed=seed).batches(epoch)]

    assert drawn(3, 7) == drawn(3, 7)
    assert drawn(3, 7) != drawn(3, 8)
    assert drawn(3, 7) != drawn(4, 7)


def test_batches_hold_their_share_of_each_group():
    groups = np.repeat([0, 1, 2], [1000, 500, 250])
    batches = list(BlockSampler(1750, 14, groups=groups).batches(0))
    shares = np.array([np.bincount(groups[batch], minlength=3) for batch in batches])
    assert np.abs(shares - [8, 4, 2]).max() <= 1
    # Which frames come together is another matter each epoch.
    again = BlockSampler(1750, 14, groups=groups).batches(1)
    assert not {tuple(batch) for batch in batches} & {tuple(batch) for batch in again}


def test_one_shard_of_each_group_is_read_at_a_time():
    shards = np.arange(6400) // 64
    batches = list(BlockSampler(6400, 16, groups=shards // 25, shards=shards).batches(0))
    for first in range(0, len(batches), 16):  # 4 shards of 64 frames
        assert len(np.unique(shards[np.concatenate(batches[first : first + 16])])) == 4


def test_in_order_without_shuffling():
    batches = BlockSampler(6, 2, groups=[0, 0, 0, 1, 1, 1], shuffle=False).batches(0)
    assert [batch.tolist() for batch in batches] == [[0, 3], [1, 4], [2, 5]]
    batches = BlockSampler(5, 2, shuffle=False).batches(0)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("n", [1, 3, 8, 20])
def test_ranges_of_about_equally_many_atoms(n):
    for counts in (sizes(10), np.array([5]), np.ones(40, dtype=int)):
        cuts = cuts_of(counts, n)
        assert (len(cuts), cuts[0], cuts[-1]) == (n + 1, 0, len(counts))
        atoms = np.diff(np.concatenate(([0], np.cumsum(counts)))[cuts])
        assert atoms.sum() == counts.sum()
        assert np.abs(atoms - counts.sum() / n).max() <= counts.max()


class Counted:
    """A data set in shards of 25 that gives, of what it is asked for, the numbers."""

    forcetraining = True
    counts = sizes(500)
    sizes = counts
    shards = np.arange(500) // 25

    def __len__(self):
        return len(self.counts)

    def batch(self, frame_ids):
        return frame_ids

    def share(self, frame_ids, first, last, rows):
        return frame_ids, frame_ids[(frame_ids >= first) & (frame_ids < last)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_read_parts_of_their_own_of_the_same_batches(shuffle):
    dataset = Subset(Counted(), np.random.default_rng(0).permutation(500)[:450])

    def batches(**options):
        return list(BatchLoader(dataset, 16, lambda batch: batch, shuffle, seed=4, **options))

    alone = batches()
    for size in (2, 4, 8, 3, 11):
        loaded = [batches(process=k, processes=size) for k in range(size)]
        read = [set(np.concatenate([own for _, own in rank])) for rank in loaded]
        assert sum(map(len, read)) == len(set.union(*read)) == 450
        atoms = [Counted.counts[list(frames)].sum() for frames in read]
        assert max(atoms) < 1.5 * min(atoms)
        for parts in zip(*loaded, strict=True):
            whole = parts[0][0]
            assert all(np.array_equal(batch, whole) for batch, _ in parts)
            np.testing.assert_array_equal(np.concatenate([own for _, own in parts]), whole)
        assert (8 % size != 0) or all(map(np.array_equal, alone, [w for w, _ in loaded[0]]))
        shares = [[len(own) for _, own in rank[:-1]] for rank in loaded]
        assert np.ptp(shares) <= 2 + 16 // size


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
