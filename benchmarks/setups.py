"""What all benchmarks measure: symmetry functions, frames, potentials, and the machine.

Only v1.0's interface is used of `amptorch`, and nothing new of Python: `server.py` imports this
in other interpreters.
"""

import importlib.util
import os
import platform
import time
from pathlib import Path

import numpy as np

CUTOFF = 6.5
N_FRAMES = 8
# Steps after which the atoms have come back the way they went; an odd number, so that of calls in
# turn not always the same one falls on the steps where the neighbours are searched anew.
MD_PERIOD = 39

THREADS = ("AMPTORCH_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")
PACKAGES = ("amptorch", "numpy", "numba", "torch", "ase", "skorch", "vesin", "matscipy", "dscribe")

# Sets of parameters that give an atom this many functions where there are three elements, each G2
# three and each G4 six: number of etas of G2; etas, zetas and gammas of G4.
OTHER_FUNCTIONS = {
    12: (2, [0.005], [1.0], [1.0]),
    96: (8, [0.005, 0.5, 2.0], [1.0, 4.0], [1.0, -1.0]),
}


def _workload():
    """`amptorch.profiling.workload` of this checkout, whichever `amptorch` is measured."""
    path = Path(__file__).parents[1] / "amptorch" / "profiling" / "workload.py"
    spec = importlib.util.spec_from_file_location("workload", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


workload = _workload()


def functions(number=36):
    """36 symmetry functions an atom, the standard set-up, or 12 or 96, in v1.0's form."""
    if number == 36:
        return workload.functions()
    n_etas, etas, zetas, gammas = OTHER_FUNCTIONS[number]
    return {
        "default": {
            "cutoff": CUTOFF,
            "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), n_etas), "rs_s": [0]},
            "G4": {"etas": etas, "zetas": zetas, "gammas": gammas},
        }
    }


def read_frames(path=None, n_frames=N_FRAMES):
    """The first frames of a file; without one, generated ones of 164 atoms."""
    if path is None:
        return iron_water_frames(164, n_frames)
    from ase.io import read

    return read(path, f":{n_frames}")


def iron_water_frames(atoms, n_frames):
    """Generated frames of `atoms` atoms: 32 of iron, and molecules of water."""
    from amptorch.datasets import iron_water

    molecules = (atoms - 32) // 3
    return iron_water(n_frames, min_water=molecules, max_water=molecules)


def rattled(images, n_frames):
    """`n_frames` copies of the images with all atoms displaced a little, and their old labels."""
    from ase.calculators.singlepoint import SinglePointCalculator

    copies = []
    for k in range(n_frames):
        image = images[k % len(images)]
        copy = image.copy()
        copy.rattle(0.01, seed=k)
        copy.calc = SinglePointCalculator(
            copy, energy=image.get_potential_energy(), forces=image.get_forces()
        )
        copies.append(copy)
    return copies


def elements_of(images):
    """Chemical symbols that occur, sorted."""
    return sorted({symbol for atoms in images for symbol in atoms.get_chemical_symbols()})


def new_trainer(images, number=36, batch_size=16, **changes):
    """An AtomsTrainer of networks of 3 x 20 nodes on energies and forces, for one epoch.

    `changes`: section__key=value of the configuration. `debug` is for this package alone: with it
    v1.0 cannot predict.
    """
    from amptorch import AtomsTrainer

    config = workload.standard_config()
    config["optim"].update(batch_size=batch_size, epochs=1)
    config["cmd"]["debug"] = True
    config["dataset"].update(raw_data=images, fp_params=functions(number))
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    return AtomsTrainer(config)


def moving(image, calculator):
    """A function that moves the atoms by a step as of dynamics and returns their forces."""
    from ase import units

    spread = np.sqrt(units.kB * workload.MD_TEMPERATURE / image.get_masses())
    velocities = np.random.default_rng(0).normal(size=(len(image), 3)) * spread[:, None]
    atoms, step, count = image.copy(), workload.MD_STEP * units.fs * velocities, 0
    start = atoms.get_positions()
    atoms.calc = calculator

    def call():
        nonlocal count
        count += 1
        atoms.set_positions(start + step * abs(count % MD_PERIOD - MD_PERIOD / 2))
        return atoms.get_forces()

    return call


def cores():
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count()))


def versions():
    """{package: version} of those installed that the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware():
    """Processor, system and versions: what stays the same between two runs on a machine."""
    from amptorch.profiling.environment import processor

    return {
        "CPU": f"{processor()}, {len(cores())} cores",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **versions(),
    }


def machine():
    """What the numbers depend on, besides the code."""
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        **hardware(),
        "load average at the start": load,
    }
