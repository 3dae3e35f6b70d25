"""Stress and energies of atoms: against energies under strain, in relaxations and dynamics."""

import numpy as np
import pytest
import torch
from ase.build import bulk, make_supercell
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.nptberendsen import NPTBerendsen
from ase.optimize import BFGS
from ase.units import GPa, fs, kB
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from amptorch import AmpTorch, AtomsTrainer, Ensemble, Potential
from amptorch.cli import app
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.frames import Frames, read_images
from amptorch.labels import Labels
from amptorch.model import BPNN, SingleNN
from tests.contracts import systems
from tests.contracts.descriptor import STENCIL
from tests.small_frames import config, labelled

VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
ANGLES = {"etas": [0.05], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}
RADII = {"etas": [0.5, 4.0], "rs_s": [0.0, 1.0]}
FUNCTIONS = {
    "symmetry functions": {"cutoff": 4.3, "G2": RADII, "G4": ANGLES, "G5": ANGLES},
    "weighted": {"cutoff": 4.3, "G2W": RADII, "G4W": ANGLES, "G5W": ANGLES},
}
DESCRIPTORS = [*FUNCTIONS, "GMP of orders", "GMP of components", "components of all"]
# Small frames of all kinds; in each direction without a cell vector the cell gets one.
STRAINED = [*systems.NAMES, "cluster in a box"]


def structure(name, seed=0):
    """A frame of the contracts with three cell vectors."""
    atoms = systems.make("molecule" if name == "cluster in a box" else name, seed)
    if name == "cluster in a box":
        atoms.set_cell([[9.0, 0.3, 0.1], [-0.2, 8.0, 0.4], [0.3, 0.2, 7.0]])
        atoms.center()
        atoms.pbc = True
    atoms.set_cell(atoms.cell.complete())
    return atoms


def describe(kind, elements):
    if kind.startswith("GMP"):
        gaussians = {symbol: [[1.0 + 0.1 * k, 3.0]] for k, symbol in enumerate(elements)}
        orders = [{"order": order, "sigmas": [0.4]} for order in range(3)]
        if kind == "GMP of orders":
            setup = {"atom_gaussians": gaussians, "MCSHs_detailed_list": orders, "cutoff": 4.4}
            return GMPOrderNorm(setup, elements)
        groups = {str(order): {"groups": [1], "sigmas": [0.4]} for order in range(3)}
        return GMP({"MCSHs": groups, "atom_gaussians": gaussians, "cutoff": 4.4}, elements)
    functions = FUNCTIONS.get(kind, FUNCTIONS["symmetry functions"])
    return Gaussian({"default": functions}, elements)


def make_potential(atoms, kind="symmetry functions", network=BPNN, seed=1, get_forces=True):
    """A potential with random weights, and scalers as they are fitted to a few frames."""
    descriptor = describe(kind, systems.elements_of(atoms))
    images = []
    for number in range(6):
        # Without strain, functions of images of an atom alone would not vary, and have no scale.
        rng = np.random.default_rng(number)
        image = strained(atoms, number, 0.1)
        image.positions += rng.normal(scale=0.3, size=image.positions.shape)
        images.append(image)
    frames = Frames.from_atoms(images)
    rows = [(descriptor.values(frames), frames.numbers)]
    pca = {"num_pc": 4, "elementwise": False} if kind == "components of all" else None
    features = FeatureScaler.fitted(lambda: rows, {"type": "standardize"}, True, pca)
    energies = np.random.default_rng(0).normal(-40, 3.0, 6)
    kinds = {symbol: -3.0 - k for k, symbol in enumerate(descriptor.elements)}
    targets = TargetScaler.fitted(
        energies,
        lambda: np.array([[sum(atoms.symbols == s) for s in kinds]] * 6),
        list(kinds),
        True,
        kinds,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = features.width(descriptor.n_features)
        model = network(
            descriptor.elements, width, num_nodes=8, num_layers=2, get_forces=get_forces
        )
    return Potential(descriptor, model, features, targets, torch.float64)


def strained(atoms, component, amount):
    """The frame under a symmetric strain of one component in Voigt's order."""
    a, b = VOIGT[component]
    strain = np.zeros((3, 3))
    strain[a, b] += amount / 2
    strain[b, a] += amount / 2
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=False)
    image.positions = atoms.positions @ (np.eye(3) + strain)
    return image


def slopes(potential, atoms, step=1e-4):
    """The stress by central differences of the energy under strain."""
    images = [strained(atoms, c, k * step) for c in range(6) for k in STENCIL]
    energies = np.array(potential.predict(images)["energy"]).reshape(6, -1)
    return energies @ list(STENCIL.values()) / step / atoms.get_volume()


def check(potential, atoms):
    found = {name: values[0] for name, values in potential.predict([atoms], stress=True).items()}
    scale = np.abs(found["stress"]).max()
    assert scale > 1e-5
    # A difference has the rounding of its energies, whatever the stress.
    rounding = 1e-10 / atoms.get_volume()
    expected = slopes(potential, atoms)
    assert_allclose(found["stress"], expected, rtol=1e-7, atol=1e-7 * scale + rounding)
    assert_allclose(found["stresses"].sum(axis=0), found["stress"], atol=1e-12 * scale)
    plain = potential.predict([atoms])
    assert_allclose(found["energies"].sum(), plain["energy"][0], rtol=1e-12)
    assert_allclose(found["energy"], plain["energy"][0], rtol=1e-12)
    assert_allclose(found["forces"], plain["forces"][0], atol=1e-12)
    return found


@pytest.mark.parametrize("name", STRAINED)
@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_stress_is_the_slope_of_the_energy_under_strain(kind, name):
    atoms = structure(name)
    check(make_potential(atoms, kind), atoms)


def test_stress_by_a_single_network():
    atoms = structure("tiny_cell")
    check(make_potential(atoms, network=SingleNN), atoms)


def test_stress_of_an_ensemble_is_the_mean():
    atoms = structure("skewed_cell")
    members = [make_potential(atoms, kind, seed=k) for k, kind in enumerate(DESCRIPTORS[:3])]
    members.append(make_potential(atoms, seed=9))
    ensemble = Ensemble(members, [1, 2, 3, 4])
    found = check(ensemble, atoms)
    for name in ("stress", "stresses", "energies"):
        each = [member.predict([atoms], stress=True)[name][0] for member in members]
        assert_allclose(found[name], np.tensordot([0.1, 0.2, 0.3, 0.4], each, 1), atol=1e-12)
    atoms.calc = ensemble.get_calc()
    assert_allclose(atoms.get_stress(), found["stress"], atol=1e-14)
    assert atoms.calc.results["forces_uncertainty"].max() > 1e-3
    atoms.calc = ensemble.get_calc(uncertainty=False)
    assert_allclose(atoms.get_stresses(), found["stresses"], atol=1e-14)


def test_rotation_and_supercell():
    atoms = structure("skewed_cell")
    potential = make_potential(atoms)
    found = potential.predict([atoms], stress=True)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    rotated = atoms.copy()
    rotated.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
    full = rotated.copy()
    full.calc = potential.get_calc()
    atoms.calc = potential.get_calc()
    scale = np.abs(found["stress"][0]).max()
    expected = turn @ atoms.get_stress(voigt=False) @ turn.T
    assert_allclose(full.get_stress(voigt=False), expected, atol=1e-10 * scale)
    doubled = make_supercell(atoms, np.diag([2, 1, 3]), order="cell-major")
    large = potential.predict([doubled], stress=True)
    assert_allclose(large["stress"][0], found["stress"][0], atol=1e-10 * scale)
    each = np.tile(found["stresses"][0], (6, 1)) / 6
    assert_allclose(large["stresses"][0], each, atol=1e-10 * scale)
    bound = found["energies"][0] - potential.mean / len(atoms)
    found_bound = large["energies"][0] - potential.mean / len(doubled)
    assert_allclose(found_bound, np.tile(bound, 6), rtol=1e-10)


def test_energy_of_an_atom_is_its_reference_and_its_network():
    atoms = structure("chain")
    potential = make_potential(atoms)
    batch = potential.batch(Frames.from_atoms([atoms]))
    energies, _ = potential.atomic_gradient(batch)
    references = potential.target_scaler.atomic.reference_energies
    elements = potential.descriptor.elements
    for k, (symbol, number) in enumerate(zip(atoms.symbols, atoms.numbers, strict=True)):
        network = potential.model.elementwise_models[elements.index(symbol)]
        with torch.no_grad():
            output = network(batch.fingerprint[k : k + 1]).item()
        expected = references[number] + output * potential.std + potential.mean / len(atoms)
        assert energies[k] == pytest.approx(expected, rel=1e-12)


def test_calculator_has_all_properties_of_one_calculation(monkeypatch):
    atoms = structure("tiny_cell")
    potential = make_potential(atoms)
    found = potential.predict([atoms], stress=True)
    atoms.calc = AmpTorch(potential)
    calls = []
    evaluate = Potential.evaluate_atoms
    monkeypatch.setattr(
        Potential, "evaluate_atoms", lambda *args: calls.append(1) or evaluate(*args)
    )
    assert_allclose(atoms.get_forces(), found["forces"][0], atol=1e-12)
    assert_allclose(atoms.get_stress(), found["stress"][0], atol=1e-14)
    assert_allclose(atoms.get_stresses(), found["stresses"][0], atol=1e-14)
    assert_allclose(atoms.get_potential_energies(), found["energies"][0], rtol=1e-12)
    assert len(calls) == 1


def test_slab_has_a_stress_over_the_whole_cell():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    potential = make_potential(atoms)
    atoms.pbc = (True, True, False)
    atoms.center(vacuum=5.0, axis=2)
    check(potential, atoms)


@pytest.mark.parametrize("cell", [None, [4, 4, 0], [[4, 0, 0], [0, 4, 0], [4, 4, 0]]])
def test_frames_without_three_cell_vectors_have_no_stress(cell):
    atoms = structure("molecule")
    potential = make_potential(atoms)
    atoms.set_cell(cell)
    atoms.calc = potential.get_calc()
    energies = atoms.get_potential_energies()
    assert energies.sum() == pytest.approx(atoms.get_potential_energy())
    assert np.abs(atoms.get_forces()).max() > 0
    for ask in (atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match="three cell vectors"):
            ask()
    boxed = structure("cluster in a box")
    with pytest.raises(PropertyNotImplementedError, match=r"frame 1 .*three cell vectors"):
        potential.predict([boxed, atoms], stress=True)
    with pytest.raises(ValueError, match="stress is 'yes'; expected True"):
        potential.predict([boxed], stress="yes")
    found = potential.predict([boxed, atoms], stress="optional")
    assert np.isfinite(found["stress"][0]).all()
    assert np.isnan(found["stress"][1]).all()
    assert_allclose(found["energies"][1], energies)


def test_without_forces_there_is_no_stress():
    atoms = structure("tiny_cell")
    potential = make_potential(atoms, get_forces=False)
    with pytest.raises(ValueError, match="no stress"):
        potential.predict([atoms], stress=True)
    assert "stress" not in potential.predict([atoms], stress="optional")
    atoms.calc = potential.get_calc()
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.fixture(scope="module")
def relaxed():
    """Copper and a potential of it, trained for a moment on strained cells, so that it binds."""
    images = []
    for number, factor in enumerate(np.linspace(0.94, 1.06, 9)):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
        atoms.rattle(0.05, seed=number)
        images.append(labelled(atoms))
    settings = config(images, ".", optim__epochs=60, optim__force_coefficient=0.3, cmd__debug=True)
    settings["optim"]["lr"] = 3e-2
    trainer = AtomsTrainer(settings)
    trainer.train()
    return trainer.potential


@pytest.mark.slow
def test_a_cell_relaxes(relaxed):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array * 1.03 @ (np.eye(3) + [[0, 0.03, 0]] * 3), scale_atoms=True)
    atoms.rattle(0.03, seed=1)
    atoms.calc = relaxed.get_calc()
    before, energy = np.abs(atoms.get_stress()).max(), atoms.get_potential_energy()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=80)
    assert np.abs(atoms.get_stress()).max() < 0.02 * before
    assert atoms.get_potential_energy() < energy


def test_dynamics_at_constant_pressure(relaxed):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = relaxed.get_calc()
    momenta = np.random.default_rng(0).normal(size=(len(atoms), 3))
    atoms.set_momenta(momenta * np.sqrt(300 * kB * atoms.get_masses())[:, None])
    momenta = atoms.get_momenta()
    volumes = []
    dynamics = NPTBerendsen(
        atoms,
        1 * fs,
        temperature_K=300,
        pressure_au=5 * GPa,
        taup=20 * fs,
        compressibility_au=0.01 / GPa,
    )
    dynamics.attach(lambda: volumes.append(atoms.get_volume()))
    dynamics.run(15)
    # Under pressure the cell shrinks.
    assert volumes[-1] < 0.999 * volumes[0]

    atoms = bulk("Cu", cubic=True)
    atoms.calc = relaxed.get_calc()
    atoms.set_momenta(momenta)
    dynamics = MTKNPT(
        atoms, 0.5 * fs, temperature_K=300, pressure_au=0, tdamp=50 * fs, pdamp=200 * fs
    )
    conserved, potential = [], []
    dynamics.attach(lambda: conserved.append(dynamics.get_conserved_energy()))
    dynamics.attach(lambda: potential.append(atoms.get_potential_energy()))
    dynamics.run(40)
    assert np.ptp(potential) > 1e-2
    assert np.ptp(conserved) < 0.05 * np.ptp(potential)


def test_labels_of_stress():
    atoms = bulk("Cu", cubic=True)
    full = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    virial = -full * atoms.get_volume()
    images = [atoms.copy() for _ in range(5)]
    images[1].info["stress"] = full
    images[2].info["virial"] = virial.ravel()
    images[3] = labelled(atoms, 0.0, np.zeros((4, 3)))
    images[3].calc.results["stress"] = np.arange(1.0, 7)
    images[4].info["dft_virial"] = virial
    found = Frames.from_atoms(read_images(images[:4]), stress=True).select([1, 2, 3, 0]).stress
    assert_allclose(found[:3], [[1, 2, 3, 4, 5, 6]] * 3)
    assert np.isnan(found[3]).all()
    keyed = read_images([images[0], images[4]], Labels(stress="dft_virial"))
    found = Frames.from_atoms(keyed, stress=True).stress
    assert_allclose(found[1], [1, 2, 3, 4, 5, 6])
    assert np.isnan(found[0]).all()
    for wrong in (np.ones(5), "none", [np.nan] * 6):
        images[1].info["stress"] = wrong
        with pytest.raises(ValueError, match=r"frame 1.*stress.*6, 9 or 3 by 3"):
            Frames.from_atoms(images, stress=True)
    images[2].set_cell(None)
    images[2].pbc = False
    with pytest.raises(ValueError, match=r"frame 0.*virial.*cell"):
        Frames.from_atoms(images[2:3], stress=True)


@pytest.mark.slow
def test_commands(relaxed, tmp_path):
    relaxed.save(tmp_path / "model")
    images = []
    for number in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=number)
        images.append(labelled(atoms))
    exact = relaxed.predict(images, stress=True)
    for atoms, stress in zip(images, exact["stress"], strict=True):
        atoms.calc.results["stress"] = stress + 0.5 * GPa
    del images[2].calc.results["stress"]
    images[3].set_cell(None)
    images[3].pbc = False
    images[3] = labelled(images[3])
    write(tmp_path / "a.traj", images)
    run = CliRunner().invoke
    plot = tmp_path / "p.png"
    arguments = ["evaluate", str(tmp_path / "model"), str(tmp_path / "a.traj")]
    result = run(app, [*arguments, "--plot", "--out", str(plot)], catch_exceptions=False)
    (row,) = [line for line in result.stdout.splitlines() if "stress" in line]
    assert row.split() == ["stress", "(GPa)", "0.5", "0.5"]
    assert plot.stat().st_size > 1000
    with pytest.raises(ValueError, match="'nothing'"):
        run(app, [*arguments, "--stress-key", "nothing"], catch_exceptions=False)
    out = tmp_path / "b.xyz"
    run(app, ["predict", *arguments[1:], str(out)], catch_exceptions=False)
    written = read(out, ":")
    for atoms, stress in zip(written[:3], exact["stress"], strict=False):
        assert_allclose(atoms.get_stress(), stress, atol=1e-7)
    assert "stress" not in written[3].calc.results
