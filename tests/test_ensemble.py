"""Ensembles: mean and spread of the members, the calculator, the folder, the command line."""

import json

import numpy as np
import pytest
import torch
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from amptorch import AmpTorch, AtomsTrainer
from amptorch.cli import app
from amptorch.ensemble import Ensemble
from tests.small_frames import config, mixed_frames
from tests.test_calculator import central_differences

OTHER_FUNCTIONS = {
    "default": {
        "cutoff": 5.5,
        "G2": {"etas": [1.0, 8.0], "rs_s": [0.0, 1.5]},
        "G5": {"etas": [0.05], "zetas": [2.0], "gammas": [1.0, -1.0]},
    }
}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


@pytest.fixture(scope="module")
def trainers(frames, tmp_path_factory):
    """Four members: two that differ in the seed, one with other functions, one of another kind."""
    run_dir = tmp_path_factory.mktemp("run")
    changes = [
        {"cmd__seed": 1},
        {"cmd__seed": 2, "dataset__scaling": {"type": "standardize"}},
        {"cmd__seed": 3, "dataset__fp_params": OTHER_FUNCTIONS},
        {"cmd__seed": 4, "model__name": "singlenn"},
    ]
    trainers = [
        AtomsTrainer(config(frames, run_dir, optim__force_coefficient=0.3, **change))
        for change in changes
    ]
    for trainer in trainers:
        trainer.train()
    return trainers


@pytest.fixture(scope="module")
def ensemble(trainers):
    return Ensemble(trainers)


def of_members(trainers, frames):
    """Energies (k, F) and forces (k, N, 3) of each member by itself."""
    predictions = [trainer.predict(frames) for trainer in trainers]
    energies = np.array([prediction["energy"] for prediction in predictions])
    return energies, np.array([np.concatenate(p["forces"]) for p in predictions])


class TestMeanAndSpread:
    @pytest.mark.slow
    def test_are_those_of_the_members(self, ensemble, trainers, frames):
        energies, forces = of_members(trainers, frames)
        found = ensemble.predict(frames)
        assert_allclose(found["energy"], energies.mean(axis=0), rtol=1e-12)
        assert_allclose(found["energy_uncertainty"], energies.std(axis=0, ddof=1), rtol=1e-9)
        per_atom = np.array(found["energy_uncertainty"]) / [len(atoms) for atoms in frames]
        assert_allclose(found["energy_uncertainty_per_atom"], per_atom)
        scale = np.abs(forces).max()
        assert scale > 0.1
        assert_allclose(np.concatenate(found["forces"]), forces.mean(axis=0), atol=1e-12 * scale)
        spread = np.concatenate(found["forces_uncertainty"])
        assert spread.max() > 1e-3
        assert_allclose(spread, forces.std(axis=0, ddof=1), atol=1e-11 * scale)
        assert [len(rows) for rows in found["forces"]] == [len(atoms) for atoms in frames]

    def test_mean_alone_is_the_same(self, ensemble, frames):
        mean = ensemble.predict(frames, uncertainty=False)
        found = ensemble.predict(frames)
        assert set(mean) == {"energy", "forces"}
        assert_allclose(mean["energy"], found["energy"], rtol=1e-13)
        for one, other in zip(mean["forces"], found["forces"], strict=True):
            assert_allclose(one, other, atol=1e-12)

    def test_weights(self, trainers, frames):
        weights = np.array([3.0, 1.0, 2.0, 2.0])
        found = Ensemble(trainers, weights).predict(frames)
        energies, forces = of_members(trainers, frames)
        assert_allclose(found["energy"], weights @ energies / 8)
        assert_allclose(
            np.concatenate(found["forces"]), np.tensordot(weights / 8, forces, 1), atol=1e-12
        )
        # A member of weight two stands for two in the mean.
        doubled = Ensemble([*trainers[:2], trainers[1]])
        heavier = Ensemble(trainers[:2], [1, 2])
        assert_allclose(doubled.predict(frames)["energy"], heavier.predict(frames)["energy"])

    def test_equal_members_have_no_spread(self, trainers, frames):
        found = Ensemble([trainers[0]] * 3).predict(frames)
        assert_allclose(found["energy_uncertainty"], 0, atol=1e-9)
        assert_allclose(np.concatenate(found["forces_uncertainty"]), 0, atol=1e-12)

    def test_energies_alone(self, trainers, frames, tmp_path):
        silent = AtomsTrainer(config(frames, tmp_path, model__get_forces=False, optim__epochs=1))
        silent.train()
        ensemble = Ensemble([trainers[0], silent])
        found = ensemble.predict(frames)
        assert [rows.shape for rows in found["forces"]] == [(0, 3)] * len(frames)
        energies = [trainer.predict(frames)["energy"] for trainer in (trainers[0], silent)]
        assert_allclose(found["energy"], np.mean(energies, axis=0))
        atoms = frames[0].copy()
        atoms.calc = ensemble.get_calc()
        assert atoms.get_potential_energy() == pytest.approx(found["energy"][0])
        assert "forces" not in atoms.calc.results

    def test_without_forces(self, ensemble, trainers, frames):
        found = Ensemble(trainers, forces=False).predict(frames)
        expected = ensemble.predict(frames)
        for name in ("energy", "energy_uncertainty"):
            assert_allclose(found[name], expected[name], rtol=1e-9)
        assert [rows.shape for rows in found["forces"]] == [(0, 3)] * len(frames)

    def test_model_is_left_as_it_was(self, trainers, frames):
        before = trainers[0].net.module.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        Ensemble(trainers).predict(frames)
        for name, value in trainers[0].net.module.state_dict().items():
            assert torch.equal(value, before[name])
        assert all(
            parameter.grad is None or not parameter.grad.isnan().any()
            for parameter in trainers[0].net.module.parameters()
        )


class TestSharing:
    def test_one_list_and_one_evaluation_of_equal_functions(self, trainers, frames, monkeypatch):
        ensemble = Ensemble(trainers)
        calls = {"values": 0, "vjp_and_virials": 0}
        for descriptor in {id(t.descriptor): t.descriptor for t in trainers}.values():
            for name in calls:
                original = getattr(descriptor, name)

                def counted(*args, _original=original, _name=name, **kwargs):
                    calls[_name] += 1
                    return _original(*args, **kwargs)

                monkeypatch.setattr(descriptor, name, counted)
        ensemble.predict(frames[:2], uncertainty=False)
        assert calls == {"values": 2, "vjp_and_virials": 2}
        ensemble.predict(frames[:2])
        assert calls == {"values": 4, "vjp_and_virials": 6}


class TestCalculator:
    @pytest.mark.slow
    @pytest.mark.parametrize("which", [1, 2])
    def test_forces_are_the_slope_of_the_mean_energy(self, ensemble, frames, which):
        atoms = frames[which].copy()
        atoms.calc = ensemble.get_calc()
        forces = atoms.get_forces()
        scale = np.abs(forces).max()
        assert scale > 1e-2
        assert_allclose(forces, central_differences(atoms), rtol=1e-7, atol=1e-7 * scale)

    def test_same_as_predict(self, ensemble, frames):
        found = ensemble.predict(frames)
        for k in (0, 3):
            atoms = frames[k].copy()
            atoms.calc = ensemble.get_calc()
            assert atoms.get_potential_energy() == pytest.approx(found["energy"][k], rel=1e-12)
            results = atoms.calc.results
            assert results["energy_uncertainty"] == pytest.approx(found["energy_uncertainty"][k])
            assert_allclose(results["forces_uncertainty"], found["forces_uncertainty"][k])
            spread = atoms.calc.get_property("forces_uncertainty", atoms)
            assert_allclose(spread, results["forces_uncertainty"])

    def test_properties_that_ase_has_names_for(self, ensemble, frames):
        atoms = frames[1].copy()
        atoms.calc = ensemble.get_calc()
        found = atoms.get_properties(["energy", "forces"])
        assert found["energy"] == atoms.get_potential_energy()
        assert_allclose(found["forces"], atoms.get_forces())

    def test_without_uncertainty(self, ensemble, frames):
        atoms = frames[0].copy()
        atoms.calc = AmpTorch(ensemble)
        assert_allclose(atoms.get_forces(), ensemble.predict(frames[:1])["forces"][0], atol=1e-12)
        assert "energy_uncertainty" not in atoms.calc.results
        assert type(ensemble.get_calc(uncertainty=False)) is AmpTorch

    def test_dynamics_written_to_a_file(self, ensemble, frames, tmp_path):
        atoms = frames[1].copy()
        atoms.calc = ensemble.get_calc(skin=0.5)
        VelocityVerlet(atoms, timestep=0.5 * fs, trajectory=str(tmp_path / "md.traj")).run(3)
        assert len(read(tmp_path / "md.traj", ":")) == 4
        write(tmp_path / "last.xyz", atoms)
        assert read(tmp_path / "last.xyz").get_potential_energy() == pytest.approx(
            atoms.get_potential_energy()
        )


class TestFolder:
    def test_saved_and_loaded(self, trainers, frames, tmp_path):
        ensemble = Ensemble(trainers, [1, 2, 3, 4])
        ensemble.save(tmp_path / "ensemble")
        again = Ensemble.load(tmp_path / "ensemble")
        assert_allclose(again.weights, [0.1, 0.2, 0.3, 0.4])
        expected, found = ensemble.predict(frames), again.predict(frames)
        assert_allclose(found["energy"], expected["energy"], rtol=1e-12)
        for one, other in zip(found["forces"], expected["forces"], strict=True):
            assert_allclose(one, other, atol=1e-12)
        with pytest.raises(FileExistsError, match="already"):
            ensemble.save(tmp_path / "ensemble")

    def test_of_checkpoint_folders(self, trainers, frames):
        ensemble = Ensemble([trainers[0].cp_dir, trainers[1].cp_dir])
        energies, _ = of_members(trainers[:2], frames)
        assert_allclose(ensemble.predict(frames)["energy"], energies.mean(axis=0), rtol=1e-12)

    def test_folders_elsewhere(self, trainers, frames, tmp_path):
        members = [trainer.cp_dir for trainer in trainers[:2]]
        content = {"format": "amptorch ensemble", "version": 1, "members": members}
        (tmp_path / "ensemble.json").write_text(json.dumps(content))
        energies, _ = of_members(trainers[:2], frames)
        found = Ensemble.load(tmp_path).predict(frames)
        assert_allclose(found["energy"], energies.mean(axis=0), rtol=1e-12)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": "else"}, "not the file of an ensemble"),
            ({"version": 2}, "version 2"),
            ({"members": "a"}, "list of folders"),
            ({"members": []}, "0 members"),
            ({"weights": [1.0, -1.0]}, "2 positive numbers"),
        ],
    )
    def test_damaged(self, trainers, tmp_path, changes, message):
        members = [trainer.cp_dir for trainer in trainers[:2]]
        content = {"format": "amptorch ensemble", "version": 1, "members": members, **changes}
        (tmp_path / "ensemble.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message) as error:
            Ensemble.load(tmp_path)
        assert "ensemble.json" in str(error.value)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"ensemble\.json"):
            Ensemble.load(tmp_path)


class TestCommandLine:
    def test_predict_and_evaluate(self, trainers, frames, tmp_path):
        ensemble = Ensemble(trainers[:2])
        ensemble.save(tmp_path / "ensemble")
        write(tmp_path / "frames.traj", frames)
        out = tmp_path / "predicted.xyz"
        arguments = [str(tmp_path / name) for name in ("ensemble", "frames.traj")]
        result = CliRunner().invoke(app, ["evaluate", *arguments])
        assert result.exit_code == 0, result.output
        assert "meV/atom" in result.output
        result = CliRunner().invoke(app, ["predict", *arguments, str(out)])
        assert result.exit_code == 0, result.output
        expected = ensemble.predict(frames)
        for k, atoms in enumerate(read(out, ":")):
            assert atoms.get_potential_energy() == pytest.approx(expected["energy"][k], abs=1e-6)
            spread = expected["energy_uncertainty"][k]
            assert atoms.info["energy_uncertainty"] == pytest.approx(spread, abs=1e-6)
            assert_allclose(
                atoms.arrays["forces_uncertainty"], expected["forces_uncertainty"][k], atol=1e-6
            )


class TestBadInput:
    def test_too_few(self, trainers):
        with pytest.raises(ValueError, match="1 members have no spread"):
            Ensemble(trainers[:1])

    @pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, np.nan]])
    def test_weights(self, trainers, weights):
        with pytest.raises(ValueError, match="2 positive numbers"):
            Ensemble(trainers[:2], weights)

    def test_no_common_element(self, trainers, frames, tmp_path):
        oxygen = [atoms for atoms in frames if set(atoms.symbols) == {"O"}]
        copper = [atoms for atoms in frames if set(atoms.symbols) == {"Cu"}]
        pair = []
        for images in (oxygen, copper):
            pair.append(AtomsTrainer(config(images, tmp_path, optim__epochs=1)))
            pair[-1].train()
        with pytest.raises(ValueError, match="no element is known to all"):
            Ensemble(pair)
        # An element that only some know is refused where it occurs.
        some = Ensemble([trainers[0], pair[1]])
        assert some.elements == ["Cu"]
        with pytest.raises(ValueError, match="frame 0"):
            some.predict(oxygen)

    def test_untrained(self):
        with pytest.raises(ValueError, match="no model yet"):
            Ensemble([AtomsTrainer(), AtomsTrainer()])
