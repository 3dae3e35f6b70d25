"""The inner loops of the G4 derivative kernel one by one, on lanes in the first-level cache.

What a call takes is fitted by a + b · groups, groups of eight lanes: b is the speed of the loop
once it runs, a what entering and leaving it costs.
"""

import re
import time

import numba
import numpy as np

from amptorch.kernels import _jit, lanes

GROUPS = (2, 4, 8, 12, 16, 18)
CALLS = 20_000
COEFFICIENTS = np.full(12, 0.05)
njit = numba.njit(**{**_jit.FLAGS, "cache": False})


@njit
def _distances(t, groups, sums, coefficients, calls):
    for k in range(calls):
        x = 1e-6 * k
        lanes.distances(t, groups, x, 1.0, 1.0, 2.0, 0.5)


@njit
def _polynomial(t, groups, sums, coefficients, calls):
    for k in range(calls):
        lanes.polynomial(t, groups, 40.0 + 1e-6 * k, coefficients, 0, 12)


@njit
def _products(t, groups, sums, coefficients, calls):
    for k in range(calls):
        lanes.products(t, groups, 0.5, 1e-6 * k)


@njit
def _power(t, groups, sums, coefficients, calls):
    for _ in range(calls):
        lanes.power(t, groups, coefficients[0], 3.0)


@njit
def _accumulate_gradient(t, groups, sums, coefficients, calls):
    for k in range(calls):
        x = 1e-6 * k
        lanes.accumulate_gradient(t, groups, sums, k % 4, coefficients[0], 4.0, x, x + 1.0, x + 2.0)


LOOPS = {
    "distances": _distances,
    "polynomial": _polynomial,
    "products": _products,
    "power": _power,
    "accumulate_gradient": _accumulate_gradient,
}


def costs(repeats, aligned):
    """{loop: {"call", "lane"}}: nanoseconds of entering it, and of a lane."""
    t = aligned(lanes.N_LANE_ROWS * lanes.WIDTH, 0.5)
    sums = aligned(4 * lanes.PER_FUNCTION * lanes.WIDTH, 0.0).reshape(4, -1)
    found = {}
    for name, loop in LOOPS.items():
        loop(t, 1, sums, COEFFICIENTS, 1)
        shortest = dict.fromkeys(GROUPS, np.inf)
        for _ in range(repeats):
            for groups in GROUPS:
                t[:], sums[:] = 0.5, 0.0
                start = time.perf_counter()
                loop(t, groups, sums, COEFFICIENTS, CALLS)
                shortest[groups] = min(shortest[groups], time.perf_counter() - start)
        slope, start_up = np.polyfit(GROUPS, [1e9 * s / CALLS for s in shortest.values()], 1)
        found[name] = {"call": start_up, "lane": slope / lanes.LANES}
    return found


def packed_instructions():
    """Packed arithmetic instructions of the loop that dominates, as compiled here, how many of them
    are fused multiply-adds, and the width of their registers in bits."""
    _accumulate_gradient.compile("void(f8[::1], i8, f8[:,::1], f8[::1], i8)")
    (assembly, *_) = _accumulate_gradient.inspect_asm().values()
    found = re.findall(r"^\s+(v(?:fn?m\w+|mul|add|sub)pd)\s.*%([xyz])mm\d+$", assembly, re.M)
    return {
        "packed": len(found),
        "fused": sum(name.startswith("vf") for name, _ in found),
        "bits": max(({"x": 128, "y": 256, "z": 512}[letter] for _, letter in found), default=64),
    }
