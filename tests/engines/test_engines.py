"""Potentials in other programs, which run for real where they are installed."""

import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.socketio import SocketIOCalculator
from ase.geometry import find_mic
from ase.io import read, write
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from amptorch.cli import app
from amptorch.datasets import iron_water
from tests.lammps.models import trained

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf8")
SERVE = (sys.executable, "-c", "from amptorch.cli import main; main()", "serve")


@pytest.fixture(scope="module")
def frames():
    return iron_water(3, min_water=2, max_water=2)


@pytest.fixture(scope="module")
def model(frames):
    return trained(frames)


@pytest.fixture
def folder(tmp_path, monkeypatch, frames, model):
    monkeypatch.chdir(tmp_path)
    model.save("iron-water")
    write("start.xyz", frames[0])
    return tmp_path


@pytest.mark.slow
def test_a_driver_of_ase(folder, frames, model):
    name = f"amptorch-{uuid.uuid4().hex[:8]}"
    atoms = frames[0].copy()
    command = [*SERVE, "iron-water", "start.xyz", "--unix", name]
    with SocketIOCalculator(unixsocket=name) as calculator:
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atoms.calc = calculator
        found = []
        for _ in range(2):
            found.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
            atoms.rattle(0.05, seed=1)
            atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    assert client.wait(timeout=60) == 0
    assert client.stdout.read().startswith(f"answering at {name}, {len(atoms)} atoms")
    atoms = frames[0].copy()
    atoms.calc = model.get_calc(extrapolation="ignore")
    for energy, forces, stress in found:
        assert_allclose(energy, atoms.get_potential_energy(), rtol=1e-10)
        assert_allclose(forces, atoms.get_forces(), atol=1e-10)
        assert_allclose(stress, atoms.get_stress(), atol=1e-10)
        atoms.rattle(0.05, seed=1)
        atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)


INPUT = """
<simulation verbosity="low">
  <output prefix="out">
    <properties stride="1" filename="thermo"> [ step, potential{{electronvolt}} ] </properties>
    <trajectory stride="1" filename="pos" format="ase"> positions{{ase}} </trajectory>
  </output>
  <total_steps>3</total_steps>
  <ffsocket name="amptorch" mode="unix"> <address>{name}</address> </ffsocket>
  <system>
    <initialize nbeads="1"> <file mode="ase" units="angstrom"> start.xyz </file>
      <velocities mode="thermal" units="kelvin"> 100 </velocities> </initialize>
    <forces> <force forcefield="amptorch"/> </forces>
    <motion mode="dynamics">
      <dynamics mode="nve"> <timestep units="femtosecond"> 0.5 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.mark.slow
def test_ipi(folder, model):
    pytest.importorskip("ipi")
    name = f"amptorch-{uuid.uuid4().hex[:8]}"
    assert re.search(r'<ffsocket name="amptorch" mode="unix"> <address>water</address>', PAGE)
    Path("input.xml").write_text(INPUT.format(name=name), encoding="utf8")
    driver = subprocess.Popen(
        [str(Path(sys.executable).with_name("i-pi")), "input.xml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + 60
        while not os.path.exists(f"/tmp/ipi_{name}") and time.monotonic() < end:
            time.sleep(0.2)
        subprocess.run([*SERVE, "iron-water", "start.xyz", "--unix", name], check=True, timeout=120)
        said, _ = driver.communicate(timeout=60)
        assert driver.returncode == 0, said.decode()
    finally:
        driver.kill()
    steps = np.loadtxt("out.thermo", ndmin=2)
    (trajectory,) = Path().glob("out.pos*")
    images = read(trajectory, ":", format="extxyz")
    assert len(steps) == len(images) == 4
    for image, (_, energy) in zip(images, steps, strict=True):
        image.calc = model.get_calc(extrapolation="ignore")
        assert energy == pytest.approx(image.get_potential_energy(), abs=1e-5)
    assert np.ptp(steps[:, 1]) > 1e-3


def test_what_is_wrong_is_said(folder):
    run = CliRunner().invoke
    neither = run(app, ["serve", "iron-water", "start.xyz"])
    assert "give --unix NAME, or --port P" in str(neither.exception)
    nobody = run(app, ["serve", "iron-water", "start.xyz", "--unix", "nobody-is-there"])
    assert "no driver answers at the Unix socket 'nobody-is-there'" in str(nobody.exception)


def test_torch_sim(frames, model):
    torch_sim = pytest.importorskip("torch_sim")
    import torch

    from amptorch.engines.torch_sim import TorchSimModel

    images = [frames[0], frames[1], frames[0]]
    images[2] = frames[0].copy()
    images[2].rattle(0.05, seed=2)
    state = torch_sim.initialize_state(images, device=torch.device("cpu"), dtype=torch.float64)
    found = TorchSimModel(model)(state)
    expected = model.predict(images, stress=True)
    voigt = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    stresses = np.array([one.numpy()[voigt] for one in found["stress"]])
    assert_allclose(found["energy"].numpy(), expected["energy"], rtol=1e-10)
    assert_allclose(found["forces"].numpy(), np.concatenate(expected["forces"]), atol=1e-10)
    assert_allclose(stresses, np.array(expected["stress"]), atol=1e-12)
    assert np.allclose(found["stress"], found["stress"].mT)
    with pytest.raises(ValueError, match="skin"):
        TorchSimModel(model, skin=-1)


def test_the_page_of_torch_sim(folder, frames):
    torch_sim = pytest.importorskip("torch_sim")
    (code,) = re.findall(r"## torch-sim\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"frames": frames[:2]}
    exec(code.replace("n_steps=100", "n_steps=2"), names)  # our own page
    assert names["state"].n_systems == 2
    # It wraps positions into the cells.
    for frame, after in zip(frames, names["state"].to_atoms(), strict=False):
        _, distances = find_mic(after.positions - frame.positions, frame.cell, frame.pbc)
        assert 1e-5 < distances.max() < 0.1
    assert torch_sim.__name__ == "torch_sim"


def test_openmm(folder, frames, model):
    pytest.importorskip("openmmml")
    import amptorch

    app_of_openmm, openmm = (pytest.importorskip(name) for name in ("openmm.app", "openmm"))
    (code,) = re.findall(r"## OpenMM\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
    atoms = frames[0].copy()
    topology = app_of_openmm.Topology()
    chain = topology.addChain()
    residue = topology.addResidue("all", chain)
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app_of_openmm.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(atoms.cell.array / 10 * openmm.unit.nanometer)
    names = {"atoms": atoms, "topology": topology, "amptorch": amptorch}
    exec(code, names)  # our own page
    context = openmm.Context(
        names["system"],
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(atoms.positions / 10)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)
    unit = units.kJ / units.mol
    expected = model.predict([frames[0]])
    assert energy * unit == pytest.approx(expected["energy"][0], rel=1e-5)
