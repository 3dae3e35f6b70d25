"""Scores in eV and eV/Å, and the callbacks that record them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch.callbacks import EpochScoring
from skorch.history import History

from amptorch.metrics import (
    MemEffEpochScoring,
    Score,
    error_statistics,
    evaluator,
    mae_energy_score,
    mae_forces_score,
    mse_energy_score,
    mse_forces_score,
    scoring_callbacks,
    to_cpu,
)
from amptorch.trainer import AtomsTrainer
from amptorch.training.callbacks import readable
from tests.small_frames import config, mixed_frames


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


def test_scores_are_the_errors_of_predict(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path, optim__epochs=2))
    trainer.train()
    prediction = trainer.predict(frames)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    energy_error = prediction["energy"] - energies
    forces_error = np.concatenate(prediction["forces"]) - forces
    expected = {
        mae_energy_score: np.abs(energy_error).mean(),
        mse_energy_score: np.square(energy_error).mean(),
        mae_forces_score: np.abs(forces_error).mean(),
        mse_forces_score: np.square(forces_error).mean(),
    }
    for score, value in expected.items():
        assert score(trainer.net, trainer.train_dataset) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("metric", ["mae", "mse"])
def test_validation_columns_are_the_errors_of_the_parameters(frames, tmp_path, metric):
    settings = config(
        frames,
        tmp_path,
        optim__epochs=1,
        optim__metric=metric,
        dataset__val_split=0.4,
        dataset__val_split_mode="inorder",
    )
    trainer = AtomsTrainer(settings)
    trainer.train()
    row = trainer.net.history[-1]
    power = 1 if metric == "mae" else 2
    prediction = trainer.predict(frames[6:])
    energies = np.array([atoms.get_potential_energy() for atoms in frames[6:]])
    forces = np.concatenate([atoms.get_forces() for atoms in frames[6:]])
    energy_error = np.abs(prediction["energy"] - energies) ** power
    # The mean over all components: frames with more atoms count for more.
    forces_error = np.abs(np.concatenate(prediction["forces"]) - forces) ** power
    assert row[f"val_energy_{metric}"] == pytest.approx(energy_error.mean(), rel=1e-9)
    sizes = np.array([len(atoms) for atoms in frames[6:]])
    per_atom = (energy_error / sizes**power).mean()
    assert row[f"val_energy_per_atom_{metric}"] == pytest.approx(per_atom, rel=1e-9)
    score = Score("energy_per_atom", metric)
    again = score(trainer.net, torch.utils.data.Subset(trainer.train_dataset, [6, 7, 8, 9]))
    assert again == pytest.approx(per_atom, rel=1e-9)
    # What is printed has units that are compared easily.
    name, root = ("MAE", 1) if metric == "mae" else ("RMSE", 0.5)
    shown = readable(row)
    assert shown[f"val meV/atom {name}"] == pytest.approx(1000 * per_atom**root)
    assert shown[f"val eV/Å {name}"] == pytest.approx(forces_error.mean() ** root)
    assert not any(key.startswith(("val_energy", "train_energy")) for key in shown)
    assert row[f"val_forces_{metric}"] == pytest.approx(forces_error.mean(), rel=1e-9)


def test_small_losses_are_shown(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path, cmd__debug=True))
    trainer.load()
    trainer.net.initialize()
    printed = dict(trainer.net.callbacks_)["print_log"]
    row = {"epoch": 3, "train_loss": 1.23456e-5, "train_loss_best": False, "dur": 12.34567}
    assert printed.table(row).splitlines()[-1].split() == ["3", "1.2346e-05", "12.346"]


def test_training_columns_are_those_of_the_epochs_own_predictions(frames, tmp_path):
    """One batch and one epoch: the score is that of the parameters before the step."""
    settings = config(frames, tmp_path, optim__epochs=1, optim__batch_size=10, cmd__debug=True)
    trainer = AtomsTrainer(settings)
    trainer.load()
    trainer.net.initialize()
    before = mae_energy_score(trainer.net, trainer.train_dataset)
    calls = []
    trainer.model.register_forward_hook(lambda *args: calls.append(1))
    trainer.train()
    assert trainer.net.history[-1]["train_energy_mae"] == pytest.approx(before, rel=1e-9)
    # One for the epoch, and a last one to see whether the training led anywhere.
    assert len(calls) == 2


def test_skorch_can_use_the_scores(frames, tmp_path):
    settings = config(frames, tmp_path, optim__epochs=1, dataset__val_split=0.3)
    trainer = AtomsTrainer(settings)
    trainer.load()
    scoring = EpochScoring(mae_forces_score, use_caching=False, name="again")
    trainer.net.callbacks.append(("again", scoring))
    trainer.net.callbacks.append(("by itself", EpochScoring(mae_energy_score, use_caching=False)))
    trainer.train()
    row = trainer.net.history[-1]
    assert row["again"] == pytest.approx(row["val_forces_mae"], rel=1e-9)
    assert row["mae_energy_score"] == pytest.approx(row["val_energy_mae"], rel=1e-9)


def test_best_goes_with_lower_is_better():
    history = History()
    net = SimpleNamespace(target_scaler=SimpleNamespace(target_std=2.0), history=history)
    higher = MemEffEpochScoring(mae_energy_score, lower_is_better=False, name="x").initialize()
    for predicted in (1.0, 3.0, 2.0):
        history.new_epoch()
        higher.on_epoch_begin(net)
        prediction = (torch.tensor([predicted]), torch.empty(0, 3))
        higher.on_batch_end(net, [torch.zeros(1)], prediction, training=False)
        higher.on_epoch_end(net)
    assert history[:, "x"] == [2.0, 6.0, 4.0]
    assert history[:, "x_best"] == [True, True, False]


@pytest.mark.parametrize(
    ("val_split", "forces", "names"),
    [
        (0, False, ["train_energy_mse", "train_energy_per_atom_mse"]),
        (0, True, ["train_energy_mse", "train_energy_per_atom_mse", "train_forces_mse"]),
        (
            0.1,
            True,
            [
                *("train_energy_mse", "train_energy_per_atom_mse", "train_forces_mse"),
                *("val_energy_mse", "val_energy_per_atom_mse", "val_forces_mse"),
            ],
        ),
    ],
)
def test_scoring_callbacks(val_split, forces, names):
    assert [name for name, _ in scoring_callbacks(val_split, "mse", forces)] == names


def test_evaluator_of_v1():
    """Scores, and a checkpoint under ./checkpoints of the best parameters."""
    *scores, (_, checkpoint) = evaluator(0.1, "mae", "run-1", True, "forces")
    assert [name for name, _ in scores] == [
        f"{part}_{quantity}_mae"
        for part in ("train", "val")
        for quantity in ("energy", "energy_per_atom", "forces")
    ]
    assert checkpoint.monitor == "val_forces_mae_best"
    assert checkpoint.dirname == str(Path("checkpoints") / "run-1")


def test_to_cpu_detaches():
    x = torch.ones(2, requires_grad=True)
    moved = to_cpu((x, [x * 2]))
    assert not moved[0].requires_grad
    assert not moved[1][0].requires_grad
    assert moved[1][0].tolist() == [2, 2]


def test_statistics_of_errors():
    found = error_statistics([[3.0, -4.0], [0.0, 0.0], [-1.0, 2.0]])
    assert found["rmse"] == pytest.approx(np.sqrt(30 / 6))
    assert found["mae"] == pytest.approx(10 / 6)
    assert found["median"] == pytest.approx(1.5)
