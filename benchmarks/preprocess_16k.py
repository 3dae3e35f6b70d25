"""Time and memory of preprocessing 16,000 generated frames of 35 to 164 atoms.

    python benchmarks/preprocess_16k.py [--frames N] [--derivatives] [--threads N] [--folder DIR]

writes `amptorch.datasets.iron_water` to a trajectory, makes a store of it with the 36 symmetry
functions of the standard set-up, and prints the times, the peak of the memory, and its curve. The
work is done by a process of its own, so that the memory is that of the work alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import coarse, memory_curve, parser_of, write
from setups import ELEMENTS, functions, machine, write_frames

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.store import FrameStore, preprocess


def make_store(data: Path, out: Path, derivatives: bool, threads: int | None = None) -> FrameStore:
    """Make a store of a trajectory, with derivatives in float32 where they are asked for."""
    return preprocess(
        data,
        Gaussian(functions(), ELEMENTS),
        out,
        derivatives="stored" if derivatives else None,
        derivative_dtype="float32",
        threads=threads,
        verbose=sys.stderr.isatty(),
    )


def measured(data: Path, out: Path, derivatives: bool, threads: int | None) -> dict[str, Any]:
    """Preprocess; return seconds, memory (MB: all of it, and without mapped files), and sizes."""
    start, cpu = time.perf_counter(), time.process_time()
    with memory_curve() as curve:
        store = make_store(data, out, derivatives, threads)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous": max(size for _, size in curve) / 2**20,
        "curve": coarse(curve, 12),
        "frames": store.n_frames,
        "atoms": store.n_atoms,
        "pairs": store.n_pairs,
    }


def main() -> None:
    """Generate, preprocess in another process, and print what it took."""
    arguments = parser_of(__doc__)
    arguments.add_argument("--frames", type=int, default=16000)
    arguments.add_argument("--derivatives", action="store_true", help="keep them in float32, too")
    arguments.add_argument("--threads", type=int, help=f"default: all {os.cpu_count()} cores")
    arguments.add_argument("--folder", help="where the temporary folder is made")
    arguments.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.work:
        data, out = map(Path, options.work)
        print(json.dumps(measured(data, out, options.derivatives, options.threads)))
        return
    described = machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        data, out = Path(scratch) / "frames.traj", Path(scratch) / "store"
        seconds = write_frames(data, options.frames)
        print(f"generate {options.frames} frames: {seconds:.1f} s")
        command = [sys.executable, __file__, *sys.argv[1:], "--work", str(data), str(out)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        stored = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    result = json.loads(done.stdout.splitlines()[-1])
    n = result["frames"]
    print(
        f"preprocess: {result['seconds']:.1f} s ({result['cpu']:.1f} s of CPU), "
        f"{1e3 * result['seconds'] / n:.2f} ms a frame, {result['atoms'] / n:.0f} atoms and "
        f"{result['pairs'] / n:.0f} neighbours a frame\n"
        f"peak memory: {result['peak']:.0f} MB, {result['anonymous']:.0f} MB of it not mapped "
        f"from files\nstore: {stored / 1e9:.2f} GB\n\ntime (s)  not mapped from files (MB)"
    )
    for at, size in result["curve"]:
        print(f"{at:8.1f}  {size / 2**20:26.0f}")
    write(options.json, described, generate=seconds, **result)


if __name__ == "__main__":
    main()
