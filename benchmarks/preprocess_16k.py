"""Time and memory of preprocessing 16,000 generated frames of 35 to 164 atoms.

    python benchmarks/preprocess_16k.py [--frames N] [--derivatives] [--threads N] [--folder DIR]

writes `amptorch.datasets.iron_water` to a trajectory, makes a store of it with the 36 symmetry
functions of the standard set-up, and prints the times, the peak of the resident memory, and its
curve. The work is done by a process of its own, so that the memory is that of the work alone.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measurements import functions

ELEMENTS = ["Fe", "H", "O"]
SAMPLE_EVERY = 0.1  # s
CURVE_POINTS = 12


def resident():
    """Resident memory of this process in MB: all of it, and without what is mapped from files."""
    sizes = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            sizes[name] = int(value.split()[0]) / 1024
    return sizes["VmRSS"], sizes["RssAnon"]


def generate(path, n_frames):
    """Seconds that it took to write the frames."""
    from ase.io import Trajectory

    from amptorch.datasets import iter_iron_water

    start = time.perf_counter()
    with Trajectory(path, "w") as trajectory:
        for atoms in iter_iron_water(n_frames):
            trajectory.write(atoms)
    return time.perf_counter() - start


def work(path, out, derivatives, threads):
    """Preprocess and print JSON with seconds, peak memory (MB) and its curve [(s, MB, MB)]."""
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.store import preprocess

    curve, done = [], threading.Event()
    start = time.perf_counter()

    def watch():
        while not done.wait(SAMPLE_EVERY):
            curve.append((time.perf_counter() - start, *resident()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu = time.process_time()
    try:
        store = preprocess(
            path,
            Gaussian(functions(), ELEMENTS),
            out,
            derivatives="stored" if derivatives else None,
            threads=threads,
        )
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    result = {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous": max((point[2] for point in curve), default=0.0),
        "curve": curve[:: max(1, len(curve) // CURVE_POINTS)],
        "frames": store.n_frames,
        "atoms": store.n_atoms,
        "pairs": store.n_pairs,
    }
    print(json.dumps(result))


def folder_size(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e9


def report(arguments):
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        data, out = Path(scratch) / "frames.traj", Path(scratch) / "store"
        seconds = generate(data, arguments.frames)
        size = data.stat().st_size / 1e9
        print(f"generate {arguments.frames} frames: {seconds:.1f} s, {size:.2f} GB")
        command = [sys.executable, __file__, "--work", str(data), str(out)]
        command += ["--derivatives"] * arguments.derivatives
        if arguments.threads:
            command += ["--threads", str(arguments.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        n = result["frames"]
        print(
            f"preprocess: {result['seconds']:.1f} s ({result['cpu']:.1f} s of CPU), "
            f"{1e3 * result['seconds'] / n:.2f} ms a frame, {result['atoms'] / n:.0f} atoms and "
            f"{result['pairs'] / n:.0f} neighbours a frame\n"
            f"peak memory: {result['peak']:.0f} MB, {result['anonymous']:.0f} MB of it not mapped "
            f"from files\nstore: {folder_size(out):.2f} GB\n\n"
            "time (s)  resident (MB)  not mapped from files (MB)"
        )
        for at, total, anonymous in result["curve"]:
            print(f"{at:8.1f}  {total:13.0f}  {anonymous:26.0f}")
        shutil.rmtree(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=16000)
    parser.add_argument("--derivatives", action="store_true", help="keep them in float32, too")
    parser.add_argument("--threads", type=int, help=f"default: all {os.cpu_count()} cores")
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.derivatives, arguments.threads)
    else:
        report(arguments)


if __name__ == "__main__":
    main()
