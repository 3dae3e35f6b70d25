"""Kernels line by line: without their compiler, in a process of its own, on one small frame.

NUMBA_DISABLE_JIT=1 python -m amptorch.profiling.kernel_lines JOB.json RESULT.txt
"""

import inspect
import io
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from amptorch.config import to_json
from amptorch.profiling import workload
from amptorch.profiling.outside import last_lines, own_environment

# Interpreted, a frame of a hundred atoms takes minutes.
MOST_ATOMS = 8


def line_profiler():
    """A LineProfiler; ImportError that says what to install."""
    try:
        from line_profiler import LineProfiler
    except ImportError as error:
        raise ImportError("--tool line needs line_profiler: pip install line_profiler") from error
    return LineProfiler()


def kernel_lines(job):
    """(text of the lines, note about what they are)."""
    from amptorch.profiling.job import frames_of, sample

    atoms = sample(frames_of(job.data), 1)[0]
    dataset = job.config["dataset"]
    content = {
        "setup": [dataset.get(key) for key in ("fp_scheme", "fp_params", "cutoff_params")],
        "frame": workload.frame_record(atoms),
    }
    path, result = job.work / "kernels.json", job.work / "kernels.txt"
    path.write_text(json.dumps(to_json(content)), encoding="utf8")
    done = subprocess.run(
        [sys.executable, "-m", "amptorch.profiling.kernel_lines", str(path), str(result)],
        env={**own_environment(), "NUMBA_DISABLE_JIT": "1"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildProcessError(f"profiling the kernels failed:\n{last_lines(done.stderr)}")
    return result.read_text(encoding="utf8"), (
        f"The kernels as interpreted Python, NOT compiled, on {min(MOST_ATOMS, len(atoms))} atoms: "
        "how often each line runs is right, how long it takes is the interpreter's time and says "
        "little about the machine code."
    )


def main(job_path, result_path):
    """Neighbour search, values, derivatives and both contractions of a frame, profiled."""
    import numpy as np

    import amptorch.kernels
    from amptorch.descriptor.construct import construct_descriptor
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    job = json.loads(Path(job_path).read_text(encoding="utf8"))
    atoms = workload.frame_of(job["frame"])[:MOST_ATOMS]
    scheme, parameters, cutoff = job["setup"]
    frames = Frames.from_atoms([atoms])
    descriptor = construct_descriptor(
        (scheme, parameters, cutoff or {"cutoff_func": "Cosine"}, sorted(set(atoms.symbols)))
    )
    profiler = line_profiler()
    for info in pkgutil.iter_modules(amptorch.kernels.__path__, "amptorch.kernels."):
        module = import_module(info.name)
        for _, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                profiler.add_function(function)
    with profiler:
        neighbors = neighbor_list(frames, descriptor.cutoff, threads=1)
        values, blocks = descriptor.values_and_derivatives(frames, neighbors, threads=1)
        descriptor.values(frames, neighbors, threads=1)
        forces = descriptor.vjp(frames, values, neighbors, threads=1)
        descriptor.jvp(frames, forces, neighbors, threads=1)
        ids = np.arange(1)
        blocks.jvp(ids, blocks.vjp(ids, values, threads=1), threads=1)
    stream = io.StringIO()
    profiler.print_stats(stream, output_unit=1e-3, stripzeros=True)
    Path(result_path).write_text(stream.getvalue().strip(), encoding="utf8")


if __name__ == "__main__":
    main(*sys.argv[1:])
