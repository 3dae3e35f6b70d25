"""From frames to molecular dynamics, as a user goes."""

import numpy as np
import pytest
from ase.io import write
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from amptorch import AmpTorch, AtomsTrainer
from tests.small_frames import config, mixed_frames


def errors(trainer, frames):
    """Spread of the errors of energies and forces, in units of the spread of what is predicted."""
    prediction = trainer.predict(frames)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    energy_error = np.std(prediction["energy"] - energies) / np.std(energies)
    forces_error = np.std(np.concatenate(prediction["forces"]) - forces) / np.std(forces)
    return energy_error, forces_error


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dataset__derivatives": "recompute", "model__name": "singlenn"},
        {"dataset__derivative_dtype": "float32", "dataset__scaling": {"type": "standardize"}},
    ],
    ids=["bpnn", "singlenn, recomputed", "standardized, single precision derivatives"],
)
@pytest.mark.slow
def test_train_evaluate_predict_run(tmp_path, changes):
    frames = mixed_frames(60, seed=1)
    write(tmp_path / "train.traj", frames[:48])
    held_out = frames[48:]
    settings = config(
        str(tmp_path / "train.traj"),
        tmp_path,
        model__num_nodes=12,
        optim__lr=2e-2,
        optim__epochs=60,
        optim__batch_size=8,
        optim__force_coefficient=0.5,
        dataset__val_split=0.1,
        **changes,
    )
    trainer = AtomsTrainer(settings)
    trainer.load()
    assert min(errors(trainer, held_out)) > 0.9
    trainer.train()
    after = errors(trainer, held_out)
    assert after[0] < 0.15
    assert after[1] < 0.85
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert errors(again, held_out) == after
    atoms = held_out[0].copy()
    atoms.calc = AmpTorch(again)
    VelocityVerlet(atoms, timestep=1 * fs).run(5)
    assert np.isfinite(atoms.get_total_energy())
