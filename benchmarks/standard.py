"""The numbers that this project is held to, measured on this machine.

    python benchmarks/standard.py                        # generated frames of 164 atoms
    python benchmarks/standard.py --data train.traj      # the first 8 frames of a file
    python benchmarks/standard.py --json numbers.json    # with every sample

Standard set-up: 164 atoms of Fe, O and H; for every element cosine cutoff 6.5 Å, 4 G2 with every
element and 4 G4 with every pair of elements, 36 functions an atom; float64. One-core rows run in a
process of their own, pinned to one core, with one thread. A busy machine makes the wall times
longer, and the CPU times a little; the load is printed with the rest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from setups import ONE_THREAD, cores, machine

MEASUREMENTS = Path(__file__).with_name("measurements.py")
ONE_CORE_GROUPS = (
    "fingerprints",
    "molecular_dynamics",
    "training",
    "neighbors",
    "other_fingerprints",
)


class Row(NamedTuple):
    """A row's unit, what this project must reach on a machine as that of the results, and what it
    aims at."""

    unit: str
    must: str = ""
    aim: str = ""


ROWS = {
    "values and derivatives": Row("ms a frame", "20", "10"),
    "values": Row("ms a frame", "8", "4"),
    "values, DScribe": Row("ms a frame"),
    "energy and forces of a moved frame": Row("ms", "22", "11"),
    "energy and forces, every list anew": Row("ms"),
    "one epoch of training, derivatives float64": Row("ms a frame", "4", "2.5"),
    "one epoch of training, derivatives float64, by skorch's clock": Row("ms a frame"),
    "one epoch of training, derivatives float32": Row("ms a frame", must="4", aim="2.5"),
    "one epoch of training, derivatives float32, by skorch's clock": Row("ms a frame"),
    "kept derivatives, float64": Row("MB a frame", "3"),
    "kept derivatives, float32": Row("MB a frame", must="3", aim="1.5"),
    "two cores against one": Row("times", "1.8", "1.95"),
    "neighbour search": Row("ms a frame"),
    "neighbour search, vesin": Row("ms a frame"),
    "neighbour search, matscipy": Row("ms a frame"),
    "neighbour search, ASE": Row("ms a frame"),
    "import amptorch": Row("s", must="0.5"),
    "import AtomsTrainer": Row("s"),
    "first fingerprint, cold cache": Row("s", must="25"),
    "first fingerprint, cold cache, whole process": Row("s"),
    "first fingerprint, warm cache": Row("s", must="1"),
    "first fingerprint, warm cache, whole process": Row("s"),
}
HEADER = ("", "unit", "median", "10-90 %", "CPU", "must", "aim")


def run_group(group, options, core=None, environment=None):
    """Results of a group of `measurements.py`, run in a process of its own."""
    command = [sys.executable, str(MEASUREMENTS), group, "--repeats", str(options.repeats)]
    command += ["--data", options.data] if options.data else []
    command += ["--core", str(core)] if core is not None else []
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def in_processes(row, call, repeats):
    """Wall time of calls that run another process, and the CPU time of that."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, before = time.perf_counter(), os.times()
        call()
        after = os.times()
        walls.append(time.perf_counter() - wall)
        cpus.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return {"row": row, "wall": walls, "cpu": cpus}


def timed_import(statement):
    """Seconds that an import takes in a fresh process."""
    program = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def start_up(options):
    """Imports, and the first fingerprint before and after the kernels are compiled."""
    statements = {
        "import amptorch": "import amptorch",
        "import AtomsTrainer": "from amptorch import AtomsTrainer",
    }
    results = [
        {"row": row, "wall": [timed_import(statement) for _ in range(5)], "cpu": []}
        for row, statement in statements.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**ONE_THREAD, "NUMBA_CACHE_DIR": folder}
        for cache, repeats in (("cold", 1), ("warm", 5)):
            row, inside = f"first fingerprint, {cache} cache", []

            def first(inside=inside):
                inside.extend(run_group("first_fingerprint", options, environment=environment))

            results.append(in_processes(f"{row}, whole process", first, repeats))
            samples = {clock: [r[clock][0] for r in inside] for clock in ("wall", "cpu")}
            results.append({"row": row, **samples})
    return results


def cells(result):
    """The measured cells of a row: median, range of most samples, CPU time."""
    scale = 1000 if ROWS[result["row"]].unit.startswith("ms") else 1
    if "value" in result:
        return [f"{result['value']:.2f}", "", ""]
    wall = sorted(scale * seconds for seconds in result["wall"])
    cpu = [scale * seconds for seconds in result["cpu"]]
    low, high = (wall[round(share * (len(wall) - 1))] for share in (0.1, 0.9))
    return [
        f"{statistics.median(wall):.2f}",
        f"{low:.2f}-{high:.2f}" if len(wall) > 1 else "",
        f"{statistics.median(cpu):.2f}" if cpu else "",
    ]


def markdown(results):
    """The table, rows in the order of ROWS; those that were not measured are left out."""
    found = {result["row"]: result for result in results}
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1)]
    for row, (unit, *known) in ROWS.items():
        if row in found:
            lines.append([row, unit, *cells(found[row]), *known])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="file that ASE reads, with energies and forces")
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    parser.add_argument("--json", type=Path, help="where to write all samples")
    return parser.parse_args()


def main():
    options = parse_arguments()
    described = machine()
    # Linux only: elsewhere a thread cannot be tied to a core, and one thread has to do.
    core = cores()[-1] if hasattr(os, "sched_setaffinity") else None
    results = []
    for group in ONE_CORE_GROUPS:
        print(f"measuring: {group}", file=sys.stderr)
        results += run_group(group, options, core, ONE_THREAD)
    if len(cores()) > 1:
        print("measuring: two_cores", file=sys.stderr)
        results += run_group("two_cores", options)
    print("measuring: start_up", file=sys.stderr)
    results += start_up(options)
    described["load average at the end"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
    print(markdown(results) + "\n")
    print("\n".join(f"- {name}: {value}" for name, value in described.items()))
    if options.json:
        options.json.write_text(json.dumps({"machine": described, "results": results}, indent=1))


if __name__ == "__main__":
    main()
