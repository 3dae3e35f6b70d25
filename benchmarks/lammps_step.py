"""Measure a step of dynamics in LAMMPS: `fix external` and the pair style in C++, in turn.

    python benchmarks/lammps_step.py

Iron-water of 161 and 1,449 atoms, 42 symmetry functions, 6 Å, networks of 2 x 20 nodes, one core.
It prints microseconds of CPU time an atom and step, the least of several runs: other programs on
the machine make runs longer, never shorter.
"""

import os
import tempfile
import time
from pathlib import Path

from one_thread import ONE_THREAD

os.environ.update(ONE_THREAD)
import ase.io
from setups import functions, iron_water_frames, standard_config

from amptorch import fit, prepare
from amptorch.lammps import attach, build_plugin, start, write_potential

ELEMENTS = ["H", "O", "Fe"]
REPEATS = 5
# Copies of the cell of 161 atoms along x and along y, and steps of a run.
SIZES = {1: 50, 3: 10}
INPUT = "velocity all create 300 1\ntimestep 0.0001\nfix moving all nve\nrun 1"


def main() -> None:
    """Measure both in turn, and print the times."""
    frames, running = iron_water_frames(161, 6), []
    config = standard_config()
    config["model"] = {"get_forces": True, "hidden_layers": [20, 20], "activation": "tanh"}
    config["optim"] = {"epochs": 1, "batch_size": 4}
    config["dataset"].update(target_scaling="per_atom", fp_params=functions(42))
    config["dataset"]["fp_params"]["default"]["cutoff"] = 6.0
    potential = fit(prepare(config, frames))
    with tempfile.TemporaryDirectory() as folder:
        plugin, model = build_plugin(Path(folder)), Path(folder) / "model.txt"
        write_potential(potential, model)
        for copies, steps in SIZES.items():
            atoms = frames[0].repeat((copies, copies, 1))
            data = Path(folder) / f"{len(atoms)}.data"
            ase.io.write(data, atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
            for how in ("fix external", "plugin"):
                lmp = start(["-screen", "none", "-log", "none"])
                lmp.commands_string(f"units metal\nread_data {data}")
                if how == "plugin":
                    lmp.command(f"plugin load {plugin}")
                    lmp.command("pair_style amptorch")
                    lmp.command(f"pair_coeff * * {model} {' '.join(ELEMENTS)}")
                else:
                    attach(lmp, potential, ELEMENTS)
                lmp.commands_string(INPUT)
                running.append((how, len(atoms), steps, lmp))
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(REPEATS):
        for how, n_atoms, steps, lmp in running:
            begin = time.process_time()
            lmp.command(f"run {steps} pre no post no")
            took = 1e6 * (time.process_time() - begin) / steps / n_atoms
            times.setdefault((how, n_atoms), []).append(took)
    for (how, n_atoms), found in times.items():
        print(f"{how:>12} {n_atoms:5d} atoms {min(found):6.1f} µs")


if __name__ == "__main__":
    main()
