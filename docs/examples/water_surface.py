"""The energy of a water molecule over bond length and angle, learnt and drawn beside the truth."""

import sys

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from amptorch import AtomsTrainer

small = "--small" in sys.argv
n_train, n_drawn, epochs = (5, 7, 5) if small else (13, 41, 600)


def reference_energy(length, angle):
    """Two Morse bonds of `length` (Å) and a bend of `angle` (degrees), eV."""
    morse = 4.8 * (1 - np.exp(-2.2 * (length - 0.96))) ** 2
    bend = 1.75 * (np.cos(np.radians(angle)) - np.cos(np.radians(104.5))) ** 2
    return 2 * morse + bend


def water(length, angle):
    """A molecule with both bonds of one length, and its energy."""
    half = np.radians(angle) / 2
    x, y = length * np.sin(half), length * np.cos(half)
    atoms = Atoms("OH2", positions=[[0, 0, 0], [x, y, 0], [-x, y, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=reference_energy(length, angle))
    return atoms


def grid(n):
    return np.meshgrid(np.linspace(0.8, 1.3, n), np.linspace(75, 140, n))


lengths, angles = grid(n_train)
images = [water(r, theta) for r, theta in zip(lengths.ravel(), angles.ravel(), strict=True)]

config = {
    "model": {"name": "bpnn", "get_forces": False, "num_layers": 2, "num_nodes": 15},
    "optim": {
        "lr": 1e-2,
        "batch_size": 16,
        "epochs": epochs,
        "scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": epochs}},
    },
    "dataset": {
        "raw_data": images,
        "atomic_correction": True,  # energies of the elements, taken off
        "fp_scheme": "gaussian",
        "fp_params": {
            "default": {
                "cutoff": 4.0,
                "G2": {"etas": [2.0, 20.0], "rs_s": [0.0, 1.0]},
                "G4": {"etas": [0.1], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            },
        },
    },
    "cmd": {"run_dir": "runs", "identifier": "water", "seed": 1, "verbose": False},
}
trainer = AtomsTrainer(config)
trainer.train()

# A finer grid, most of whose points the training has not seen.
lengths, angles = grid(n_drawn)
molecules = [water(r, theta) for r, theta in zip(lengths.ravel(), angles.ravel(), strict=True)]
learnt = np.reshape(trainer.predict(molecules)["energy"], lengths.shape)
reference = reference_energy(lengths, angles)
error = np.sqrt(np.mean((learnt - reference) ** 2))
print(f"{len(images)} points learnt, {len(molecules)} drawn: RMSE {1000 * error:.1f} meV")

figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey=True)
levels = np.linspace(0, reference.max(), 21)
for panel, title, energy in zip(panels, ("reference", "learnt"), (reference, learnt), strict=False):
    drawn = panel.contourf(lengths, angles, energy, levels, extend="both")
    panel.set(title=title, xlabel="bond length (Å)")
figure.colorbar(drawn, ax=panels[:2], label="energy (eV)")
drawn = panels[2].contourf(lengths, angles, 1000 * (learnt - reference), 20, cmap="RdBu")
panels[2].set(title=f"difference, RMSE {1000 * error:.1f} meV", xlabel="bond length (Å)")
panels[2].plot(*(axis.ravel() for axis in grid(n_train)), ".k", markersize=3)
figure.colorbar(drawn, ax=panels[2], label="meV")
panels[0].set(ylabel="angle (degrees)")
figure.savefig("water_surface.png", dpi=120)
