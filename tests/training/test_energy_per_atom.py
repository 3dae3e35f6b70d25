"""Losses of energies per atom."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amptorch.config import Config
from amptorch.data.from_store import StoreDataset
from amptorch.dataset import AtomsDataset
from amptorch.model import BPNN, CustomLoss
from amptorch.trainer import AtomsTrainer
from amptorch.training.kalman import observations
from tests.small_frames import FP_PARAMS, config, draw_forces, mixed_frames, slabs
from tests.small_runs import assert_same, cut, settings_of
from tests.small_runs import train as trained

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
N = 13  # atoms of a slab


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def equal_frames():
    return slabs(8)


def slow_loss(energy, forces, batch, coefficient, kind):
    """The definition, frame by frame and component by component."""
    power = 2 if kind == "mse" else 1
    weights = [1.0] * len(batch) if batch.weights is None else batch.weights.tolist()
    of_energy, of_forces = [], []
    for k in range(len(batch)):
        atoms = [row for row, frame in enumerate(batch.image_idx.tolist()) if frame == k]
        error = (float(energy[k]) - float(batch.energy[k])) / len(atoms)
        of_energy.append(weights[k] * abs(error) ** power)
        rows = range(len(batch.fingerprint)) if batch.force_rows is None else batch.force_rows
        for place, row in enumerate(rows):
            if row in atoms:
                differences = (forces[place] - batch.forces[place]).tolist()
                of_forces += [weights[k] * abs(error) ** power for error in differences]
    return 0.5 * (np.mean(of_energy) + coefficient * np.mean(of_forces))


@pytest.mark.parametrize("kind", ["mse", "mae"])
@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 3.0, 10)])
@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_the_loss_is_its_definition(frames, kind, weights, fraction):
    dataset = AtomsDataset(frames, SETUP, verbose=False, weights=weights)
    batch = dataset.batch([0, 1, 3, 6])
    if fraction < 1:
        batch = draw_forces(batch, fraction, np.random.default_rng(0))
    torch.manual_seed(0)
    model = BPNN(["Cu", "O"], dataset.input_dim, num_layers=2, num_nodes=5)
    energy, forces = (tensor.detach() for tensor in model(batch))
    loss = CustomLoss(0.3, kind, energy_per_atom=True)
    found = float(loss((energy, forces), batch.targets, batch.counts))
    expected = slow_loss(energy, forces, batch, 0.3, kind)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found != pytest.approx(float(CustomLoss(0.3, kind)((energy, forces), batch.targets)))
    with pytest.raises(ValueError, match="number of atoms of each frame"):
        loss((energy, forces), batch.targets)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "ekf"])
@pytest.mark.parametrize("more", [{}, {"optim__force_fraction": 0.5}, {"dataset__store": "store"}])
def test_frames_of_one_size_are_trained_on_as_before(equal_frames, tmp_path, optimizer, more):
    """But for the factor N² of the loss."""
    changes = {"optim__optimizer": optimizer, "optim__epochs": 3, "cmd__debug": True, **more}
    changes["dataset__weights"] = np.linspace(0.5, 2.0, len(equal_frames)).tolist()
    if "dataset__store" in more:
        changes["dataset__store"] = str(tmp_path / "store")
    lr, factor = (1e-4, N**2) if optimizer == "sgd" else (1.0, 1)
    of_frames = {**changes, "optim__force_coefficient": 0.3, "optim__lr": lr}
    per_atom = {
        **changes,
        "optim__energy_per_atom": True,
        "optim__force_coefficient": 0.3 / N**2,
        "optim__lr": lr * factor,
    }
    before, after = (trained(config(equal_frames, tmp_path, **c)) for c in (of_frames, per_atom))
    losses = [np.array(one.net.history[:, "train_loss"]) for one in (before, after)]
    np.testing.assert_allclose(losses[1] * N**2, losses[0], rtol=1e-6)
    assert losses[0][-1] < losses[0][0]
    for one, two in zip(before.model.parameters(), after.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_lbfgs_lowers_it(frames, tmp_path):
    changes = {
        "optim__optimizer": "lbfgs",
        "optim__optimizer_args": {"line_search_fn": "strong_wolfe"},
        "optim__energy_per_atom": True,
        "optim__lr": 1,
        "optim__batch_size": 10,
    }
    losses = trained(config(frames, tmp_path, **changes)).net.history[:, "train_loss"]
    assert losses[-1] < 0.2 * losses[0]


def test_variances_of_frames_of_several_sizes(frames):
    weights = np.linspace(0.5, 2.0, len(frames))
    dataset = AtomsDataset(frames, SETUP, verbose=False, weights=weights)
    batch = dataset.batch([0, 1, 3])
    energy, forces = torch.zeros(3).double(), torch.ones(len(batch.fingerprint), 3).double()
    options = (batch, (energy, forces), batch.targets, 0.7, 2, None)
    _, errors, variances = observations(*options, 4.5)
    n, w = batch.counts.double(), batch.weights
    expected = torch.stack([(n / 4.5) ** 2 / w, *2 * [3 * n / (0.7 * 4.5**2 * w)]], dim=1)
    torch.testing.assert_close(variances.view(3, 3), expected)
    torch.testing.assert_close(errors.view(3, 3)[:, 0], batch.energy)


@pytest.mark.slow
@pytest.mark.parametrize("store", [{}, {"dataset__store": "store"}])
def test_the_mean_number_of_atoms_is_kept(frames, tmp_path, store):
    """It is that of the training frames, in the checkpoint, and a restart goes on with it."""
    changes = {"optim__optimizer": "ekf", "optim__lr": 1, "optim__energy_per_atom": True, **store}
    whole = trained(settings_of(frames, tmp_path / "whole", **changes))
    settings = settings_of(frames, tmp_path / "cut", **changes)
    cut(settings, 2, 1)
    assert_same(trained(settings, resume=True), whole)
    split, _ = whole.split(whole.train_dataset)
    expected = np.mean([len(frames[index]) for index in split.indices])
    kept = torch.load(Path(whole.cp_dir) / "criterion.pt", weights_only=True)
    assert float(kept["mean_atoms"]) == pytest.approx(expected, rel=1e-15)
    assert expected != np.mean([len(atoms) for atoms in frames])


def test_forces_that_weigh_as_much_as_a_mev(frames, tmp_path):
    changes = {"optim__energy_per_atom": True, "optim__force_per_mev": 0.05}
    settings = config(frames, tmp_path, **changes, optim__epochs=1)
    del settings["optim"]["force_coefficient"]
    trainer = trained(settings)
    assert trainer.net.criterion_.force_coefficient == pytest.approx(4e-4)
    batch = trainer.train_dataset.batch([0, 1, 2])
    unit = float(trainer.target_scaler.target_std)
    energy, forces = batch.energy + 1e-3 * batch.counts / unit, batch.forces + 0.05 / unit
    of_energy = float(trainer.net.get_loss((energy, batch.forces), batch.targets, X=batch))
    of_forces = float(trainer.net.get_loss((batch.energy, forces), batch.targets, X=batch))
    assert of_energy == pytest.approx(of_forces, rel=1e-9)
    # As read back, with the coefficient.
    again = Config.from_dict(trainer.settings.to_dict())
    assert again.optim == trainer.settings.optim
    mae = Config.from_dict({"optim": {**settings["optim"], "loss": "mae"}})
    assert mae.optim.force_coefficient == pytest.approx(0.02)


class OfTotalEnergies(torch.nn.Module):
    pass


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"force_per_mev": 0.1}, "force_per_mev is 0.1.*set optim.energy_per_atom to True"),
        (
            {"force_per_mev": 0.1, "energy_per_atom": True, "force_coefficient": 3},
            "optim.force_coefficient is 3.* and optim.force_per_mev is 0.1",
        ),
        ({"force_per_mev": 0, "energy_per_atom": True}, "optim.force_per_mev must be .*above 0"),
    ],
)
def test_weights_of_forces_that_mean_nothing(optim, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict({"optim": optim})


def test_a_loss_of_ones_own_has_to_take_it(frames, tmp_path):
    changes = {"optim__energy_per_atom": True, "optim__loss_fn": OfTotalEnergies}
    with pytest.raises(ValueError, match="OfTotalEnergies does not take energy_per_atom"):
        AtomsTrainer(config(frames, tmp_path, **changes)).load()


def test_batches_of_a_store_know_their_sizes(frames, tmp_path):
    trained(config(frames, tmp_path, dataset__store=str(tmp_path / "s"), optim__epochs=1))
    dataset = StoreDataset(tmp_path / "s", SETUP)
    frame_ids = np.array([1, 2, 7])
    share = dataset.share(frame_ids, 0, 5)
    assert share.counts.tolist() == dataset.batch(frame_ids).counts.tolist()
