"""The measurements of `standard.py`, which runs each group of them in a process of its own.

    python benchmarks/measurements.py GROUP [--data FILE] [--repeats N]

prints JSON: a list of {"row", "wall", "cpu"} with seconds, or of {"row", "value"}. What is compared
is measured in turns, so that a change of the machine's load falls on all alike.
"""

import argparse
import importlib.util
import json
import os
import time

import numpy as np
from setups import (
    CUTOFF,
    MD_PERIOD,
    elements_of,
    functions,
    moving,
    new_trainer,
    rattled,
    read_frames,
)

# A training set of eight frames would be half a batch: nothing but overhead.
N_TRAINING_FRAMES = 64


def in_turns(calls, repeats):
    """Seconds of wall and of CPU time of each of `calls` {row: function}, called in turns."""
    for call in calls.values():
        call()
    results = {row: {"row": row, "wall": [], "cpu": []} for row in calls}
    for _ in range(repeats):
        for row, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            results[row]["cpu"].append(time.process_time() - cpu)
            results[row]["wall"].append(time.perf_counter() - wall)
    return list(results.values())


def per_frame(results, n_frames):
    """Times of calls that treat `n_frames` frames, as times a frame."""
    for result in results:
        for clock in ("wall", "cpu"):
            result[clock] = [seconds / n_frames for seconds in result[clock]]
    return results


def described(images):
    """Descriptor of the standard set-up and the frames as arrays."""
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.frames import Frames

    return Gaussian(functions(), elements_of(images)), Frames.from_atoms(images)


def fingerprints(images, repeats):
    """Fingerprints with and without derivatives, neighbour search included, and what they need."""
    descriptor, frames = described(images)
    calls = {
        "values and derivatives": lambda: descriptor.values_and_derivatives(frames),
        "values": lambda: descriptor.values(frames),
    }
    results = per_frame(in_turns(calls, repeats), len(frames))
    for dtype in ("float64", "float32"):
        blocks = descriptor.values_and_derivatives(frames, dtype=np.dtype(dtype))[1]
        size = blocks.nbytes / len(frames) / 1e6
        results.append({"row": f"kept derivatives, {dtype}", "value": size})
    return results


def other_fingerprints(images, repeats):
    """The same values by DScribe, where it is installed."""
    if importlib.util.find_spec("dscribe") is None:
        return []
    from dscribe.descriptors import ACSF

    descriptor = described(images)[0]
    rows = next(iter(descriptor.descriptor_setup.values()))
    acsf = ACSF(
        r_cut=CUTOFF,
        species=descriptor.elements,
        periodic=True,
        g2_params=np.unique(rows[rows[:, 0] == 2][:, 4:6], axis=0),
        g4_params=np.unique(rows[rows[:, 0] == 4][:, 4:7], axis=0),
    )
    image = images[0]
    return in_turns({"values, DScribe": lambda: acsf.create(image)}, max(2, repeats // 5))


def neighbors(images, repeats):
    """Neighbour search in one frame, and that of vesin, matscipy and ASE where installed."""
    from ase.neighborlist import neighbor_list as ase_list

    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    image = images[0]
    frame = Frames.from_atoms([image])
    calls = {"neighbour search": lambda: neighbor_list(frame, CUTOFF)}
    if importlib.util.find_spec("vesin") is not None:
        import vesin

        search = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
        points, box = image.positions, image.cell.array
        calls["neighbour search, vesin"] = lambda: search.compute(points, box, True, "ijSD")
    if importlib.util.find_spec("matscipy") is not None:
        from matscipy.neighbours import neighbour_list as matscipy_list

        calls["neighbour search, matscipy"] = lambda: matscipy_list("ijDS", image, CUTOFF)
    results = in_turns(calls, 5 * repeats)
    return results + in_turns(
        {"neighbour search, ASE": lambda: ase_list("ijDS", image, CUTOFF)}, max(2, repeats // 5)
    )


def make_trainer(images, derivative_dtype="float64"):
    """A trainer of networks of 3 x 20 nodes, ready to train."""
    trainer = new_trainer(images, dataset__derivative_dtype=derivative_dtype)
    trainer.load()
    trainer.net.initialize()
    return trainer


def molecular_dynamics(images, repeats):
    """Energy and forces of a frame that moves as in dynamics, through the ASE calculator."""
    from amptorch import AmpTorch

    trainer = make_trainer(images)
    calls = {
        "energy and forces of a moved frame": moving(images[0], AmpTorch(trainer)),
        "energy and forces, every list anew": moving(images[0], AmpTorch(trainer, skin=0.0)),
    }
    return in_turns(calls, max(MD_PERIOD + 1, repeats))


def training(images, repeats):
    """Epochs of training on energies and forces; their own clock is skorch's."""
    frames = rattled(images, N_TRAINING_FRAMES)
    trainers = {
        f"one epoch of training, derivatives {dtype}": make_trainer(frames, dtype)
        for dtype in ("float64", "float32")
    }
    calls = {
        row: lambda trainer=trainer: trainer.net.partial_fit(trainer.train_dataset, epochs=1)
        for row, trainer in trainers.items()
    }
    results = in_turns(calls, repeats)
    for row, trainer in trainers.items():
        durations = trainer.net.history[1:, "dur"]
        results.append({"row": f"{row}, by skorch's clock", "wall": durations, "cpu": []})
    return per_frame(results, len(frames))


def two_cores(images, repeats):
    """Fingerprints and derivatives of many frames, on one core and on two."""
    descriptor, frames = described(rattled(images, N_TRAINING_FRAMES))
    calls = {
        str(threads): lambda threads=threads: descriptor.values_and_derivatives(
            frames, threads=threads
        )
        for threads in (1, 2)
    }
    one, two = (result["wall"] for result in in_turns(calls, max(3, repeats // 3)))
    speedups = [a / b for a, b in zip(one, two, strict=True)]
    return [{"row": "two cores against one", "value": float(np.median(speedups))}]


def first_fingerprint(images, repeats):
    """The first fingerprint with derivatives in this process, kernels' import included."""
    wall, cpu = time.perf_counter(), time.process_time()
    descriptor, frames = described(images[:1])
    descriptor.values_and_derivatives(frames)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return [{"row": "first fingerprint", "wall": [wall], "cpu": [cpu]}]


GROUPS = {
    group.__name__: group
    for group in (
        fingerprints,
        other_fingerprints,
        neighbors,
        molecular_dynamics,
        training,
        two_cores,
        first_fingerprint,
    )
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--data")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--core", type=int, help="run on this core alone (Linux)")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    images = read_frames(options.data)
    print(json.dumps(GROUPS[options.group](images, options.repeats)))


if __name__ == "__main__":
    main()
