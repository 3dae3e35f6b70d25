"""Fingerprints and their derivatives without any training: symmetry functions and GMP."""

import sys

import numpy as np

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm

small = "--small" in sys.argv
images = iron_water(2 if small else 20)
elements = ["Fe", "H", "O"]

Gs = {
    "default": {
        "cutoff": 6.0,
        "G2": {"etas": np.logspace(-1, 2, 6), "rs_s": [0]},
        "G4": {"etas": [1.0], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
    },
}
MCSHs = {"MCSHs": {"orders": [0, 1, 2, 3], "sigmas": [0.5, 1.0, 1.5]}, "cutoff": 8.0}

for descriptor in (Gaussian(Gs, elements), GMPOrderNorm(MCSHs, elements)):
    fingerprints = descriptor.prepare_fingerprints(
        images, calc_derivatives=True, save_fps=False, verbose=False, cores=1, log=None
    )
    first = fingerprints[0]
    primes = first["descriptor_primes"]
    filled = len(primes["val"]) / np.prod(primes["size"])
    print(f"{type(descriptor).__name__}: {len(fingerprints)} frames")
    print(f"  of the first: {first['descriptors'].shape} (atoms, features)")
    print(f"  derivatives: sparse {tuple(primes['size'])}, {filled:.1%} nonzero")

    np.savez(
        f"{type(descriptor).__name__}.npz",
        **{f"frame{k}": frame["descriptors"] for k, frame in enumerate(fingerprints)},
    )
