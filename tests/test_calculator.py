"""The ASE calculator: forces are derivatives, neighbour lists are reused, dynamics works."""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs, kB

from amptorch import AmpTorch, AtomsTrainer
from amptorch.ase_utils import AmpTorch as FromV1Path
from tests.small_frames import config, mixed_frames


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(12)


@pytest.fixture(scope="module")
def trainers(frames, tmp_path_factory):
    """One trained model of each kind, with smooth activation functions."""
    run_dir = tmp_path_factory.mktemp("run")
    trainers = {}
    for name in ("BPNN", "SingleNN"):
        settings = config(
            frames, run_dir, model__name=name, optim__epochs=15, optim__force_coefficient=0.3
        )
        trainers[name] = AtomsTrainer(settings)
        trainers[name].train()
    return trainers


def central_differences(atoms, step=1e-4):
    """Minus the slope of the calculator's energy, with the error of order step² taken out."""
    forces = np.empty((len(atoms), 3))
    for index in np.ndindex(forces.shape):
        slopes = []
        for h in (step, 2 * step):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[index] += sign * h
                moved.calc = atoms.calc
                energies.append(moved.get_potential_energy())
            slopes.append((energies[0] - energies[1]) / (2 * h))
        forces[index] = -(4 * slopes[0] - slopes[1]) / 3
    return forces


@pytest.mark.parametrize("name", ["BPNN", "SingleNN"])
@pytest.mark.parametrize(
    "which", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))]
)
def test_forces_are_the_slope_of_the_energy(trainers, frames, name, which):
    atoms = frames[which].copy()
    atoms.calc = trainers[name].get_calc()
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 1e-2
    numeric = central_differences(atoms)
    np.testing.assert_allclose(forces, numeric, rtol=1e-7, atol=1e-7 * np.abs(forces).max())


def test_steps_are_as_if_each_were_the_first(trainers, frames):
    trainer = trainers["BPNN"]
    atoms, other = frames[0].copy(), frames[1].copy()
    other.symbols[1] = "Au"
    atoms.calc = other.calc = calc = trainer.get_calc()
    rng = np.random.default_rng(0)

    def agrees():
        fresh = atoms.copy()
        fresh.calc = trainer.get_calc()
        assert atoms.get_potential_energy() == pytest.approx(
            fresh.get_potential_energy(), rel=1e-13
        )
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-12)

    agrees()
    atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
    agrees()
    # Atoms that are refused leave nothing behind, however little they move then.
    with pytest.raises(ValueError, match="Au"):
        other.get_forces()
    other.positions[0] += 0.01
    with pytest.raises(ValueError, match="Au"):
        other.get_forces()
    atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
    agrees()
    atoms.positions[0, 0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        atoms.get_forces()
    atoms.positions[0, 0] = 0.0
    agrees()
    atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
    agrees()
    assert calc.results["energy"] == atoms.get_potential_energy()


class Around(Calculator):
    """Give what another calculator does, which it tells the changes that it has seen itself."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE has it)

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(atoms, properties, system_changes)
        self.results = {name: self.inner.results[name] for name in self.implemented_properties}


def test_changes_that_an_outer_calculator_did_not_see(trainers, frames):
    inner, alone = trainers["BPNN"].get_calc(), trainers["BPNN"].get_calc()
    atoms = frames[0].copy()
    atoms.calc = Around(inner)
    atoms.get_forces()
    fewer, strained, other = atoms.copy(), atoms.copy(), atoms.copy()
    del fewer[-1]
    strained.set_cell(1.05 * atoms.cell.array)
    strained.set_pbc(True)
    other.numbers = atoms.numbers[::-1]
    for between in (fewer, strained, other):
        between.calc = inner
        between.get_forces()
        atoms.positions += 0.001
        expected = atoms.copy()
        expected.calc = alone
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)


def test_a_calculation_that_fails_leaves_no_results_of_other_atoms(trainers, frames):
    calc = trainers["BPNN"].get_calc()
    atoms = frames[0].copy()
    calc.calculate(atoms)
    atoms.symbols[1] = "Au"
    with pytest.raises(ValueError, match="Au"):
        calc.calculate(atoms)
    atoms.calc = calc
    with pytest.raises(ValueError, match="Au"):
        atoms.get_potential_energy()


def test_after_a_reset_atoms_are_looked_at_anew(trainers, frames):
    calc = trainers["BPNN"].get_calc()
    potential = copy.copy(calc.potential)
    calc.trainer = potential
    atoms = frames[1].copy()
    atoms.calc = calc
    atoms.get_potential_energy()
    potential.elements = ["Cu"]
    calc.reset()
    with pytest.raises(ValueError, match="not in elements"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("name", ["BPNN", "SingleNN"])
def test_same_as_predict_and_as_the_training_set(trainers, frames, name):
    trainer = trainers[name]
    prediction = trainer.predict(frames)
    dataset = trainer.train_dataset
    with torch.no_grad():
        energy, forces = trainer.net.module(dataset.batch(range(len(frames))))
    scaler = trainer.target_scaler
    np.testing.assert_allclose(prediction["energy"], scaler.denorm(energy), rtol=1e-10, atol=1e-10)
    stored = scaler.denorm(forces, pred="forces")
    np.testing.assert_allclose(np.concatenate(prediction["forces"]), stored, rtol=1e-8, atol=1e-10)
    for k in (0, 3):
        atoms = frames[k].copy()
        atoms.calc = AmpTorch(trainer)
        assert atoms.get_potential_energy() == pytest.approx(prediction["energy"][k], rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), prediction["forces"][k], atol=1e-12)


def test_neighbour_list_is_reused_and_right(trainers, frames):
    calc = AmpTorch(trainers["BPNN"], skin=0.4)
    atoms = frames[1].copy()
    rng = np.random.default_rng(0)
    for _ in range(12):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        atoms.calc = calc
        fresh = atoms.copy()
        fresh.calc = AmpTorch(trainers["BPNN"], skin=0)
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), rtol=0, atol=1e-12)
    assert 1 <= calc.neighbors.builds < 12


def test_an_option_that_does_not_exist(trainers):
    with pytest.raises(TypeError, match="'extrapolaton' is no option of AmpTorch"):
        AmpTorch(trainers["BPNN"], extrapolaton="raise")


def test_an_option_of_a_calculator_that_is_made(trainers):
    with pytest.raises(TypeError, match="'skin' of a calculator cannot be changed"):
        trainers["BPNN"].get_calc().set(skin=1.0)


@pytest.mark.parametrize("skin", [float("nan"), float("inf"), -0.1])
def test_a_skin_of_no_meaning(trainers, skin):
    with pytest.raises(ValueError, match="skin must be"):
        AmpTorch(trainers["BPNN"], skin=skin)


def test_only_what_energies_depend_on_asks_for_a_calculation(trainers, frames):
    atoms = frames[0].copy()
    atoms.calc = trainers["BPNN"].get_calc()
    first = atoms.get_potential_energy()
    same = atoms.calc.results
    atoms.set_initial_charges(np.ones(len(atoms)))
    assert atoms.get_potential_energy() == first
    assert atoms.calc.results is same
    for change in (
        lambda: atoms.positions.__iadd__(0.01 * np.arange(len(atoms))[:, None]),
        lambda: atoms.set_cell(atoms.cell * 1.01),
        lambda: atoms.set_pbc(~atoms.pbc),
        lambda: atoms.pop(),
    ):
        change()
        before = atoms.calc.results
        atoms.get_forces()
        assert atoms.calc.results is not before
        np.testing.assert_array_equal(atoms.calc.atoms.positions, atoms.positions)


def test_one_calculator_for_frames_of_any_size(trainers, frames):
    calc = trainers["BPNN"].get_calc()
    expected = trainers["BPNN"].predict(frames)["energy"]
    found = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = calc
        found.append(atoms.get_potential_energy())
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_free_energy_is_the_energy(trainers, frames):
    atoms = frames[0].copy()
    atoms.calc = trainers["BPNN"].get_calc()
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def test_optimiser_lowers_the_energy(trainers, frames):
    atoms = frames[0].copy()
    atoms.calc = trainers["BPNN"].get_calc()
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=10)
    assert atoms.get_potential_energy() < before


def test_dynamics_conserves_energy(trainers, frames):
    atoms = frames[0].copy()
    atoms.calc = trainers["BPNN"].get_calc()
    thermal = np.sqrt(300 * kB * atoms.get_masses())[:, None]
    atoms.set_momenta(thermal * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    before = atoms.get_total_energy()
    kinetic = []
    dynamics = VelocityVerlet(atoms, timestep=0.5 * fs)
    dynamics.attach(lambda: kinetic.append(atoms.get_kinetic_energy()))
    dynamics.run(40)
    assert np.ptp(kinetic) > 1e-3
    assert abs(atoms.get_total_energy() - before) < 1e-2 * np.ptp(kinetic)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_copies_and_pickles(frames, tmp_path, fraction):
    settings = config(frames, tmp_path, optim__epochs=1, optim__force_fraction=fraction)
    trainer = AtomsTrainer(settings)
    trainer.train()
    atoms = frames[1].copy()
    atoms.calc = calc = trainer.get_calc()
    forces = atoms.get_forces()
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert other.trainer is not trainer
        other.reset()
        atoms.calc = other
        np.testing.assert_array_equal(atoms.get_forces(), forces)
        # A copy that is trained on draws the batches of its own epochs.
        trainer.net.history.clear()
        if fraction < 1:
            copied = other.trainer
            batches = copied.net.get_iterator(copied.train_dataset, training=True)
            assert batches.epoch() == 1


def test_unknown_element_is_named(trainers, frames):
    atoms = frames[0].copy()
    atoms.symbols[2] = "Au"
    atoms.calc = trainers["BPNN"].get_calc()
    with pytest.raises(ValueError, match=r"atom 2 \(Au\)"):
        atoms.get_potential_energy()


def test_no_forces_where_none_are_predicted(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path, model__get_forces=False, optim__epochs=1))
    trainer.train()
    atoms = frames[0].copy()
    atoms.calc = trainer.get_calc()
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()


def test_a_trainer_without_a_model():
    with pytest.raises(ValueError, match="train"):
        AtomsTrainer().get_calc()


def test_v1_path():
    assert FromV1Path is AmpTorch
