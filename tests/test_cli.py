"""The command line, and the files it reads and writes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from amptorch import load
from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.files import read_config
from amptorch.potential import Potential
from amptorch.training.restart import EpochCheckpoint, saved_epochs
from tests.small_frames import labelled

CHECKPOINTS = Path(__file__).parent / "golden" / "checkpoints"
FORCES_CHECKPOINT = CHECKPOINTS / "bpnn_forces_cosine_normalize"
ENERGY_CHECKPOINT = CHECKPOINTS / "bpnn_energy_standardize_batchnorm"
IMAGES = CHECKPOINTS / "images.traj"

CONFIG = """
model: {get_forces: true, hidden_layers: [4]}
optim: {force_coefficient: 1e-1, lr: 1e-2, batch_size: 2, epochs: 2}
dataset:
  cache: no
  fp_scheme: gaussian
  save_fps: false
  fp_params:
    default: {cutoff: 4.0, G2: {etas: [1.0, 20.0], rs_s: [0.0]}}
cmd: {verbose: false}
"""


def run(*arguments):
    """Exit code of the program."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return exit_info.value.code or 0


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "frames.traj"
    write(path, iron_water(4, max_water=2))
    return path


@pytest.fixture
def no_training(monkeypatch):
    """Fails the test where work starts before the input is checked."""

    def start(*_):
        pytest.fail("work started")

    monkeypatch.setattr("amptorch.trainer.AtomsTrainer.load", start)
    monkeypatch.setattr("amptorch.trainer.AtomsTrainer.predict", start)


def test_help_and_version_need_no_torch():
    code = (
        "import sys, amptorch.cli\n"
        "try: amptorch.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ase', 'numba', 'matplotlib'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("train", "evaluate", "predict", "demo"):
        assert command in result.stdout


def test_yaml_reads_numbers_and_words_as_people_write_them(tmp_path, config):
    settings = read_config(config)
    assert settings["optim"]["lr"] == 0.01
    assert settings["dataset"]["cache"] == "no"
    assert settings["model"]["get_forces"] is True
    as_json = tmp_path / "config.json"
    as_json.write_text('{"optim": {"lr": 1e-2}}')
    assert read_config(as_json) == {"optim": {"lr": 0.01}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", b"a: [1"),
        ("c.json", b"{"),
        ("c.yaml", b"- 1"),
        ("c.yaml", b""),
        ("frames.xyz", b"word " * 1000),
        ("frames.traj", b"\x98\x00"),
        ("c.yaml", b"optim: {lr: 0.1}\noptim: {epochs: 2}"),
        ("c.yaml", b"optim: {lr: 0.1, epochs: 2, lr: 0.2}"),
    ],
)
def test_a_broken_configuration_is_named(tmp_path, capsys, name, text):
    (tmp_path / name).write_bytes(text)
    assert run("train", tmp_path / name) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert name in error
    assert len(error) < 500


def test_yaml_takes_over_what_has_a_name(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: &a {num_nodes: 5, num_layers: 2}\noptim: {<<: *a, num_nodes: 6}")
    assert read_config(path)["optim"] == {"num_nodes": 6, "num_layers": 2}


def test_a_missing_configuration_is_named(tmp_path, capsys):
    assert run("train", tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["--debug", "train", str(tmp_path / "none.yaml")])


def test_training_needs_data(config, capsys):
    assert run("train", config) == 1
    assert "--data" in capsys.readouterr().err


@pytest.mark.slow
def test_frames_that_are_shown_are_called_as_in_the_file(
    config, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("amptorch.train_command.SHOWN_FRAMES", 2)
    assert run("train", config, "--data", data, "--out", tmp_path / "run") == 0
    worst = [line for line in capsys.readouterr().out.splitlines() if line.startswith("frame ")]
    assert sorted(line.split(",")[0] for line in worst) == ["frame 0", "frame 2"]


def test_a_ghost_atom_is_named(config, data, tmp_path, capsys):
    images = read(data, ":")
    ghost = images[1] + Atoms("X", positions=[[0, 0, 30]])
    ghost.calc = SinglePointCalculator(ghost, energy=0.0, forces=np.zeros((len(ghost), 3)))
    write(data, [images[0], ghost])
    assert run("train", config, "--data", data, "--out", tmp_path) == 1
    assert f"frame 1, atom {len(ghost) - 1} (X) is no chemical element" in capsys.readouterr().err


@pytest.mark.usefixtures("no_training")
def test_bad_training_data_ends_before_the_work(config, data, tmp_path, capsys):
    assert run("train", config, "--data", tmp_path / "none.traj") == 1
    assert "none.traj" in capsys.readouterr().err
    unlabelled = tmp_path / "unlabelled.traj"
    write(unlabelled, [atoms.copy() for atoms in read(data, ":")])
    assert run("train", config, "--data", data, "--test", unlabelled) == 1
    assert "test: frame 0" in capsys.readouterr().err


def test_train_with_a_misspelt_key(config, data, capsys):
    config.write_text(CONFIG.replace("epochs", "epoch"))
    assert run("train", config, "--data", data) == 1
    error = capsys.readouterr().err
    assert "optim.epoch" in error
    assert "epochs" in error


@pytest.mark.parametrize("section", ["model", "optim", "dataset", "cmd"])
def test_a_section_that_is_none_is_named_before_frames_are_read(
    config, data, tmp_path, capsys, section, monkeypatch
):
    monkeypatch.setattr("amptorch.frames.read_images", lambda *_: pytest.fail("frames are read"))
    config.write_text(f"{section}: [{{lr: 0.1}}]")
    assert run("train", config, "--data", data, "--out", tmp_path) == 1
    assert f"'{section}' must be a dictionary" in capsys.readouterr().err


@pytest.mark.slow
def test_train_on_several_files_and_test_on_fewer_elements(config, data, tmp_path, capsys):
    images = read(data, ":")
    write(tmp_path / "more.xyz", images[2:])
    iron = images[0][images[0].symbols == "Fe"]
    write(tmp_path / "iron.traj", labelled(iron, 1.0, np.zeros((len(iron), 3))))
    files = ("--data", data, "--data", tmp_path / "more.xyz", "--test", tmp_path / "iron.traj")
    assert run("train", config, *files, "--out", tmp_path / "run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["frames", "6", "1"] in lines
    numbers = {" ".join(line[:3]): line[4:] for line in lines if line[:2] == ["forces", "on"]}
    assert {name: len(found) for name, found in numbers.items()} == {
        "forces on Fe": 4,
        "forces on H": 2,
        "forces on O": 2,
    }
    assert "checkpoint:" in [line[0] for line in lines if line]


@pytest.mark.slow
def test_train_leaves_out_bad_frames_where_told(config, data, tmp_path, capsys, caplog):
    images = read(data, ":")
    images.insert(1, images[0].copy())
    write(data, images)
    train = ("train", config, "--data", data, "--out", tmp_path / "run")
    assert run(*train) == 1
    assert "training: frame 1 has no energy" in capsys.readouterr().err
    assert run(*train, "--skip-bad") == 0
    table = capsys.readouterr().out.splitlines()
    assert ["frames", "4"] in [line.split() for line in table]
    assert caplog.text.count("frame 1 has no energy") == 1


@pytest.mark.parametrize("where", ["memory", "store"])
def test_a_test_set_with_an_element_that_is_not_trained_on(
    config, data, tmp_path, capsys, monkeypatch, where
):
    monkeypatch.setattr(
        "amptorch.trainer.AtomsTrainer.train", lambda *_, **__: pytest.fail("it was trained")
    )
    atoms = read(data)
    atoms.symbols[0] = "Pt"
    write(tmp_path / "test.traj", labelled(atoms, 1.0, np.zeros((len(atoms), 3))))
    added = "elements: [Fe, H, O, Pt]" if where == "memory" else f"store: {tmp_path / 'store'}"
    config.write_text(CONFIG.replace("dataset:\n", f"dataset:\n  {added}\n"))
    train = ("train", config, "--data", data, "--out", tmp_path)
    assert run(*train, "--test", tmp_path / "test.traj") == 1
    assert "test: frame 0, atom 0 (Pt)" in capsys.readouterr().err


@pytest.mark.slow
def test_train_evaluate_predict(config, data, tmp_path, capsys):
    assert run("train", config, "--data", data, "--test", data, "--out", tmp_path / "run") == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    report = capsys.readouterr().out
    assert str(checkpoint) in report
    assert "energy (meV/atom)" in report
    assert "forces on Fe (eV/Å)" in report
    assert (checkpoint / "parity.png").exists()

    assert run("evaluate", checkpoint, data, "--plot", "--out", tmp_path / "parity.png") == 0
    table = capsys.readouterr().out
    energy_line = next(line for line in table.splitlines() if line.startswith("energy"))
    assert (
        energy_line.split()[2:4]
        == next(line for line in report.splitlines() if line.startswith("energy")).split()[2:4]
    )
    assert (tmp_path / "parity.png").exists()

    more = ("train", config, "--data", data, "--out", tmp_path / "more")
    assert run(*more, "--from", checkpoint) == 0
    assert len(list((tmp_path / "more" / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_resume(config, data, tmp_path, capsys):
    train = ("train", config, "--data", data, "--out", tmp_path)
    assert run(*train) == 0
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    config.write_text(CONFIG.replace("epochs: 2", "epochs: 3"))
    assert run(*train, "--resume", checkpoint) == 0
    assert list((tmp_path / "checkpoints").iterdir()) == [checkpoint]
    assert str(checkpoint) in capsys.readouterr().out
    assert (checkpoint / "epochs" / "3").is_dir()
    assert run(*train, "--resume", checkpoint, "--from", checkpoint) == 1
    assert "not both" in capsys.readouterr().err
    assert run(*train, "--resume", FORCES_CHECKPOINT) == 1
    assert "--from" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_interrupted_goes_on_as_it_was(data, tmp_path, capsys, monkeypatch):
    """By the folder that `--out` named, and with what it was begun with."""

    write_epoch = EpochCheckpoint.on_epoch_end

    def cut(self, net, **kwargs):
        write_epoch(self, net, **kwargs)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EpochCheckpoint, "on_epoch_end", cut)
    out = tmp_path / "out"
    assert run("train", "--data", data, "--out", out, "--size", "small", "--time", "20s") == 130
    (folder,) = (out / "checkpoints").iterdir()
    assert f"--resume {folder}" in capsys.readouterr().err
    assert saved_epochs(folder)[0] == 1
    assert run("train", "--resume", out, "--data", data) == 130
    assert list((out / "checkpoints").iterdir()) == [folder]
    assert saved_epochs(folder)[0] == 2
    small = Potential.load(folder).settings
    assert small.model.hidden_layers == [12, 12]
    # What was left of twenty seconds, not the time of a new training.
    assert small.optim.total_seconds < 20


def test_a_folder_without_a_run_is_not_gone_on_with(config, data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("train", config, "--data", data, "--resume", tmp_path / "empty") == 1
    assert "holds no run" in capsys.readouterr().err
    assert run("train", "--data", data, "--resume", tmp_path / "nowhere") == 1
    assert "there is no folder" in capsys.readouterr().err


def test_a_folder_is_no_file_of_frames(tmp_path, capsys):
    assert run("train", "--data", tmp_path) == 1
    assert "is a folder; give a file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.traj", "out.xyz", "out.json"])
def test_predict_writes_what_v1_predicted(tmp_path, name):
    assert run("predict", FORCES_CHECKPOINT, IMAGES, tmp_path / name) == 0
    expected = np.load(FORCES_CHECKPOINT / "predictions.npz")
    images = read(tmp_path / name, ":")
    energies = [atoms.get_potential_energy() for atoms in images]
    np.testing.assert_allclose(energies, expected["energy"], rtol=1e-7)
    forces = np.concatenate([atoms.get_forces() for atoms in images])
    np.testing.assert_allclose(forces, expected["forces"].reshape(-1, 3), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["out.traj", "out.xyz"])
def test_predict_for_frames_that_call_something_else_energy(tmp_path, name):
    images = read(IMAGES, ":2")
    for atoms in images:
        atoms.info |= {"energy": 1e3, "energy_uncertainty": 0.0}
        atoms.arrays["forces"] = np.ones((len(atoms), 3))
    write(tmp_path / "frames.traj", images)
    assert run("predict", FORCES_CHECKPOINT, tmp_path / "frames.traj", tmp_path / name) == 0
    expected = np.load(FORCES_CHECKPOINT / "predictions.npz")["energy"][:2]
    found = read(tmp_path / name, ":")
    np.testing.assert_allclose([a.get_potential_energy() for a in found], expected, rtol=1e-7)
    assert "energy_uncertainty" not in found[0].info
    # ASE 3.22 leaves what it read there too.
    assert found[0].info.get("energy", expected[0]) == pytest.approx(expected[0])


def test_evaluate_frames_without_forces(tmp_path, capsys):
    images = [labelled(atoms, 1.0, atoms.get_forces()) for atoms in read(IMAGES, ":3")]
    for atoms in images[:2]:
        del atoms.calc.results["forces"]
    write(tmp_path / "frames.traj", images)
    picture = ("--plot", "--out", tmp_path / "parity.png")
    # Some without are a mistake, all without are not.
    assert run("evaluate", FORCES_CHECKPOINT, tmp_path / "frames.traj", *picture) == 1
    assert "frames.traj: frame 0 has no forces" in capsys.readouterr().err
    assert run("evaluate", FORCES_CHECKPOINT, f"{tmp_path}/frames.traj@:2", *picture) == 0
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert table == ["energy", "frames", "parity"]
    assert (tmp_path / "parity.png").exists()


def test_evaluate_refuses_a_picture_of_no_known_format_at_once(tmp_path, capsys):
    picture = tmp_path / "parity.foo"
    assert run("evaluate", tmp_path / "none", IMAGES, "--plot", "--out", picture) == 1
    assert "must end with .png, .pdf or .svg" in capsys.readouterr().err
    assert not picture.exists()


def test_predict_energies_alone(tmp_path):
    assert run("predict", ENERGY_CHECKPOINT, IMAGES, tmp_path / "out.traj") == 0
    assert "forces" not in read(tmp_path / "out.traj", 0).calc.results


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("there.traj", "--overwrite"),
        ("no-folder/out.traj", "no-folder"),
        ("out.unheardof", "out.unheardof"),
        ("POSCAR", "one frame"),
        ("out.cif", "no place for energies"),
        ("folder.traj", "is a folder"),
    ],
)
def test_predict_refuses_an_output_it_cannot_write(tmp_path, capsys, name, message):
    (tmp_path / "there.traj").write_text("precious")
    (tmp_path / "folder.traj").mkdir()
    assert run("predict", FORCES_CHECKPOINT, IMAGES, tmp_path / name) == 1
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.traj").read_text() == "precious"


def test_predict_overwrites_when_told(tmp_path):
    (tmp_path / "out.traj").write_text("old")
    assert run("predict", FORCES_CHECKPOINT, IMAGES, tmp_path / "out.traj", "--overwrite") == 0
    assert len(read(tmp_path / "out.traj", ":")) == len(read(IMAGES, ":"))


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, capsys):
    assert run("evaluate", tmp_path / "none", IMAGES) == 1
    assert "none" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_learns(tmp_path, capsys):
    assert run("demo", "--frames", 10, "--epochs", 2, "--out", tmp_path / "demo") == 0
    report = capsys.readouterr().out
    for text in ("training", "held out", "fingerprints", "total", "parity plot", "checkpoint"):
        assert text in report


def test_training_without_a_configuration(data, tmp_path, capsys):
    out = ("--out", tmp_path / "run", "--time", "2s", "--size", "small")
    assert run("train", "--data", data, "--test", data, *out) == 0
    report = capsys.readouterr().out
    for text in ("frames ", "energies ", "functions ", "networks ", "training ", "meV/atom"):
        assert text in report
    assert "worst frames" in report
    potential = load(tmp_path / "run")
    assert potential.elements == ["Fe", "H", "O"]
    assert potential.settings.optim.energy_per_atom


@pytest.mark.slow
def test_frames_of_the_test_that_are_trained_on_are_told(data, tmp_path, caplog):
    out = ("--out", tmp_path / "run", "--time", "1s", "--size", "small")
    assert run("train", "--data", data, "--test", data, *out) == 0
    assert "test" in caplog.text
    assert "also" in caplog.text or "both" in caplog.text


@pytest.mark.slow
def test_init_writes_a_configuration_that_trains(data, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    assert run("init", data, "--out", path, "--size", "small", "--time", "1s") == 0
    assert run("init", data, "--out", path) == 1
    assert "--overwrite" in capsys.readouterr().err
    text = path.read_text().replace("run_dir: ./", f"run_dir: {tmp_path}")
    path.write_text(text)
    assert len(text.splitlines()) < 50
    assert run("train", path) == 0
    assert load(tmp_path).elements == ["Fe", "H", "O"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch, capsys, number):
    def full(path, *arguments, **options):
        Path(path).write_text("half of it")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("amptorch.files.write", full)
    out = tmp_path / "out.traj"
    out.write_text("before")
    assert run("predict", FORCES_CHECKPOINT, IMAGES, out, "--overwrite") == 1
    error = capsys.readouterr().err
    assert "out.traj" in error
    assert os.strerror(number) in error
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]
