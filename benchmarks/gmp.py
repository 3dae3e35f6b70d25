"""GMP fingerprints: time a frame on one core, at v1.0's default cutoff, at 8 Å, and up to order 9.

    python benchmarks/gmp.py                      # generated frames of 164 atoms
    python benchmarks/gmp.py --data frames.traj   # the first 8 of a file

Scheme `gmpordernorm`, ten widths up to 2 Å, the densities that are shipped; neighbour search
included. Medians of calls in turn.
"""

import argparse

import numpy as np
from measurements import in_turns, per_frame
from setups import iron_water_frames
from summary import table

from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.frames import Frames, read_images

N_FRAMES = 8
SIGMAS = np.linspace(0.2, 2.0, 10).tolist()
CASES = ((None, 4), (8.0, 4), (None, 10))  # cutoff (None: the default, Å), number of orders


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="file that ASE reads")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    if options.data:
        images = read_images(options.data)[:N_FRAMES]
    else:
        images = iron_water_frames(164, N_FRAMES)
    frames = Frames.from_atoms(images)
    elements = sorted({symbol for atoms in images for symbol in atoms.symbols})
    calls = {}
    for cutoff, orders in CASES:
        params = {"MCSHs": {"orders": list(range(orders)), "sigmas": SIGMAS}}
        params |= {} if cutoff is None else {"cutoff": cutoff}
        descriptor = GMPOrderNorm(params, elements)
        name = f"{descriptor.cutoff:g} Å, orders 0-{orders - 1}"
        calls[f"{name}: values and derivatives"] = lambda d=descriptor: d.values_and_derivatives(
            frames, threads=1
        )
        calls[f"{name}: values"] = lambda d=descriptor: d.values(frames, threads=1)
    cells = [
        [result["row"], f"{1000 * np.median(result['wall']):.1f}"]
        for result in per_frame(in_turns(calls, options.repeats), len(frames))
    ]
    print(table(("ms a frame", "here"), cells))


if __name__ == "__main__":
    main()
