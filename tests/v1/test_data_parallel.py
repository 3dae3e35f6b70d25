"""v1.0's classes for several GPUs: alone, and in two processes with the gloo back end."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.utils.data import DataLoader

from amptorch.data_parallel import DataParallel, ParallelCollater
from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.model import BPNN, CustomLoss, SingleNN
from tests.small_frames import FP_PARAMS, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
MODELS = [BPNN, SingleNN]


def dataset_of(n_frames=10):
    return AtomsDataset(mixed_frames(n_frames), SETUP, verbose=False)


def model_of(dataset, kind, seed=0):
    torch.manual_seed(seed)
    return kind(dataset.elements, dataset.input_dim, num_layers=2, num_nodes=5)


@pytest.fixture(scope="module")
def dataset():
    return dataset_of()


def assert_same(found, expected):
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


class TestCollater:
    @pytest.mark.parametrize("num_gpus", [0, 1])
    def test_is_transparent(self, dataset, num_gpus):
        objects = [dataset[k] for k in (3, 1, 4)]
        for data in (objects, dataset.batch([3, 1, 4])):
            batch, targets = ParallelCollater(num_gpus, DataCollater())(data)
            expected, _ = DataCollater()(data)
            assert torch.equal(batch.fingerprint, expected.fingerprint)
            assert_same(targets, expected.targets)

    @pytest.mark.parametrize("as_objects", [True, False])
    def test_parts(self, dataset, as_objects):
        """Of about equally many atoms, in order; targets are those of all frames."""
        frames = [0, 1, 4, 5, 2, 3, 8, 9]
        data = [dataset[k] for k in frames] if as_objects else dataset.batch(frames)
        batches, targets = ParallelCollater(3, DataCollater())(data)
        assert [len(batch) for batch in batches] == [2, 3, 3]
        whole = dataset.batch(frames)
        assert torch.equal(torch.cat([b.fingerprint for b in batches]), whole.fingerprint)
        assert_same(targets, whole.targets)
        model = model_of(dataset, BPNN)
        assert_same(DataParallel(model)(batches), model(whole))

    def test_fewer_frames_than_parts(self, dataset):
        batches, targets = ParallelCollater(4, DataCollater())([dataset[0]])
        assert len(batches) == len(targets[0]) == 1

    def test_prediction(self, dataset):
        collater = ParallelCollater(2, DataCollater(train=False))
        for data in ([dataset[0], dataset[1]], dataset.batch([0, 1])):
            assert [len(batch) for batch in collater(data)] == [1, 1]

    def test_in_a_data_loader(self, dataset):
        collater = ParallelCollater(2, DataCollater())
        loader = DataLoader(dataset, batch_size=4, collate_fn=collater)
        sizes = [sum(map(len, batches)) for batches, _ in loader]
        assert sizes == [4, 4, 2]


class TestOneProcess:
    @pytest.mark.parametrize("kind", MODELS)
    def test_is_the_model(self, dataset, kind):
        model = model_of(dataset, kind)
        batch = dataset.batch(range(6))
        parallel = DataParallel(model, output_device=0, num_gpus=0)
        assert parallel.module is model
        assert parallel.device == torch.device("cpu")
        assert_same(parallel(batch), model(batch))
        loss = CustomLoss(0.1, "mse")(parallel(batch), batch.targets)
        expected = CustomLoss(0.1, "mse")(model(batch), batch.targets)
        parameters = [p for p in model.parameters() if p.requires_grad]
        assert_same(
            torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
        )

    def test_no_gpu(self, dataset, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match="torch finds no GPU"):
            DataParallel(model_of(dataset, BPNN), 0, 2)


# --- two processes ---


def crooked(prediction, target):
    """A loss that is no mean over frames."""
    energy, forces = (p - t for p, t in zip(prediction, target, strict=True))
    return energy.square().sum().sqrt() * forces.abs().max()


CASES = [
    (crooked, [0, 1, 2, 3, 4, 5, 9]),
    # Fewer frames than processes; and none with oxygen, whose network then has no gradient.
    (CustomLoss(0.1, "mse"), [1]),
    (CustomLoss(0.1, "mse"), [0, 4]),
]


def gradients(model, batch, targets, loss):
    """[loss, energy, forces, gradient of each parameter], those that are None as zeros."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    prediction = model(batch)
    value = loss(prediction, targets)
    value.backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return [value, *prediction, *found]


def compare(rank, size, port):
    """In each process: results and gradients together are those alone."""
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    dataset = dataset_of()
    for kind in MODELS:
        alone = model_of(dataset, kind)
        together = DataParallel(model_of(dataset, kind, seed=rank), num_gpus=0)
        for loss, frames in CASES:
            whole = dataset.batch(frames)
            expected = gradients(alone, whole, whole.targets, loss)
            for data in (whole, [dataset[k] for k in frames]):
                batches, targets = ParallelCollater(0, DataCollater())(data)
                assert len(batches) <= size
                assert_same(gradients(together, batches, targets, loss), expected)
                one, targets = DataCollater()(data)
                assert_same(gradients(together, one, targets, loss), expected)
        with torch.no_grad():
            assert_same(together(whole), alone(whole))
        train_together(dataset, alone, together)
    dist.destroy_process_group()


def train_together(dataset, alone, together):
    """A loop of one's own, as scripts have it."""
    batch = dataset.batch(range(8))
    for model in (alone, together):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            CustomLoss(0.1, "mse")(model(batch), batch.targets).backward()
            optimizer.step()
    assert_same(together.module.parameters(), alone.parameters())


@pytest.mark.slow
def test_two_processes_do_as_one():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    spawn(compare, (2, port), nprocs=2)
