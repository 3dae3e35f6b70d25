"""Do the work that is profiled, through the public interface of AMPTorch v1.0 alone.

    PYTHON workload.py JOB.json RESULT.json

runs it in any interpreter that has some `amptorch`, v1.0 for instance. For this reason the file
imports nothing else of the package, and keeps to what old versions of Python, numpy and ASE know.

A job is {"config": sections of AtomsTrainer, "data": path of a file that ASE reads or a list of
frames as `frame_record` makes them, "md_steps": steps of dynamics, "warm_up": true to do everything
once with two frames before the clock starts}. The result is that of `run`, "seconds" of each phase,
and that of `about`.

`cmd.debug` stays off and each run has a folder of its own. With `cmd.debug` v1.0 sets neither
`dataset.descriptor` nor `dataset.fp_length`, and then its own `predict` fails. v1.0 also changes
into that folder, so that paths are made absolute before.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from ase.md.verlet import VelocityVerlet

PHASES = ("preprocessing", "training", "prediction", "dynamics")
# Frames that are read and predicted in one go: the whole trajectory need not fit in memory.
CHUNK = 256
STRUCTURE = ("numbers", "positions", "cell", "pbc")

MD_STEP = 0.5  # fs
MD_TEMPERATURE = 300.0  # K
MD_TURN = 20  # steps after which the atoms go back the way they came
# Atoms this much heavier hardly feel forces: those of a potential that was trained for a minute
# would blow the structure up, and with it the number of neighbours.
MD_MASS = 1e6


def functions() -> dict[str, dict]:
    """Return the 36 symmetry functions of the standard set-up (of three elements) as v1.0's
    `fp_params`."""
    return {
        "default": {
            "cutoff": 6.5,
            "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), 4), "rs_s": [0]},
            "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
        }
    }


def standard_config() -> dict[str, dict]:
    """Return the sections of the standard set-up: networks of 3 x 20 nodes, energies and forces,
    batches of 16."""
    return {
        "model": {"num_layers": 3, "num_nodes": 20, "get_forces": True},
        "optim": {"lr": 1e-3, "batch_size": 16, "force_coefficient": 10},
        "dataset": {"fp_scheme": "gaussian", "fp_params": functions(), "save_fps": False},
        "cmd": {"verbose": False},
    }


def frame_record(atoms: Atoms) -> dict[str, Any]:
    """Return a frame with its energy and forces in JSON's types, for any version of ASE."""
    record = {name: getattr(atoms, name).tolist() for name in STRUCTURE}
    record["energy"] = float(atoms.get_potential_energy())
    if "forces" in atoms.calc.results:
        record["forces"] = atoms.get_forces().tolist()
    return record


def frame_of(record: dict[str, Any]) -> Atoms:
    """Return the ase.Atoms that `frame_record` was given, with its energy and forces."""
    atoms = Atoms(**{name: record[name] for name in STRUCTURE})
    results = {name: np.array(record[name]) for name in ("forces",) if name in record}
    atoms.calc = SinglePointCalculator(atoms, energy=record["energy"], **results)
    return atoms


def chunks_of(data: str | list[Atoms]) -> Iterator[list[Atoms]]:
    """Yield lists of at most CHUNK frames of `data`, a path or a list of frames."""
    images = iter(data) if isinstance(data, list) else iread(data)
    yield from iter(lambda: list(itertools.islice(images, CHUNK)), [])


def fit(trainer: Any) -> None:
    """Train for all epochs on the data set that is loaded; v1.0's `train` would load it again."""
    trainer.net.fit(trainer.train_dataset, None)


def run(
    config: dict[str, dict],
    data: str | list[Atoms],
    md_steps: int,
    phase: Callable[[str], contextlib.AbstractContextManager],
    train: Callable[[Any], Any] = fit,
) -> dict[str, Any]:
    """Load, train, predict all frames, and run dynamics with the largest of them.

    `phase(name)` is a context that is entered for each of PHASES. Returns "frames", "epochs", and
    "atoms": the number of atoms treated in each phase, all epochs and steps together.
    """
    import amptorch

    # v1.0 writes into the configuration that it is given.
    sections = copy.deepcopy(config)
    sections["dataset"]["raw_data"] = data
    with phase("preprocessing"):
        trainer = amptorch.AtomsTrainer(sections)
        trainer.load()
    with phase("training"):
        train(trainer)
    frames, atoms, largest = 0, 0, Atoms()
    with phase("prediction"):
        for chunk in chunks_of(data):
            trainer.predict(chunk)
            frames += len(chunk)
            atoms += sum(len(image) for image in chunk)
            largest = max([largest, *chunk], key=len)
    with phase("dynamics"):
        move(largest.copy(), amptorch.AmpTorch(trainer), md_steps)
    epochs = len(trainer.net.history)
    treated = (atoms, epochs * atoms, atoms, md_steps * len(largest))
    return {"frames": frames, "epochs": epochs, "atoms": dict(zip(PHASES, treated))}  # noqa: B905


def move(atoms: Atoms, calculator: Any, steps: int) -> None:
    """Run dynamics along thermal velocities; see MD_MASS."""
    spread = np.sqrt(units.kB * MD_TEMPERATURE / atoms.get_masses())
    velocities = np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None]
    atoms.set_masses(MD_MASS * atoms.get_masses())
    atoms.set_velocities(velocities)
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, MD_STEP * units.fs)
    for done in range(0, steps, MD_TURN):
        dynamics.run(min(MD_TURN, steps - done))
        atoms.set_momenta(-atoms.get_momenta())


class Clock:
    """Measure the wall times of phases: `with clock("training"): ...` sets seconds["training"]."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Take the time spent inside for that of the phase `name`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def as_in_scripts(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration out of JSON as scripts for v1.0 have it: torch's classes in place of
    their names, arrays in place of lists of etas."""
    import torch

    config = copy.deepcopy(config)
    for section in ("model", "optim", "cmd"):
        config[section] = config.get(section) or {}
    of_torch = (
        ("model", "activation", torch.nn),
        ("optim", "optimizer", torch.optim),
        ("cmd", "dtype", torch),
    )
    for section, key, module in of_torch:
        name = config[section].get(key)
        if isinstance(name, str):
            config[section][key] = getattr(module, name, name)
    if config["dataset"].get("fp_scheme") == "gaussian":
        for functions_of_element in config["dataset"]["fp_params"].values():
            if "G2" in functions_of_element:
                functions_of_element["G2"]["etas"] = np.array(functions_of_element["G2"]["etas"])
    return config


def in_folder(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the configuration of a run that writes to a new folder in `folder`; see the top."""
    cmd = dict(config.get("cmd") or {}, debug=False, run_dir=tempfile.mkdtemp(dir=folder))
    return dict(config, cmd=cmd)


def about() -> dict[str, Any]:
    """Return which `amptorch` is imported here, if it is the fork, and the versions it runs on."""
    import torch

    import amptorch

    return {
        "amptorch": getattr(amptorch, "__version__", None) or _version_beside(amptorch.__file__),
        "path": amptorch.__file__,
        "fork": importlib.util.find_spec("amptorch.kernels") is not None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def _version_beside(path):
    """Return the version of the `amptorch` installed in the same folder: there may be others."""
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7
        return "of unknown version"
    folder = os.path.dirname(os.path.dirname(path))
    found = [one.version for one in distributions(name="amptorch", path=[folder])]
    return found[0] if found else "of unknown version"


def in_words(found: dict[str, Any]) -> str:
    """Return a line for people about the result of `about`."""
    name = "the fork of AMPTorch" if found["fork"] else "amptorch"
    return "{} {amptorch} in {path}, Python {python}, numpy {numpy}, torch {torch}".format(
        name, **found
    )


def environment_of_another() -> dict[str, str]:
    """Return the environment for another interpreter, which must not import from here."""
    private = ("PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in private}


def warm_up(config: dict[str, Any], data: str | list[Atoms]) -> None:
    """Do everything once, with two frames in memory: compiling and first calls take their time."""
    dataset = dict(config["dataset"], val_split=0)
    dataset.pop("store", None)
    optim = dict(config["optim"], epochs=1)
    run(dict(config, dataset=dataset, optim=optim), next(chunks_of(data))[:2], 2, Clock())


def main(job_path: str, result_path: str) -> None:
    """Do the job in one file and write the result to another."""
    result_path = os.path.abspath(result_path)
    folder = os.path.dirname(result_path)
    with open(job_path) as file:
        job = json.load(file)
    config, data = as_in_scripts(job["config"]), job["data"]
    if isinstance(data, list):
        data = [frame_of(record) for record in data]
    if job["warm_up"]:
        warm_up(in_folder(config, folder), data)
    clock = Clock()
    result = run(in_folder(config, folder), data, job["md_steps"], clock)
    result.update(about(), seconds=clock.seconds)
    with open(result_path, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
