"""Data sets in LMDB files: written by hand as for v1.0, then trained on with each cache."""

import pickle
import sys

import lmdb
import numpy as np

from amptorch import AtomsTrainer
from amptorch.dataset import construct_descriptor
from amptorch.datasets import iron_water
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler

small = "--small" in sys.argv
n_frames, epochs = (12, 2) if small else (100, 20)

# Of one composition: what `TargetScaler` subtracts below is a mean energy of whole frames. For any
# frames, `write_lmdb` takes `dataset.atomic_correction` (see the end of this part).
images = iron_water(n_frames, min_water=8, max_water=8)
elements = ["Fe", "H", "O"]
fp_params = {
    "default": {
        "cutoff": 6.0,
        "G2": {"etas": [0.1, 1.0, 10.0, 100.0], "rs_s": [0]},
        "G4": {"etas": [1.0], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
    },
}
descriptor_setup = ("gaussian", fp_params, {"cutoff_func": "Cosine"}, elements)

# Fingerprints and targets of every frame, scaled, and what they were scaled with.
converter = AtomsToData(
    descriptor=construct_descriptor(descriptor_setup),
    r_energy=True,
    r_forces=True,
    save_fps=False,
    fprimes=True,
)
data_list = [converter.convert(image, idx) for idx, image in enumerate(images)]
scaling = {"type": "normalize", "range": (0, 1), "elementwise": True}
feature_scaler = FeatureScaler(data_list, True, scaling)
target_scaler = TargetScaler(data_list, True)
feature_scaler.norm(data_list)
target_scaler.norm(data_list)

entries = {str(idx): data for idx, data in enumerate(data_list)}
entries |= {
    "feature_scaler": feature_scaler,
    "target_scaler": target_scaler,
    "length": len(data_list),
    "elements": elements,
    "descriptor_setup": descriptor_setup,
}
with lmdb.open("frames.lmdb", map_size=1 << 33, subdir=False) as db, db.begin(write=True) as txn:
    for key, value in entries.items():
        txn.put(key.encode("ascii"), pickle.dumps(value, protocol=-1))

# All of the above in one call:
# from amptorch.v1.lmdb_file import write_lmdb
# write_lmdb(images, "frames.lmdb", config)

for cache in ("no", "partial", "full"):
    config = {
        "model": {"num_layers": 3, "num_nodes": 20, "initialization": "small"},
        "optim": {"force_coefficient": 50, "lr": 1e-2, "batch_size": 4, "epochs": epochs},
        "dataset": {"lmdb_path": ["frames.lmdb"], "cache": cache, "val_split": 0.1},
        "cmd": {"run_dir": "runs", "identifier": f"lmdb-{cache}", "seed": 1, "verbose": False},
    }
    trainer = AtomsTrainer(config)
    trainer.train()
    seconds = np.median(trainer.net.history[:, "dur"])
    error = trainer.net.history[-1, "val_forces_mae"]
    print(f"cache {cache:7} {seconds:5.2f} s an epoch, forces to {error:.2f} eV/Å")
