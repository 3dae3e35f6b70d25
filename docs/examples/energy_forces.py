"""Energies and forces: train, check, relax a structure, and load the checkpoint again."""

import sys

import numpy as np
from ase.optimize import FIRE

from amptorch import AmpTorch, AtomsTrainer
from amptorch.datasets import iron_water, iron_water_potential
from amptorch.frames import Frames
from amptorch.reports import error_table, prediction_errors

small = "--small" in sys.argv
n_frames, epochs = (12, 3) if small else (120, 60)

# Water on iron, 35 to 56 atoms. Yours: ase.io.read("frames.traj", ":").
images = iron_water(n_frames, max_water=8)
train_images, test_images = images[: n_frames * 3 // 4], images[n_frames * 3 // 4 :]

config = {
    "model": {
        "get_forces": True,
        "num_layers": 3,
        "num_nodes": 20,
        "initialization": "small",
    },
    "optim": {
        "force_coefficient": 50,
        "lr": 1e-2,
        "batch_size": 4,
        "epochs": epochs,
        "cp_metric": "forces",
        "scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": epochs}},
    },
    "dataset": {
        "raw_data": train_images,
        "atomic_correction": True,  # energies of the elements, taken off
        "val_split": 0.1,
        "fp_scheme": "gaussian",
        "fp_params": {
            "default": {
                "cutoff": 6.0,
                "G2": {"etas": np.logspace(-1, 2, 6), "rs_s": [0]},
                "G4": {"etas": [1.0], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            },
        },
        "scaling": {"type": "standardize"},
    },
    "cmd": {"run_dir": "runs", "identifier": "energy-forces", "seed": 1},
}

trainer = AtomsTrainer(config)
trainer.train()

predictions = trainer.predict(test_images)
test_frames = Frames.from_atoms(test_images, energies=True, forces=True)
print(error_table({"kept out": prediction_errors(test_frames, predictions)}))

# A relaxation, for a few steps: away from the training frames, but still right?
atoms = test_images[0].copy()
atoms.calc = AmpTorch(trainer)
FIRE(atoms).run(fmax=0.3, steps=20)
reached, reference = atoms.get_potential_energy(), iron_water_potential(atoms)[0]
print(f"after the relaxation: {reached:.2f} eV, reference {reference:.2f} eV")

# The folder of the checkpoint is all that is needed to predict.
again = AtomsTrainer()
again.load_pretrained(trainer.cp_dir)
assert again.predict(test_images)["energy"] == predictions["energy"]
