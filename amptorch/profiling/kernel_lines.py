"""Profile the kernels line by line, not compiled, in a process of its own, on one small frame.

NUMBA_DISABLE_JIT=1 python -m amptorch.profiling.kernel_lines CONFIG.json FRAME.traj RESULT.txt
"""

import io
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from amptorch.plain import to_json
from amptorch.profiling.job import Job, descriptor_of, frames_of, sample
from amptorch.profiling.processes import own_environment, run_process

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


def kernel_lines(job: Job) -> str:
    """Return the table of line_profiler for the kernels, on at most MOST_ATOMS atoms.

    Raises ChildProcessError where the process fails.
    """
    config, frame, result = (job.work / f"kernels.{form}" for form in ("json", "traj", "txt"))
    config.write_text(json.dumps(to_json(job.config)), encoding="utf8")
    sample(frames_of(job.data), 1)[0][:MOST_ATOMS].write(frame)
    command = [sys.executable, "-m", "amptorch.profiling.kernel_lines", config, frame, result]
    run_process(command, [result], {**own_environment(), "NUMBA_DISABLE_JIT": "1"}, job.work)
    return result.read_text(encoding="utf8")


def main(config_path: str, frame_path: str, result_path: str) -> None:
    """Profile neighbour search, values, derivatives and both contractions of a frame."""
    import numpy as np
    from ase.io import iread

    import amptorch.kernels
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    config = json.loads(Path(config_path).read_text(encoding="utf8"))
    images = list(iread(frame_path))
    frames, descriptor = Frames.from_atoms(images), descriptor_of(config, images)
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
    Path(result_path).write_text(lines_of(profiler), encoding="utf8")


if __name__ == "__main__":
    main(*sys.argv[1:])
