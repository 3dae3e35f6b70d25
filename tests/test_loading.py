"""`amptorch.load`, and what a loaded potential can do."""

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import amptorch
from amptorch import AmpTorch, AtomsTrainer, Ensemble, Potential
from tests.small_frames import config, mixed_frames

OF_V1 = Path(__file__).parent / "golden" / "checkpoints"
V1 = ["bpnn_forces_cosine_normalize", "singlenn_forces_not_elementwise"]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


@pytest.fixture(scope="module")
def trainer(frames, tmp_path_factory):
    trainer = AtomsTrainer(config(frames, tmp_path_factory.mktemp("run"), optim__epochs=2))
    trainer.train()
    return trainer


def assert_same(one, two, frames):
    one, two = one.predict(frames), two.predict(frames)
    np.testing.assert_allclose(one["energy"], two["energy"], **CLOSE)
    for a, b in zip(one["forces"], two["forces"], strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_a_checkpoint_and_what_is_known_of_it(trainer, frames):
    random = torch.get_rng_state()
    potential = amptorch.load(trainer.cp_dir)
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(potential, Potential)
    assert potential.elements == ["Cu", "O"]
    assert potential.cutoff == 4.5
    assert potential.has_forces
    assert potential.threads is None
    assert potential.units["forces"] == "eV/Å"
    assert len(potential.history) == 2
    assert_same(potential, trainer, frames)


def test_a_run_and_the_folder_of_runs(trainer, frames, tmp_path):
    run = Path(trainer.cp_dir)
    assert_same(amptorch.load(run.parent.parent), trainer, frames)
    # Of a run that wrote no best checkpoint yet, the newest epoch.
    shutil.copytree(run / "epochs", tmp_path / "epochs")
    assert len(amptorch.load(tmp_path).history) == 2


def test_an_incomplete_checkpoint_is_not_taken_for_its_last_epoch(trainer, tmp_path):
    run = shutil.copytree(trainer.cp_dir, tmp_path / "run")
    (run / "params.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file '.*run/params\.pt'"):
        amptorch.load(run)


@pytest.mark.parametrize("name", V1)
def test_a_checkpoint_of_v1(name):
    expected = np.load(OF_V1 / name / "predictions.npz")
    found = amptorch.load(OF_V1 / name).predict(OF_V1 / "images.traj")
    np.testing.assert_allclose(found["energy"], expected["energy"], rtol=1e-10)
    np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-10)


def test_saved_and_loaded(trainer, frames, tmp_path):
    trainer.potential.save(tmp_path / "mine")
    assert_same(amptorch.load(tmp_path / "mine"), trainer, frames)
    ensemble = Ensemble([trainer, trainer.cp_dir, amptorch.load(trainer.cp_dir)])
    ensemble.save(tmp_path / "ensemble")
    loaded = amptorch.load(tmp_path / "ensemble")
    assert isinstance(loaded, Ensemble)
    assert_same(loaded, trainer, frames)


def test_made_by_hand_it_cannot_be_saved(trainer, tmp_path):
    known = trainer.potential
    parts = known.descriptor, known.model, known.feature_scaler, known.target_scaler
    with pytest.raises(ValueError, match="without settings"):
        Potential(*parts).save(tmp_path)


def test_copies_and_pickles(trainer, frames):
    potential = trainer.potential
    assert potential.settings.dataset.raw_data is None
    for other in (copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))):
        assert other.model is not potential.model
        assert_same(other, potential, frames)


def test_built_once(trainer, frames):
    assert trainer.potential is trainer.potential
    calc = AmpTorch(trainer)
    assert calc.potential is trainer.potential


@pytest.mark.parametrize("kind", ["path", "text", "potential", "trainer"])
def test_calculators(trainer, frames, kind):
    given = {
        "path": Path(trainer.cp_dir),
        "text": trainer.cp_dir,
        "potential": amptorch.load(trainer.cp_dir),
        "trainer": trainer,
    }[kind]
    atoms = frames[1].copy()
    atoms.calc = AmpTorch(given, skin=0.5)
    expected = trainer.predict([atoms])
    np.testing.assert_allclose(atoms.get_potential_energy(), expected["energy"][0], **CLOSE)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"][0], **CLOSE)


@pytest.mark.parametrize("given", [None, 3, ["run"]])
def test_no_calculator_of_what_is_no_potential(given):
    with pytest.raises(TypeError, match="is no trained potential; give a Potential"):
        AmpTorch(given)


def test_nothing_to_load(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        amptorch.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no potential"):
        amptorch.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no potential"):
        amptorch.load(tmp_path)
