"""Relax a cell, and run dynamics at constant pressure, by a trained potential: what is conserved?

    python docs/examples/constant_pressure.py MODEL Si diamond 5.43

MODEL is the folder of a run, of a potential that was trained on stresses. Then come the element,
its structure (fcc, bcc or diamond), and about its lattice constant, Å. Without them it is copper by
ASE's EMT.
"""

import sys
import warnings

import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.optimize import BFGS

from amptorch import AmpTorch
from amptorch.md import draw_momenta

TEMPERATURE, TIMESTEP = 300.0, 1.0  # K, fs
# eV/Å, of forces and of the cell.
CONVERGED = 1e-4


def relaxed(atoms: Atoms) -> int:
    """Relax atoms and cell from places and a cell that are off; return the steps it took."""
    atoms.rattle(0.05, seed=0)
    atoms.set_cell(atoms.cell * [[1.02], [1.0], [0.98]], scale_atoms=True)
    # SciPy's estimate of the rounding in the logarithm of the cell.
    warnings.filterwarnings("ignore", message="logm result may be inaccurate")
    optimizer = BFGS(FrechetCellFilter(atoms), logfile=None)
    assert optimizer.run(fmax=CONVERGED, steps=500), "not converged"
    return optimizer.nsteps


def drift(atoms: Atoms, barostat: type, steps: int) -> tuple[float, float, float]:
    """Return the drift of the conserved energy, meV/atom/ps, its fluctuation about that, meV/atom,
    and the mean pressure, GPa, of dynamics at no pressure."""
    atoms = atoms.copy()
    atoms.calc = calculator
    draw_momenta(atoms, 2 * TEMPERATURE, np.random.default_rng(0))
    dynamics = barostat(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=TEMPERATURE,
        pressure_au=0.0,
        tdamp=100 * units.fs,
        pdamp=1000 * units.fs,
    )
    times, energies, pressures = [], [], []

    def look() -> None:
        times.append(dynamics.nsteps * TIMESTEP / 1000)
        energies.append(1000 * dynamics.get_conserved_energy() / len(atoms))
        pressures.append(-atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa)

    dynamics.attach(look, interval=10)
    dynamics.run(steps)
    line = np.polyfit(times, energies, 1)
    return line[0], float(np.std(energies - np.polyval(line, times))), float(np.mean(pressures))


SMALL = "--small" in sys.argv
given = [word for word in sys.argv[1:] if word != "--small"]
model, symbol, structure, length = given or ("EMT", "Cu", "fcc", "3.6")
calculator = EMT() if model == "EMT" else AmpTorch(model)
crystal = bulk(symbol, structure, a=float(length), cubic=True)
crystal = make_supercell(crystal, (1 if SMALL else 2) * np.eye(3))
crystal.calc = calculator
steps = relaxed(crystal)
left = np.abs(crystal.get_stress()).max() / units.GPa
print(f"relaxed in {steps} steps; stress left {left:.1e} GPa, {len(crystal)} atoms")
found = {}
for barostat in (IsotropicMTKNPT, MTKNPT):
    found[barostat.__name__] = drift(crystal, barostat, 200 if SMALL else 5_000)
    slope, spread, pressure = found[barostat.__name__]
    print(
        f"{barostat.__name__}: drift {slope:+.4f} meV/atom/ps, fluctuation {spread:.3f} meV/atom, "
        f"mean pressure {pressure:+.2f} GPa"
    )
