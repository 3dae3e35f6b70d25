"""Checkpoints: v1.0's predict what v1.0 did, ours come back exactly, strangers' run nothing."""

import json
import os
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amptorch.config import Config
from amptorch.dataset.collate import Batch
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.frames import Frames
from amptorch.model import BPNN, SingleNN
from amptorch.preprocessing import FeatureScaler, TargetScaler
from amptorch.preprocessing.unpickle import load_torch_file, loads_restricted
from amptorch.trainer.checkpoints import load_checkpoint, save_checkpoint

GOLDEN = Path(__file__).parent / "golden"
V1 = [
    "bpnn_forces_cosine_normalize",
    "bpnn_energy_standardize_batchnorm",
    "singlenn_forces_not_elementwise",
]
FP_PARAMS = {"default": {"G2": {"etas": [0.5, 4.0], "rs_s": [0.0]}, "cutoff": 5.0}}


def model_of(config, n_features):
    options = dict(vars(config.model))
    kind = {"bpnn": BPNN, "singlenn": SingleNN}[options.pop("name")]
    return kind(config.dataset.elements, n_features, **options)


def predict(checkpoint, images):
    """Energies (eV) and forces (eV/Å) of the frames by what the checkpoint holds."""
    config = Config.from_dict(checkpoint.config)
    dataset = config.dataset
    descriptor = Gaussian(dataset.fp_params, dataset.elements, dataset.cutoff_params)
    model = model_of(config, descriptor.n_features)
    checkpoint.load_params(model)
    model.eval()
    frames = Frames.from_atoms(images, dataset.elements)
    values, blocks = descriptor.values_and_derivatives(frames)
    batch = Batch(
        fingerprint=torch.from_numpy(
            checkpoint.feature_scaler.transform_rows(values, frames.numbers)
        ),
        atomic_numbers=torch.from_numpy(frames.numbers),
        image_idx=torch.from_numpy(frames.frame_of_atom),
        num_images=len(frames),
        slope=checkpoint.feature_scaler.slope_rows(frames.numbers),
        derivatives=blocks,
        frame_ids=np.arange(len(frames)),
    )
    with torch.no_grad():
        energy, forces = model(batch)
    scaler = checkpoint.target_scaler
    return scaler.denorm(energy).numpy(), scaler.denorm(forces, pred="forces").numpy()


def params_of(config, n_features=4):
    torch.manual_seed(0)
    return model_of(config, n_features).state_dict()


def config_of(**changes):
    return Config.from_dict(
        {
            "dataset": {
                "fp_scheme": "gaussian",
                "fp_params": FP_PARAMS,
                "elements": ["O", "Cu"],
                "raw_data": "frames.traj",
            },
            "model": {"num_layers": 2, "num_nodes": 3},
            **changes,
        }
    )


def scalers():
    rng = np.random.default_rng(0)
    fingerprints, numbers = rng.normal(size=(20, 4)), np.resize([8, 29], 20)
    return (
        FeatureScaler.from_arrays(fingerprints, numbers),
        TargetScaler.from_arrays(rng.normal(size=9)),
    )


@pytest.fixture
def saved(tmp_path):
    config = config_of()
    model = model_of(config, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model.elementwise_models[0](torch.ones(3, 4, dtype=torch.float64)).sum().backward()
    optimizer.step()
    history = [{"epoch": 1, "train_loss": np.float64(0.25), "event_cp": np.True_, "batches": []}]
    save_checkpoint(
        tmp_path,
        config,
        *scalers(),
        model.state_dict(),
        optimizer=optimizer.state_dict(),
        history=history,
    )
    return tmp_path


# --- v1.0's ---


@pytest.mark.parametrize("name", V1)
def test_v1_checkpoints_predict_what_v1_predicted(name):
    expected = np.load(GOLDEN / "checkpoints" / name / "predictions.npz")
    images = read(GOLDEN / "checkpoints" / "images.traj", ":")
    energy, forces = predict(load_checkpoint(GOLDEN / "checkpoints" / name), images)
    np.testing.assert_allclose(energy, expected["energy"], rtol=0, atol=1e-9)
    assert ("forces" in expected) == bool(len(forces))
    if len(forces):
        reference = expected["forces"].reshape(-1, 3)
        np.testing.assert_allclose(forces, reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", V1)
def test_v1_training_goes_on_with_its_optimizer(name):
    checkpoint = load_checkpoint(GOLDEN / "checkpoints" / name)
    model = model_of(Config.from_dict(checkpoint.config), 36)
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint.load_params(model)
    optimizer.load_state_dict(checkpoint.optimizer)
    for parameter, state in zip(model.parameters(), optimizer.state.values(), strict=True):
        assert parameter.requires_grad
        assert parameter.shape == state["exp_avg"].shape
    assert checkpoint.history[-1]["epoch"] == len(checkpoint.history)
    assert checkpoint.criterion == {}


def test_keys_that_v1_ignored_are_dropped_with_a_warning(tmp_path):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    config = {
        "optim": {"learning_rate": 1.0, "lr": 0.5},
        "dataset": {"fp_scheme": "gmp", "descriptor": ("gaussian", FP_PARAMS, None, ["Cu"])},
    }
    torch.save(config, folder / "config.pt")
    with pytest.warns(UserWarning, match=r"optim\.learning_rate .* ignored"):
        read = Config.from_dict(load_checkpoint(folder).config)
    assert read.optim.lr == 0.5
    assert read.dataset.fp_scheme == "gaussian"
    assert read.dataset.elements == ["Cu"]
    assert read.dataset.cutoff_params == {"cutoff_func": "Cosine"}


# --- ours ---


def test_everything_comes_back(saved):
    checkpoint = load_checkpoint(saved)
    config = Config.from_dict(checkpoint.config)
    assert config.to_dict() == config_of().to_dict()
    assert checkpoint.elements == ["O", "Cu"]
    feature, target = scalers()
    assert checkpoint.feature_scaler.state() == feature.state()
    assert checkpoint.target_scaler.state() == target.state()
    assert checkpoint.history == [{"epoch": 1, "train_loss": 0.25, "event_cp": True, "batches": []}]
    model = model_of(config, 4)
    checkpoint.load_params(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, checkpoint.params[name], rtol=0, atol=0)
    torch.optim.Adam(model.parameters()).load_state_dict(checkpoint.optimizer)


def test_a_checkpoint_holds_json_and_tensors_alone(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "criterion.pt",
        "history.json",
        "normalizers.json",
        "optimizer.pt",
        "params.pt",
    ]
    for path in saved.iterdir():
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        else:
            json.loads(path.read_text())


@pytest.mark.parametrize("kind", ["cosine", "polynomial"])
def test_a_descriptor_set_comes_back(kind, tmp_path):
    functions = GaussianDescriptorSet(
        ["O", "Cu"], cutoff=5.5, cutoff_params={"cutoff_func": kind, "gamma": 2.0}
    )
    functions.add_g2("O", "Cu", eta=3.7, rs=0.3, cutoff=4.7)
    functions.add_g4("O", "Cu", "O", eta=0.013, zeta=4.0, gamma=-1.0)
    functions.add_g5("Cu", "Cu", "Cu", eta=0.21)
    functions.add_g1("Cu", "O")
    functions.add_g3("Cu", "O", kappa=1.3)
    config = config_of()
    config.dataset.fp_params = functions
    save_checkpoint(tmp_path, config, *scalers(), {})
    again = load_checkpoint(tmp_path).config["dataset"]["fp_params"]
    assert isinstance(again, GaussianDescriptorSet)
    assert again == functions
    assert again.cutoff == 5.5
    for symbol in ("O", "Cu"):
        np.testing.assert_allclose(
            again.descriptor_setup[symbol], functions.descriptor_setup[symbol], rtol=1e-15
        )


def test_a_better_checkpoint_replaces_the_one_before(saved):
    before = load_checkpoint(saved).params
    after = {name: value + 1 for name, value in before.items()}
    save_checkpoint(saved, config_of(), *scalers(), after)
    name = "elementwise_models.0.model_net.0.weight"
    torch.testing.assert_close(load_checkpoint(saved).params[name], before[name] + 1)
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_written_leaves_the_old_files(saved, monkeypatch):
    before = (saved / "params.pt").read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, config_of(), *scalers(), {})
    assert (saved / "params.pt").read_bytes() == before
    assert len(list(saved.iterdir())) == 6


def test_a_missing_folder_is_named_on_writing(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        save_checkpoint(tmp_path / "nowhere", config_of(), *scalers(), {})


def test_without_elements_nothing_is_written(tmp_path):
    config = config_of()
    config.dataset.elements = None
    with pytest.raises(ValueError, match=r"dataset\.elements"):
        save_checkpoint(tmp_path, config, *scalers(), {})
    assert not list(tmp_path.iterdir())


# --- what is wrong is named ---


def test_other_elements_are_refused(saved):
    checkpoint = load_checkpoint(saved)
    checkpoint.check_elements(["O", "Cu"])
    with pytest.raises(ValueError, match=r"\['O', 'Cu'\], not \['Cu', 'O'\]"):
        checkpoint.check_elements(["Cu", "O"])


def test_parameters_of_another_model_are_refused(saved):
    config = config_of(model={"num_nodes": 7})
    with pytest.raises(ValueError, match=r"params\.pt does not fit"):
        load_checkpoint(saved).load_params(model_of(config, 4))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "normalizers.json", "params.pt"])
def test_missing_files_are_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["optimizer.pt", "criterion.pt", "history.json"])
def test_prediction_needs_no_more(saved, name):
    (saved / name).unlink()
    checkpoint = load_checkpoint(saved)
    with pytest.raises(FileNotFoundError, match=name):
        getattr(checkpoint, Path(name).stem)


@pytest.mark.parametrize("keep", [0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", ["config.json", "normalizers.json", "params.pt"])
def test_truncated_files_are_named(saved, name, keep):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=name):
        load_checkpoint(saved)


@pytest.mark.parametrize("keep", [0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", ["config.pt", "normalizers.pt", "params.pt"])
def test_truncated_files_of_v1_are_named(tmp_path, name, keep):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=name):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", []),
        ("config.json", {"optim": {"lrr": 1}}),
        ("config.json", {"dataset": {"fp_scheme": "gaussian"}}),
        ("normalizers.json", {}),
        ("normalizers.json", {"feature": {"transform": "normalize"}, "target": {}}),
    ],
)
def test_json_that_does_not_belong_there_is_named(saved, name, content):
    (saved / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=name):
        load_checkpoint(saved)


@pytest.mark.parametrize("part", ["entry", "archive"])
def test_damage_of_any_kind_is_a_value_error(tmp_path, part):
    """Also where torch asserts, or where a place in the archive is before its start."""
    if part == "entry":
        entry = (GOLDEN / "lmdb_entries" / "feature_scaler.pkl").read_bytes()
        key = re.search(rb"\d{14}", entry)
        with pytest.raises(ValueError, match="the entry cannot be read"):
            loads_restricted(entry[: key.start()] + b"x" + entry[key.start() + 1 :], "the entry")
    else:
        content = bytearray((GOLDEN / "checkpoints" / V1[0] / "config.pt").read_bytes())
        end = content.rindex(b"PK\x05\x06")
        content[end - 24] = 255
        (tmp_path / "config.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.pt cannot be read"):
            load_torch_file(tmp_path / "config.pt")


# --- strangers' files ---


class Attack:
    """What a pickle can do to who loads it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickled_archive(path, content):
    """A file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


@pytest.mark.parametrize("name", ["config.pt", "normalizers.pt", "params.pt", "optimizer.pt"])
def test_code_in_a_checkpoint_of_v1_is_not_run(tmp_path, name):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    marker = tmp_path / "marker"
    pickled_archive(folder / name, pickle.dumps(Attack(marker)))
    with pytest.raises(ValueError, match=name):
        _ = load_checkpoint(folder).optimizer
    assert not marker.exists()


def test_code_in_an_lmdb_entry_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match=r"entry 3 .* holds \w+\.mkdir"):
        loads_restricted(pickle.dumps({"fingerprint": Attack(marker)}), "entry 3")
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, getattr, os.system, np.load, torch.load, pickle.loads])
def test_no_function_can_be_had(function):
    with pytest.raises(ValueError, match=function.__name__):
        loads_restricted(pickle.dumps(function))


def test_a_configured_class_is_only_a_name():
    assert loads_restricted(pickle.dumps([torch.nn.GELU, torch.optim.SGD])) == ["GELU", "SGD"]
    # BUILD with a pair sets attributes: of the class itself, if that were handed out.
    stream = b"ctorch.nn.modules.activation\nGELU\n(N}Vforward\nK\x01sto0b."
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(stream)
    assert callable(torch.nn.GELU.forward)


class Pickled:
    """Pickles as the call of a function, and the state of what it gives."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


# A field that takes bytes for an object.
OVERLAPPING = Pickled(
    np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
)


@pytest.mark.parametrize(
    ("shape", "dtype", "data"),
    [
        ((1,), OVERLAPPING, b"A" * 8),
        ((1,), np.dtype("O"), b"A" * 8),
        ((9,), np.dtype("O"), []),
        ((-2, -1), np.dtype("f8"), b"A" * 16),
        ((3,), np.dtype("f8"), b"A" * 16),
    ],
)
def test_an_array_cannot_call_bytes_addresses(shape, dtype, data):
    """Reading an item of such an array is reading, or calling, any place in memory."""
    reconstruct, *_ = np.arange(2).__reduce__()
    array = Pickled(reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, data))
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(pickle.dumps([array]))


@pytest.mark.parametrize("arguments", [((1,), "O", b"A" * 8), ((10**15,),)])
def test_an_array_is_not_made_by_its_class(arguments):
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(pickle.dumps(Pickled(np.ndarray, *arguments)))


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.arange(4.0)}, tmp_path / "tensor.pt")
    with zipfile.ZipFile(tmp_path / "tensor.pt") as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "tensor.pt", "w") as archive:
        for name, content in names.items():
            short = content[:8] if name.endswith("data/0") else content
            archive.writestr(name, short)
    with pytest.raises(ValueError, match=r"tensor\.pt cannot be read"):
        load_torch_file(tmp_path / "tensor.pt")


def test_a_user_class_in_a_checkpoint_of_v1_is_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    torch.save({"model": {"activation": Attack}}, folder / "config.pt")
    with pytest.raises(ValueError, match=r"config\.pt .*test_checkpoints\.Attack"):
        load_checkpoint(folder)


def test_what_v1_stores_is_read(tmp_path):
    stored = {
        "a": [np.arange(3), np.float64(2.5), np.array(["Cu", "O"], dtype=object), range(3)],
        "arrays": (
            np.array(["Cu", "O"]),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.zeros((0, 3)),
            np.arange(3, dtype=">i4"),
            np.dtype("float32"),
        ),
        "b": OrderedDict(c=torch.tensor([[1.5]])),
        "dtype": torch.DoubleTensor,
        "path": Path("a/b"),
    }
    torch.save(stored, tmp_path / "config.pt")
    read = load_torch_file(tmp_path / "config.pt")
    assert read["a"][0].tolist() == [0, 1, 2]
    assert read["a"][1] == 2.5
    assert read["a"][2].tolist() == ["Cu", "O"]
    for found, expected in zip(read["arrays"], stored["arrays"], strict=True):
        np.testing.assert_array_equal(found, expected)
        assert type(found) is type(expected)
    assert read["b"]["c"].tolist() == [[1.5]]
    assert read["dtype"] == "DoubleTensor"
    assert read["path"] == str(Path("a/b"))


def test_lmdb_entries_of_v1_are_read():
    entries = {
        path.stem: loads_restricted(path.read_bytes(), path.name)
        for path in (GOLDEN / "lmdb_entries").iterdir()
    }
    data = entries["16"]
    assert data.num_nodes == 3
    assert data.fprimes.shape == (3 * 36, 9)
    assert data.fprimes.coalesce().values().abs().max() > 0
    assert entries["feature_scaler"].unique == [6, 8, 29]
    assert float(entries["target_scaler"].target_std) > 0
    assert entries["descriptor_setup"][0] == "gaussian"


def test_what_the_fork_pickles_is_read():
    feature, target = scalers()
    again = loads_restricted(pickle.dumps({"feature": feature, "target": target}))
    assert again["feature"].state() == feature.state()
    assert again["target"].state() == target.state()
