"""Time and memory against atoms, frames, symmetry functions, cutoff and threads.

    python benchmarks/scaling.py [--json FILE] [--repeats N]

Generated frames of water on iron, 36 symmetry functions an atom and cutoff 6.5 Å unless that is
what varies; float64; one thread unless that varies. Points of a study are measured in turns, so
that a change of the machine's load falls on all alike. Exponents are fitted to the medians in the
doubly logarithmic plot; against atoms, to supercells of one frame, whose atoms all have the same
neighbours. Memory is how far the peak of the resident memory rises above what the process held
before (Linux), neighbour lists and kept derivatives included.
"""

import argparse
import ctypes
import ctypes.util
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scaling_fit import exponent
from setups import CUTOFF, cores, iron_water_frames, machine, new_trainer

from amptorch import AmpTorch
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.threads import use_threads

ELEMENTS = ["Fe", "H", "O"]
ATOMS = (35, 80, 164)
SUPERCELLS = ((2, 1, 1), (2, 2, 1), (3, 3, 1), (5, 5, 1), (7, 7, 1), (7, 7, 2))  # of 164 atoms
FRAMES = (4, 16, 64, 256)
CUTOFFS = (4.0, 5.0, 6.5, 8.0, 10.0)
# (ζ, λ) of G4 and widths of G2, so that there are 9 functions an atom for each.
PARAMETERS = (1, 2, 4, 8, 16)
SHORTEST = 0.02  # s; what is quicker is called several times
OWN_ETA = 1e-9  # relative; enough for nothing to be shared, and for nothing to change


def described_by(n, apart=False, cutoff=CUTOFF):
    """A descriptor of n G2 and n G4 for each combination of elements, 9 n functions an atom.

    apart: each G4 with an η of its own, so that it shares nothing with the others.
    """
    shapes = [(zeta, lam) for zeta in (1.0, 4.0, 2.0, 3.0, 5.0) for lam in (1.0, -1.0, 0.7, -0.7)]
    rows = [
        {"type": "G2", "element": element, "eta": eta, "Rs": 0.0}
        for element in ELEMENTS
        for eta in np.geomspace(0.05, 5.0, n)
    ] + [
        {
            "type": "G4",
            "elements": (a, b),
            "eta": 0.005 * (1 + OWN_ETA * k * apart),
            "zeta": zeta,
            "gamma": lam,
        }
        for k, (zeta, lam) in enumerate(shapes[:n])
        for i, a in enumerate(ELEMENTS)
        for b in ELEMENTS[i:]
    ]
    return Gaussian({"cutoff": cutoff, "default": rows}, ELEMENTS)


def structures():
    """Single structures of 35 to 16,072 atoms."""
    largest = iron_water_frames(ATOMS[-1], 1)[0]
    small = [iron_water_frames(n, 1)[0] for n in ATOMS]
    return small + [largest.repeat(repeats) for repeats in SUPERCELLS]


def peak_memory(call):
    """Bytes by which the peak of the resident memory rises during `call`; None without /proc."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        return None
    trim = getattr(ctypes.CDLL(ctypes.util.find_library("c")), "malloc_trim", None)
    if trim is not None:
        trim(0)
    reset.write_text("5")
    before = _field(status, "VmRSS")
    call()
    return _field(status, "VmHWM") - before


def _field(status, name):
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def measure(study, what, points, repeats, memory=True, fit_from=0):
    """Samples of seconds, and peak memory, of calls [(x, call)], as one curve."""
    inner = []
    for _, call in points:
        call()
        start = time.perf_counter()
        call()
        inner.append(max(1, int(SHORTEST / (time.perf_counter() - start))))
    samples = [[] for _ in points]
    for _ in range(repeats):
        for (_, call), n, kept in zip(points, inner, samples, strict=True):
            start = time.perf_counter()
            for _ in range(n):
                call()
            kept.append((time.perf_counter() - start) / n)
    medians = [statistics.median(kept) for kept in samples]
    x = [x for x, _ in points]
    fitted = [k for k, value in enumerate(x) if value >= fit_from]
    curve = {
        "study": study,
        "what": what,
        "x": x,
        "seconds": samples,
        "exponent": exponent([x[k] for k in fitted], [medians[k] for k in fitted]),
        "fit_from": fit_from,
        "memory": [peak_memory(call) for _, call in points] if memory else None,
    }
    print(f"{study}: {what}, exponent {curve['exponent']:.2f}", file=sys.stderr)
    return curve


def against_atoms(repeats):
    """Single structures: fingerprints, with derivatives, neighbour search, forces by ASE."""
    atoms = structures()
    frames = [Frames.from_atoms([a]) for a in atoms]
    sizes = [len(a) for a in atoms]
    descriptor = described_by(4)

    def curve(what, call):
        points = [(n, lambda f=f: call(f)) for n, f in zip(sizes, frames, strict=True)]
        return measure("atoms", what, points, repeats, fit_from=ATOMS[-1])

    trainer = new_trainer(iron_water_frames(ATOMS[-1], 4))
    trainer.load()
    trainer.net.initialize()
    yield curve("neighbour search", lambda f: neighbor_list(f, CUTOFF, threads=1))
    yield curve("values", lambda f: descriptor.values(f, threads=1))
    yield curve("values and derivatives", lambda f: descriptor.values_and_derivatives(f, threads=1))
    steps = [(len(a), step_of(a, trainer)) for a in atoms]
    with use_threads(1):
        yield measure(
            "atoms", "energy and forces, ASE calculator", steps, repeats, fit_from=ATOMS[-1]
        )


def step_of(atoms, trainer):
    """Energy and forces of a structure whose atoms have moved, neighbour list anew."""
    atoms, start = atoms.copy(), atoms.get_positions()
    atoms.calc = AmpTorch(trainer, skin=0.0)
    rng = np.random.default_rng(0)

    def call():
        atoms.set_positions(start + rng.normal(scale=1e-3, size=start.shape))
        atoms.get_forces()

    return call


def against_frames(repeats):
    """Data sets of frames of 164 atoms, fingerprints and derivatives kept in float32."""
    descriptor = described_by(4)
    frames = Frames.from_atoms(iron_water_frames(ATOMS[-1], max(FRAMES)))
    points = []
    for n in FRAMES:
        part = frames.select(np.arange(n))

        def call(part=part):
            descriptor.values_and_derivatives(part, dtype=np.float32, threads=1)

        points.append((n, call))
    yield measure("frames", "values and derivatives", points, repeats)


def against_functions(repeats):
    """One frame of 164 atoms and 9 to 144 functions, that share η or do not."""
    frame = Frames.from_atoms(iron_water_frames(ATOMS[-1], 1))
    neighbors = neighbor_list(frame, CUTOFF)
    for what, apart in (("one η", False), ("each with its own η", True)):
        points = []
        for n in PARAMETERS:
            descriptor = described_by(n, apart)

            def call(descriptor=descriptor):
                descriptor.values_and_derivatives(frame, neighbors, threads=1)

            points.append((descriptor.n_features, call))
        yield measure("functions", what, points, repeats)


def against_cutoff(repeats):
    """One frame of 164 atoms, neighbour search included."""
    frame = Frames.from_atoms(iron_water_frames(ATOMS[-1], 1))
    for what, derivatives in (("values", False), ("values and derivatives", True)):
        points = []
        for cutoff in CUTOFFS:
            descriptor = described_by(4, cutoff=cutoff)
            method = descriptor.values_and_derivatives if derivatives else descriptor.values

            def call(method=method):
                method(frame, threads=1)

            points.append((cutoff, call))
        yield measure("cutoff", what, points, repeats)


def against_threads(repeats):
    """64 frames of 164 atoms on one thread and on more, up to the cores there are."""
    descriptor = described_by(4)
    frames = Frames.from_atoms(iron_water_frames(ATOMS[-1], 64))
    neighbors = neighbor_list(frames, CUTOFF)
    numbers = sorted({2**k for k in range(8) if 2**k < len(cores())} | {len(cores())})
    g = np.random.default_rng(0).normal(size=(frames.n_atoms, descriptor.n_features))
    calls = {
        "values and derivatives": lambda n: descriptor.values_and_derivatives(
            frames, neighbors, threads=n
        ),
        "recomputed contraction": lambda n: descriptor.vjp(frames, g, neighbors, threads=n),
    }
    if len(numbers) > 1:
        for what, call in calls.items():
            points = [(n, lambda n=n, call=call: call(n)) for n in numbers]
            yield measure("threads", what, points, repeats, memory=False)


STUDIES = (against_atoms, against_frames, against_functions, against_cutoff, against_threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    described_machine, start = machine(), time.perf_counter()
    curves = [curve for study in STUDIES for curve in study(options.repeats)]
    results = {
        "machine": described_machine,
        "command": "python benchmarks/scaling.py",
        "curves": curves,
        "seconds": time.perf_counter() - start,
    }
    text = json.dumps(results, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf8")
    else:
        print(text)


if __name__ == "__main__":
    main()
