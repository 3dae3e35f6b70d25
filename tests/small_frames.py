"""Small frames with energies and forces for tests that train or predict."""

from copy import deepcopy

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from amptorch.data.samplers import drawn_rows, with_forces_of

# On a busy machine torch's threads wait for each other longer than these small networks take.
torch.set_num_threads(1)

FP_PARAMS = {
    "default": {
        "cutoff": 4.5,
        "G2": {"etas": [0.5, 4.0, 12.0], "rs_s": [0.0]},
        "G4": {"etas": [0.1], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
    }
}


def labelled(atoms, energy=None, forces=None):
    """The frame with EMT's energy and forces (or those given) kept in it."""
    copy = atoms.copy()
    if energy is None:
        copy.calc = EMT()
        energy, forces = copy.get_potential_energy(), copy.get_forces(apply_constraint=False)
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def mixed_frames(n_frames=12, seed=0):
    """Copper oxide crystals, slabs and molecules of 2 to 8 atoms, each distorted anew."""
    rng = np.random.default_rng(seed)
    kinds = [
        bulk("Cu", "fcc", a=3.7, cubic=True),
        bulk("CuO", "rocksalt", a=4.3, cubic=True),
        Atoms("Cu2O", [[0, 0, 0], [2.3, 0, 0], [1.1, 1.5, 0]]),
        molecule("O2"),
    ]
    frames = []
    for k in range(n_frames):
        atoms = kinds[k % len(kinds)].copy()
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames.append(labelled(atoms))
    return frames


def slabs(n_frames, seed=0):
    """Copper slabs of three layers, the lowest held in place, with an oxygen atom; all atoms are
    moved at random."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
        add_adsorbate(slab, "O", 1.2, "fcc")
        slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
        slab.positions += rng.normal(scale=0.08, size=slab.positions.shape)
        frames.append(labelled(slab))
    return frames


def config(images, run_dir, **changes):
    """A small configuration; `changes` are section__key=value."""
    settings = {
        "model": {"get_forces": True, "num_layers": 2, "num_nodes": 6},
        "optim": {"force_coefficient": 0.1, "lr": 1e-2, "batch_size": 4, "epochs": 5},
        "dataset": {
            "raw_data": images,
            "fp_scheme": "gaussian",
            "fp_params": deepcopy(FP_PARAMS),
            "save_fps": False,
        },
        "cmd": {"run_dir": str(run_dir), "verbose": False, "seed": 3},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        settings[section][key] = value
    return settings


def draw_forces(batch, fraction, rng):
    """The batch with the forces of a share of its atoms, drawn as `BatchLoader` draws them."""
    return with_forces_of(batch, drawn_rows(len(batch.fingerprint), fraction, rng))
