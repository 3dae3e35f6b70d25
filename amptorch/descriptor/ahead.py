"""Compile the kernels of symmetry functions before their first use, in processes side by side.

numba compiles in one thread, and keeps what it compiled on disk; so processes that each use one
kernel, on two atoms, fill its cache for all that come after, while this one imports and reads, or
compiles another.

Kernels of symmetry functions are compiled twice: with moments, for which G5 asks (see
`kernels/moments.py`), and without, which takes less time.
"""

import atexit
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numba import types
from tqdm import tqdm

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.kernels import neighbors, symmetry_functions
from amptorch.kernels._jit import cached_signatures
from amptorch.kernels.structures import Angular, Functions
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.threads import num_threads

CUTOFF = 2.0
WHAT = "compiling kernels, once"
KERNELS = {
    "neighbors": neighbors.search_frames,
    "derivatives": symmetry_functions.derivatives,
    "values": symmetry_functions.values,
    "gradients": symmetry_functions.pair_gradients,
    "directional": symmetry_functions.directional,
}


class Ahead:
    """Compile kernels in other processes, if they are not in the cache.

    names : of KERNELS, the longest to compile first
    moments : for functions with moments

    Where there is one core, no cache, or Python is part of another program, nothing is done: they
    are compiled when they are used.
    """

    def __init__(self, names: Sequence[str], moments: bool = False) -> None:
        self._asked: set[tuple[str, bool]] = set()
        self._waiting: list[tuple[str, bool]] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._cores = num_threads()
        atexit.register(self.stop)
        self.add(names, moments)

    def add(self, names: Sequence[str], moments: bool = False) -> None:
        """Compile these kernels too."""
        # Where Python runs in another program, sys.executable may be that.
        if self._cores > 1 and Path(sys.executable or "").name.startswith("python"):
            asked = ((name, moments) for name in names)
            wanted = [one for one in asked if one not in self._asked and is_compiled(*one) is False]
            self._asked.update(wanted)
            self._waiting += wanted
            self._start()

    def _start(self) -> None:
        self._running = [process for process in self._running if process.poll() is None]
        while self._waiting and len(self._running) < self._cores:
            name, moments = self._waiting.pop(0)
            command = [sys.executable, "-m", __name__, name, *["moments"] * moments]
            self._running.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )

    def wait(self) -> None:
        """Wait until all are compiled, with a progress bar where there is something to wait for.

        What a process could not compile is compiled by whoever uses it.
        """
        if not self._running:
            return
        with tqdm(total=len(self._asked), desc=WHAT, unit="kernel") as bar:
            while self._running:
                self._running[0].wait()
                self._start()
                bar.update(len(self._asked) - len(self._waiting) - len(self._running) - bar.n)

    def stop(self) -> None:
        """End the processes that still run."""
        for process in self._running:
            process.terminate()


@contextmanager
def compiled_beside(kernel: Callable[..., None], moments: bool = False) -> Iterator[None]:
    """Compile one of KERNELS in another process while this one searches neighbours, for which it
    has to compile too, in what stands under `with`; where either is at hand, do nothing."""
    name = next((name for name, known in KERNELS.items() if known is kernel), None)
    if name is None or is_compiled("neighbors") is not False:
        yield
        return
    ahead = Ahead([name], moments)
    try:
        yield
        ahead.wait()
    finally:
        ahead.stop()


def is_compiled(name: str, moments: bool = False) -> bool | None:
    """Tell whether one of KERNELS is in the cache, with or without moments; None where there is no
    cache."""
    signatures = cached_signatures(KERNELS[name])
    if signatures is None:
        return None
    return any(_has_moments(signature) in (None, moments) for signature in signatures)


def _has_moments(signature: tuple[Any, ...]) -> bool | None:
    """Tell whether a kernel was compiled for functions with moments; None where it takes none."""
    for kind in signature:
        if getattr(kind, "instance_class", None) is Functions:
            angular = kind.types[Functions._fields.index("angular")]
            return angular.types[Angular._fields.index("moments")] != types.none
    return None


def compile_now(names: Sequence[str], moments: bool = False) -> None:
    """Compile those of KERNELS that are not in the cache, side by side where there are cores, with
    a progress bar."""
    Ahead(names, moments).wait()
    left = [name for name in names if is_compiled(name, moments) is False]
    for name in tqdm(left, desc=WHAT, unit="kernel", disable=not left):
        compile_kernel(name, moments)


def compile_all() -> str:
    """Compile all KERNELS that are not in the cache; return the folder that they are in.

    Raises OSError where no folder can be written.
    """
    ahead = Ahead(list(KERNELS))
    ahead.add(list(KERNELS), moments=True)
    ahead.wait()
    for moments in (False, True):
        compile_now(list(KERNELS), moments)
    if not all(is_compiled(name, moments) for name in KERNELS for moments in (False, True)):
        raise OSError("no folder for compiled kernels can be written: set NUMBA_CACHE_DIR")
    return str(KERNELS["values"].stats.cache_path)


def compile_kernel(name: str, moments: bool = False) -> None:
    """Compile one of KERNELS, and what is used together with it, by using it on two atoms."""
    angular = {"etas": [1.0], "zetas": [1.0], "gammas": [1.0]}
    functions = {"G2": {"etas": [1.0]}, "G5" if moments else "G4": angular}
    descriptor = Gaussian({"default": functions, "cutoff": CUTOFF}, ["H"])
    vectors = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    frames = Frames.from_atoms([Atoms("H2", [[0.0, 0.0, 0.0], vectors[0]])])
    listed = NeighborList(
        cutoff=CUTOFF,
        offsets=np.array([0, 1, 2]),
        neighbors=np.array([1, 0], dtype=np.int32),
        shifts=np.zeros((2, 3), dtype=np.int32),
        vectors=vectors,
    )
    if name == "neighbors":
        neighbor_list(frames, CUTOFF)
    elif name == "values":
        descriptor.values(frames, listed)
    elif name == "derivatives":
        values, blocks = descriptor.values_and_derivatives(frames, listed, np.float32)
        blocks.jvp([0], blocks.vjp([0], values))
    elif name == "gradients":
        descriptor.vjp(frames, np.ones((2, descriptor.n_features)), listed)
    else:
        descriptor.jvp(frames, vectors, listed)


if __name__ == "__main__":
    # Of the hundred thousands of objects of a compiler nothing can be freed before its end.
    gc.disable()
    compile_kernel(sys.argv[1], sys.argv[2:] == ["moments"])
