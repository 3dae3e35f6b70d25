"""Training on the forces of some atoms, drawn at random."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from amptorch.data.loader import BatchLoader
from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, draw_forces, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


@pytest.fixture(scope="module", params=["stored", "recompute"])
def dataset(request):
    return AtomsDataset(mixed_frames(8), SETUP, derivatives=request.param, verbose=False)


def make_model(kind=BPNN):
    torch.manual_seed(0)
    return kind(["Cu", "O"], 18, num_nodes=5, num_layers=2)


def loss_and_gradient(model, batch, loss="mse"):
    """Loss, and its gradient with respect to all parameters as one vector."""
    model.zero_grad()
    value = CustomLoss(force_coefficient=0.7, loss=loss)(model(batch), batch.targets)
    value.backward()
    gradients = [p.grad.ravel() for p in model.parameters() if p.grad is not None]
    return value.item(), torch.cat(gradients)


def with_rows(batch, rows):
    rows = np.asarray(rows, dtype=np.int64)
    return replace(batch, force_rows=rows, forces=batch.forces[torch.from_numpy(rows)])


@pytest.mark.parametrize("kind", [BPNN, SingleNN])
def test_forces_of_some_atoms_are_those_of_all(dataset, kind):
    model = make_model(kind)
    batch = dataset.batch([0, 5, 2])
    energy, forces = model(batch)
    rows = [0, 3, 6, 7, len(batch.fingerprint) - 1]
    some_energy, some_forces = model(with_rows(batch, rows))
    assert some_forces.shape == (5, 3)
    assert torch.equal(energy, some_energy)
    torch.testing.assert_close(some_forces, forces[rows], rtol=1e-12, atol=1e-13)
    # The adjoint too: the gradient of any function of these forces.
    weights = torch.linspace(-1.0, 2.0, 15, dtype=torch.float64).reshape(5, 3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    one, two = (
        torch.autograd.grad((f * weights).sum(), parameters, allow_unused=True)
        for f in (forces[rows], some_forces)
    )
    for a, b in zip(one, two, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_the_mean_over_all_subsets_is_the_full_loss_and_gradient(dataset, loss):
    model = make_model()
    batch = dataset.batch([2, 3])  # 3 + 2 atoms
    n = len(batch.fingerprint)
    assert n == 5
    full, full_gradient = loss_and_gradient(model, batch, loss)
    for size in (1, 2, 4):
        drawn = [
            loss_and_gradient(model, with_rows(batch, rows), loss)
            for rows in itertools.combinations(range(n), size)
        ]
        losses, gradients = zip(*drawn, strict=True)
        assert np.ptp(losses) > 1e-3 * full  # one subset alone is not the whole
        assert np.mean(losses) == pytest.approx(full, rel=1e-12)
        scale = full_gradient.abs().max().item()
        mean = torch.stack(gradients).mean(dim=0)
        torch.testing.assert_close(mean, full_gradient, rtol=0, atol=1e-12 * scale)


@pytest.mark.slow
def test_what_is_drawn_takes_each_atom_equally_often(dataset):
    batch = dataset.batch([0, 1, 4])
    n, draws = len(batch.fingerprint), 4000
    often = np.zeros(n)
    for k in range(draws):
        drawn = draw_forces(batch, 0.25, np.random.default_rng(k))
        assert len(drawn.force_rows) == round(0.25 * n) == len(drawn.forces)
        assert (np.diff(drawn.force_rows) > 0).all()
        assert torch.equal(drawn.forces, batch.forces[drawn.force_rows])
        often[drawn.force_rows] += 1
    share = round(0.25 * n) / n
    deviation = (share * (1 - share) / draws) ** 0.5
    assert abs(often / draws - share).max() < 5 * deviation


@pytest.mark.slow
def test_the_mean_over_many_draws_is_the_full_gradient(dataset):
    model = make_model()
    batch = dataset.batch([1, 5, 6])
    _, full = loss_and_gradient(model, batch)
    drawn = torch.stack(
        [
            loss_and_gradient(model, draw_forces(batch, 0.3, np.random.default_rng(k)))[1]
            for k in range(300)
        ]
    )
    # Few atoms, so all parameters err together; four standard errors of their norm.
    error = (drawn.var(dim=0).sum() / len(drawn)) ** 0.5
    assert (drawn.mean(dim=0) - full).norm() < 4 * error
    assert error < 0.1 * full.norm()
    # Different draws, none of them the full gradient.
    assert (drawn - full).norm(dim=1).min() > 1e-3 * full.norm()


def test_at_least_one_atom_is_drawn(dataset):
    batch = dataset.batch([3])
    assert len(draw_forces(batch, 0.01, np.random.default_rng(0)).force_rows) == 1


def test_drawn_anew_for_each_batch_and_epoch_and_the_same_for_one_seed(dataset):
    def rows(seed, epoch):
        loader = BatchLoader(
            dataset, 4, DataCollater(), seed=seed, epoch=lambda: epoch, force_fraction=0.4
        )
        return [batch.force_rows.tolist() for batch, _ in loader]

    assert rows(0, 1) == rows(0, 1)
    assert rows(0, 1) != rows(0, 2)
    assert rows(0, 1) != rows(1, 1)
    first, second = rows(0, 1)
    assert first != second


@pytest.mark.slow
def test_a_trainer_learns_forces_from_a_share_of_them(tmp_path):
    images = mixed_frames(16)
    seen = []

    class Recording(CustomLoss):
        def forward(self, prediction, target):
            seen.append((len(prediction[1]), len(target[1])))
            return super().forward(prediction, target)

    trainer = AtomsTrainer(
        config(
            images,
            tmp_path,
            optim__force_fraction=0.25,
            optim__force_coefficient=20.0,
            optim__loss_fn=Recording,
            optim__epochs=30,
            dataset__val_split=0.25,
            dataset__val_split_mode="inorder",
        )
    )
    trainer.train()
    n_atoms = sum(len(atoms) for atoms in images[12:])
    # Three training batches, then validation, which is on all forces.
    assert seen[3] == (n_atoms, n_atoms)
    assert all(0 < n == targets < 10 for n, targets in seen[:3])
    maes = trainer.net.history[:, "val_forces_mae"]
    assert min(maes) < 0.7 * maes[0]
