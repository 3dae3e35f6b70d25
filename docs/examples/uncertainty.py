"""How far to trust a prediction: conformal prediction in the latent space of the network."""

import sys

import numpy as np

from amptorch import AtomsTrainer
from amptorch.datasets import iron_water
from amptorch.uncertainty import ConformalPredictionLatentSpace, calibration_plot

small = "--small" in sys.argv
n_frames, epochs = (45, 2) if small else (300, 40)

# One third each to train on, to calibrate with, and to test.
images = iron_water(n_frames, max_water=4)
train_images, calibration_images, test_images = images[::3], images[1::3], images[2::3]

config = {
    "model": {"num_layers": 2, "num_nodes": 20, "initialization": "small"},
    "optim": {"force_coefficient": 50, "lr": 1e-2, "batch_size": 4, "epochs": epochs},
    "dataset": {
        "raw_data": train_images,
        "atomic_correction": True,  # energies of the elements, taken off
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
    "cmd": {"run_dir": "runs", "identifier": "uncertainty", "seed": 1},
}

trainer = AtomsTrainer(config)
trainer.train()

estimator = ConformalPredictionLatentSpace(trainer)
estimator.fit(calibration_images)
found = estimator.predict(test_images, confidence=0.8)

energies = np.array([image.get_potential_energy() for image in test_images])
within = np.abs(np.array(found["energy"]) - energies) <= np.array(found["energy_uncertainty"])
print(f"{within.mean():.0%} of the energies lie within their intervals for 80 %")

# The same for 99 confidences, energies and forces, as a picture.
calibration_plot("calibration.png", estimator.metrics(test_images))

# In a simulation: every step has its intervals.
atoms = test_images[0].copy()
atoms.calc = estimator.get_calc(confidence=0.8)
atoms.get_forces()
print(
    f"Energy {atoms.get_potential_energy():.2f} ± {atoms.calc.results['energy_uncertainty']:.2f} eV"
)
print(f"Most uncertain force: ± {max(atoms.calc.results['forces_uncertainty']):.2f} eV/Å")
