"""Whole scripts in the manner of v1.0's users, old keys included; they ran on v1.0.

What they say of fingerprints, of functions made one by one and of uncertainty is in
`test_densities`, `test_descriptor_v1` and `test_uncertainty_v1`.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from ase.io import read
from ase.optimize import BFGS

from amptorch import AmpTorch, AtomsTrainer
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.descriptor.Gaussian import GaussianDescriptorSet
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler
from tests.small_frames import FP_PARAMS, slabs

MULTIPOLES = {"MCSHs": {"orders": [0, 1], "sigmas": [0.5, 1.2]}}
# Scripts and what they gave on v1.0, where the project is developed.
USAGE = Path(__file__).parents[3] / "shared" / "usage"
GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
SINGLE = GOLDEN / "singlenn_forces_not_elementwise"
IMAGES = read(GOLDEN / "images.traj", "::8")
EXPECTED = np.load(SINGLE / "predictions.npz")["energy"].ravel()[::8]
pytestmark = pytest.mark.filterwarnings("ignore:config key cmd.single-threaded")


def old_config(folder, **changes):
    """A configuration as it is found in scripts, with keys that v1.0 ignored."""
    result = {
        "model": {"get_forces": True, "num_layers": 2, "num_nodes": 6, "batchnorm": False},
        "optim": {
            "device": "cpu",
            "force_coefficient": 0.04,
            "lr": 1e-2,
            "batch_size": 4,
            "epochs": 2,
            "loss": "mse",
            "metric": "mae",
        },
        "dataset": {"val_split": 0, "save_fps": False},
        "cmd": {
            "debug": False,
            "run_dir": str(folder),
            "seed": 1,
            "identifier": "test",
            "verbose": False,
            "logger": False,
            "single-threaded": True,
        },
    }
    for section, values in changes.items():
        result[section].update(values)
    return result


@pytest.fixture(scope="module")
def frames():
    return slabs(8)


@pytest.fixture(scope="module")
def entries(frames, tmp_path_factory):
    """An LMDB file made by hand, without cutoff parameters and with the elements in an array."""
    elements = np.unique([symbol for atoms in frames for symbol in atoms.symbols])
    descriptor = GMPOrderNorm(MCSHs=MULTIPOLES, elements=elements)
    converter = AtomsToData(
        descriptor=descriptor, r_energy=True, r_forces=True, save_fps=False, fprimes=True
    )
    objects = [converter.convert(atoms, idx=index) for index, atoms in enumerate(frames)]
    feature = FeatureScaler(objects, True, {"type": "normalize", "range": (-1, 1)})
    target = TargetScaler(objects, True)
    feature.norm(objects, disable_tqdm=True)
    target.norm(objects, disable_tqdm=True)
    path = tmp_path_factory.mktemp("lmdb") / "data.lmdb"
    values = {str(index): one for index, one in enumerate(objects)} | {
        "feature_scaler": feature,
        "target_scaler": target,
        "length": len(objects),
        "elements": elements,
        "descriptor_setup": ("gmpordernorm", MULTIPOLES, "NA", elements),
    }
    environment = lmdb.open(str(path), map_size=2**28, subdir=False, meminit=False, map_async=True)
    for name, value in values.items():
        with environment.begin(write=True) as transaction:
            transaction.put(name.encode("ascii"), pickle.dumps(value, protocol=-1))
    environment.sync()
    environment.close()
    return path


@pytest.mark.parametrize("cache", ["no", "full", "partial"])
def test_an_lmdb_file_by_hand(frames, entries, tmp_path, cache):
    settings = old_config(tmp_path)
    settings["dataset"] = {"lmdb_path": [str(entries)], "val_split": 0, "cache": cache}
    trainer = AtomsTrainer(settings)
    trainer.train()
    prediction = trainer.predict(frames)
    assert np.isfinite(prediction["energy"]).all()
    assert np.shape(prediction["forces"]) == (8, 13, 3)
    assert trainer.cutoff_params == "NA"
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    np.testing.assert_allclose(again.predict(frames)["energy"], prediction["energy"])


def test_multipoles_without_files_of_densities(frames, tmp_path):
    changes = {"fp_scheme": "gmpordernorm", "fp_params": MULTIPOLES, "cutoff_params": "NA"}
    settings = old_config(tmp_path, dataset={"raw_data": frames, **changes})
    trainer = AtomsTrainer(settings)
    trainer.train()
    assert trainer.input_dim == 4
    assert len(trainer.predict(frames)["energy"]) == len(frames)


def test_functions_one_by_one(frames, tmp_path):
    functions = GaussianDescriptorSet(["Cu", "O"], 5.0, {"cutoff_func": "cosine"})
    for centre in ("Cu", "O"):
        for neighbor in ("Cu", "O"):
            functions.add_g2(centre, neighbor, eta=0.5, rs=0.0)
        functions.add_g4(centre, "Cu", "O", eta=0.005, zeta=4.0, gamma=1.0)
    dataset = {"raw_data": frames, "fp_scheme": "gaussian", "fp_params": functions}
    settings = old_config(tmp_path, dataset={**dataset, "elements": ["Cu", "O"]})
    trainer = AtomsTrainer(settings)
    trainer.train()
    assert (trainer.input_dim, trainer.fp_scheme, trainer.elements) == (3, "gaussian", ["Cu", "O"])
    dataset = AtomsDataset(
        images=frames,
        descriptor_setup=("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"]),
        forcetraining=True,
        save_fps=False,
        scaling={"type": "normalize", "range": (0, 1)},
    )
    assert (len(dataset), dataset.input_dim) == (8, 18)
    with pytest.raises(ValueError, match=r"cutoff_params, elements\), got 3"):
        AtomsDataset(frames, ("gaussian", FP_PARAMS, ["Cu", "O"]))


def test_the_calculator_by_its_name_before_v1():
    from amptorch import AMPtorch as AtTheTop
    from amptorch.ase_utils import AMPtorch

    assert AtTheTop is AMPtorch is AmpTorch


def test_a_checkpoint_of_v1_loaded_by_hand(tmp_path):
    """File by file, and evaluated network by network, as scripts do that write other formats."""
    config = torch.load(SINGLE / "config.pt", weights_only=False)
    config["cmd"].update(debug=True, run_dir=str(tmp_path))
    trainer = AtomsTrainer(config)
    trainer.pretrained = True
    trainer.elements = config["dataset"]["descriptor"][-1]
    trainer.input_dim = config["dataset"]["fp_length"]
    trainer.load(load_dataset=False)
    trainer.net.initialize()
    trainer.net.module.load_state_dict(torch.load(SINGLE / "params.pt"))
    normalizers = torch.load(SINGLE / "normalizers.pt", weights_only=False)
    trainer.feature_scaler, trainer.target_scaler = normalizers["feature"], normalizers["target"]
    trainer.net.module.eval()
    assert evaluated_by_hand(trainer) == pytest.approx(EXPECTED, abs=1e-10)
    assert trainer.predict(IMAGES)["energy"] == pytest.approx(EXPECTED, abs=1e-10)


def test_a_loaded_trainer_says_what_its_descriptor_was_made_of():
    trainer = AtomsTrainer()
    trainer.load_pretrained(SINGLE)
    assert trainer.config["dataset"]["fp_length"] == trainer.input_dim
    assert evaluated_by_hand(trainer) == pytest.approx(EXPECTED, abs=1e-10)


def evaluated_by_hand(trainer):
    """The energies of `IMAGES`, by the layers of the one network and by the whole model."""
    converter = AtomsToData(construct_descriptor(trainer.config["dataset"]["descriptor"]))
    data = converter.convert_all(IMAGES, disable_tqdm=True)
    trainer.feature_scaler.norm(data, disable_tqdm=True)
    batch = DataCollater(train=False)(data).to("cpu")
    energies, _ = trainer.net.module([batch])
    atomic = batch.fingerprint
    for layer in trainer.net.module.model.model_net:
        atomic = layer(atomic)
    summed = torch.zeros_like(energies).index_add(0, batch.batch, atomic.squeeze(1))
    torch.testing.assert_close(energies, summed.detach())
    return trainer.target_scaler.denorm(energies, pred="energy").tolist()


def test_going_on_and_a_relaxation_with_constraints(frames, tmp_path):
    dataset = {
        "raw_data": frames,
        "val_split": 0.25,
        "elements": ["Cu", "O"],
        "fp_scheme": "gaussian",
        "fp_params": FP_PARAMS,
        "scaling": {"type": "normalize", "range": (0, 1)},
    }
    trainer = AtomsTrainer(old_config(tmp_path, dataset=dataset))
    trainer.train()
    before = trainer.predict(frames)
    assert type(before["energy"]) is type(before["forces"]) is list
    assert before["forces"][0].dtype == np.float64
    again = AtomsTrainer(old_config(tmp_path, dataset=dataset))
    again.load_pretrained(trainer.cp_dir)
    np.testing.assert_allclose(again.predict(frames)["energy"], before["energy"], rtol=1e-12)
    epochs = len(again.net.history)
    again.train()
    assert len(again.net.history) == epochs + 2
    bare = AtomsTrainer()
    bare.load_pretrained(trainer.cp_dir)
    atoms = frames[0].copy()
    atoms.calc = bare.get_calc()
    assert isinstance(atoms.calc, AmpTorch)
    fixed = [atom.index for atom in atoms if atom.tag > 2]
    assert len(fixed) == 4
    held, start = atoms.positions[fixed].copy(), atoms.positions.copy()
    BFGS(atoms, logfile=None).run(fmax=1e-9, steps=3)
    np.testing.assert_array_equal(atoms.positions[fixed], held)
    assert np.abs(atoms.positions - start).max() > 1e-6


if USAGE.is_dir():

    @pytest.mark.slow
    @pytest.mark.parametrize("script", sorted(USAGE.glob("[0-9]*.py")), ids=lambda path: path.stem)
    def test_the_scripts_themselves(script, tmp_path):
        shutil.copy(USAGE / "frames.py", tmp_path)
        shutil.copy(script, tmp_path)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, script.name, "out.json"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        found = json.loads((tmp_path / "out.json").read_text())
        expected = json.loads((USAGE / "expected" / f"{script.stem}.json").read_text())
        if script.stem.startswith("3"):
            assert abs(found.pop("calibration") - expected.pop("alpha")) <= 0.05
            assert found.pop("alpha") == 0.1
            del expected["calibration"]
        if script.stem.startswith("1"):
            for name in ("fingerprint", "jacobian_sum_of_squares"):
                np.testing.assert_allclose(found.pop(name), expected.pop(name), rtol=1e-10)
        assert found == expected
