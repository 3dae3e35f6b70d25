"""A set of symmetry functions chosen one by one."""

import sys

from amptorch import AtomsTrainer
from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import GaussianDescriptorSet

small = "--small" in sys.argv
n_frames, epochs = (12, 2) if small else (100, 40)

elements = ["Fe", "H", "O"]
gds = GaussianDescriptorSet(elements, cutoff=6.0, cutoff_params={"cutoff_func": "cosine"})

# The same radial functions for all pairs: lists of eta (in 1/cutoff²) and Rs (in Å), zipped.
gds.batch_add_descriptors(2, [0.5, 4.0, 20.0, 80.0], [0.0, 0.0, 0.0, 0.0])

# Angles only where they matter: in and between molecules, and in the metal with a shorter cutoff.
for zeta in (1.0, 4.0):
    for gamma in (1.0, -1.0):
        gds.add_g4("O", "H", "H", eta=0.5, zeta=zeta, gamma=gamma)
        gds.add_g4("H", "O", "H", eta=0.5, zeta=zeta, gamma=gamma)
        gds.add_g5("Fe", "Fe", "Fe", eta=0.05, zeta=zeta, gamma=gamma, cutoff=4.5)

for element, table in gds.descriptor_setup.items():
    print(f"{element}: {len(table)} symmetry functions")

config = {
    "model": {"num_layers": 3, "num_nodes": 20, "initialization": "small"},
    "optim": {"force_coefficient": 50, "lr": 1e-2, "batch_size": 4, "epochs": epochs},
    "dataset": {
        "raw_data": iron_water(n_frames, max_water=8),
        "atomic_correction": True,  # energies of the elements, taken off
        "val_split": 0.1,
        "elements": elements,
        "fp_scheme": "gaussian",
        "fp_params": gds,
        "cutoff_params": gds.cutoff_params,
        "scaling": {"type": "standardize"},
    },
    "cmd": {"run_dir": "runs", "identifier": "descriptor-set", "seed": 1},
}

trainer = AtomsTrainer(config)
trainer.train()
