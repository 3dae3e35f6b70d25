"""Elastic constants, equation of state and phonons of a crystal, by a trained potential.

    pip install elastic phonopy
    python docs/examples/crystal.py MODEL Si diamond 5.43

MODEL is the folder of a run. Then come the element, its structure (fcc, bcc or diamond), and about
its lattice constant, Å. Without them it is copper by ASE's EMT. Atoms and cell are relaxed first.
"""

import sys

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa
from elastic import get_elastic_tensor, get_elementary_deformations
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from amptorch import AmpTorch

# Strains, percent, of the six fits that give the elastic constants.
LARGEST_STRAIN, STRAINS = 1.0, 5
# Centring, and points of the Brillouin zone of the primitive cell.
FACES = "F", {"Γ": (0, 0, 0), "X": (0.5, 0, 0.5), "L": (0.5, 0.5, 0.5)}
BODY = "I", {"Γ": (0, 0, 0), "H": (0.5, -0.5, 0.5), "N": (0, 0, 0.5)}
POINTS = {"fcc": FACES, "diamond": FACES, "bcc": BODY}


def relaxed(symbol: str, structure: str, a: float, calculator) -> Atoms:
    """Return the relaxed conventional cell."""
    atoms = bulk(symbol, structure, a=a, cubic=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=200)
    return atoms


def elastic_constants(atoms: Atoms) -> dict[str, float]:
    """Return C11, C12 and C44 of a cubic crystal, GPa, by fits to the stresses of strained cells.

    The atoms of each strained cell are relaxed.
    """
    systems = get_elementary_deformations(atoms, n=STRAINS, d=LARGEST_STRAIN)
    for strained in systems:
        strained.calc = atoms.calc
        BFGS(strained, logfile=None).run(fmax=1e-4, steps=200)
    constants, _ = get_elastic_tensor(atoms, systems=systems)
    return dict(zip(("C11", "C12", "C44"), (float(c) / GPa for c in constants[:3]), strict=True))


def equation_of_state(atoms: Atoms) -> tuple[float, float]:
    """Return the lattice constant, Å, and the bulk modulus, GPa, by a fit to energies."""
    volumes, energies = [], []
    for scale in np.linspace(0.97, 1.03, 9):
        image = atoms.copy()
        image.set_cell(atoms.cell * scale, scale_atoms=True)
        image.calc = atoms.calc
        volumes.append(image.get_volume())
        energies.append(image.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    return volume ** (1 / 3), modulus / GPa


def phonons(atoms: Atoms, structure: str, repeat: int = 3) -> dict[str, np.ndarray]:
    """Return frequencies, THz, at points of the Brillouin zone of the primitive cell, by finite
    displacements in a supercell of repeat³ conventional cells."""
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
    )
    centring, points = POINTS[structure]
    phonopy = Phonopy(cell, repeat * np.eye(3, dtype=int), primitive_matrix=centring)
    phonopy.generate_displacements(distance=0.01)
    forces = []
    for displaced in phonopy.supercells_with_displacements:
        image = Atoms(
            displaced.symbols,
            cell=displaced.cell,
            scaled_positions=displaced.scaled_positions,
            pbc=True,
            calculator=atoms.calc,
        )
        forces.append(image.get_forces())
    phonopy.forces = forces
    phonopy.produce_force_constants()
    found = phonopy.run_qpoints(list(points.values())).frequencies
    return dict(zip(points, np.sort(found, axis=1), strict=True))


SMALL = "--small" in sys.argv
given = [word for word in sys.argv[1:] if word != "--small"]
model, symbol, structure, length = given or ("EMT", "Cu", "fcc", "3.6")
crystal = relaxed(symbol, structure, float(length), EMT() if model == "EMT" else AmpTorch(model))
length, modulus = equation_of_state(crystal)
constants = elastic_constants(crystal)
frequencies = phonons(crystal, structure, repeat=2 if SMALL else 3)
print(f"a    {length:.4f} Å\nB    {modulus:.1f} GPa")
for name, value in constants.items():
    print(f"{name:<4} {value:.1f} GPa")
for name, values in frequencies.items():
    print(f"{name:<4} {' '.join(f'{value:.2f}' for value in values)} THz")
