"""Measure time and memory of preprocessing 16,000 generated frames of 35 to 164 atoms.

    python benchmarks/preprocess_16k.py [--frames N] [--derivatives]

writes frames of `iron_water` to a trajectory, and makes a store of it with the 36 symmetry
functions of the standard set-up, on all cores. The work is done by a process of its own, so that
the memory is that of the work alone. With `--derivatives` they are kept in float32, too.
"""

import multiprocessing
import tempfile
import time
import timeit
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
from setups import ELEMENTS, functions, machine, parser_of, write

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.profiling.memory import own_memory
from amptorch.profiling.recorder import Recorder
from amptorch.store import preprocess


def alone(work: Any, *arguments: Any) -> Any:
    """Return what a function returns in a new process, which ends after it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def make_store(data: Path, out: Path, derivatives: bool) -> dict[str, Any]:
    """Make a store of a trajectory; return the seconds, bytes and sizes."""
    recorder, cpu = Recorder(own_memory), time.process_time()
    with recorder("preprocessing"):
        store = preprocess(
            data,
            Gaussian(functions(), ELEMENTS),
            out,
            derivatives="stored" if derivatives else None,
            verbose=False,
        )
    return {
        "seconds": recorder.phases["preprocessing"],
        "cpu": time.process_time() - cpu,
        "anonymous": max(size for _, size, *_ in recorder.curve) / 2**20,
        "frames": store.n_frames,
        "atoms": store.n_atoms,
        "pairs": store.n_pairs,
    }


def main() -> None:
    """Generate, preprocess in another process, and print what it took."""
    parser = parser_of(__doc__, frames=16000)
    parser.add_argument("--derivatives", action="store_true")
    options = parser.parse_args()
    described = machine()
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "frames.traj", Path(folder) / "store"
        seconds = timeit.timeit(lambda: ase.io.write(data, iron_water(options.frames)), number=1)
        result = alone(make_store, data, out, options.derivatives)
        stored = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    n = result["frames"]
    print(
        f"generate {n} frames: {seconds:.1f} s",
        f"preprocess: {result['seconds']:.1f} s ({result['cpu']:.1f} s of CPU), "
        f"{1e3 * result['seconds'] / n:.2f} ms a frame",
        f"a frame: {result['atoms'] / n:.0f} atoms and {result['pairs'] / n:.0f} neighbours",
        f"peak memory, without mapped files: {result['anonymous']:.0f} MB",
        f"store: {stored / 1e9:.2f} GB",
        sep="\n",
    )
    write(options.json, described, generate=seconds, **result)


if __name__ == "__main__":
    main()
