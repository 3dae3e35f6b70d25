"""Checkpoints, runs, stores, studies and LMDB files of an earlier commit go on loading.

`golden/written_by_01325fe.tar.xz` was written at that commit, on `mixed_frames(10)`, with what the
models predicted in `expected.json`.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

import amptorch
from amptorch.data.from_store import StoreDataset
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.store import FrameStore
from amptorch.trainer import AtomsTrainer
from amptorch.tuning import tune
from amptorch.tuning.study import read_records
from amptorch.uncertainty import ConformalPredictionLatentSpace, Ensemble
from tests.small_frames import config, mixed_frames
from tests.tuning.test_tuning_study import options

ARCHIVE = Path(__file__).parents[1] / "golden" / "written_by_01325fe.tar.xz"
FUNCTIONS = {
    "default": {
        "cutoff": 4.5,
        "G2": {"etas": [0.5, 4.0], "rs_s": [0.0]},
        "G4": {"etas": [0.1], "zetas": [1.0], "gammas": [1.0]},
    }
}
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture
def written(tmp_path):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    return tmp_path / ARCHIVE.name.removesuffix(".tar.xz")


@pytest.fixture
def expected(written):
    return json.loads((written / "expected.json").read_text())


def loaded(folder):
    trainer = AtomsTrainer()
    trainer.load_pretrained(folder)
    return trainer


@pytest.mark.parametrize("name", ["bpnn", "singlenn_pca", "gmp", "energies"])
def test_checkpoints(written, expected, frames, name):
    found = loaded(written / "runs" / name).predict(frames)
    np.testing.assert_allclose(found["energy"], expected[name]["energy"], **CLOSE)
    for one, two in zip(found["forces"], expected[name]["forces"], strict=True):
        np.testing.assert_allclose(one, np.reshape(two, (-1, 3)), **CLOSE)


def test_an_ensemble(written, expected, frames):
    found = Ensemble.load(written / "ensemble").predict(frames)
    for name, values in expected["ensemble"].items():
        for one, two in zip(found[name], values, strict=True):
            np.testing.assert_allclose(one, two, **CLOSE)


def test_an_estimator(written, expected, frames):
    model = loaded(written / "runs" / "bpnn")
    estimator = ConformalPredictionLatentSpace.load(written / "estimator.npz", model)
    found = estimator.predict(frames)["energy_uncertainty"]
    np.testing.assert_allclose(found, expected["estimator"]["energy_uncertainty"], **CLOSE)


def test_a_run_that_was_cut_off(written, expected, frames):
    settings = config(
        frames,
        written / "cut",
        dataset__fp_params=FUNCTIONS,
        optim__epochs=4,
        dataset__val_split=0.3,
    )
    trainer = AtomsTrainer(settings)
    trainer.train(resume=True)
    assert len(trainer.net.history) == 4
    found = trainer.predict(frames)["energy"]
    np.testing.assert_allclose(found, expected["resumed"]["energy"], rtol=1e-6)


def test_a_store(written, frames):
    store = FrameStore(written / "store")
    descriptor = Gaussian(FUNCTIONS, ["Cu", "O"])
    setup = ("gaussian", FUNCTIONS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
    dataset = StoreDataset(store, setup, derivatives="stored", derivative_dtype="float32")
    assert len(dataset) == len(frames)
    assert dataset.descriptor.descriptor_setup_hash == descriptor.descriptor_setup_hash


def test_an_lmdb_file(written, tmp_path):
    settings = config(None, tmp_path, optim__epochs=1)
    settings["dataset"] = {"lmdb_path": [str(written / "lmdb" / "frames.lmdb")], "cache": "full"}
    trainer = AtomsTrainer(settings)
    trainer.train()
    assert len(trainer.train_dataset) == 10


def test_a_study(written, frames):
    settings = options(members=1, final_epochs=1, pruner="none")
    settings["dataset"]["fp_params"] = deepcopy(FUNCTIONS)
    out = written / "study"
    storage = f"journal:{written / 'study.journal'}"
    test = frames[:3]
    tuned = tune(frames, out, test, 2, None, settings, storage, workers=0, report=False)
    assert len(read_records(tuned.out)) == 2
    known = json.loads((out / "test.json").read_text())["chosen"]["energies"]
    found = amptorch.load(tuned.chosen).predict(test)["energy"]
    np.testing.assert_allclose(found, known, rtol=1e-6)
