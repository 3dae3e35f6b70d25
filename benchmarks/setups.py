"""Hold what all benchmarks measure: frames, symmetry functions, potentials; on which machine, and
how options are read and results are written.

Of `amptorch` this uses v1.0's interface alone, and of Python nothing newer than 3.7: `remote.py`
imports it in other interpreters.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.io import iread

ELEMENTS = ["Fe", "H", "O"]
CUTOFF = 6.5
# Steps after which the atoms have come back the way they went; an odd number, so that of calls in
# turn not always the same one falls on the steps where the neighbours are searched anew.
MD_PERIOD = 39
MD_STEP = 0.5  # fs
MD_TEMPERATURE = 300.0  # K

# Sets of parameters that give an atom this many functions where there are three elements, each G2
# three and each G4 six: number of etas of G2; etas, zetas and gammas of G4.
OTHER_FUNCTIONS = {
    12: (2, [0.005], [1.0], [1.0]),
    96: (8, [0.005, 0.5, 2.0], [1.0, 4.0], [1.0, -1.0]),
}


# The standard set-up, of this checkout, whichever `amptorch` is measured.
STANDARD = Path(__file__).parents[1] / "amptorch" / "profiling" / "standard.json"


def standard_config() -> dict[str, Any]:
    """Return the sections of the standard set-up as scripts for v1.0 have them: networks of 3 x 20
    nodes, energies and forces, batches of 16."""
    config = json.loads(STANDARD.read_text(encoding="utf8"))
    of_pairs = config["dataset"]["fp_params"]["default"]["G2"]
    of_pairs["etas"] = np.array(of_pairs["etas"])
    return config


def functions(number: int = 36) -> dict[str, Any]:
    """Return symmetry functions in v1.0's form: 36 an atom, the standard set-up, 12 or 96."""
    found = standard_config()["dataset"]["fp_params"]
    if number != 36:
        n_etas, etas, zetas, gammas = OTHER_FUNCTIONS[number]
        found["default"]["G2"]["etas"] = np.geomspace(0.05, 5.0, n_etas)
        found["default"]["G4"] = {"etas": etas, "zetas": zetas, "gammas": gammas}
    return found


def iron_water_frames(atoms: int, n_frames: int) -> list[Atoms]:
    """Generate frames of `atoms` atoms: 32 of iron, and molecules of water."""
    from amptorch.datasets import iron_water

    molecules = (atoms - 32) // 3
    return iron_water(n_frames, min_water=molecules, max_water=molecules)


def read_frames(path: str | None = None, n_frames: int = 8) -> list[Atoms]:
    """Read the first frames of a file; without one, generate frames of 164 atoms."""
    if path is None:
        return iron_water_frames(164, n_frames)
    return list(iread(path, f":{n_frames}"))


def elements_of(images: Sequence[Atoms]) -> list[str]:
    """Return the chemical symbols that occur, sorted."""
    return sorted({symbol for atoms in images for symbol in atoms.get_chemical_symbols()})


def new_trainer(
    images: Sequence[Atoms] | None, number: int = 36, batch_size: int = 16, **changes: Any
) -> Any:
    """Return an AtomsTrainer of networks of 3 x 20 nodes on energies and forces, for one epoch.

    `changes`: section__key=value of the configuration. `debug` is for this package alone: with it
    v1.0 cannot predict. Without images, a change says where the frames are: `dataset__store`.
    """
    from amptorch import AtomsTrainer

    config = standard_config()
    config["optim"].update(batch_size=batch_size, epochs=1)
    config["cmd"]["debug"] = True
    config["dataset"].update(fp_params=functions(number))
    if images is not None:
        config["dataset"]["raw_data"] = images
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    return AtomsTrainer(config)


def moving(image: Atoms, calculator: Calculator) -> Callable[[], np.ndarray]:
    """Return a function that moves the atoms as in dynamics; it gives forces (atoms, 3), eV/Å."""
    spread = np.sqrt(units.kB * MD_TEMPERATURE / image.get_masses())
    velocities = np.random.default_rng(0).normal(size=(len(image), 3)) * spread[:, None]
    atoms, step, steps = image.copy(), MD_STEP * units.fs * velocities, itertools.count()
    start = atoms.get_positions()
    atoms.calc = calculator

    def call() -> np.ndarray:
        atoms.set_positions(start + step * abs(next(steps) % MD_PERIOD - MD_PERIOD / 2))
        return atoms.get_forces()

    return call


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the code: date, processor, load, versions."""
    from importlib.metadata import version

    from amptorch.profiling.environment import environment

    peers = [name for name in ("vesin", "matscipy", "dscribe") if importlib.util.find_spec(name)]
    return {**environment(), **{name: version(name) for name in peers}}


def significant(value: float, digits: int = 2) -> str:
    """Write a number with so many digits that mean something."""
    return np.format_float_positional(value, digits, unique=False, fractional=False).rstrip(".")


def milliseconds(seconds: float) -> str:
    """Write seconds as milliseconds, with three digits."""
    return significant(1e3 * seconds, 3)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown with its columns aligned, all but the first to the right."""
    lines = [header, *rows]
    widths = [max(len(cells[k]) for cells in lines) for k in range(len(header))]
    texts = [[cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])] for cells in lines]
    texts.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)


def parser_of(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of `--json` and of integers with these defaults."""
    formatter = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(description=description, formatter_class=formatter)
    found.add_argument("--json", type=Path, help="where to write everything measured")
    for name, default in defaults.items():
        found.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    return found


def write(path: Path | None, machine: Mapping[str, Any], **results: Any) -> None:
    """Write results as JSON, with the machine and the command that measured them."""
    if path is None:
        return
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    kept = {"machine": machine, "command": command, **results}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf8")
