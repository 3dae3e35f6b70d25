"""Counts what the kernels compute, by running their Python source on numbers that count.

    NUMBA_DISABLE_JIT=1 python benchmarks/counting.py

With the compiler off the kernels are ordinary Python functions. They are given numbers of the type
`Counted` in arrays of the type `Watched`, so that every operation, load and store is tallied under
the inner loop (`lanes.py`) in which it happens. The fingerprints that come out are those of the
compiled kernels, which is checked: what is counted is what is computed. Prints JSON.

Counted are additions and multiplications (`flops`), how many additions take a product and so fit
into one instruction with it (`fused`), divisions, roots and transcendental functions (`special`),
and accesses of array elements (`loads`, `stores`). Comparisons and index arithmetic are not.
"""

import argparse
import json
import math
import sys
import types
from collections import Counter, defaultdict

import numba
import numpy as np
from measurements import described
from setups import read_frames

from amptorch.kernels import angular, forces, lanes, symmetry_functions
from amptorch.kernels.structures import Work
from amptorch.neighbors import neighbor_list

# Operations of each inner loop; what happens in none of them is "elsewhere".
TALLY = defaultdict(Counter)
STAGES = ["elsewhere"]
INNER_LOOPS = ("distances", "polynomial", "products", "power", "accumulate_gradient")


class Counted(float):
    """A float that counts the operations it takes part in."""

    # numpy's scalars leave operations with it to it.
    __array_ufunc__ = None
    product = False


def _counting(name, kind):
    operation = getattr(float, name)

    def method(self, other):
        tally = TALLY[STAGES[-1]]
        tally[kind] += 1
        result = Counted(operation(self, float(other)))
        if kind == "flops":
            if name in ("__mul__", "__rmul__"):
                result.product = True
            elif self.product or getattr(other, "product", False):
                tally["fused"] += 1
        return result

    return method


for _name in ("add", "sub", "mul"):
    setattr(Counted, f"__{_name}__", _counting(f"__{_name}__", "flops"))
    setattr(Counted, f"__r{_name}__", _counting(f"__r{_name}__", "flops"))
for _name in ("truediv", "pow"):
    setattr(Counted, f"__{_name}__", _counting(f"__{_name}__", "special"))
    setattr(Counted, f"__r{_name}__", _counting(f"__r{_name}__", "special"))


class Watched(np.ndarray):
    """An array of Counted that counts loads and stores of single elements."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if isinstance(value, Counted):
            TALLY[STAGES[-1]]["loads"] += 1
        return value

    def __setitem__(self, key, value):
        TALLY[STAGES[-1]]["stores"] += 1
        super().__setitem__(key, Counted(value))


def watched(array):
    """The same numbers, counting."""
    array = np.asarray(array)
    numbers = np.empty(array.size, dtype=object)
    numbers[:] = [Counted(x) for x in array.ravel()]
    return numbers.reshape(array.shape).view(Watched)


def counted_math():
    """Python's math, with functions that count and give Counted."""

    def counting(function):
        def call(*numbers):
            TALLY[STAGES[-1]]["special"] += 1
            return Counted(function(*numbers))

        return call

    functions = {name: counting(getattr(math, name)) for name in ("sqrt", "exp", "cos", "sin")}
    return types.SimpleNamespace(pi=math.pi, **functions)


def inside(stage, function):
    """`function` with its operations tallied under `stage`."""

    def call(*arguments):
        STAGES.append(stage)
        try:
            return function(*arguments)
        finally:
            STAGES.pop()

    return call


def counting_functions(functions):
    """The table of symmetry functions in numbers that count; integers stay integers."""
    parts = {
        name: part._replace(
            **{
                field: watched(value)
                for field, value in part._asdict().items()
                if isinstance(value, np.ndarray) and value.dtype.kind == "f"
            }
        )
        for name, part in (("radial", functions.radial), ("angular", functions.angular))
    }
    return functions._replace(cutoffs=watched(functions.cutoffs), **parts)


def workspace(function):
    """`symmetry_functions._workspace` in numbers that count."""

    def call(f, offsets, vectors, start, stop):
        work = function(f, offsets, np.empty((0, 3)), start, stop)
        return Work(*(watched(a) if a.dtype.kind == "f" else a for a in work))

    return call


def count_derivatives(image, step):
    """What the derivative kernel does for every `step`-th atom of an image.

    Returns the tally by stage, the number of pair terms of lanes (j, k) that these atoms and that
    all atoms of the image need, and the largest error of the fingerprints against those of ordinary
    floats.
    """
    descriptor, frames = described([image])
    neighbors = neighbor_list(frames, descriptor.cutoff)
    pairs, counts = descriptor._inputs(frames, neighbors, 1)
    blocks = descriptor._empty_blocks(pairs, counts, 1)
    plain = descriptor._functions
    atoms = range(0, frames.n_atoms, step)
    expected = np.zeros((frames.n_atoms, descriptor.n_features))
    for i in atoms:
        symmetry_functions.values(plain, pairs, i, i + 1, expected)
    out = watched(np.zeros_like(expected))
    blocks = blocks._replace(values=watched(blocks.values))
    counting = counting_functions(plain)
    counted = pairs._replace(vectors=watched(pairs.vectors))
    for name in INNER_LOOPS:
        setattr(lanes, name, inside(name, getattr(lanes, name)))
    symmetry_functions._workspace = workspace(symmetry_functions._workspace)
    symmetry_functions.math = angular.math = counted_math()
    TALLY.clear()
    for i in atoms:
        symmetry_functions.derivatives(counting, descriptor._reach, counted, i, i + 1, out, blocks)
    tally = {stage: dict(count) for stage, count in TALLY.items()}
    error = np.abs(np.asarray(out, dtype=float) - expected).max()
    counts = neighbors.counts
    return {
        "stages": tally,
        "pairs_counted": lane_pairs(counts[list(atoms)]),
        "pairs": lane_pairs(counts),
        "atoms_counted": len(atoms),
        "atoms": frames.n_atoms,
        "functions": len(plain.angular.zeta),
        "largest_error": float(error),
    }


def lane_pairs(counts):
    """Pairs (j, k) of atoms with `counts` neighbours; lanes are filled up to groups of eight."""
    counts = np.asarray(counts)
    return int((lanes.LANES * (-(-counts // lanes.LANES)) * counts).sum())


def count_contraction(image):
    """What Jᵀg of one image from its blocks does."""
    descriptor, frames = described([image])
    _, kept = descriptor.values_and_derivatives(frames, threads=1)
    g = np.random.default_rng(0).normal(size=(frames.n_atoms, descriptor.n_features))
    expected = kept.vjp([0], g)
    n_values = len(kept.blocks.values)
    kept.blocks = kept.blocks._replace(values=watched(kept.blocks.values))
    out = watched(np.zeros_like(expected))
    TALLY.clear()
    forces.contract_blocks(
        kept.blocks, kept._feature_start, kept._features, kept.frame_offsets, np.array([0]),
        np.array([0, frames.n_atoms]), 0, 1, np.arange(frames.n_atoms), g, out,
    )  # fmt: skip
    return {
        **TALLY["elsewhere"],
        "values": n_values,
        "largest_error": float(np.abs(np.asarray(out, dtype=float) - expected).max()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=41, help="count every n-th atom of the frame")
    options = parser.parse_args()
    if not numba.config.DISABLE_JIT:
        sys.exit("counting needs the Python source of the kernels: set NUMBA_DISABLE_JIT=1")
    from amptorch.datasets import iron_water

    contraction = count_contraction(iron_water(1, max_water=1)[0])
    derivatives = count_derivatives(read_frames(n_frames=1)[0], options.step)
    print(json.dumps({"contraction": contraction, "derivatives": derivatives}))


if __name__ == "__main__":
    main()
