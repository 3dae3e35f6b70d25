"""Profile the kernels line by line, not compiled, in a process of its own, on one small frame."""

import io
import os
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

import amptorch.kernels
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.profiling.estimate import descriptor_of

if TYPE_CHECKING:
    from line_profiler import LineProfiler

# Interpreted, a frame of a hundred atoms takes minutes.
MOST_ATOMS = 8


def line_profiler() -> "LineProfiler":
    """Return a new LineProfiler; ImportError says how to install it."""
    try:
        from line_profiler import LineProfiler
    except ImportError as error:
        raise ImportError("--tool line needs line_profiler: pip install line_profiler") from error
    return LineProfiler()


def lines_of(profiler: "LineProfiler") -> str:
    """Return the table of line_profiler, in milliseconds."""
    stream = io.StringIO()
    profiler.print_stats(stream, output_unit=1e-3, stripzeros=True)
    return stream.getvalue().strip()


def kernel_lines(config: dict[str, dict], atoms: Atoms) -> str:
    """Return the table of line_profiler for the kernels, on the first MOST_ATOMS atoms."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # is read when the new process imports numba
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(_interpreted, config, atoms[:MOST_ATOMS]).result()
    finally:
        del os.environ["NUMBA_DISABLE_JIT"]


def _interpreted(config: dict[str, dict], atoms: Atoms) -> str:
    """Profile neighbour search, values, derivatives and both contractions of a frame."""
    frames = Frames.from_atoms([atoms])
    descriptor = descriptor_of(config, frames)
    profiler = line_profiler()
    for info in pkgutil.iter_modules(amptorch.kernels.__path__, "amptorch.kernels."):
        profiler.add_module(import_module(info.name))
    with profiler:
        neighbors = neighbor_list(frames, descriptor.cutoff, threads=1)
        values, blocks = descriptor.values_and_derivatives(frames, neighbors, threads=1)
        descriptor.values(frames, neighbors, threads=1)
        forces = descriptor.vjp(frames, values, neighbors, threads=1)
        descriptor.jvp(frames, forces, neighbors, threads=1)
        ids = np.arange(1)
        blocks.jvp(ids, blocks.vjp(ids, values, threads=1), threads=1)
    return lines_of(profiler)
