"""Energy and forces of single structures of 1,000 to 16,000 atoms through the ASE calculator.

    python benchmarks/large_structure.py

Water on iron, 36 symmetry functions an atom (cutoff 6.5 Å), a BPNN of 3 × 20; medians of several
calls, each with moved atoms and a new neighbour list. The exponent of time against atoms is 1 where
the time is linear.
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from amptorch import AmpTorch, AtomsTrainer
from amptorch.datasets import iron_water

sys.path.insert(0, str(Path(__file__).parent))
from measurements import functions

REPEATS = [(3, 2, 1), (4, 3, 1), (5, 5, 1), (7, 7, 1), (7, 7, 2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    frames = iron_water(4, seed=1, min_water=44)
    trainer = AtomsTrainer(
        {
            "model": {"num_layers": 3, "num_nodes": 20},
            "optim": {"epochs": 1, "force_coefficient": 1.0},
            "dataset": {"raw_data": frames, "fp_scheme": "gaussian", "fp_params": functions()},
            "cmd": {"debug": True, "verbose": False},
        }
    )
    trainer.train()
    sizes, medians = [], []
    print("atoms     seconds   microseconds an atom   peak memory, GB")
    for repeats in REPEATS:
        atoms = frames[0].repeat(repeats)
        atoms.calc = AmpTorch(trainer, skin=0.0)
        seconds = []
        for step in range(options.repeats):
            atoms.rattle(1e-3, seed=step)
            start = time.perf_counter()
            atoms.get_forces()
            seconds.append(time.perf_counter() - start)
        sizes.append(len(atoms))
        medians.append(statistics.median(seconds))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{sizes[-1]:6d} {medians[-1]:10.3f} {1e6 * medians[-1] / sizes[-1]:14.1f} {peak:22.2f}"
        )
    exponent = np.polyfit(np.log(sizes), np.log(medians), 1)[0]
    print(f"time grows as atoms^{exponent:.2f}")


if __name__ == "__main__":
    main()
