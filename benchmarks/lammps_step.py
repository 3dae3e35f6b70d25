"""Measure a step of dynamics in LAMMPS: `fix external` and the pair style in C++, in turn.

    python benchmarks/lammps_step.py

Iron-water of 161 and 1,449 atoms, 42 symmetry functions, 6 Å, networks of 2 x 20 nodes, one core.
It prints microseconds of CPU time an atom and step, the least of several runs: other programs on
the machine make runs longer, never shorter.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from one_thread import ONE_THREAD

os.environ.update(ONE_THREAD)
from setups import iron_water_frames

ELEMENTS = ["H", "O", "Fe"]
REPEATS = 5
# Copies of the cell of 161 atoms along x and along y, and steps of a run.
SIZES = {1: 50, 3: 10}
CONFIG = {
    "model": {"get_forces": True, "hidden_layers": [20, 20], "activation": "tanh"},
    "optim": {"epochs": 1, "batch_size": 4},
    "dataset": {
        "fp_scheme": "gaussian",
        "target_scaling": "per_atom",
        "fp_params": {
            "default": {
                "cutoff": 6.0,
                "G2": {"etas": [0.05, 0.13, 0.32, 0.79, 2.0, 5.0], "rs_s": [0.0]},
                "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            }
        },
    },
    "cmd": {"verbose": False, "seed": 1, "dtype": "float64"},
}
INPUT = "velocity all create 300 1\ntimestep 0.0001\nfix moving all nve\nrun 1"


def measure(folder: Path) -> dict[tuple[str, int], float]:
    """Return µs an atom and step by (how, number of atoms); files are written to a folder."""
    from ase.io import write

    from amptorch import fit, prepare
    from amptorch.lammps import attach, build_plugin, start, write_potential

    frames = iron_water_frames(161, 6)
    potential = fit(prepare(CONFIG, frames))
    plugin, file = build_plugin(folder), folder / "model.txt"
    write_potential(potential, file)
    running = []
    for copies, steps in SIZES.items():
        atoms = frames[0].repeat((copies, copies, 1))
        data = folder / f"{len(atoms)}.data"
        write(data, atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
        for how in ("fix external", "plugin"):
            lmp = start(["-screen", "none", "-log", "none"])
            lmp.commands_string(f"units metal\nread_data {data}")
            if how == "plugin":
                lmp.commands_string(
                    f"plugin load {plugin}\npair_style amptorch\n"
                    f"pair_coeff * * {file} {' '.join(ELEMENTS)}"
                )
            else:
                attach(lmp, potential, ELEMENTS)
            lmp.commands_string(INPUT)
            running.append((how, len(atoms), steps, lmp))
    times: dict[tuple[str, int], float] = {}
    for _ in range(REPEATS):
        for how, n_atoms, steps, lmp in running:
            begin = time.process_time()
            lmp.command(f"run {steps} pre no post no")
            took = 1e6 * (time.process_time() - begin) / steps / n_atoms
            times[how, n_atoms] = min(took, times.get((how, n_atoms), took))
    return times


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for (how, n_atoms), took in measure(Path(folder)).items():
            sys.stdout.write(f"{how:>12} {n_atoms:5d} atoms {took:6.1f} µs\n")


if __name__ == "__main__":
    main()
