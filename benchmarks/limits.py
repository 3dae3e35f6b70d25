"""How far the two kernels that cost most are from what this machine could do at best.

    python benchmarks/limits.py [--json FILE] [--repeats N]

The G4 derivative kernel: operations counted (`counting.py`), their time at the measured limits of
arithmetic and of the first-level cache (`peaks.py`), the time of each inner loop alone
(`inner_loops.py`) and that of the kernel, split into what every pair of neighbours costs and what
every function adds, by a fit over the number of functions. The contraction of stored derivatives:
bytes against the measured bandwidth of memory. One core, one thread; always the shortest time,
because a limit is what nothing disturbs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(dict.fromkeys(("AMPTORCH_NUM_THREADS", "OMP_NUM_THREADS"), "1"))

import inner_loops
import numpy as np
import peaks
from measurements import described, in_turns
from setups import CUTOFF, cores, functions, machine, read_frames

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.kernels import lanes, symmetry_functions
from amptorch.neighbors import neighbor_list

COUNTING = Path(__file__).with_name("counting.py")
SHAPES = (1, 2, 3, 4, 5)  # numbers of (ζ, λ) over which the time is fitted
FRAMES_IN_MEMORY, FRAMES_IN_CACHE = 64, 2


def counted(step):
    """What `counting.py` finds, which has to run without the compiler."""
    done = subprocess.run(
        [sys.executable, str(COUNTING), "--step", str(step)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def bounds(work, limits):
    """Seconds that `work` takes at least for arithmetic, for loads and for stores.

    Additions that take a product go with it at the rate of fused multiply-adds, the rest at the
    rate of separate operations.
    """
    fused = 2 * work.get("fused", 0)
    rest = work.get("flops", 0) - fused
    return {
        "arithmetic": 1e-9 * (fused / limits["fused_gflops"] + rest / limits["separate_gflops"]),
        "loads": 1e-9 * work["loads"] / limits["loads"],
        "stores": 1e-9 * work["stores"] / limits["stores"],
    }


def kernel_call(descriptor, frames, neighbors):
    """The derivative kernel on arrays that are there already."""
    pairs, counts = descriptor._inputs(frames, neighbors, 1)
    blocks = descriptor._empty_blocks(pairs, counts, 1)
    out = np.zeros((frames.n_atoms, descriptor.n_features))

    def call():
        symmetry_functions.derivatives(
            descriptor._functions,
            descriptor._reach,
            pairs,
            0,
            frames.n_atoms,
            out,
            blocks,
        )

    return call


def with_shapes(n, elements):
    """A descriptor whose one group has n functions of ζ = 4, of the same cost each."""
    return Gaussian(
        {
            "default": {
                "cutoff": CUTOFF,
                "G4": {"etas": [0.005], "zetas": [4.0], "gammas": np.linspace(-1, 1, n)},
            }
        },
        elements,
    )


def derivative_kernel(images, repeats, limits, count):
    """The G4 kernel on frames of one size: seconds a frame and what bounds them."""
    descriptor, frames = described(images)
    neighbors = neighbor_list(frames, descriptor.cutoff)
    g2 = {kind: what for kind, what in functions()["default"].items() if kind != "G4"}
    radial = Gaussian({"default": g2}, descriptor.elements)
    calls = {
        "kernel": kernel_call(descriptor, frames, neighbors),
        "radial": kernel_call(radial, frames, neighbors),
        "neighbors": lambda: neighbor_list(frames, CUTOFF),
        "whole": lambda: descriptor.values_and_derivatives(frames),
    }
    for n in SHAPES:
        calls[n] = kernel_call(with_shapes(n, descriptor.elements), frames, neighbors)
    results = {row["row"]: min(row["wall"]) / len(frames) for row in in_turns(calls, repeats)}
    pairs = sum_of_lane_pairs(neighbors.counts) / len(frames)
    nanoseconds = [1e9 * results.pop(n) / pairs for n in SHAPES]
    per_function, per_pair = np.polyfit(SHAPES, nanoseconds, 1)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _, blocks = calls["whole"]()
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / len(frames)
    stages = {
        name: {kind: value / count["pairs_counted"] for kind, value in stage.items()}
        for name, stage in count["stages"].items()
    }
    work = {
        kind: pairs * sum(stage.get(kind, 0) for stage in stages.values())
        for kind in ("flops", "fused", "loads", "stores", "special")
    }
    return {
        "seconds": results,
        "pairs": pairs,
        "per_pair": {
            name: {**stage, "bounds": bounds(stage, limits)} for name, stage in stages.items()
        },
        "per_frame": {**work, "bounds": bounds(work, limits)},
        "block_bytes": blocks.nbytes / len(frames),
        "functions": count["functions"] // len(descriptor.elements),
        "fit": {
            "functions": SHAPES,
            "ns": nanoseconds,
            "ns_per_pair": per_pair,
            "ns_per_function": per_function,
        },
        "page_faults": faults,
    }


def sum_of_lane_pairs(counts):
    return float((lanes.LANES * (-(-counts // lanes.LANES)) * counts).sum())


def contraction(images, repeats):
    """Jᵀg and J v from stored derivatives: bytes read, operations and seconds a frame."""
    rng = np.random.default_rng(0)
    results = []
    for dtype in ("float64", "float32"):
        descriptor, frames = described(images)
        _, blocks = descriptor.values_and_derivatives(frames, dtype=np.dtype(dtype))
        for place, n in (("memory", FRAMES_IN_MEMORY), ("cache", FRAMES_IN_CACHE)):
            chosen = np.arange(min(n, len(frames)))
            atoms = frames.offsets[len(chosen)]
            g = rng.normal(size=(atoms, descriptor.n_features))
            v = rng.normal(size=(atoms, 3))
            calls = {
                "vjp": lambda blocks=blocks, chosen=chosen, g=g: blocks.vjp(chosen, g),
                "jvp": lambda blocks=blocks, chosen=chosen, v=v: blocks.jvp(chosen, v),
            }
            size = blocks.nbytes * len(chosen) / len(frames)
            n_values = len(blocks.blocks.values) * len(chosen) / len(frames)
            for row in in_turns(calls, repeats):
                results.append(
                    {
                        "what": row["row"],
                        "dtype": dtype,
                        "place": place,
                        "frames": len(chosen),
                        "megabytes": size / 1e6,
                        "flops": 2 * n_values,
                        "seconds": min(row["wall"]),
                        "median": statistics.median(row["wall"]),
                        "gb_per_s": size / min(row["wall"]) / 1e9,
                        "gflops": 2 * n_values / min(row["wall"]) / 1e9,
                    }
                )
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--step", type=int, default=41, help="count every n-th atom of a frame")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    described_machine = machine()
    count = counted(options.step)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores()[-1]})
    start = time.perf_counter()
    images = read_frames(n_frames=FRAMES_IN_MEMORY)
    limits = {**peaks.arithmetic(options.repeats), "memory": peaks.memory(options.repeats)}
    loops = inner_loops.costs(options.repeats, peaks.aligned)
    kernel = derivative_kernel(images[:8], options.repeats, limits, count["derivatives"])
    results = {
        "machine": described_machine,
        "command": "python benchmarks/limits.py",
        "limits": limits,
        "counted": count,
        "derivatives": kernel,
        "contraction": contraction(images, options.repeats),
        "inner_loops": loops,
        "compiled_loop": inner_loops.packed_instructions(),
        "seconds": time.perf_counter() - start,
    }
    text = json.dumps(results, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf8")
    else:
        print(text)


if __name__ == "__main__":
    main()
