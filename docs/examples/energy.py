"""Energies alone: carbon monoxide on copper, trained without forces."""

import sys

import numpy as np
import torch
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT

from amptorch import AtomsTrainer

small = "--small" in sys.argv
n_frames, epochs = (24, 5) if small else (200, 300)

# CO above a slab of copper, at different heights, all atoms displaced at random.
rng = np.random.default_rng(0)
images = []
for _ in range(n_frames):
    slab = fcc100("Cu", size=(2, 2, 3), vacuum=6.0)
    add_adsorbate(slab, molecule("CO"), height=rng.uniform(2.5, 4.0), position="bridge")
    slab.positions += rng.normal(scale=0.05, size=slab.positions.shape)
    slab.calc = EMT()
    slab.get_potential_energy()
    images.append(slab)
train_images, test_images = images[: n_frames * 3 // 4], images[n_frames * 3 // 4 :]

config = {
    "model": {"get_forces": False, "num_layers": 3, "num_nodes": 10},
    "optim": {
        "lr": 1e-2,
        "batch_size": 16,
        "epochs": epochs,
        "loss": "mse",
        "metric": "mae",
        "scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": epochs}},
    },
    "dataset": {
        "raw_data": train_images,
        "atomic_correction": True,  # energies of the elements, taken off
        "val_split": 0.1,
        "elements": ["Cu", "C", "O"],
        "fp_scheme": "gaussian",
        "fp_params": {
            "default": {
                "cutoff": 6.0,
                "G2": {"etas": np.logspace(np.log10(0.5), np.log10(20.0), num=4), "rs_s": [0]},
                "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            },
        },
    },
    "cmd": {"run_dir": "runs", "identifier": "energy", "seed": 1, "dtype": torch.DoubleTensor},
}

trainer = AtomsTrainer(config)
trainer.train()

predictions = trainer.predict(test_images)
energies = np.array([image.get_potential_energy() for image in test_images])
error = np.abs(np.array(predictions["energy"]) - energies).mean()
print(
    f"Energies of frames kept out: mean absolute error {error:.3f} eV, spread {energies.std():.3f}"
)
