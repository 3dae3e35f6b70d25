"""Label frames with energies and forces, by an ASE calculator or by a command."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import get_calculator_class
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from amptorch.frames import read_images

logger = logging.getLogger(__name__)

# From frames to labelled ones, and reasons by place of those that failed.
Labeller: TypeAlias = Callable[[Sequence[Atoms]], tuple[list[Atoms], dict[int, str]]]

LABELS = ("energy", "forces", "stress")
INPUT, OUTPUT = "{input}", "{output}"
# Å, by which positions of one frame may differ after they were written and read.
SAME = 1e-4


def make_labeller(name: str, arguments: Mapping[str, Any] | None = None) -> Labeller:
    """Return what labels frames.

    name : a calculator's name in `ase.calculators`, such as "emt"; "module:Class" of any other,
        looked for in the working directory too; or a command with {input} and {output} in it, which
        reads frames from the first file (extended XYZ) and writes labelled ones to the second
    arguments : of the calculator

    Raises ValueError where there is no such calculator or it does not take the arguments, or where
    a command lacks {input} or {output}, or there is no such program.
    """
    if INPUT in name or OUTPUT in name or " " in name.strip():
        if INPUT not in name or OUTPUT not in name:
            raise ValueError(f"the command {name!r} needs both {INPUT} and {OUTPUT}")
        program = shlex.split(name)[0]
        if shutil.which(program) is None:
            raise ValueError(f"the command {name!r}: there is no program {program!r}")
        return partial(label_by_command, name)
    try:
        make = partial(_class_of(name), **(arguments or {}))
        make()
    except (ImportError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"there is no calculator {name!r} with the arguments {dict(arguments or {})} "
            f"({error}); give a name in ase.calculators, module:Class, or a command with "
            f"{INPUT} and {OUTPUT}"
        ) from error
    return partial(label, make)


def label(make: Callable[[], Any], images: Sequence[Atoms]) -> tuple[list[Atoms], dict[int, str]]:
    """Return copies of frames with energy, forces, and stress where a calculator gives it, and
    {place: reason} of those that it failed for.

    make : makes a calculator, anew after one has failed
    """
    calculator = make()
    labelled, reasons = [], {}
    for place, atoms in enumerate(images):
        copy = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.calc = calculator
        try:
            results = {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}
            if "stress" in calculator.implemented_properties and copy.cell.rank == 3:
                results["stress"] = copy.get_stress()
            labelled.append(_with_labels(copy, results))
        except Exception as error:  # any: calculators are other people's programs
            reasons[place] = f"{type(error).__name__}: {error}"
            calculator = make()
    return labelled, reasons


def label_by_command(command: str, images: Sequence[Atoms]) -> tuple[list[Atoms], dict[int, str]]:
    """Return the frames that a command has labelled, and {place: reason} of the others.

    Frames are known again by elements and positions, so that the command may leave out some.

    Raises ValueError where it writes no file, or one that cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {INPUT: Path(folder) / "frames.xyz", OUTPUT: Path(folder) / "labelled.xyz"}
        plain = [Atoms(a.symbols, a.positions, cell=a.cell, pbc=a.pbc) for a in images]
        write(files[INPUT], plain, format="extxyz")
        words = [
            word.replace(INPUT, str(files[INPUT])).replace(OUTPUT, str(files[OUTPUT]))
            for word in shlex.split(command)
        ]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        ended = f"the command {command!r} ended with {done.returncode}"
        said = f":\n{done.stderr[-1000:]}" if done.stderr.strip() else ""
        if not files[OUTPUT].is_file():
            raise ValueError(f"{ended} and wrote no {OUTPUT}{said}")
        try:
            found = read_images(files[OUTPUT])
        except ValueError as error:
            raise ValueError(f"{ended} and {error}{said}") from error
    if done.returncode:
        logger.warning("%s%s", ended, said)
    labelled, reasons = [], {}
    for place, atoms in enumerate(images):
        same = next((other for other in found if _same(atoms, other)), None)
        if same is None:
            reasons[place] = (
                f"the command gave no frame with its elements and positions (to {SAME:g} Å, in "
                "its order, not wrapped)"
            )
            continue
        results = dict(getattr(same.calc, "results", {}))
        try:
            labelled.append(_with_labels(atoms, {k: results[k] for k in LABELS if k in results}))
        except ValueError as error:
            reasons[place] = str(error)
    return labelled, reasons


def _with_labels(atoms: Atoms, results: dict[str, Any]) -> Atoms:
    """Return a copy whose calculator holds these results; ValueError where they are not all
    finite."""
    for name in ("energy", "forces"):
        if name not in results:
            raise ValueError(f"it has no {name}")
        if not np.isfinite(results[name]).all():
            raise ValueError(f"its {name} are not finite")
    copy = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def _same(one: Atoms, other: Atoms) -> bool:
    return (
        len(one) == len(other)
        and (one.numbers == other.numbers).all()
        and np.abs(one.positions - other.positions).max() < SAME
    )


def _class_of(name: str) -> Any:
    if ":" not in name:
        return get_calculator_class(name)
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    return getattr(importlib.import_module(module), attribute)
