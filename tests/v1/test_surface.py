"""The whole interface of v1.0: every import path, signature, key, attribute and file."""

import importlib
import inspect
import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator
from skorch import NeuralNetRegressor

from amptorch import AmpTorch, AtomsTrainer
from amptorch.config import Config
from amptorch.dataset import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.model import CustomLoss
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler
from tests.small_frames import FP_PARAMS, config, mixed_frames

SURFACE = json.loads((Path(__file__).parents[1] / "golden" / "surface_v1.json").read_text())
NAMES = [(module, name) for module, names in SURFACE.items() for name in names]

NORMALIZE = {"type": "normalize", "range": (0, 1), "elementwise": True, "threshold": 1e-6}
# Key: default and another value that v1.0 takes.
KEYS = {
    "model.name": ("bpnn", "SingleNN"),
    "model.get_forces": (True, False),
    "model.num_layers": (5, 3),
    "model.num_nodes": (20, 10),
    "model.hidden_layers": (None, [20, 10]),
    "model.activation": (torch.nn.Tanh, torch.nn.GELU),
    "model.batchnorm": (False, True),
    "model.dropout": (False, True),
    "model.dropout_rate": (0.5, 0.1),
    "model.initialization": ("xavier", "zero"),
    "optim.gpus": (0, 0),
    "optim.force_coefficient": (0, 0.04),
    "optim.lr": (0.1, 1e-3),
    "optim.batch_size": (32, 8),
    "optim.epochs": (100, 7),
    "optim.optimizer": (torch.optim.Adam, torch.optim.LBFGS),
    "optim.optimizer_args": ({}, {"optimizer__weight_decay": 1e-4}),
    "optim.loss_fn": (None, CustomLoss),
    "optim.loss": ("mse", "mae"),
    "optim.metric": ("mae", "mse"),
    "optim.cp_metric": ("energy", "forces"),
    "optim.scheduler": (
        None,
        {"policy": torch.optim.lr_scheduler.StepLR, "params": {"step_size": 3}},
    ),
    "dataset.raw_data": (None, "train.traj"),
    "dataset.lmdb_path": (None, ["a.lmdb"]),
    "dataset.cache": ("no", "partial"),
    "dataset.val_split": (0, 0.1),
    "dataset.val_split_mode": ("cv", "inorder"),
    "dataset.elements": (None, ["O", "Cu"]),
    "dataset.fp_scheme": ("gmpordernorm", "Gaussian"),
    "dataset.fp_params": (None, FP_PARAMS),
    "dataset.cutoff_params": (
        {"cutoff_func": "Cosine"},
        {"cutoff_func": "Polynomial", "gamma": 2.0},
    ),
    "dataset.save_fps": (True, False),
    "dataset.scaling": (NORMALIZE, {"type": "standardize"}),
    "cmd.debug": (False, True),
    "cmd.dtype": (torch.float64, torch.FloatTensor),
    "cmd.run_dir": ("./", "somewhere"),
    "cmd.seed": (0, 3),
    "cmd.identifier": (None, "test"),
    "cmd.verbose": (True, False),
    "cmd.logger": (False, True),
    "cmd.early_stopping": (False, True),
    "cmd.early_stopping_patience": (5, 3),
}
FILES = {
    *("config.json", "params.pt", "optimizer.pt", "criterion.pt"),
    *("history.json", "normalizers.json", "checksums.json", "domain.pt"),
}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


@pytest.fixture(scope="module")
def trainer(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("surface")
    settings = config(frames, folder, dataset__val_split=0.25, cmd__identifier="test")
    trainer = AtomsTrainer(settings)
    trainer.train()
    return trainer


def parameters(text):
    """The parameters of a signature in words, such as "(self, elements, cutoff=6.5)"."""
    text = re.sub(r"<class '([\w.]+)'>", r"'\1'", text.split(" -> ")[0]).replace(", /", "")
    namespace = {}
    exec(f"def promised{text}: pass", namespace)
    return without_self(namespace["promised"])


def without_self(function):
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def check_binds(text, function):
    """Every call that binds to the signature in words binds to `function`: the same names in the
    same places, with the same defaults; what comes after them has a default."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    promised = [p for p in parameters(text) if p.kind not in variadic]
    ours = without_self(function)
    assert [p.name for p in ours[: len(promised)]] == [p.name for p in promised], text
    for own, theirs in zip(ours, promised, strict=False):
        if theirs.default is not inspect.Parameter.empty:
            default = own.default
            if isinstance(default, type):
                default = f"{default.__module__}.{default.__qualname__}"
            assert default == theirs.default, own
    for own in ours[len(promised) :]:
        assert own.kind in variadic or own.default is not inspect.Parameter.empty, own


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_surface_of_v1(module, name):
    """Every public name is there, with its base classes, methods and signatures."""
    promised, found = SURFACE[module][name], getattr(importlib.import_module(module), name)
    if promised == "dict[119]":
        # v1.0 counts a symbol of no element; ours are those of the periodic table.
        assert len(found) == 118
    elif isinstance(promised, str):
        check_binds(promised, found)
    else:
        assert inspect.isclass(found)
        # torch's and skorch's classes; object, and v1.0's own, which are looked at by themselves.
        bases = {base.__name__ for base in found.__mro__}
        assert set(promised["bases"]) <= bases
        check_binds(promised["init"], found.__init__)
        for method, signature in promised["methods"].items():
            if signature == "property":
                assert isinstance(inspect.getattr_static(found, method), property)
            else:
                check_binds(signature, getattr(found, method))


def test_every_key_of_the_surface_is_looked_at():
    kinds = {type(promised) for names in SURFACE.values() for promised in names.values()}
    assert kinds == {str, dict}
    assert len(NAMES) > 100


@pytest.mark.parametrize("key", KEYS)
def test_configuration(key):
    default, other = KEYS[key]
    section, name = key.split(".")
    assert getattr(getattr(Config.from_dict({}), section), name) == default
    given = {section: {name: other}}
    taken = getattr(getattr(Config.from_dict(given), section), name)
    if isinstance(other, str):
        assert taken.lower() == other.lower()
    elif isinstance(other, dict) and name == "scaling":
        assert taken["type"] == "standardize"
    elif other is torch.FloatTensor:
        assert taken is torch.float32
    else:
        assert taken == other


def test_three_ps():
    settings = Config.from_dict({"cmd": {"early_stoppping_patience": 9}})
    assert settings.cmd.early_stopping_patience == 9


@pytest.mark.slow
def test_trainer_attributes(trainer, frames):
    assert isinstance(trainer.net, NeuralNetRegressor)
    assert trainer.net.module is trainer.model
    trainer.net.history  # noqa: B018 (must be there)
    assert len(trainer.train_dataset) == len(frames)
    assert trainer.train_dataset[0].fingerprint.shape == (4, trainer.descriptor.n_features)
    assert isinstance(trainer.feature_scaler, FeatureScaler)
    assert isinstance(trainer.target_scaler, TargetScaler)
    assert trainer.elements == ["Cu", "O"]
    assert trainer.identifier.endswith("-test")
    # Scripts write `trainer.cp_dir + "/params.pt"`.
    assert isinstance(trainer.cp_dir, str)
    assert trainer.cp_dir.endswith(f"checkpoints/{trainer.identifier}")
    assert trainer.config["dataset"]["raw_data"] is frames
    assert str(trainer.device) == "cpu"
    assert trainer.forcetraining is True
    assert isinstance(trainer.descriptor, Gaussian)
    assert trainer.get_unique_elements(frames) == ["Cu", "O"]


def test_attributes_of_the_settings(trainer, frames):
    options = trainer.config["dataset"]
    assert trainer.fp_scheme == "gaussian"
    assert trainer.fp_params == options["fp_params"]
    assert trainer.cutoff_params == {"cutoff_func": "Cosine"}
    assert (trainer.val_split, trainer.split_mode, trainer.gpus) == (0.25, "cv", 0)
    assert trainer.output_device == -1
    assert trainer.save_fps is trainer.settings.dataset.save_fps
    assert trainer.timestamp == trainer.identifier.removesuffix("-test")
    assert trainer.input_dim == trainer.train_dataset.input_dim == trainer.descriptor.n_features
    assert trainer.atomic_correction_scaler is None
    batch, targets = trainer.parallel_collater([trainer.train_dataset[0]])
    assert len(batch) == 1
    assert len(targets) == 2
    data = trainer.train_dataset.a2d.convert(frames[0], idx=0)
    assert float(data.energy) == frames[0].get_potential_energy()
    assert data.fprimes.is_sparse


def test_no_frames_to_predict(trainer):
    with pytest.warns(UserWarning, match="no frames"):
        assert trainer.predict([]) == []


def test_unknown_keys_are_warned_of_once(frames, tmp_path):
    settings = config(frames, tmp_path, cmd__debug=True, optim__epochs=1)
    settings["optim"]["device"] = "cpu"
    settings["cmd"]["single-threaded"] = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = AtomsTrainer(settings)
        trainer.train()
        trainer.load_config()
    said = [str(w.message) for w in caught if "is not known and ignored" in str(w.message)]
    assert len(said) == 1
    assert "cmd.single-threaded" in said[0]
    assert "'threads'" in said[0]
    assert caught[0].filename == __file__


def test_load_and_initialize(frames, tmp_path):
    """The set-up of v1.0's scripts that only want the network."""
    trainer = AtomsTrainer(config(frames, tmp_path, cmd__debug=True))
    trainer.load(load_dataset=True)
    trainer.net.initialize()
    assert np.isfinite(trainer.predict(frames)["energy"]).all()


def test_predictions(trainer, frames):
    result = trainer.predict(frames, disable_tqdm=True, get_latent=-2, get_descriptor=True)
    assert set(result) == {
        *("energy", "forces", "latent", "descriptors"),
        *("t_fingerPrint", "t_forwardPass"),
    }
    assert all(isinstance(energy, float) for energy in result["energy"])
    assert [force.shape for force in result["forces"]] == [(len(atoms), 3) for atoms in frames]
    assert {len(row) for row in result["latent"]} == {6}
    assert {len(row) for row in result["descriptors"]} == {trainer.descriptor.n_features}
    assert set(trainer.predict(frames)) == set(result) - {"latent", "descriptors"}


def test_calculator(trainer, frames):
    result = trainer.predict(frames[:1])
    for calculator in (AmpTorch(trainer), trainer.get_calc()):
        assert isinstance(calculator, Calculator)
        atoms = frames[0].copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(result["energy"][0], abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), result["forces"][0], atol=1e-9)


def test_history_and_checkpoint(trainer):
    columns = {"train_loss", "valid_loss", "dur"}
    columns |= {f"{s}_{q}_mae" for s in ("train", "val") for q in ("energy", "forces")}
    assert columns <= set(trainer.net.history[-1])
    assert {path.name for path in Path(trainer.cp_dir).iterdir() if path.is_file()} == FILES
    params = torch.load(Path(trainer.cp_dir) / "params.pt", weights_only=True)
    assert "elementwise_models.0.model_net.0.weight" in params
    assert "element_mask.mask.weight" in params


def test_columns_without_validation(frames, tmp_path):
    changes = {"optim__epochs": 1, "optim__metric": "mse", "model__name": "singlenn"}
    trainer = AtomsTrainer(config(frames, tmp_path, **changes))
    trainer.train()
    row = set(trainer.net.history[-1])
    assert {"train_loss", "train_energy_mse", "train_forces_mse"} <= row
    assert not any(name.startswith(("val_", "valid_")) for name in row)
    params = torch.load(Path(trainer.cp_dir) / "params.pt", weights_only=True)
    assert "model.model_net.0.weight" in params


def test_fingerprints(frames):
    descriptor = construct_descriptor(
        ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
    )
    (first, *_) = descriptor.prepare_fingerprints(
        frames, calc_derivatives=True, save_fps=False, verbose=False, cores=1, log=None
    )
    n = len(frames[0])
    assert set(first) == {
        *("atomic_numbers", "num_atoms", "descriptors"),
        *("num_descriptors", "descriptor_primes"),
    }
    assert first["num_atoms"] == n
    assert list(first["atomic_numbers"]) == list(frames[0].numbers)
    assert set(first["num_descriptors"]) == {"Cu", "O"}
    width = first["num_descriptors"]["Cu"]
    assert first["descriptors"].shape == (n, width)
    primes = first["descriptor_primes"]
    assert set(primes) == {"row", "col", "val", "size"}
    assert tuple(primes["size"]) == (n * width, 3 * n)
    assert descriptor.descriptor_setup["Cu"].shape == (width, 7)
    assert len(descriptor.descriptor_setup_hash) == 32


def test_data_objects_and_scalers(frames):
    descriptor = Gaussian(FP_PARAMS, ["Cu", "O"])
    converter = AtomsToData(
        descriptor=descriptor, r_energy=True, r_forces=True, save_fps=False, fprimes=True, cores=1
    )
    data_list = converter.convert_all(frames)
    data = pickle.loads(pickle.dumps(converter.convert(frames[1], idx=1)))
    n, width = len(frames[1]), descriptor.n_features
    assert data.fingerprint.shape == (n, width)
    assert data.atomic_numbers.tolist() == frames[1].numbers.tolist()
    assert data.num_nodes == n
    assert float(data.energy) == frames[1].get_potential_energy()
    assert data.forces.shape == (n, 3)
    assert data.fprimes.is_sparse
    assert data.fprimes.shape == (n * width, 3 * n)

    scaling = {"type": "normalize", "range": (0, 1), "elementwise": True}
    features, targets = FeatureScaler(data_list, True, scaling), TargetScaler(data_list, True)
    assert features.transform == "normalize"
    assert (features.forcetraining, features.elementwise) == (True, True)
    assert features.threshold == 1e-6
    assert sorted(int(z) for z in features.unique) == [8, 29]
    assert set(features.scales[29]) == {"offset", "scale"}
    whole = FeatureScaler(data_list, True, {**scaling, "elementwise": False})
    assert set(whole.scale) == {"offset", "scale"}
    features.norm(data_list)
    targets.norm(data_list)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    assert float(targets.target_mean) == pytest.approx(energies.mean())
    assert float(targets.target_std) == pytest.approx(energies.std(ddof=1))
    back = [float(targets.denorm(data.energy, pred="energy")) for data in data_list]
    np.testing.assert_allclose(back, energies)
    forces = targets.denorm(data_list[1].forces, pred="forces")
    np.testing.assert_allclose(forces, frames[1].get_forces(), atol=1e-12)


def test_descriptor_set():
    descriptors = GaussianDescriptorSet(["Cu", "O"], 4.5)
    assert descriptors.cutoff_params == {"cutoff_func": "cosine"}
    descriptors.process_combinatorial_Gs(FP_PARAMS)
    assert (
        descriptors.descriptor_setup_hash == Gaussian(FP_PARAMS, ["Cu", "O"]).descriptor_setup_hash
    )
    assert {table.shape[1] for table in descriptors.descriptor_setup.values()} == {7}
