"""The whole interface of v1.0: every import path, signature, key, attribute and file."""

import importlib
import inspect
import pickle
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

PATHS = """
amptorch: AtomsTrainer AmpTorch
amptorch.trainer: AtomsTrainer
amptorch.ase_utils: AmpTorch
amptorch.dataset: AtomsDataset DataCollater construct_descriptor
amptorch.dataset_lmdb: AtomsLMDBDataset AtomsLMDBDatasetCache AtomsLMDBDatasetPartialCache
amptorch.dataset_lmdb: PartialCacheSampler get_lmdb_dataset
amptorch.descriptor.Gaussian: Gaussian GaussianDescriptorSet GDS
amptorch.descriptor.GMP: GMP
amptorch.descriptor.GMPOrderNorm: GMPOrderNorm
amptorch.descriptor.base_descriptor: BaseDescriptor
amptorch.descriptor.descriptor_calculator: DescriptorCalculator
amptorch.descriptor.util: get_hash validate_image list_symbols_to_indices list_indices_to_symbols
amptorch.descriptor.constants: ATOM_SYMBOL_TO_INDEX_DICT ATOM_INDEX_TO_SYMBOL_DICT
amptorch.preprocessing: AtomsToData FeatureScaler TargetScaler AtomicCorrectionScaler PCAReducer
amptorch.preprocessing: sparse_block_diag
amptorch.preprocessing.utils: FeatureScaler TargetScaler AtomicCorrectionScaler sparse_block_diag
amptorch.preprocessing.pca: PCAReducer
amptorch.preprocessing.atoms_to_data: AtomsToData
amptorch.model: MLP ElementMask BPNN SingleNN CustomLoss
amptorch.metrics: evaluator mae_energy_score mae_forces_score mse_energy_score mse_forces_score
amptorch.metrics: MemEffEpochScoring to_cpu
amptorch.data_parallel: DataParallel ParallelCollater
amptorch.utils: InOrderSplit target_extractor to_tensor save_normalizers
amptorch.utils: train_end_load_best_loss check_memory
amptorch.uncertainty: EnsembleSDEstimator ConformalPredictionLatentSpace
amptorch.uncertainty: ConformalPredictionFeatureSpace NegativeLeastLikelihoodLatentSpace
amptorch.uncertainty: NegativeLeastLikelihoodFeatureSpace
amptorch.uncertainty.utils: calc_dist ConformalPrediction NegativeLeastLikelihoodEstimator
amptorch.uncertainty.utils: split_test_calib prepare_latentNerror_from_trainer
amptorch.uncertainty.utils: prepare_featureNerror_from_trainer calc_uncertainty_metrics
"""
NAMES = [
    (path, name)
    for path, names in (line.split(": ") for line in PATHS.strip().splitlines())
    for name in names.split()
]

# Documented arguments with their defaults; `...` where there is none.
ANGULAR = {"eta": 0.005, "zeta": 1.0, "gamma": 1.0, "cutoff": None, "update": True}
PAIR, TRIPLE = {"element_i": ..., "element_j": ...}, {"element_k": ...}
SIGNATURES = {
    "amptorch.AtomsTrainer": {"config": ...},
    "amptorch.AtomsTrainer.load": {"load_dataset": True},
    **{
        f"amptorch.AtomsTrainer.load_{part}": {}
        for part in (
            *("config", "rng_seed", "dataset", "model", "criterion"),
            *("optimizer", "logger", "extras", "skorch"),
        )
    },
    "amptorch.AtomsTrainer.get_unique_elements": {"images": ...},
    "amptorch.AtomsTrainer.train": {"raw_data": None},
    "amptorch.AtomsTrainer.predict": {
        "images": ...,
        "disable_tqdm": True,
        "get_latent": None,
        "get_descriptor": False,
        "save_fps": False,
    },
    "amptorch.AtomsTrainer.load_pretrained": {"checkpoint_path": None, "gpu2cpu": False},
    "amptorch.AtomsTrainer.get_calc": {},
    "amptorch.AmpTorch": {"trainer": ...},
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet": {
        "elements": ...,
        "cutoff": 6.5,
        "cutoff_params": ...,  # see test_descriptor_set
        "default_interactions": False,
    },
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.add_g2": {
        **PAIR,
        "eta": 3.0,
        "rs": 0.0,
        "cutoff": None,
        "update": True,
    },
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.add_g4": PAIR | TRIPLE | ANGULAR,
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.add_g5": PAIR | TRIPLE | ANGULAR,
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.batch_add_descriptors": {
        "number": ...,
        "param1s": ...,
        "param2s": ...,
        "param3s": ...,
        "cutoff": None,
        "update": True,
    },
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.process_combinatorial_Gs": {"Gs": ...},
    "amptorch.descriptor.Gaussian.GaussianDescriptorSet.update": {},
    "amptorch.descriptor.base_descriptor.BaseDescriptor.prepare_fingerprints": dict.fromkeys(
        ["images", "calc_derivatives", "save_fps", "verbose", "cores", "log"], ...
    ),
    "amptorch.preprocessing.AtomsToData": dict.fromkeys(
        ["descriptor", "r_energy", "r_forces", "save_fps", "fprimes", "cores"], ...
    ),
    "amptorch.preprocessing.AtomsToData.convert": {"atoms": ..., "idx": ...},
    "amptorch.preprocessing.AtomsToData.convert_all": {"images": ...},
    "amptorch.preprocessing.TargetScaler.denorm": {"tensor": ..., "pred": "energy"},
    "amptorch.descriptor.util.get_hash": {"atoms": ...},
}
# The names of these arguments are no part of the interface: they are given by place.
BY_PLACE = {
    "amptorch.preprocessing.AtomsToData.convert_all",
    "amptorch.descriptor.util.get_hash",
}

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
    *("history.json", "normalizers.json"),
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


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_import(path, name):
    assert getattr(importlib.import_module(path), name) is not None


def found(dotted):
    """The object of a dotted name."""
    path, *names = dotted.split(".")
    result = importlib.import_module(path)
    for name in names:
        path = f"{path}.{name}"
        if inspect.ismodule(result) and not hasattr(result, name):
            importlib.import_module(path)
        result = getattr(result, name)
    return result


@pytest.mark.parametrize("dotted", SIGNATURES)
def test_signature(dotted):
    """Documented arguments in their order, by place and by name, with their defaults."""
    arguments = SIGNATURES[dotted]
    signature = inspect.signature(found(dotted))
    given = dict.fromkeys(arguments, 1)
    own = [1] if inspect.isfunction(found(dotted)) and "self" in signature.parameters else []
    bound = signature.bind(*own, *given.values()).arguments
    if dotted in BY_PLACE:
        return
    assert [name for name in bound if name != "self"] == list(arguments)
    signature.bind(*own, **given)
    required = [name for name, default in arguments.items() if default is ...]
    signature.bind(*own, **dict.fromkeys(required, 1))
    for name, default in arguments.items():
        if default is not ...:
            assert signature.parameters[name].default == default


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
