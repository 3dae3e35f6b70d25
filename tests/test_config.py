"""The configuration: defaults, checks, messages, and the way to JSON and back."""

import copy
import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from amptorch.config import Config, known_part
from amptorch.descriptor.Gaussian import GaussianDescriptorSet

# The table of v1.0's interface.
DEFAULTS = {
    "model": {
        "name": "bpnn",
        "get_forces": True,
        "num_layers": 5,
        "num_nodes": 20,
        "hidden_layers": None,
        "members": 1,
        "activation": torch.nn.Tanh,
        "batchnorm": False,
        "dropout": False,
        "dropout_rate": 0.5,
        "repulsion": None,
        "initialization": "xavier",
    },
    "optim": {
        "gpus": 0,
        "force_coefficient": 0,
        "energy_per_atom": False,
        "force_per_mev": None,
        "stress_coefficient": 0,
        "stress_per_mev": None,
        "lr": 0.1,
        "batch_size": 32,
        "epochs": 100,
        "optimizer": torch.optim.Adam,
        "optimizer_args": {},
        "loss_fn": None,
        "loss": "mse",
        "huber_delta": 3,
        "metric": "mae",
        "cp_metric": "energy",
        "scheduler": None,
        "force_fraction": 1,
        "max_seconds": None,
        "total_seconds": None,
        "recover": False,
        "averaging": None,
    },
    "dataset": {
        "raw_data": None,
        "lmdb_path": None,
        "cache": "no",
        "skip_bad": False,
        "energy_key": None,
        "forces_key": None,
        "stress_key": None,
        "missing_forces": "error",
        "val_split": 0,
        "val_split_mode": "cv",
        "val_data": None,
        "elements": None,
        "fp_scheme": "gmpordernorm",
        "fp_params": None,
        "cutoff_params": {"cutoff_func": "Cosine"},
        "save_fps": True,
        "scaling": {"type": "normalize", "range": (0, 1), "elementwise": True, "threshold": 1e-6},
        "pca": None,
        "target_scaling": True,
        "atomic_correction": False,
        "isolated_atoms": None,
        "weights": None,
        "group_weights": None,
        "group_key": "config_type",
        "store": None,
        "memory_budget": 2,
        "derivatives": "auto",
        "derivative_dtype": "float64",
    },
    "cmd": {
        "debug": False,
        "dtype": torch.float64,
        "run_dir": "./",
        "seed": 0,
        "identifier": None,
        "verbose": True,
        "logger": False,
        "early_stopping": False,
        "early_stopping_patience": 5,
        "threads": None,
    },
}


def test_the_defaults_are_those_of_the_interface():
    config = Config.from_dict({})
    assert {name: vars(getattr(config, name)) for name in DEFAULTS} == DEFAULTS


def test_what_v1_scripts_give_is_taken():
    config = Config.from_dict(
        {
            "model": {"name": "SingleNN", "activation": torch.nn.GELU, "hidden_layers": (12, 6)},
            "optim": {
                "optimizer": torch.optim.LBFGS,
                "optimizer_args": {"optimizer__line_search_fn": "strong_wolfe"},
                "scheduler": {"policy": "StepLR", "params": {"step_size": 10}},
                "lr": np.float32(0.5),
            },
            "dataset": {"fp_scheme": "Gaussian", "scaling": {"type": "Standardize"}},
            "cmd": {"dtype": torch.FloatTensor, "early_stoppping_patience": 7},
        }
    )
    assert config.model.name == "singlenn"
    assert config.model.hidden_layers == [12, 6]
    assert config.optim.scheduler["policy"] is torch.optim.lr_scheduler.StepLR
    assert config.dataset.fp_scheme == "gaussian"
    assert config.dataset.scaling["type"] == "standardize"
    assert config.cmd.dtype is torch.float32
    assert config.cmd.early_stopping_patience == 7


def test_keys_that_v1_ignored_are_left_out_with_a_message():
    given = {
        "model": {"num_layer": 3, "num_nodes": 7},
        "optim": {"device": "cpu", "lr": 0.1},
        "dataset": {"descriptor": None, "fp_length": 4},
        "cmd": {"single-threaded": True, "early_stoppping_patience": 2},
        "models": {},
    }
    before = copy.deepcopy(given)
    known, messages = known_part(given)
    assert given == before
    assert known == {
        "model": {"num_nodes": 7},
        "optim": {"lr": 0.1},
        "dataset": {},
        "cmd": {"early_stoppping_patience": 2},
    }
    layers, single, section = messages
    assert "model.num_layer" in layers
    assert "'num_layers'" in layers
    assert "cmd.single-threaded" in single
    assert "'model'" in section
    # What is no dictionary is `Config.from_dict`'s to refuse.
    for wrong in (3, {"model": 3}):
        with pytest.raises(TypeError):
            Config.from_dict(known_part(wrong)[0])


@pytest.mark.parametrize("scheme", ["gmp", "gmpordernorm"])
def test_cutoff_params_are_of_no_meaning_to_multipoles(scheme):
    for value in ("NA", None, 18, {"cutoff_func": "Cosine"}):
        dataset = {"fp_scheme": scheme, "cutoff_params": value}
        assert Config.from_dict({"dataset": dataset}).dataset.cutoff_params == value
    with pytest.raises(TypeError, match=r"dataset\.cutoff_params.*'NA'"):
        Config.from_dict({"dataset": {"fp_scheme": "gaussian", "cutoff_params": "NA"}})


@pytest.mark.parametrize(
    ("fp_params", "scheme"),
    [
        ({"default": {"G2": {"etas": [1.0], "rs_s": [0]}, "cutoff": 6}}, "gaussian"),
        ({"Cu": {"G2": {"etas": [1.0], "rs_s": [0]}, "cutoff": 6}}, "gaussian"),
        (GaussianDescriptorSet(["Cu"]), "gaussian"),
        ("auto", "gaussian"),
        ({"MCSHs": {"orders": [0], "sigmas": [1.0]}}, "gmpordernorm"),
        (None, "gmpordernorm"),
    ],
)
def test_the_kind_of_fingerprint_where_parameters_alone_are_given(fp_params, scheme):
    config = Config.from_dict({"dataset": {"fp_params": fp_params}})
    assert config.dataset.fp_scheme == scheme


def test_elements_may_be_a_numpy_array():
    dataset = {"elements": np.array(["Cu", "O"])}
    assert Config.from_dict({"dataset": dataset}).dataset.elements == ["Cu", "O"]


def test_a_large_seed_is_not_rounded():
    assert Config.from_dict({"cmd": {"seed": 2**60 + 1}}).cmd.seed == 2**60 + 1


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("DoubleTensor", torch.float64),
        ("torch.FloatTensor", torch.float32),
        ("float32", torch.float32),
        (torch.DoubleTensor, torch.float64),
        (torch.float32, torch.float32),
    ],
)
def test_dtypes_by_any_name(name, dtype):
    assert Config.from_dict({"cmd": {"dtype": name}}).cmd.dtype is dtype


def test_classes_by_name_as_yaml_has_them():
    config = Config.from_dict(
        {"model": {"activation": "relu"}, "optim": {"optimizer": "SGD", "lr": "1e-3"}, "cmd": None}
    )
    assert config.model.activation is torch.nn.ReLU
    assert config.optim.optimizer is torch.optim.SGD
    assert config.optim.lr == 1e-3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optm": {}}, "section 'optm', did you mean 'optim'"),
        ({"optim": {"batchsize": 4}}, "optim.batchsize, did you mean 'batch_size'"),
        ({"dataset": {"descriptor": ()}}, "dataset.descriptor"),
        ({"dataset": {"fp_scheme": "gausian"}}, "dataset.fp_scheme must be 'gaussian'"),
        ({"dataset": {"fp_scheme": "mcsh"}}, "dataset.fp_scheme 'mcsh' is called 'gmp' since v1.0"),
        ({"dataset": {"scaling": {"typ": "normalize"}}}, "'typ', did you mean 'type'"),
        ({"dataset": {"scaling": {"range": (1, 0)}}}, "dataset.scaling.range must rise"),
        (
            {"dataset": {"val_split": 1}},
            "dataset.val_split must be a number at least 0 and below 1, got 1",
        ),
        ({"dataset": {"elements": ["Xx"]}}, "'Xx' is not a chemical symbol"),
        ({"dataset": {"elements": ["Cu", "Cu"]}}, "names an element twice"),
        ({"dataset": {"isolated_atoms": "atoms.xyz"}}, "isolated_atoms needs .* recommended sets"),
        ({"model": {"activation": "Tahn"}}, "no class 'Tahn' is known, did you mean 'tanh'"),
        ({"model": {"activation": "subprocess.Popen"}}, "no class 'subprocess.Popen' is known"),
        ({"optim": {"epochs": 2.5}}, "optim.epochs must be an integer"),
        ({"optim": {"lr": 0}}, "optim.lr must be a number above 0, got 0"),
        ({"optim": {"lr": float("nan")}}, "optim.lr"),
        ({"optim": {"scheduler": {"params": {}}}}, "optim.scheduler needs 'policy'"),
        ({"optim": {"cp_metric": "forces"}, "model": {"get_forces": False}}, "get_forces is False"),
        ({"cmd": {"dtype": "int"}}, "cmd.dtype must be torch.DoubleTensor"),
        ({"cmd": {"identifier": "../../elsewhere"}}, "cmd.identifier"),
        (
            {"cmd": {"early_stopping_patience": 1, "early_stoppping_patience": 2}},
            "early_stopping_patience twice",
        ),
    ],
)
def test_wrong_keys_and_values_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "config must be a dictionary"),
        ({"model": 3}, "section 'model' must be a dictionary"),
        ({"model": {"get_forces": "yes"}}, "model.get_forces must be True or False, got 'yes'"),
        ({"model": {"activation": torch.nn.Tanh()}}, "model.activation must be a class"),
        ({"model": {"hidden_layers": 5}}, "model.hidden_layers must be a list"),
        ({"optim": {"epochs": True}}, "optim.epochs must be an integer"),
        ({"optim": {"batch_size": None}}, "optim.batch_size must be an integer"),
        ({"dataset": {"fp_params": 6.5}}, "dataset.fp_params must be a dictionary"),
    ],
)
def test_wrong_types_are_named(config, message):
    with pytest.raises(TypeError, match=message):
        Config.from_dict(config)


def test_the_dictionary_of_the_caller_stays_as_it_is():
    given = {
        "dataset": {
            "raw_data": ["frames"],
            "fp_params": {"default": {"G2": {"etas": [1.0], "rs_s": [0]}, "cutoff": 6}},
        },
        "optim": {"optimizer_args": {"optimizer__weight_decay": 0.1}},
    }
    before = copy.deepcopy(given)
    config = Config.from_dict(given)
    config.dataset.fp_params["default"]["cutoff"] = 3
    config.optim.optimizer_args.clear()
    assert given == before
    assert config.dataset.raw_data is given["dataset"]["raw_data"]


def test_two_configurations_share_nothing():
    first, second = Config.from_dict({}), Config.from_dict({})
    first.dataset.cutoff_params["gamma"] = 2.0
    assert second.dataset.cutoff_params == {"cutoff_func": "Cosine"}


def test_json_and_back():
    config = Config.from_dict(
        {
            "model": {"activation": torch.nn.SiLU},
            "optim": {"scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": 5}}},
            "dataset": {
                "raw_data": "frames.traj",
                "fp_params": {"default": {"G2": {"etas": np.logspace(-1, 1, 3), "rs_s": [0]}}},
                "elements": np.array(["Cu", "O"]),
            },
            "cmd": {"dtype": torch.FloatTensor},
        }
    )
    written = config.to_dict()
    assert "raw_data" not in written["dataset"]
    read = Config.from_dict(json.loads(json.dumps(written)))
    assert read.to_dict() == written
    assert read.model.activation is torch.nn.SiLU
    assert read.optim.scheduler["policy"] is torch.optim.lr_scheduler.CosineAnnealingLR
    assert read.dataset.fp_params["default"]["G2"]["etas"] == list(np.logspace(-1, 1, 3))


class Swish(torch.nn.SiLU):
    """A user's own activation."""


def test_own_classes_go_by_their_full_name():
    name = Config.from_dict({"model": {"activation": Swish}}).to_dict()["model"]["activation"]
    assert Config.from_dict({"model": {"activation": name}}).model.activation is Swish


def test_a_descriptor_set_is_kept_as_it_is():
    given = GaussianDescriptorSet(["Cu"])
    assert Config.from_dict({"dataset": {"fp_params": given}}).dataset.fp_params is given


def test_what_a_data_set_needs_is_named():
    with pytest.raises(ValueError, match=r"dataset\.raw_data"):
        Config.from_dict({}).dataset.require_data()
    with pytest.raises(ValueError, match=r"dataset\.fp_params"):
        Config.from_dict({"dataset": {"raw_data": "a.traj"}}).dataset.require_data()


def test_importing_it_imports_no_torch():
    code = "import sys, amptorch.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_has_no_json_form_is_refused_by_name_on_reading():
    factory = functools.partial(torch.nn.LeakyReLU, 0.2)
    written = Config.from_dict({"model": {"activation": factory}}).to_dict()
    json.dumps(written)
    with pytest.raises(ValueError, match=r"model\.activation: no class .functools\.partial"):
        Config.from_dict(written)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.activation", "Linear", "Linear is no activation"),
        ("model.activation", "GLU", "GLU is no activation"),
        ("model.activation", "PReLU", "PReLU is no activation"),
        ("optim.loss_fn", "L1Loss", "L1Loss compares two tensors"),
        ("optim.optimizer", "SparseAdam", "SparseAdam cannot train"),
        ("optim.optimizer", "Optimizer", "Optimizer cannot"),
        ("optim.optimizer_args", {"foo": 1}, "Adam cannot be made .*'foo': 1"),
        ("optim.optimizer_args", {"optimizer__betas": (2, 3)}, "Invalid beta"),
        ("optim.scheduler", {"policy": "StepLR"}, "StepLR cannot be made .*step_size"),
        ("optim.scheduler", {"policy": "StepLR", "params": {"step": 1}}, "StepLR cannot .*step"),
        ("cmd.seed", 2**70, "at most 9223372036854775808"),
        ("cmd.identifier", "a\0b", "part of a folder's name"),
    ],
)
def test_names_that_cannot_work_are_refused(key, value, message):
    section, name = key.split(".")
    with pytest.raises(ValueError, match=rf"^{section}\.{name}(_args)?\b.*{message}"):
        Config.from_dict({section: {name: value}})


@pytest.mark.parametrize("name", ["Adam", "AdamW", "LBFGS", "SGD", "Rprop", "RMSprop", "ekf"])
def test_optimizers_that_work_are_taken(name):
    Config.from_dict({"optim": {"optimizer": name}})


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "StepLR", "params": {"step_size": 3}},
        {"policy": "ReduceLROnPlateau", "params": {"monitor": "train_loss", "patience": 2}},
        {"policy": "OneCycleLR", "params": {"max_lr": 0.1, "total_steps": 10}},
        {"policy": "WarmRestartLR", "params": {"min_lr": 1e-4, "max_lr": 0.1}},
        {"policy": "LambdaLR", "params": {"lr_lambda": [len, len]}},
        {"policy": "MultiStepLR", "params": {"milestones": [2, 4]}},
    ],
)
def test_schedulers_that_work_are_taken(scheduler):
    Config.from_dict({"optim": {"scheduler": scheduler}})
