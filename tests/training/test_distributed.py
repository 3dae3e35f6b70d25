"""Several processes train as one does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn

from amptorch.data.batch import Share
from amptorch.data.from_store import StoreDataset
from amptorch.data.loader import BatchLoader
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.model import BPNN, CustomLoss
from amptorch.store import FrameStore, preprocess
from amptorch.store.reader import ShardReader
from amptorch.threads import num_threads
from amptorch.trainer import AtomsTrainer
from amptorch.training.ranks import Ranks, part_of, share_of
from tests.small_frames import FP_PARAMS, config, draw_forces, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
ROOT = Path(__file__).parents[2]
EPOCHS = 4


def settings_of(frames, folder, **changes):
    """Batches of 4, 2 and 1 frames, of 2 to 8 atoms: some processes have more, some have none."""
    defaults = {"optim__epochs": EPOCHS, "dataset__val_split": 0.3, "optim__batch_size": 4}
    if "dataset__store" in changes:
        changes["dataset__store"] = str(Path(folder) / changes["dataset__store"])
    return config(frames, folder, **{**defaults, **changes})


def dataset_of(frames, **options):
    return AtomsDataset(frames, SETUP, verbose=False, **options)


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def dataset(frames):
    return dataset_of(frames)


# --- shares of a batch ---


@pytest.mark.parametrize("fraction", [1.0, 0.4])
@pytest.mark.parametrize("cuts", [[0, 3, 5], [0, 1, 4, 5], [0, 5]])
def test_shares_make_up_the_batch(dataset, fraction, cuts):
    batch = dataset.batch([3, 1, 4, 0, 9])
    if fraction < 1:
        batch = draw_forces(batch, fraction, np.random.default_rng(2))
    torch.manual_seed(0)
    model = BPNN(dataset.elements, dataset.input_dim, num_layers=1, num_nodes=4)
    energies, forces = model(batch)
    parts = [model(part_of(batch, *ends)) for ends in pairwise(cuts)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), energies, rtol=1e-12, atol=0)
    together = torch.cat([part[1] for part in parts])
    torch.testing.assert_close(together, forces, rtol=1e-12, atol=1e-12)


def test_shares_are_balanced(dataset):
    batch = dataset.batch(range(10))
    counts = dataset.counts
    for size in (1, 2, 3, 7, 30):
        shares = [share_of(batch, rank, size) for rank in range(size)]
        assert all(len(share) == 10 and share.targets == batch.targets for share in shares)
        own = [share.part for share in shares if share.part is not None]
        assert np.concatenate([part.frame_ids for part in own]).tolist() == [*range(10)]
        assert sum(len(part.fingerprint) for part in own) == counts.sum()
        assert max(len(part.fingerprint) for part in own) - counts.sum() / size <= counts.max()


# --- gradients ---


class Crooked(torch.nn.Module):
    """A loss that is no mean over frames."""

    def forward(self, prediction, target, counts):
        energy, forces = (p - t for p, t in zip(prediction, target, strict=True))
        return energy.square().sum().sqrt() * forces.abs().max() + energy.std(correction=0)


def batch_of(dataset, frame_ids, fraction):
    batch = dataset.batch(frame_ids)
    return draw_forces(batch, fraction, np.random.default_rng(2)) if fraction < 1 else batch


def gradients(dataset, loss, ranks, batch):
    """Loss, gradients of a fresh model's parameters and predictions."""
    torch.manual_seed(1)
    model = BPNN(dataset.elements, dataset.input_dim, num_layers=2, num_nodes=5)
    prediction = ranks.evaluate(batch, model)
    value = loss(prediction, batch.targets, batch.counts)
    value.backward()
    ranks.sum_gradients(model.parameters())
    return [value, *prediction, *(p.grad for p in model.parameters())]


CASES = [
    (CustomLoss(0.1, "mse"), [0, 1, 2, 3, 4, 5, 9], 1.0),
    (CustomLoss(0.1, "mae"), [7, 2, 4], 1.0),
    (CustomLoss(0.1, "mse", energy_per_atom=True), [7, 2, 4, 0], 1.0),
    (CustomLoss(0.1, "mse"), [7, 2, 4, 0, 9], 0.3),
    (Crooked(), [8, 1, 5, 3], 1.0),
    # Fewer frames than processes; and none with oxygen, whose network then has no gradient.
    (CustomLoss(0.1, "mse"), [1], 1.0),
    (CustomLoss(0.1, "mse"), [0, 4], 1.0),
]


def assert_same_gradients(found, expected, what):
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None), (what, one, two)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def compare(rank, size, port, store):
    """In each process: gradients together are those alone."""
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
    together, alone = Ranks(), Ranks()
    alone.rank, alone.size = 0, 1
    assert (together.rank, together.size) == (rank, size)
    dataset = dataset_of(mixed_frames(10))
    for loss, frame_ids, fraction in CASES:
        batch = batch_of(dataset, frame_ids, fraction)
        expected = gradients(dataset, loss, alone, batch)
        found = gradients(dataset, loss, together, batch)
        assert_same_gradients(found, expected, frame_ids)
    assert any(gradient is None for gradient in expected)
    for kind in ("stored", "recompute"):
        dataset = StoreDataset(store, SETUP, derivatives=kind)
        for batch_size, fraction in ((4, 1.0), (1, 1.0), (4, 0.4)):
            loaders = [
                BatchLoader(dataset, batch_size, DataCollater(), True, 5, **options)
                for options in (
                    {"force_fraction": fraction, "process": rank, "processes": size},
                    {"force_fraction": fraction},
                )
            ]
            for (share, _), (batch, _) in zip(*loaders, strict=True):
                assert isinstance(share, Share)
                assert len(share) == len(batch)
                loss = CustomLoss(0.1, "mse", energy_per_atom=fraction < 1)
                expected = gradients(dataset, loss, alone, batch)
                found = gradients(dataset, loss, together, share)
                assert_same_gradients(found, expected, (kind, batch_size, fraction))
    assert together.from_first(lambda: Path(f"from {rank}")) == Path("from 0")
    dist.destroy_process_group()


def make_store(frames, path):
    """Shards of 2 frames."""
    preprocess(
        frames,
        construct_descriptor(SETUP),
        path,
        derivatives="stored",
        derivative_dtype="float64",
        frames_per_shard=2,
        verbose=False,
    )
    return path


@pytest.mark.slow
def test_gradients_are_those_of_one_process(frames, unused_port, tmp_path):
    spawn(compare, (2, unused_port, make_store(frames, tmp_path / "store")), nprocs=2)


@pytest.fixture
def unused_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# --- torchrun ---

SCRIPT = """
import json, sys
from tests.small_frames import mixed_frames
from tests.training.test_distributed import AtomsTrainer, frames_read, history, settings_of

folder, runs = sys.argv[1], json.loads(sys.argv[2])
for changes, resume in runs:
    trainer = AtomsTrainer(settings_of(mixed_frames(10), folder, **changes))
    if not resume:
        trainer.load()
    with frames_read() as read:
        trainer.train(resume=resume)
    result = {
        "read": read,
        "rank": trainer.ranks.rank,
        "history": history(trainer),
        "parameters": [p.tolist() for p in trainer.net.module_.parameters()],
        "folder": trainer.cp_dir,
    }
    sys.stdout.write(json.dumps(result) + "\\n")
    sys.stdout.flush()
"""


@contextmanager
def frames_read():
    """{what: [[shard, frame within it], …]} of all that is read of any store; of derivatives the
    shard alone."""
    read = {"fingerprints": [], "derivatives": [], "neighbors": []}
    places = {
        (FrameStore, "fingerprints"): lambda store, _, frames: zip(
            *store.locate(frames), strict=True
        ),
        (ShardReader, "derivatives"): lambda reader, *_: [(reader.folder.name, 0)],
        (ShardReader, "neighbors"): lambda reader, frames, *_: [
            (reader.folder.name, frame) for frame in frames
        ],
    }
    methods = {(owner, name): getattr(owner, name) for owner, name in places}

    def counted(owner, name):
        def call(reader, *arguments):
            found = places[owner, name](reader, *arguments)
            read[name] += [[str(shard), int(frame)] for shard, frame in found]
            return methods[owner, name](reader, *arguments)

        return call

    for owner, name in places:
        setattr(owner, name, counted(owner, name))
    yield read
    for (owner, name), method in methods.items():
        setattr(owner, name, method)


def history(trainer):
    """Numbers of the epochs, but the times."""
    rows = json.loads(json.dumps(trainer.net.history))
    return [{name: value for name, value in row.items() if name != "dur"} for row in rows]


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_close(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_close(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_close(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-8, abs=1e-11)
    else:
        assert one == two


SCHEDULER = {"optim__scheduler": {"policy": "ReduceLROnPlateau", "params": {"patience": 0}}}
RUNS = [
    [{**SCHEDULER, "optim__epochs": 2, "cmd__verbose": True}, False],
    [{**SCHEDULER, "optim__epochs": 3}, True],
    [{"model__dropout": True, "dataset__derivatives": "recompute"}, False],
    [{"dataset__store": "store", "optim__force_fraction": 0.5}, False],
    [{"dataset__store": "store", "dataset__derivatives": "recompute"}, False],
    [{"optim__optimizer": "LBFGS", "optim__batch_size": 10, "optim__averaging": "ema"}, False],
]


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """What two processes that torchrun starts find in RUNS, what they print, and their folder."""
    folder = tmp_path_factory.mktemp("distributed")
    make_store(mixed_frames(10), folder / "store")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    result = torchrun(script, folder, json.dumps(RUNS))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    by_rank = [[run for run in found if run["rank"] == rank] for rank in (0, 1)]
    assert [len(runs) for runs in by_rank] == [len(RUNS)] * 2
    return by_rank, [line for line in lines if not line.startswith("{")], folder


@pytest.mark.slow
def test_processes_agree(distributed):
    """In numbers, also where each process drops out others, and thus in decisions and folders."""
    (one, two), _, _ = distributed
    for first, second in zip(one, two, strict=True):
        for name in ("history", "parameters", "folder"):
            assert first[name] == second[name]


@pytest.mark.slow
def test_one_process_writes_and_reports(distributed):
    (runs, _), printed, folder = distributed
    assert sum("train_loss" in line for line in printed) == 1
    assert runs[0]["folder"] == runs[1]["folder"]
    assert {run["folder"] for run in runs} == {str(f) for f in (folder / "checkpoints").iterdir()}


@pytest.mark.slow
def test_torchrun_trains_as_one_process(distributed, frames, tmp_path):
    """Scores, learning rates and parameters: of a run, of one that goes on, and of two that read a
    store, one of them with half of the forces, and of one by L-BFGS and averaged."""
    (runs, _), _, _ = distributed
    make_store(frames, tmp_path / "store")
    for which in (0, 1, 3, 4, 5):
        run, changes = runs[which], RUNS[which][0]
        alone = AtomsTrainer(settings_of(frames, tmp_path, **{**changes, "cmd__verbose": False}))
        alone.train()
        assert_close(run["history"], history(alone))
        assert_close(run["parameters"], [p.tolist() for p in alone.net.module.parameters()])


@pytest.mark.slow
def test_each_process_reads_its_own_shards(distributed):
    """Of fingerprints, neighbour lists and derivatives, and half of the frames each time."""
    by_rank, _, _ = distributed
    for which, names in ((3, ("fingerprints", "derivatives")), (4, ("fingerprints", "neighbors"))):
        for name in names:
            one, two = (runs[which]["read"][name] for runs in by_rank)
            frames = [{tuple(frame) for frame in read} for read in (one, two)]
            # Of five shards one may be cut in two.
            assert len({shard for shard, _ in frames[0]} & {shard for shard, _ in frames[1]}) <= 1
            if name != "derivatives":
                assert not frames[0] & frames[1]
                assert [len(set(read)) for read in frames] == [5, 5]
            if name == "fingerprints":
                # And once more a few, to see whether the training led anywhere.
                assert 10 * EPOCHS < len(one) + len(two) < 10 * (EPOCHS + 1)


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began(distributed, frames, tmp_path):
    (runs, _), _, _ = distributed
    folder = shutil.copytree(runs[1]["folder"], tmp_path / "run")
    resumed = AtomsTrainer(settings_of(frames, tmp_path, **SCHEDULER))
    resumed.train(resume=folder)
    alone = AtomsTrainer(settings_of(frames, tmp_path / "whole", **SCHEDULER))
    alone.train()
    assert_close(history(resumed), history(alone))


def test_batch_norm_is_refused(frames, tmp_path, monkeypatch):
    trainer = AtomsTrainer(settings_of(frames, tmp_path, model__batchnorm=True))
    monkeypatch.setattr(trainer.ranks, "size", 2)
    with pytest.raises(ValueError, match=r"model\.batchnorm"):
        trainer.train()


def test_all_cores_fill_the_store_while_the_other_processes_wait(frames, tmp_path, monkeypatch):
    threads = []

    def fill(*_, **options):
        threads.append(num_threads(options["threads"]))
        raise InterruptedError

    monkeypatch.delenv("AMPTORCH_NUM_THREADS", raising=False)
    monkeypatch.setattr("amptorch.training.prepare.fill_store", fill)
    trainer = AtomsTrainer(settings_of(frames, tmp_path, dataset__store="store"))
    trainer.ranks._cores, trainer.ranks._local = 8, (0, 4)
    assert trainer.ranks.threads == 2
    with pytest.raises(InterruptedError):
        trainer.train()
    assert threads == [8]


def test_one_process_makes_no_group(frames, tmp_path):
    trainer = AtomsTrainer(settings_of(frames, tmp_path))
    trainer.train()
    assert not dist.is_initialized()
    assert (trainer.ranks.rank, trainer.ranks.size) == (0, 1)
