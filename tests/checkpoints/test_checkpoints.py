"""Checkpoints: v1.0's predict what v1.0 did, ours come back exactly."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amptorch.checkpoints.folder import load_checkpoint, load_json, save_checkpoint, write_files
from amptorch.config import Config
from amptorch.data.batch import Batch
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.frames import Frames
from amptorch.model import make_model
from amptorch.preprocessing import FeatureScaler, TargetScaler

GOLDEN = Path(__file__).parents[1] / "golden"
V1 = [
    "bpnn_forces_cosine_normalize",
    "bpnn_energy_standardize_batchnorm",
    "singlenn_forces_not_elementwise",
]
FP_PARAMS = {"default": {"G2": {"etas": [0.5, 4.0], "rs_s": [0.0]}, "cutoff": 5.0}}


def model_of(config, n_features):
    return make_model(config.model, config.dataset.elements, n_features, config.cmd.dtype)


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
        "checksums.json",
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
    assert len(list(saved.iterdir())) == 7


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


def read_all(folder):
    checkpoint = load_checkpoint(folder)
    return checkpoint.optimizer, checkpoint.criterion, checkpoint.history


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["config", "normalizers", "history"])
def test_another_digit_anywhere_in_json_is_found(saved, stem):
    check_each_byte(saved / f"{stem}.json")


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["params", "optimizer", "criterion"])
def test_another_bit_anywhere_in_tensors_is_found(saved, stem):
    check_each_byte(saved / f"{stem}.pt")


def check_each_byte(path):
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=f"{path.name} is damaged.*checksum"):
            read_all(path.parent)


def test_a_checkpoint_from_before_there_were_checksums_is_read(saved):
    (saved / "checksums.json").unlink()
    load_checkpoint(saved)


@pytest.mark.parametrize("content", ["[]", "{", '{"params.pt": 3}'])
def test_damaged_checksums_are_named(saved, content):
    (saved / "checksums.json").write_text(content)
    with pytest.raises(ValueError, match=r"checksums\.json"):
        load_checkpoint(saved)
    write_files(saved, {"note.json": b"{}"})
    load_checkpoint(saved)


@pytest.mark.parametrize("files", range(4))
def test_a_process_killed_between_two_files_leaves_a_checkpoint(tmp_path, monkeypatch, files):
    """Each file is the old one or the new one, and has its checksum."""
    write_files(tmp_path, {"a.json": b"1", "b.json": b"2"})
    replaced, replace = [], os.replace

    def killed(*paths):
        if len(replaced) > files:
            raise KeyboardInterrupt
        replaced.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with suppress(KeyboardInterrupt):
        write_files(tmp_path, {"a.json": b"3", "b.json": b"4"})
    monkeypatch.undo()
    assert load_json(tmp_path / "a.json") == (3 if files >= 1 else 1)
    assert load_json(tmp_path / "b.json") == (4 if files >= 2 else 2)
    write_files(tmp_path, {"a.json": b"5", "b.json": b"6"})
    assert json.loads((tmp_path / "checksums.json").read_text()).keys() == {"a.json", "b.json"}
    (tmp_path / "a.json").write_bytes(b"3")
    with pytest.raises(ValueError, match=r"a\.json"):
        load_json(tmp_path / "a.json")


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
    (saved / "checksums.json").unlink()
    (saved / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=name):
        load_checkpoint(saved)
