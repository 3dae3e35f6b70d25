"""Losses that a few wrong frames do not rule, and weights of groups of frames."""

import numpy as np
import pytest
import torch

from amptorch.config import Config
from amptorch.dataset import AtomsDataset
from amptorch.model import BPNN, CustomLoss
from amptorch.model.jacobian import jacobian
from amptorch.trainer import AtomsTrainer
from amptorch.training.kalman import observations
from tests.small_frames import FP_PARAMS, config, labelled, mixed_frames, slabs
from tests.small_runs import train as trained

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


def slow_huber(errors, delta):
    absolute = sorted(abs(float(e)) for e in errors)
    limit = delta * absolute[(len(absolute) - 1) // 2]
    return [e**2 if e <= limit else 2 * limit * e - limit**2 for e in map(abs, map(float, errors))]


@pytest.mark.parametrize("per_atom", [False, True])
@pytest.mark.parametrize("delta", [0.7, 2.0, 1e6])
def test_huber_is_its_definition(frames, per_atom, delta):
    weights = np.linspace(1.0, 3.0, 8)
    dataset = AtomsDataset(frames, SETUP, verbose=False, weights=weights)
    batch = dataset.batch(range(8))
    rng = np.random.default_rng(0)
    energy, forces = (
        t + torch.from_numpy(rng.standard_cauchy(t.shape)) for t in (batch.energy, batch.forces)
    )
    loss = CustomLoss(0.3, "huber", per_atom, delta)
    found = float(loss((energy, forces), batch.targets, batch.counts))
    sizes = batch.counts.double() if per_atom else torch.ones(8)
    of_energy = weights * slow_huber((energy - batch.energy) / sizes, delta)
    of_atoms = np.repeat(weights, 3 * batch.counts.numpy())
    of_forces = of_atoms * slow_huber((forces - batch.forces).ravel(), delta)
    assert found == pytest.approx(0.5 * (of_energy.mean() + 0.3 * of_forces.mean()), rel=1e-12)
    squared = CustomLoss(0.3, "mse", per_atom)((energy, forces), batch.targets, batch.counts)
    assert (found == pytest.approx(float(squared), rel=1e-12)) == (delta == 1e6)
    exact = loss((batch.energy, batch.forces), batch.targets, batch.counts)
    assert float(exact) == 0


@pytest.mark.parametrize("per_atom", [False, True])
def test_the_filter_pulls_as_the_loss_does(frames, per_atom):
    """The gradient of the loss is that of ½ Σ error² / variance of what is observed."""
    dataset = AtomsDataset(frames, SETUP, verbose=False)
    batch = dataset.batch([0, 4])  # Of one size.
    batch.forces[3] += 20.0
    torch.manual_seed(0)
    model = BPNN(["Cu", "O"], dataset.input_dim, num_layers=2, num_nodes=5)
    prediction = tuple(t.detach() for t in model(batch))
    mean_atoms = float(batch.counts[0]) if per_atom else None
    options = (batch, prediction, batch.targets, 0.5, 1, None, mean_atoms)
    _, plain, _ = observations(*options)
    directions, errors, variances = observations(*options, 1.5)
    # Each observed error is that along its direction, and the spoilt atom counts for less.
    rows, v, _ = directions[0]
    difference = (batch.forces - prediction[1])[torch.from_numpy(rows)] * torch.from_numpy(v)
    projected = torch.zeros(2).double().index_add(0, batch.image_idx[rows], difference.sum(dim=1))
    torch.testing.assert_close(errors.view(2, 2)[:, 1], projected)
    assert errors.view(2, 2)[0, 1] < 0.8 * plain.view(2, 2)[0, 1]
    # What pulls at the weights is the gradient of the loss: errors, cut at the limit.
    errors_of_forces = (batch.forces - prediction[1]).numpy()
    absolute = np.abs(errors_of_forces)
    limit = 1.5 * np.sort(absolute.ravel())[(absolute.size - 1) // 2]
    pull = v * errors.view(2, 2)[batch.image_idx[rows], 1:].numpy()
    np.testing.assert_allclose(pull, np.clip(errors_of_forces, -limit, limit)[rows])
    assert all(len(rows) == 2 for rows in jacobian(model, batch, directions).values())
    # Of two energies the smaller error is the median.
    energies = np.abs((batch.energy - prediction[0]).numpy())
    ratio = energies / (1.5 * energies.min())
    np.testing.assert_allclose(variances.view(2, 2)[:, 0], np.maximum(1, ratio))


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr", "epochs"), [("adam", 3e-2, 60), ("ekf", 1.0, 8)])
def test_wrong_frames_do_not_rule_the_training(tmp_path, optimizer, lr, epochs):
    right = slabs(24)
    spoilt, rng = [*right], np.random.default_rng(0)
    for k in (5, 14):
        energy, forces = right[k].get_potential_energy(), right[k].get_forces()
        wrong = forces + rng.normal(scale=10.0, size=forces.shape)
        spoilt[k] = labelled(right[k].copy(), energy=energy + 20.0, forces=wrong)
    expected = np.concatenate([atoms.get_forces() for atoms in right])
    errors = {}
    for loss in ("mse", "huber"):
        changes = {
            "model__initialization": "small",
            "optim__loss": loss,
            "optim__optimizer": optimizer,
            "optim__lr": lr,
            "optim__epochs": epochs,
            "optim__batch_size": 8,
            "optim__energy_per_atom": True,
            "optim__force_coefficient": 1.0,
            "dataset__scaling": {"type": "standardize"},
            "cmd__debug": True,
        }
        trainer = trained(config(spoilt, tmp_path, **changes))
        forces = np.concatenate(trainer.predict(right)["forces"])
        errors[loss] = np.abs(forces - expected).mean()
    assert errors["huber"] < 0.7 * errors["mse"]


# --- groups ---


def grouped(frames):
    images = [atoms.copy() for atoms in frames]
    for image, atoms in zip(images, frames, strict=True):
        image.calc = atoms.calc
    for atoms, group in zip(images, ["a", "b", None, "a", "b", "c", "c", "c"], strict=True):
        if group is not None:
            atoms.info["config_type"] = atoms.info["kind"] = group
    return images


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "kind"])
def test_weights_of_groups_are_those_of_their_frames(frames, tmp_path, key):
    changes = {"dataset__group_weights": {"a": 3, "": 0.5, "c": 2}}
    if key is not None:
        changes["dataset__group_key"] = key
    weights = np.array([3, 1, 0.5, 3, 1, 2, 2, 2.0])
    of_groups = trained(config(grouped(frames), tmp_path, **changes))
    np.testing.assert_array_equal(of_groups.train_dataset.weights, weights)
    by_frame = trained(config(frames, tmp_path, dataset__weights=weights))
    assert of_groups.net.history[:, "train_loss"] == by_frame.net.history[:, "train_loss"]
    both = AtomsTrainer(config(grouped(frames), tmp_path, dataset__weights=weights, **changes))
    both.load()
    np.testing.assert_array_equal(both.train_dataset.weights, weights**2)
    assert "group_weights" not in of_groups.settings.to_dict()["dataset"]


def test_groups_that_no_frame_is_of(frames, tmp_path):
    images = grouped(frames)
    with pytest.raises(ValueError, match=r"group 'd', 'e'; by info\['config_type'\].*'', 'a', 'b'"):
        trained(config(images, tmp_path, dataset__group_weights={"a": 1, "e": 2, "d": 2}))
    store = {"dataset__store": str(tmp_path / "s"), "dataset__group_weights": {"a": 2}}
    with pytest.raises(ValueError, match=r"a store does not hold Atoms\.info"):
        trained(config(images, tmp_path, **store))
    with pytest.raises(ValueError, match=r"dataset.group_weights\['a'\] must be .* above 0"):
        Config.from_dict({"dataset": {"group_weights": {"a": -1}}})
