"""Training from a packed store by the command line."""

import numpy as np
import pytest
import torch
import yaml
from ase.io import read, write

from amptorch import AtomsTrainer
from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.files import images_of
from amptorch.frames import Frames
from amptorch.store import FrameStore
from amptorch.training.prepare import prepare
from tests.small_frames import labelled

CONFIG = """
model: {{get_forces: true, hidden_layers: [4]}}
optim: {{force_coefficient: 1e-1, lr: 1e-2, batch_size: 2, epochs: 2, force_fraction: 0.3}}
dataset:
  store: {store}
  memory_budget: 1e-9
  fp_scheme: gaussian
  fp_params:
    default: {{cutoff: 4.0, G2: {{etas: [1.0, 20.0], rs_s: [0.0]}}}}
cmd: {{verbose: false}}
"""


@pytest.mark.slow
def test_a_store_is_made_and_trained_from_without_reading_the_data_again(
    tmp_path, capsys, caplog, monkeypatch
):
    images = iron_water(7, max_water=2)
    write(tmp_path / "train.traj", images[:5])
    write(tmp_path / "test.traj", images[5:])
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(store=tmp_path / "store"))
    monkeypatch.setattr("amptorch.train_run.REPORTED_FRAMES", 3)
    out = tmp_path / "runs"
    assert train(config, "--data", tmp_path / "train.traj", "--out", out) == 0
    assert "3 of 5 frames" in capsys.readouterr().out
    (tmp_path / "train.traj").unlink()
    assert train(config, "--test", tmp_path / "test.traj", "--out", out) == 0
    assert "test" in capsys.readouterr().out
    assert "recompute (more than dataset.memory_budget" in caplog.text
    assert "recompute (the store holds none)" in caplog.text
    runs = sorted(path.parent for path in out.rglob("parity.png"))
    assert len(runs) == 2
    # The same training both times: on the same frames, in the same order.
    energies = []
    for run in runs:
        trainer = AtomsTrainer()
        trainer.load_pretrained(run)
        energies.append(trainer.predict(read(tmp_path / "test.traj", ":"))["energy"])
    np.testing.assert_array_equal(*energies)


def train(*arguments):
    """Exit code of `amptorch train`."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, arguments)])
    return ended.value.code or 0


@pytest.mark.slow
def test_preprocess_takes_what_init_wrote(tmp_path):
    write(tmp_path / "frames.traj", iron_water(4, max_water=1))
    config, store = tmp_path / "config.yaml", tmp_path / "store"
    for command in (
        ["init", tmp_path / "frames.traj", "--out", config, "--size", "small"],
        ["preprocess", tmp_path / "frames.traj", "--config", config, "--out", store],
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, command)))
        assert not ended.value.code
    settings = yaml.safe_load(config.read_text())
    del settings["dataset"]["raw_data"]
    settings["dataset"]["store"] = str(store)
    settings["optim"]["total_seconds"] = None
    data = prepare(settings)
    assert FrameStore(store).has_fingerprints(data.descriptor.descriptor_setup_hash)


def test_frames_there_and_back():
    frames = Frames.from_atoms(iron_water(3))
    again = Frames.from_atoms(images_of(frames))
    for name in ("numbers", "positions", "cells", "pbc", "offsets"):
        np.testing.assert_array_equal(getattr(frames, name), getattr(again, name))


@pytest.mark.parametrize(
    ("variables", "gpus", "threads"),
    [({}, 0, 1), ({"OMP_NUM_THREADS": "3"}, 0, 3), ({}, 1, 3)],
)
def test_the_network_runs_on_one_thread_unless_told_otherwise(
    variables, gpus, threads, tmp_path, monkeypatch
):
    config = tmp_path / "config.yaml"
    config.write_text(f"optim: {{gpus: {gpus}}}\ndataset: {{store: here}}\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = []
    monkeypatch.setattr(
        "amptorch.train_command.train_and_report", lambda *_: found.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert train(config) == 0
        assert (found, torch.get_num_threads()) == ([threads], 3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "store"])
def test_unusable_frames_are_left_out_where_the_configuration_says_so(tmp_path, caplog, kind):
    images = iron_water(6, max_water=2)
    energy, forces = images[3].get_potential_energy(), images[3].get_forces()
    images[3].positions[1] = np.nan
    images[3] = labelled(images[3], energy, forces)
    write(tmp_path / "frames.traj", images)
    config = yaml.safe_load(CONFIG.format(store=tmp_path / "store"))
    config["dataset"] |= {"raw_data": str(tmp_path / "frames.traj")}
    config["cmd"] |= {"debug": True}
    if kind == "memory":
        del config["dataset"]["store"]
    with pytest.raises(ValueError, match="frame 3, atom 1"):
        AtomsTrainer(config).load()
    config["dataset"]["skip_bad"] = True
    trainer = AtomsTrainer(config)
    trainer.train()
    assert len(trainer.train_dataset) == 5
    assert "left out 1 of the frames" in caplog.text
    assert "frame 3, atom 1" in caplog.text
