"""Small structures that between them have everything that goes wrong with periodicity."""

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def _molecule():
    return molecule("CH3OH")


def _one_atom_cell():
    return bulk("Fe", "bcc", a=2.87)


def _tiny_cell():
    return Atoms("CuO", [[0.1, 0, 0], [1.3, 1.1, 1.4]], cell=[2.5, 2.6, 2.7], pbc=True)


def _skewed_cell():
    cell = [[4.0, 0, 0], [3.1, 2.9, 0], [-2.8, 2.2, 3.0]]
    return Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.48, 0.53, 0.51]], cell=cell, pbc=True)


def _slab():
    atoms = fcc111("Pd", (1, 1, 2), a=3.9, vacuum=None)
    atoms.extend(Atoms("O", [[0.2, 0.1, atoms.positions[:, 2].max() + 1.4]]))
    # The third cell vector is zero, as ASE makes slabs without vacuum.
    atoms.pbc = (True, True, False)
    return atoms


def _chain():
    return Atoms(
        "HOC", [[0, 0, 0], [0.3, 0.9, 1.0], [0, 0.2, 2.1]], cell=[0, 0, 3.3], pbc=(0, 0, 1)
    )


def _outside_the_cell():
    atoms = Atoms("CuCO", [[-3.0, 7.1, 0.2], [9.0, 1.2, -0.4], [9.1, 1.0, 5.3]])
    atoms.set_cell([5.5, 5.7, 6.1])
    atoms.pbc = (True, False, True)
    return atoms


_MAKERS = {
    "molecule": _molecule,
    "one_atom_cell": _one_atom_cell,
    "tiny_cell": _tiny_cell,
    "skewed_cell": _skewed_cell,
    "slab": _slab,
    "chain": _chain,
    "outside_the_cell": _outside_the_cell,
}
NAMES = list(_MAKERS)


def make(name, seed=0):
    """The structure, each atom displaced by up to 0.15 Å along each axis."""
    atoms = _MAKERS[name]()
    atoms.positions += np.random.default_rng(seed).uniform(-0.15, 0.15, atoms.positions.shape)
    return atoms


def elements_of(atoms):
    return sorted(set(atoms.get_chemical_symbols()))
