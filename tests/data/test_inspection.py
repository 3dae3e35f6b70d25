"""Wrong units, signs and copies are found in generated frames, and nothing in good ones."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from amptorch import train
from amptorch.data.copies import duplicate_warning, duplicates
from amptorch.data.inspection import inspect_frames, wrong_stresses
from amptorch.datasets import iron_water
from amptorch.training.prepare import prepare
from tests.small_frames import labelled

HARTREE, BOHR, KCAL = 27.2114, 0.529177, 0.0433641


def changed(images, energy=1.0, forces=1.0, stress=1.0):
    """The frames with their labels multiplied."""
    factors = {"energy": energy, "forces": forces, "stress": stress}
    return [
        with_labels(atoms, **{k: factors[k] * v for k, v in atoms.calc.results.items()})
        for atoms in images
    ]


def with_labels(atoms, **results):
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


@pytest.fixture(scope="module")
def water():
    """Frames of different compositions: no two are a small move of each other."""
    return iron_water(60)


@pytest.fixture(scope="module")
def copper():
    """Hot frames of one crystal with EMT's labels, wrapped into the cell, and stresses."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(30):
        atoms = bulk("Cu", cubic=True) * 2
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.wrap()
        atoms = labelled(atoms)
        atoms.calc.results["stress"] = rng.normal(scale=0.01, size=6)
        images.append(atoms)
    return images


@pytest.mark.slow
def test_nothing_is_said_of_good_frames(water, copper):
    assert inspect_frames(water) == []
    assert inspect_frames(copper) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"energy": 1 / HARTREE}, "energies in Hartree (0.0367)"),
        ({"energy": 1 / KCAL}, "energies in kcal/mol (23.1)"),
        ({"forces": BOHR / HARTREE}, "forces in Hartree/Bohr (51.4)"),
        ({"forces": 1 / KCAL}, "forces in kcal/mol/Å (0.0434)"),
        ({"forces": -1}, "look like gradients, multiply them by -1"),
        ({"energy": 1 / KCAL, "forces": -1}, "and forces with the wrong sign"),
    ],
)
@pytest.mark.parametrize("name", ["water", "copper"])
def test_energies_and_forces_that_do_not_belong_together(request, name, factors, words):
    found = inspect_frames(changed(request.getfixturevalue(name), **factors))
    assert len(found) == 1
    assert words in found[0]


def test_bonds_of_hydrogen_tell_which_of_the_two_is_wrong(water):
    (warning,) = inspect_frames(changed(water, energy=1 / HARTREE))
    assert "energies in Hartree" in warning
    assert "forces in" not in warning.replace("forces in eV/Å", "")
    (warning,) = inspect_frames(changed(water, forces=1 / KCAL))
    assert "energies in Hartree" not in warning


def test_atomic_units_throughout_are_seen(water, copper):
    (warning,) = inspect_frames(changed(water, energy=1 / HARTREE, forces=BOHR / HARTREE))
    assert "force constant" in warning
    assert "Hartree/Bohr" in warning
    (warning,) = inspect_frames(changed(copper, energy=1 / HARTREE, forces=BOHR / HARTREE))
    assert "energies in Hartree and forces in Hartree/Bohr (1.89)" in warning


def test_energies_per_atom_are_seen(copper):
    assert "energies per atom (0.0312)" in inspect_frames(changed(copper, energy=1 / 32))[0]


def test_gradients_are_seen_without_energies(copper):
    images = [with_labels(atoms, forces=-atoms.calc.results["forces"]) for atoms in copper]
    (warning,) = inspect_frames(images)
    assert "nearest atoms" in warning
    assert inspect_frames(changed(images, forces=-1)) == []


@pytest.mark.parametrize(("factor", "words"), [(1e-6, "very small"), (1e6, "very large")])
def test_forces_of_no_sensible_size(copper, factor, words):
    assert words in inspect_frames(changed(copper, forces=factor))[0]


def test_energies_with_the_kinetic_energy(copper):
    """Twice the potential energy above that at rest, as on average in a harmonic crystal."""
    rest = bulk("Cu", cubic=True) * 2
    images = [labelled(rest), *copper[:20]]
    lowest = images[0].get_potential_energy()
    total = [
        with_labels(
            atoms,
            energy=2 * atoms.get_potential_energy() - lowest,
            forces=atoms.get_forces(),
        )
        for atoms in images
    ]
    (warning,) = inspect_frames(total)
    assert "include the kinetic energy" in warning


@pytest.mark.slow
def test_energies_that_are_none(copper, tmp_path, caplog):
    (warning,) = inspect_frames(changed(copper, energy=0.0))
    assert "the energies are all 0 eV" in warning
    config = {"cmd": {"run_dir": str(tmp_path)}}
    train(changed(copper, energy=0.0), seconds=1, size="small", config=config, verbose=False)
    assert "the energies are all 0 eV" in caplog.text


def test_an_exploded_frame_is_named(copper):
    images = changed(copper)
    images[7].calc.results["forces"][[3, 4]] += [[1e6, 0, 0], [-1e6, 0, 0]]
    (warning,) = inspect_frames(images)
    assert "1 of 30 frames have forces far larger than all others" in warning
    assert "frame 7 (1e+06 eV/Å)" in warning


def test_stress_in_gigapascal(copper):
    (warning,) = inspect_frames(changed(copper, stress=160.2))
    assert "divide them by 160.2" in warning


@pytest.fixture(scope="module")
def strained():
    """Hot frames of strained crystals with EMT's stresses."""
    rng, images = np.random.default_rng(3), []
    for _ in range(24):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        strain = 0.03 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        found = {
            name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")
        }
        images.append(with_labels(atoms, **found))
    return images


@pytest.mark.slow
def test_sign_and_order_of_stresses(strained):
    assert inspect_frames(strained) == []
    (warning,) = inspect_frames(changed(strained, stress=-1.0))
    assert "the stresses have the wrong sign" in warning
    assert "correlation -" in warning
    vasp = changed(strained)
    for atoms in vasp:
        atoms.calc.results["stress"] = atoms.calc.results["stress"][[0, 1, 2, 5, 3, 4]]
    (warning,) = inspect_frames(vasp)
    assert "in the order xy yz xz" in warning
    assert "in ASE's order, yz xz xy, by 0." in warning or "by -0." in warning
    # They may stand elsewhere than in a calculator, and be of some frames alone.
    for atoms in vasp[::2]:
        atoms.info["stress"] = atoms.calc.results.pop("stress")
    for atoms in vasp[1::4]:
        del atoms.calc.results["stress"]
    (warning,) = inspect_frames(vasp)
    assert "in the order xy yz xz" in warning


def test_wrong_stresses_are_not_trained_on(strained, caplog):
    sections = {"defaults": "recommended", "size": "small"}
    assert prepare(sections, strained).settings.optim.stress_coefficient > 0
    assert not caplog.text
    turned = changed(strained, stress=-1.0)
    assert prepare(sections, turned).settings.optim.stress_coefficient == 0
    assert "are not trained on" in caplog.text
    assert "wrong sign" in caplog.text
    caplog.clear()
    assert prepare(sections, changed(strained, stress=160.2)).settings.optim.stress_coefficient == 0
    assert "divide them by 160.2" in caplog.text
    # Who insists gets them.
    optim = {"stress_coefficient": 0.1, "stress_per_mev": None, "force_per_mev": None}
    insisting = {**sections, "optim": {**optim, "energy_per_atom": True}}
    assert prepare(insisting, turned).settings.optim.stress_coefficient == 0.1


def test_stresses_under_high_pressure_are_right(strained):
    """They are large, and belong to the forces."""
    images = changed(strained)
    for atoms in images:
        atoms.calc.results["stress"][:3] -= 1.0
    assert wrong_stresses(images) is None
    assert "divide them by 160.2" in wrong_stresses(changed(strained, stress=160.2))


@pytest.mark.parametrize("made", [False, True])
def test_wrong_stresses_of_a_store_are_not_trained_on(strained, made, tmp_path, caplog):
    sections = {
        "defaults": "recommended",
        "size": "small",
        "dataset": {"store": str(tmp_path / "s")},
    }
    sections["cmd"] = {"verbose": False}
    turned = changed(strained, stress=-1.0)
    if made:
        insisting = {"stress_coefficient": 0.1, "stress_per_mev": None, "force_per_mev": None}
        prepare({**sections, "optim": {**insisting, "energy_per_atom": True}}, turned)
        assert "wrong sign" not in caplog.text
    assert prepare(sections, turned).settings.optim.stress_coefficient == 0
    assert "wrong sign" in caplog.text


def test_frames_without_forces_are_told(strained, caplog):
    images = []
    for atoms in strained[:4]:
        images.append(with_labels(atoms, energy=atoms.calc.results["energy"]))
        images[-1].arrays["REF_forces"] = atoms.calc.results["forces"]
    prepare({"defaults": "recommended", "size": "small"}, images)
    assert "no frame has forces" in caplog.text
    assert "'REF_forces' (name one in dataset.forces_key, --forces-key)" in caplog.text


def test_forces_that_do_not_add_up(copper):
    images = changed(copper)
    images[7].calc.results["forces"][3] += [0, 30.0, 0]
    (warning,) = inspect_frames(images)
    assert "in 1 of 30 frames" in warning
    assert "30 eV/Å in frame 7" in warning
    # Where atoms are held, or their forces left out, nothing is known of the sum.
    images[7].set_constraint(FixAtoms([0]))
    assert inspect_frames(images) == []
    images[7].set_constraint()
    images[7].calc.results["forces"][0] = 0
    assert inspect_frames(images) == []


def test_energies_far_from_all_others(copper):
    images = changed(copper)
    images[4].calc.results["energy"] += 100
    images[9].calc.results["energy"] -= 200
    (warning,) = inspect_frames(images)
    assert "2 of 30 frames" in warning
    assert warning.index("frame 9 (Cu32, -6.") < warning.index("frame 4 (Cu32, +3.")


def test_copies_within_a_set_and_between_sets(copper):
    moved = copper[3].copy()
    moved.positions += 1e-7
    (warning,) = inspect_frames([*copper, moved])
    assert "1 of 31 frames are copies" in warning
    assert "frame 30 is frame 3 again" in warning
    assert duplicates(copper[:10], [copper[12], moved, copper[5]]) == [(3, 1), (5, 2)]
    assert "2 of the 3 frames of the test set" in duplicate_warning(
        copper[:10], [copper[12], moved, copper[5]], "the test set"
    )
    assert duplicate_warning(copper[:10], copper[10:], "the test set") is None


@pytest.mark.parametrize("what", ["positions", "cell", "numbers", "pbc"])
def test_frames_that_differ_are_no_copies(copper, what):
    other = copper[0].copy()
    if what == "positions":
        other.positions[4, 1] += 1e-5
    elif what == "cell":
        other.cell[0, 0] += 1e-5
    elif what == "numbers":
        other.numbers[0] = 28
    else:
        other.pbc = False
    assert duplicates(copper, [other]) == []


def test_whatever_is_missing_or_broken_is_passed_over(copper):
    assert inspect_frames([]) == []
    assert inspect_frames([Atoms("H"), Atoms(), Atoms("H2", [[0, 0, 0], [0, 0, 0]])]) == []
    bare = [atoms.copy() for atoms in copper]
    assert inspect_frames(bare) == []
    odd = [with_labels(atoms, energy=np.nan, forces=np.full((32, 3), np.inf)) for atoms in copper]
    assert inspect_frames(odd) == []
    in_one_place = changed(copper)
    for atoms in in_one_place:
        atoms.positions[1] = atoms.positions[0]
        del atoms.calc.results["energy"]
    assert inspect_frames(in_one_place) == []


def test_of_many_frames_some_are_looked_at(copper):
    rng = np.random.default_rng(1)
    lone = [Atoms("Cu", rng.normal(size=(1, 3))) for _ in range(1500)]
    found = inspect_frames([*changed(copper, energy=1 / HARTREE), *lone])
    assert len(found) == 1
