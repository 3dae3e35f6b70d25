"""Measure the numbers that this project is held to (see README.md), measured on this machine.

    python benchmarks/standard.py                        # generated frames of 164 atoms
    python benchmarks/standard.py --data train.traj      # the first 8 frames of a file
    python benchmarks/standard.py --json numbers.json    # with every sample

Standard set-up: 164 atoms of Fe, O and H; for every element cosine cutoff 6.5 Å, 4 G2 with every
element and 4 G4 with every pair of elements, 36 functions an atom; float64. One thread in a process
of its own. A busy machine makes the times longer; the load is printed with the rest.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import stages
from ase import Atoms
from one_thread import ONE_THREAD
from remote import RemoteError, remote_of
from setups import MD_PERIOD, machine, parser_of, read_frames, table, write

# Times that the frames are repeated where eight would be nothing but overhead.
MANY = 8
EPOCH = "one epoch of training, derivatives"
# {row: (function of `stages`, its options)}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "values and derivatives": ("derivatives", {}),
    "values": ("fingerprints", {}),
    "values, DScribe": ("values_by_dscribe", {}),
    "energy and forces of a moved frame": ("calculator_step", {}),
    "energy and forces, every list anew": ("calculator_step", {"skin": 0.0}),
    f"{EPOCH} float64": ("epoch", {"batch_size": 16}),
    f"{EPOCH} float32": ("epoch", {"batch_size": 16, "dataset__derivative_dtype": "float32"}),
    "neighbour search": ("neighbors", {}),
    "neighbour search, vesin": ("neighbors_by", {"program": "vesin"}),
    "neighbour search, matscipy": ("neighbors_by", {"program": "matscipy"}),
    "neighbour search, ASE": ("neighbors_by", {"program": "ase"}),
}
Measured = tuple[str, str, list[float]]  # row, unit, samples; of times in seconds


def one_thread(images: list[Atoms], repeats: int) -> Iterator[Measured]:
    """Measure ROWS; those of programs that are not installed are left out."""
    with contextlib.closing(remote_of()) as remote:
        for row, (stage, options) in ROWS.items():
            try:
                remote.prepare(stage, MANY * images if stage == "epoch" else images, **options)
            except RemoteError as error:
                print(f"{row}: {error}", file=sys.stderr)
                continue
            # Of dynamics at least until the atoms are back.
            n = max(repeats, MD_PERIOD + 1) if stage == "calculator_step" else repeats
            yield row, "ms a frame", remote.seconds(n)


def kept(images: list[Atoms]) -> Iterator[Measured]:
    """Measure the memory of derivatives."""
    descriptor, frames, neighbors = stages.structures(images)
    for dtype in ("float64", "float32"):
        blocks = descriptor.values_and_derivatives(frames, neighbors, dtype=np.dtype(dtype))[1]
        yield f"kept derivatives, {dtype}", "MB a frame", [blocks.nbytes / len(frames) / 1e6]


def start_up(data: str | None) -> Iterator[Measured]:
    """Measure imports, and the first fingerprint before and after the kernels are compiled."""
    yield "import amptorch", "s", new_processes("import amptorch", 5)
    yield "import AtomsTrainer", "s", new_processes("from amptorch import AtomsTrainer", 5)
    before = f"from setups import read_frames; images = read_frames({data!r})[:1]"
    first = "import stages; stages.derivatives(images)[0]()"
    with tempfile.TemporaryDirectory() as folder:
        for cache, n in (("cold", 1), ("warm", 5)):
            seconds = new_processes(first, n, before, **ONE_THREAD, NUMBA_CACHE_DIR=folder)
            yield f"first fingerprint, {cache} cache", "s", seconds


def new_processes(statement: str, n: int, before: str = "pass", **variables: str) -> list[float]:
    """Return the seconds that a statement takes in each of `n` processes."""
    program = f"import time; {before}; t = time.perf_counter(); {statement}"
    command = [sys.executable, "-c", f"{program}; print(time.perf_counter() - t)"]
    where: Any = {"cwd": Path(__file__).parent, "env": {**os.environ, **variables}}
    return [float(subprocess.check_output(command, **where).split()[-1]) for _ in range(n)]


def main() -> None:
    """Print the median and the range of most samples."""
    arguments = parser_of(__doc__, repeats=15)
    arguments.add_argument("--data", help="file that ASE reads, with energies and forces")
    options = arguments.parse_args()
    described, images = machine(), read_frames(options.data)
    measured = [*one_thread(images, options.repeats), *kept(images)]
    measured += start_up(options.data and os.path.abspath(options.data))
    lines = []
    for row, unit, samples in measured:
        scale = 1e3 if unit.startswith("ms") else 1
        low, middle, high = scale * np.quantile(samples, (0.1, 0.5, 0.9))
        lines.append([row, unit, f"{middle:.2f}", f"{low:.2f}-{high:.2f}"])
    print(table(("", "unit", "median", "10-90 %"), lines) + "\n")
    print("\n".join(f"- {name}: {value}" for name, value in described.items()))
    results = [{"row": row, "unit": unit, "wall": samples} for row, unit, samples in measured]
    write(options.json, described, results=results)


if __name__ == "__main__":
    main()
