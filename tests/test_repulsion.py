"""The repulsive pair potential under the networks."""

import copy

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose

import amptorch
from amptorch.config import Config
from amptorch.data.from_store import StoreDataset
from amptorch.data.repulsion import Repulsion
from amptorch.ensemble import Ensemble
from amptorch.frames import Frames
from amptorch.n2p2 import write_potential
from amptorch.neighbors import neighbor_list
from tests.reference import zbl

FUNCTIONS = {
    "default": {
        "G2": {"etas": [0.05, 0.4], "rs_s": [0.0]},
        "G4": {"etas": [0.01], "zetas": [1.0], "gammas": [1.0, -1.0]},
        "cutoff": 4.5,
    }
}
STEPS = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def cluster(seed, size=2.2):
    """Atoms that are far too near to each other."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("CuOHCuO", positions=rng.uniform(0, size, size=(5, 3)))
    while atoms.get_all_distances()[np.triu_indices(5, 1)].min() < 0.3:
        atoms.positions = rng.uniform(0, size, size=(5, 3))
    return atoms


def parts(repulsion, atoms):
    frames = Frames.from_atoms([atoms])
    return repulsion.parts(frames, neighbor_list(frames, 5.0))


@pytest.mark.parametrize("limits", [(0.4, 0.9), (0.0, 1.4)])
def test_it_is_its_slow_twin_and_its_forces_are_slopes(limits):
    repulsion = Repulsion(*limits)
    for seed in range(3):
        atoms = cluster(seed)
        found = parts(repulsion, atoms)
        assert_allclose(found.energies.sum(), zbl.total(atoms, *limits), rtol=1e-12)
        numeric = np.zeros((5, 3))
        for atom, axis in np.ndindex(5, 3):
            for multiple, weight in STEPS.items():
                moved = atoms.copy()
                moved.positions[atom, axis] += 1e-4 * multiple
                numeric[atom, axis] -= weight * zbl.total(moved, *limits) / 1e-4
        assert_allclose(found.forces, numeric, rtol=1e-7, atol=1e-6)
    # e²/r is 144 eV, and φ(0.1 / 0.2343) by hand 0.6491.
    assert_allclose(zbl.energy(1, 1, 0.1, 5.0, 6.0), 144.0 * 0.6491, rtol=2e-4)


def test_virials_are_slopes_under_strain():
    repulsion = Repulsion(0.3, 1.2)
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([3.0, 3.1, 2.9], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    found = parts(repulsion, atoms).virials.sum(axis=0)
    for component, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        slope = 0.0
        for multiple, weight in STEPS.items():
            strain = np.zeros((3, 3))
            strain[a, b] += 0.5e-4 * multiple
            strain[b, a] += 0.5e-4 * multiple
            image = atoms.copy()
            image.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            slope += weight * parts(repulsion, image).energies.sum() / 1e-4
        assert_allclose(found[component], slope, rtol=1e-7, atol=1e-6)


def test_bonds_do_not_feel_it():
    water = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    default = Repulsion.of(Config.from_dict({"model": {"repulsion": "zbl"}}).model.repulsion)
    assert not parts(default, water).energies.any()
    assert not parts(default, water).forces.any()


def labelled(seed):
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (1, 1, 1 + seed % 2)
    atoms[0].symbol = "O"
    atoms.set_cell(atoms.cell * (0.9 + 0.2 * rng.random()), scale_atoms=True)
    atoms.rattle(0.3, rng=rng)
    atoms.calc = EMT()
    atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results)
    return atoms


@pytest.fixture(scope="module")
def images():
    return [labelled(seed) for seed in range(6)]


def settings(images, **dataset):
    return {
        "defaults": "recommended",
        "model": {"repulsion": {"inner": 0.3, "outer": 1.1}, "hidden_layers": [4]},
        "optim": {"epochs": 2, "batch_size": 6},
        "dataset": {
            "raw_data": copy.deepcopy(images),
            "fp_params": FUNCTIONS,
            "val_split": 0.0,
            **dataset,
        },
        "cmd": {"verbose": False},
    }


@pytest.fixture(scope="module")
def potential(images):
    return amptorch.fit(amptorch.prepare(settings(images)))


def test_networks_learn_the_rest(images, potential, tmp_path):
    repulsion = Repulsion(0.3, 1.1)
    # What is learnt is the labels less the repulsion, in memory and in a store.
    data = amptorch.prepare(settings(images)).dataset
    kept = amptorch.prepare(settings(images, store=str(tmp_path / "store"))).dataset
    assert isinstance(kept, StoreDataset)
    first, second = data.batch([4, 1]), kept.batch([4, 1])
    for name in ("energy", "forces", "stress"):
        assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-9, atol=1e-9)
    scaler, single = data.target_scaler, data.batch([4])
    references = scaler.references(images[4].numbers, [len(images[4])])
    energy = scaler.denorm(single.energy.numpy(), "energy") + references
    base = parts(repulsion, images[4])
    assert base.energies.sum() > 0.1
    assert_allclose(energy, images[4].get_potential_energy() - base.energies.sum(), rtol=1e-9)
    forces = scaler.denorm(single.forces.numpy(), "forces")
    assert_allclose(forces, images[4].get_forces() - base.forces, atol=1e-9)


def test_every_way_to_predict_adds_it(images, potential, tmp_path):
    plain = copy.deepcopy(potential)
    plain.repulsion = None
    base = parts(potential.repulsion, images[1])
    found, without = (model.predict([images[1]], stress=True) for model in (potential, plain))
    assert_allclose(found["energy"][0] - without["energy"][0], base.energies.sum(), rtol=1e-9)
    assert_allclose(found["forces"][0] - without["forces"][0], base.forces, atol=1e-9)
    stress = base.virials.sum(axis=0) / images[1].get_volume()
    assert_allclose(found["stress"][0] - without["stress"][0], stress, atol=1e-9)
    potential.save(tmp_path / "kept")
    ensemble = Ensemble([potential, amptorch.load(tmp_path / "kept")])
    for model in (amptorch.load(tmp_path / "kept"), ensemble):
        again = model.predict([images[1]], stress=True)
        for name in ("energy", "forces", "stress", "energies"):
            assert_allclose(again[name][0], found[name][0], rtol=1e-9, atol=1e-9)
    spread = ensemble.predict([images[1]], uncertainty=True)
    assert_allclose(spread["forces"][0], found["forces"][0], atol=1e-9)
    assert np.abs(spread["forces_uncertainty"][0]).max() < 1e-9
    atoms = images[1].copy()
    atoms.calc = potential.get_calc()
    assert_allclose(atoms.get_forces(), found["forces"][0], atol=1e-9)
    assert_allclose(potential.predict([images[1]])["energy"], found["energy"])


def test_what_cannot_be(images, potential, tmp_path):
    with pytest.raises(ValueError, match="no counterpart in n2p2"):
        write_potential(potential, tmp_path / "n2p2")
    far = settings(images)
    far["model"]["repulsion"] = {"outer": 2.0}
    with pytest.raises(ValueError, match=r"reaches 5\.28 Å for Cu.*cutoff of the fingerprints"):
        amptorch.prepare(far)
    with pytest.raises(ValueError, match="must be 'zbl'"):
        Config.from_dict({"model": {"repulsion": "morse"}})
    with pytest.raises(ValueError, match="inner must be"):
        Config.from_dict({"model": {"repulsion": {"inner": 1.0}}})
