import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from amptorch.datasets import IronWater, iron_water, iron_water_potential, iter_iron_water


def central_difference_forces(atoms, step=1e-4):
    """Fourth-order central differences of the energy."""
    forces = np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for axis in range(3):
            energies = []
            for k in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[i, axis] += k * step
                energies.append(iron_water_potential(moved)[0])
            left2, left, right, right2 = energies
            forces[i, axis] = (right2 - 8 * right + 8 * left - left2) / (12 * step)
    return forces


def test_frames_have_the_promised_composition_and_labels():
    frames = iron_water(40, seed=3)
    n_water = [(len(atoms) - 32) // 3 for atoms in frames]
    assert min(n_water) >= 1
    assert max(n_water) <= 44
    assert len(set(n_water)) > 10
    for atoms, n in zip(frames, n_water, strict=True):
        assert atoms.get_chemical_symbols() == ["Fe"] * 32 + ["O", "H", "H"] * n
        assert atoms.pbc.all()
        energy, forces = iron_water_potential(atoms)
        assert atoms.get_potential_energy() == energy
        np.testing.assert_array_equal(atoms.get_forces(), forces)


def test_number_of_molecules_can_be_chosen():
    assert {len(atoms) for atoms in iron_water(3, min_water=44)} == {164}
    assert {len(atoms) for atoms in iron_water(3, min_water=0, max_water=0)} == {32}


def test_a_frame_depends_on_seed_and_index_alone():
    frames = iron_water(5, seed=7)
    (last,) = iter_iron_water(1, seed=7, start=4)
    np.testing.assert_array_equal(frames[4].positions, last.positions)
    assert frames[4].get_potential_energy() == last.get_potential_energy()
    (other,) = iter_iron_water(1, seed=8, start=4)
    assert len(other) != len(last) or not np.allclose(other.positions, last.positions)


@pytest.mark.parametrize("n_water", [1, 3])
def test_forces_are_the_derivatives_of_the_energy(n_water):
    (atoms,) = iron_water(1, seed=n_water, min_water=n_water, max_water=n_water)
    forces = atoms.get_forces()
    expected = central_difference_forces(atoms)
    np.testing.assert_allclose(forces, expected, atol=1e-7 * abs(expected).max())


def test_forces_where_a_molecule_sees_its_own_images():
    cell = [3.6, 4.1, 5.3]
    atoms = Atoms("OH2", [[0.1, 0, 0], [0.9, 0.6, 0.1], [-0.6, 0.7, 4.9]], cell=cell, pbc=True)
    expected = central_difference_forces(atoms)
    assert abs(expected).max() > 0.1
    np.testing.assert_allclose(iron_water_potential(atoms)[1], expected, atol=1e-8)


def test_energy_is_extensive_and_indifferent_to_translation_and_wrapping():
    (atoms,) = iron_water(1, seed=5, min_water=6, max_water=6)
    energy, forces = iron_water_potential(atoms)
    for repeats in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        doubled_energy, doubled_forces = iron_water_potential(atoms.repeat(repeats))
        assert doubled_energy == pytest.approx(2 * energy, rel=1e-12)
        np.testing.assert_allclose(doubled_forces, np.tile(forces, (2, 1)), atol=1e-10)
    moved = atoms.copy()
    moved.translate([1.3, -20.0, 55.0])
    moved.wrap()
    moved_energy, moved_forces = iron_water_potential(moved)
    assert moved_energy == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(moved_forces, forces, atol=1e-10)


@pytest.mark.nojit
def test_forces_add_up_to_nothing():
    (atoms,) = iron_water(1, seed=2, max_water=2)
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-10)


@pytest.mark.slow
def test_no_atoms_overlap_and_forces_are_of_thermal_size():
    frames = iron_water(60, seed=11)
    assert min(neighbor_list("d", atoms, 2.0).min() for atoms in frames) > 0.7
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    assert 0.5 < np.sqrt(np.mean(forces**2)) < 2.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_frames": -1}, "must not be negative"),
        ({"n_frames": 1, "max_water": 45}, "max_water=45"),
        ({"n_frames": 1, "min_water": 5, "max_water": 4}, "min_water=5"),
    ],
)
def test_senseless_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        iron_water(**arguments)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[9, 9, 9], pbc=True),
        Atoms("OOHH", np.arange(12).reshape(4, 3), cell=[9, 9, 9], pbc=True),
        Atoms("HOH", np.arange(9).reshape(3, 3), cell=[9, 9, 9], pbc=True),
        Atoms("Cu", cell=[9, 9, 9], pbc=True),
        Atoms("Fe", cell=[9, 9, 9]),
        Atoms("Fe", cell=[[9, 0, 0], [1, 9, 0], [0, 0, 9]], pbc=True),
    ],
)
def test_the_potential_refuses_what_it_does_not_describe(atoms):
    with pytest.raises(ValueError, match=r"orthorhombic|O, H, H"):
        iron_water_potential(atoms)


def test_the_potential_as_a_calculator_of_ase():
    (frame,) = iron_water(1, max_water=2)
    atoms = frame.copy()
    atoms.calc = IronWater()
    assert atoms.get_potential_energy() == frame.get_potential_energy()
    np.testing.assert_array_equal(atoms.get_forces(), frame.get_forces())
    atoms.positions[-1] += 0.1
    assert atoms.get_potential_energy() != frame.get_potential_energy()
