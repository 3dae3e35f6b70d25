"""What one core of this machine can do at most: arithmetic, first-level cache, memory.

Small loops of the kinds that the kernels consist of, compiled by the same compiler; each is
repeated and its best time taken, because a limit is what nothing disturbs.
"""

import time

import numba
import numpy as np

IN_CACHE = 1024  # numbers of 8 bytes: 8 KB, a quarter of a first-level cache
CHAINS, STEPS = 8, 16  # independent multiply-adds that hide the latency, and how many in a row
IN_MEMORY = 12_000_000  # numbers of 8 bytes: 96 MB, more than the last-level cache


def _chains(x, constant, repeats):
    for _ in range(repeats):
        for j in range(x.shape[0]):
            v = x[j]
            c0, c1, c2, c3 = v, v + 1.0, v + 2.0, v + 3.0
            c4, c5, c6, c7 = v + 4.0, v + 5.0, v + 6.0, v + 7.0
            for _ in range(STEPS):
                c0 = c0 * v + constant
                c1 = c1 * v + constant
                c2 = c2 * v + constant
                c3 = c3 * v + constant
                c4 = c4 * v + constant
                c5 = c5 * v + constant
                c6 = c6 * v + constant
                c7 = c7 * v + constant
            x[j] = 1e-3 * (((c0 + c1) + (c2 + c3)) + ((c4 + c5) + (c6 + c7)))


@numba.njit(fastmath={"reassoc", "contract"})
def _dot(a, b, repeats):
    total = 0.0
    for r in range(repeats):
        for j in range(a.shape[0]):
            total += a[j] * b[j]
        a[r % a.shape[0]] += 1.0
    return total


@numba.njit
def _fill(a, repeats):
    for r in range(repeats):
        for j in range(a.shape[0]):
            a[j] = r


@numba.njit(fastmath={"reassoc", "contract"})
def _sum(a):
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j]
    return total


@numba.njit
def _copy(a, b):
    for j in range(a.shape[0]):
        b[j] = a[j]


@numba.njit
def _triad(a, b, c):
    for j in range(a.shape[0]):
        c[j] = a[j] + 0.3 * b[j]


def aligned(n, value):
    """n numbers from the start of a cache line on, as in the kernels: vectors that straddle two
    lines halve the rates."""
    room = np.empty(n + 8)
    first = -(room.ctypes.data // room.itemsize) % 8
    array = room[first : first + n]
    array[:] = value
    return array


def best(call, repeats):
    """Shortest time in seconds."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def arithmetic(repeats):
    """GFlop/s with fused multiply-adds, and with separate multiplications and additions; loads and
    stores from and to the first-level cache, in 10⁹ numbers a second."""
    x, y = aligned(IN_CACHE, 0.3), aligned(IN_CACHE, 0.3)
    rounds = 400
    flops = 2 * CHAINS * STEPS * IN_CACHE * rounds
    fused = numba.njit(fastmath={"contract"})(_chains)
    separate = numba.njit(_chains)
    many = 20 * rounds
    loads = best(lambda: _dot(x, y, many), repeats)
    stores = best(lambda: _fill(y, many), repeats)
    return {
        "fused_gflops": flops / best(lambda: fused(x, 0.01, rounds), repeats) / 1e9,
        "separate_gflops": flops / best(lambda: separate(x, 0.01, rounds), repeats) / 1e9,
        "loads": 2 * IN_CACHE * many / loads / 1e9,
        "stores": IN_CACHE * many / stores / 1e9,
    }


def memory(repeats):
    """GB/s between memory and one core, as bytes read and written by the program; and the rate at
    which fresh zeros can be written for the first time."""
    a, b, c = (aligned(IN_MEMORY, 1.0) for _ in range(3))
    size = a.nbytes / 1e9

    def fresh():
        np.zeros(IN_MEMORY).fill(1.0)

    return {
        "read": size / best(lambda: _sum(a), repeats),
        "copy": 2 * size / best(lambda: _copy(a, b), repeats),
        "triad": 3 * size / best(lambda: _triad(a, b, c), repeats),
        "first_touch": size / best(fresh, repeats),
        "megabytes": 1e3 * size,
    }
