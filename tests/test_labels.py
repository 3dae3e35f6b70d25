"""Energies and forces under other names, frames that lack forces, and what errors call a frame."""

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write

from amptorch.cli import main
from amptorch.config import Config
from amptorch.data.from_store import StoreDataset
from amptorch.data.loader import BatchLoader
from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.frames import Frames, read_images
from amptorch.image_files import FileImages
from amptorch.labels import Labels
from amptorch.model import BPNN, CustomLoss
from amptorch.store import preprocess
from amptorch.store.sources import open_sources, usable
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
IGNORE = Labels(missing_forces="ignore")


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


def renamed(frames, energy="REF_energy", forces="REF_forces"):
    """Frames without calculators, and their labels under other names."""
    result = []
    for atoms in frames:
        copy = atoms.copy()
        copy.info[energy] = atoms.get_potential_energy()
        copy.arrays[forces] = atoms.get_forces()
        result.append(copy)
    return result


def without_forces(frames, places):
    result = [atoms.copy() for atoms in frames]
    for place, (copy, atoms) in enumerate(zip(result, frames, strict=True)):
        results = {"energy": atoms.get_potential_energy()}
        results |= {} if place in places else {"forces": atoms.get_forces()}
        copy.calc = SinglePointCalculator(copy, **results)
    return result


def labels_of(images, **options):
    found = Frames.from_atoms(images, energies=True, forces=True, **options)
    return found.energies, found.forces


# --- names ---


@pytest.mark.parametrize(
    ("energy", "forces"),
    [("REF_energy", "REF_forces"), ("dft_energy", "force"), ("TotEnergy", "dft_force")],
)
def test_other_names(frames, tmp_path, energy, forces):
    write(tmp_path / "a.xyz", renamed(frames, energy, forces), format="extxyz")
    images = read_images(tmp_path / "a.xyz", Labels(energy, forces))
    for found, expected in zip(labels_of(images), labels_of(frames), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_name_wins_over_the_calculator(frames):
    images = [atoms.copy() for atoms in frames]
    for copy, atoms in zip(images, frames, strict=True):
        copy.calc = SinglePointCalculator(copy, energy=1.0, forces=atoms.get_forces())
        copy.info["mine"] = -2.0
    energies, forces = labels_of(read_images(images, Labels(energy="mine")))
    assert set(energies) == {-2.0}
    np.testing.assert_array_equal(forces, labels_of(frames)[1])
    assert images[0].calc.results["energy"] == 1.0


@pytest.mark.parametrize("below", ["data", "key_value_pairs"])
def test_a_database(frames, tmp_path, below):
    database = connect(tmp_path / "frames.db")
    for atoms in frames:
        data = {"dft_forces": atoms.get_forces()}
        energy = {"dft_energy": atoms.get_potential_energy()}
        pairs = {} if below == "data" else energy
        database.write(atoms.copy(), data=data | ({} if pairs else energy), **pairs)
    labels = Labels("dft_energy", "dft_forces")
    for source in (database, tmp_path / "frames.db"):
        for found, expected in zip(
            labels_of(read_images(source, labels)), labels_of(frames), strict=True
        ):
            np.testing.assert_allclose(found, expected)


def test_stress(frames):
    full = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    for given in (full, full.ravel(), [1.0, 2, 3, 4, 5, 6]):
        atoms = frames[0].copy()
        atoms.info["S"] = given
        (found,) = read_images([atoms], Labels(stress="S"))
        np.testing.assert_array_equal(found.get_stress(), [1, 2, 3, 4, 5, 6])


def test_the_message_names_what_there_is(frames):
    with pytest.raises(ValueError, match=r"frame 0 has no energy.*'REF_energy'.*--energy-key"):
        Frames.from_atoms(renamed(frames), energies=True)
    with pytest.raises(ValueError, match=r"frame 0 has no forces.*'REF_forces'.*forces_key"):
        Frames.from_atoms(renamed(frames), forces=True)
    images = renamed(frames)
    del images[3].info["REF_energy"]
    with pytest.raises(ValueError, match=r"frame 3 has nothing under 'REF_energy'.*energy_key"):
        read_images(images, Labels("REF_energy"))
    images[2].info["REF_energy"] = "-1.0D+00"
    with pytest.raises(ValueError, match=r"frame 2.*'REF_energy'.*'-1.0D\+00'"):
        read_images(images, Labels("REF_energy"))
    with pytest.raises(ValueError, match=r"frame 0.*'REF_forces'.*no energy"):
        read_images(images, Labels("REF_forces"))
    bare = frames[0].copy()
    with pytest.raises(ValueError, match="it has no other numbers"):
        Frames.from_atoms([bare], energies=True)


def test_the_message_speaks_of_what_is_missing_alone(frames):
    bare = frames[0].copy()
    bare.calc = SinglePointCalculator(bare, forces=frames[0].get_forces())
    with pytest.raises(ValueError, match=r"it has no other numbers.*--skip-bad") as info:
        Frames.from_atoms([bare], energies=True)
    assert "forces_key" not in str(info.value)


def test_an_energy_that_is_text(frames):
    images = mixed_frames(3)
    images[1].calc.results["energy"] = "-1.0D+00"
    with pytest.raises(ValueError, match=r"frame 1: energy '-1.0D\+00' is not made of numbers"):
        Frames.from_atoms(images, energies=True)


@pytest.mark.slow
def test_training_and_commands(frames, tmp_path, capsys):
    write(tmp_path / "a.xyz", renamed(frames), format="extxyz")
    keys = {"dataset__energy_key": "REF_energy", "dataset__forces_key": "REF_forces"}
    trainer = AtomsTrainer(config(str(tmp_path / "a.xyz"), tmp_path, optim__epochs=1, **keys))
    trainer.train()
    plain = AtomsTrainer(config(frames, tmp_path, optim__epochs=1))
    plain.train()
    np.testing.assert_allclose(
        trainer.net.history[:, "train_loss"], plain.net.history[:, "train_loss"], rtol=1e-6
    )
    (tmp_path / "c.yaml").write_text(
        "optim: {epochs: 1, force_coefficient: 0.1}\n"
        "dataset:\n"
        "  fp_scheme: gaussian\n"
        "  fp_params: {default: {cutoff: 4.5, G2: {etas: [1, 4], rs_s: [0]}}}\n"
        f"cmd: {{run_dir: {tmp_path / 'runs'}, verbose: false}}\n"
    )
    options = ["--energy-key", "REF_energy", "--forces-key", "REF_forces"]
    data = str(tmp_path / "a.xyz")
    command = ["train", str(tmp_path / "c.yaml"), "--data", data]
    with pytest.raises(SystemExit):
        main(command)
    assert "--energy-key" in capsys.readouterr().err
    _run([*command, *options])
    (run,) = (tmp_path / "runs" / "checkpoints").iterdir()
    # A checkpoint knows the names.
    _run(["evaluate", str(run), data])
    _run(["evaluate", trainer.cp_dir, data, *options])
    store = ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "store")]
    _run(["preprocess", data, *store, *options])
    with pytest.raises(SystemExit):
        main(["preprocess", data, *store, "--energy-key", "other"])


def _run(arguments):
    """A command that ends well."""
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 0, arguments


# --- frames of several files ---


def test_the_file_is_named(frames, tmp_path):
    write(tmp_path / "good.xyz", frames[:5])
    write(tmp_path / "bare.xyz", [atoms.copy() for atoms in frames[:3]])
    paths = [tmp_path / "good.xyz", tmp_path / "bare.xyz"]
    images = read_images(paths)
    with pytest.raises(ValueError, match=r"frame 5 \(frame 0 of .*bare\.xyz\) has no energy"):
        Frames.from_atoms(images, energies=True)
    images[6].positions[1] = np.nan
    with pytest.raises(ValueError, match=r"frame 6 \(frame 1 of .*bare\.xyz\), atom 1 \(O\)"):
        Frames.from_atoms(images)
    trainer = AtomsTrainer(config([str(path) for path in paths], tmp_path))
    with pytest.raises(ValueError, match=r"frame 5 \(frame 0 of .*bare\.xyz\)"):
        trainer.train()


def test_a_pattern_means_files(frames, tmp_path):
    for name, part in [("b", frames[:3]), ("a", frames[3:5])]:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "some.xyz", part)
    images = read_images(str(tmp_path / "*" / "some.xyz"))
    assert [len(atoms) for atoms in images] == [len(frames[k]) for k in (3, 4, 0, 1, 2)]
    assert images.origin(2) == f"frame 0 of {tmp_path / 'b' / 'some.xyz'}"
    assert len(read_images(str(tmp_path / "*" / "some.xyz@:1"))) == 2
    assert [len(source) for source in open_sources(str(tmp_path / "*" / "some.xyz"))] == [2, 3]
    with pytest.raises(FileNotFoundError, match=r"no file that matches .*\*\.traj"):
        read_images(str(tmp_path / "*.traj"))


def test_some_of_the_frames_keep_their_names(frames):
    images = FileImages(frames, [("one.xyz", 5), ("two.xyz", 3)])
    images[1] = images[1].copy()
    some = FileImages.some_of(usable(images)[0], range(0, 7, 2))
    found = Frames.from_atoms(some)
    assert [found.name(k) for k in range(4)] == [
        "0 (frame 0 of one.xyz)",
        "3 (frame 3 of one.xyz)",
        "5 (frame 0 of two.xyz)",
        "7 (frame 2 of two.xyz)",
    ]


# --- frames without forces ---


def test_the_error_names_the_key(frames):
    with pytest.raises(ValueError, match=r"frame 2 has no forces.*missing_forces to 'ignore'"):
        labels_of(without_forces(frames, [2]))


@pytest.fixture(params=["memory", "store"])
def dataset(request, frames, tmp_path):
    """Of eight frames, of which the second and the last have no forces."""
    images = without_forces(frames, [1, 7])
    if request.param == "memory":
        return AtomsDataset(images, SETUP, verbose=False, missing_forces="ignore")
    trainer = AtomsTrainer(config(images, tmp_path))
    trainer.elements = SETUP[-1]
    descriptor = AtomsDataset(frames, SETUP, process=False).descriptor
    preprocess(images, descriptor, tmp_path / "s", frames_per_shard=3, verbose=False, labels=IGNORE)
    return StoreDataset(tmp_path / "s", SETUP, missing_forces="ignore")


def loss_and_gradient(model, batch):
    model.zero_grad()
    loss = CustomLoss(0.7, "mse")(model(batch), batch.targets)
    loss.backward()
    return loss.item(), torch.cat([p.grad.ravel() for p in model.parameters() if p.requires_grad])


def test_forces_that_are_missing_do_not_count(frames, dataset):
    """The loss is that of all energies and of the forces that are there."""
    model = BPNN(["Cu", "O"], 18, num_nodes=5, num_layers=2)
    batch = dataset.batch(range(8))
    counts = dataset.counts
    known = np.repeat(~np.isin(np.arange(8), [1, 7]), counts)
    np.testing.assert_array_equal(batch.force_rows, np.flatnonzero(known))
    loss, gradient = loss_and_gradient(model, batch)
    assert np.isfinite(loss)
    assert torch.isfinite(gradient).all()
    energy, forces = model(AtomsDataset(frames, SETUP, verbose=False).batch(range(8)))
    full = AtomsDataset(frames, SETUP, verbose=False)
    errors = (forces - full.forces)[torch.from_numpy(known)].square().mean()
    expected = 0.5 * ((energy - full.energy).square().mean() + 0.7 * errors)
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    # A batch in which no frame has forces is one of energies.
    loss, gradient = loss_and_gradient(model, dataset.batch([1, 7]))
    expected = 0.5 * (energy - full.energy)[[1, 7]].square().mean()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    assert torch.isfinite(gradient).all()


def test_a_share_of_the_forces_is_one_of_those_that_are_there(dataset):
    known = set(dataset.batch(range(8)).force_rows.tolist())
    loader = BatchLoader(dataset, 8, DataCollater(), force_fraction=0.5)
    ((batch, targets),) = list(loader)
    assert len(targets[1]) == len(batch.force_rows) == round(0.5 * len(known))
    assert set(batch.force_rows.tolist()) <= known
    assert torch.isfinite(targets[1]).all()
    if dataset.shards is not None:
        loader = BatchLoader(dataset, 8, DataCollater(), processes=2, process=1)
        ((share, targets),) = list(loader)
        assert len(targets[1]) == len(known)
        assert torch.isfinite(targets[1]).all()
        assert share.part.force_rows.max() < len(share.part.fingerprint)


def test_data_objects(frames):
    images = without_forces(frames, [1])
    dataset = AtomsDataset(images, SETUP, verbose=False, missing_forces="ignore")
    batch, targets = DataCollater()([dataset[0], dataset[1], dataset[2]])
    assert len(targets[1]) == len(batch.force_rows) == len(frames[0]) + len(frames[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__val_split": 0.25},
        {"dataset__store": "store", "optim__force_fraction": 0.5},
        {"optim__optimizer": "ekf", "model__initialization": "small"},
        {"dataset__skip_bad": True},
    ],
)
def test_training(frames, tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    images = without_forces(frames, [1, 4, 7])
    settings = config(images, tmp_path, dataset__missing_forces="ignore", **changes)
    trainer = AtomsTrainer(settings)
    trainer.train()
    assert np.isfinite(trainer.net.history[:, "train_loss"]).all()
    assert np.isfinite(trainer.net.history[:, "train_forces_mae"]).all()
    assert len(trainer.train_dataset) == 8
    assert len(trainer.predict(images)["energy"]) == 8


def test_the_default_is_the_error(frames, tmp_path):
    assert Config.from_dict({}).dataset.missing_forces == "error"
    images = without_forces(frames, [1])
    with pytest.raises(ValueError, match="frame 1 has no forces"):
        AtomsTrainer(config(images, tmp_path)).train()
    # Nor does a store that may hold such frames pass unseen.
    settings = config(images, tmp_path, dataset__store=str(tmp_path / "s"), optim__epochs=1)
    settings["dataset"]["missing_forces"] = "ignore"
    AtomsTrainer(settings).train()
    settings["dataset"]["missing_forces"] = "error"
    settings["dataset"]["raw_data"] = None
    with pytest.raises(ValueError, match="missing_forces"):
        AtomsTrainer(settings).train()


@pytest.mark.slow
def test_the_command_line(frames, tmp_path, capsys):
    write(tmp_path / "a.traj", without_forces(frames, [1]))
    assert "forces" not in read(tmp_path / "a.traj@1").calc.results
    (tmp_path / "c.yaml").write_text(
        "optim: {epochs: 1, force_coefficient: 0.1}\n"
        "dataset:\n"
        "  fp_scheme: gaussian\n"
        "  fp_params: {default: {cutoff: 4.5, G2: {etas: [1, 4], rs_s: [0]}}}\n"
        "  missing_forces: ignore\n"
        f"cmd: {{run_dir: {tmp_path / 'runs'}, verbose: false}}\n"
    )
    _run(["train", str(tmp_path / "c.yaml"), "--data", str(tmp_path / "a.traj")])
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "forces on Cu" in printed
