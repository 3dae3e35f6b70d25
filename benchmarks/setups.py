"""What all benchmarks measure: symmetry functions, frames, potentials, and the machine.

Only v1.0's interface is used of `amptorch`, and nothing new of Python: `server.py` imports this
in other interpreters.
"""

import os
import platform
import time

import numpy as np

CUTOFF = 6.5
N_FRAMES = 8
MD_STEP = 0.5  # fs
MD_TEMPERATURE = 300.0  # K
# Steps after which the atoms have come back the way they went; an odd number, so that of calls in
# turn not always the same one falls on the steps where the neighbours are searched anew.
MD_PERIOD = 39

THREADS = ("AMPTORCH_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")
PACKAGES = ("amptorch", "numpy", "numba", "torch", "ase", "skorch", "vesin", "matscipy", "dscribe")

# Number of symmetry functions of an atom with three elements: 3 G2 and 6 G4 of each set of
# parameters; (number of G2 etas, G4 etas, zetas, gammas).
FUNCTIONS = {
    12: (2, [0.005], [1.0], [1.0]),
    36: (4, [0.005], [1.0, 4.0], [1.0, -1.0]),
    96: (8, [0.005, 0.5, 2.0], [1.0, 4.0], [1.0, -1.0]),
}


def functions(number=36):
    """12, 36 (the standard set-up) or 96 symmetry functions an atom, in v1.0's form."""
    n_etas, etas, zetas, gammas = FUNCTIONS[number]
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

    `changes`: section__key=value of the configuration.
    """
    from amptorch import AtomsTrainer

    config = {
        "model": {"num_layers": 3, "num_nodes": 20, "get_forces": True},
        "optim": {"lr": 1e-3, "batch_size": batch_size, "force_coefficient": 10, "epochs": 1},
        "dataset": {
            "raw_data": images,
            "fp_scheme": "gaussian",
            "fp_params": functions(number),
            "save_fps": False,
        },
        "cmd": {"debug": True, "verbose": False},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    return AtomsTrainer(config)


def moving(image, calculator):
    """A function that moves the atoms by a step as of dynamics and returns their forces."""
    from ase import units

    spread = np.sqrt(units.kB * MD_TEMPERATURE / image.get_masses())
    velocities = np.random.default_rng(0).normal(size=(len(image), 3)) * spread[:, None]
    atoms, step, count = image.copy(), MD_STEP * units.fs * velocities, 0
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
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "CPU": f"{cpu}, {len(cores())} cores",
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
