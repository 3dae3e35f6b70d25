"""Structures with energies and forces in files of n2p2 and RuNNer (`input.data`), frame by frame.

begin
comment any words
lattice x y z                           three times, or never
atom x y z element charge n fx fy fz    n is not used
energy E
charge Q
end
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from amptorch.n2p2.units import Units, factors
from amptorch.writing import replacing

# Words of a line "atom", itself included.
ATOM_WORDS = 10
SINGLE = ("energy", "charge")
Words = list[str]


def read_data(path: str | os.PathLike[str], units: Units = "angstrom") -> Iterator[Atoms]:
    """Yield the frames of a file, whose calculators hold energies (eV) and forces (eV/Å).

    units : of the file, "angstrom" for Å and eV, "bohr" for Bohr and Hartree

    A comment is in `info["comment"]`, the charge of a frame, where it is not zero, in
    `info["charge"]`, and those of its atoms in their initial charges. Frames with a lattice are
    periodic in all directions. One frame is held at a time.

    Raises FileNotFoundError where there is no such file, and ValueError that names the file and the
    line which is damaged.
    """
    length, energy = factors(units)
    with open(path, encoding="utf8") as file:
        frame: _Frame | None = None
        n_frames = 0
        for number, line in enumerate(_lines(file, path), 1):
            words = line.split()
            if not words:
                continue
            if frame is None:
                if words != ["begin"]:
                    raise _error(path, number, f"expected 'begin', got {line.strip()[:40]!r}")
                frame = _Frame(path, number, length, energy)
            elif words == ["end"]:
                yield frame.atoms()
                frame, n_frames = None, n_frames + 1
            else:
                frame.add(number, words)
        if frame is not None:
            raise _error(path, frame.begin, "the frame that begins here has no 'end'")
        if not n_frames:
            raise ValueError(f"{os.fspath(path)} holds no frames")


def _lines(file: TextIO, path: str | os.PathLike[str]) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} is no text: {error}") from error


def _error(path: str | os.PathLike[str], number: int, message: str) -> ValueError:
    return ValueError(f"{os.fspath(path)}, line {number}: {message}")


class _Frame:
    """Gather the lines of a frame, and make Atoms of them."""

    def __init__(
        self, path: str | os.PathLike[str], begin: int, length: float, energy: float
    ) -> None:
        self.path, self.begin, self.length, self.energy = path, begin, length, energy
        self.comments: list[str] = []
        self.lattice: list[tuple[int, Words]] = []
        self.rows: list[tuple[int, Words]] = []
        self.single: dict[str, float] = {}

    def add(self, number: int, words: Words) -> None:
        """Take a line; ValueError where it does not belong into a frame."""
        keyword = words[0]
        if keyword == "atom":
            if len(words) < ATOM_WORDS:
                raise self._wrong(number, "'atom' needs x y z element charge n fx fy fz")
            self.rows.append((number, words))
        elif keyword == "comment":
            self.comments.append(" ".join(words[1:]))
        elif keyword == "lattice":
            if len(words) < 4 or len(self.lattice) == 3:
                raise self._wrong(number, "a frame has three lines 'lattice' of x y z each")
            self.lattice.append((number, words))
        elif keyword in SINGLE:
            if len(words) < 2 or keyword in self.single:
                raise self._wrong(number, f"a frame has one line {keyword!r} with one number")
            self.single[keyword] = self._number(number, words[1])
        elif keyword == "begin":
            raise self._wrong(self.begin, f"the frame has no 'end' before line {number}")
        else:
            raise self._wrong(
                number,
                f"{keyword!r} is not known; expected comment, lattice, atom, energy, charge or end",
            )

    def atoms(self) -> Atoms:
        """Return the frame; ValueError where something is missing or damaged."""
        if not self.rows:
            raise self._wrong(self.begin, "the frame has no atoms")
        if len(self.lattice) not in (0, 3):
            raise self._wrong(self.begin, f"the frame has {len(self.lattice)} of 3 lines 'lattice'")
        values = self._table(self.rows, [1, 2, 3, 5, 7, 8, 9])
        try:
            numbers = [atomic_numbers[words[4]] for _, words in self.rows]
        except KeyError:
            number, words = next(row for row in self.rows if row[1][4] not in atomic_numbers)
            raise self._wrong(number, f"{words[4]!r} is no chemical element") from None
        cell = self._table(self.lattice, [1, 2, 3]) * self.length if self.lattice else None
        atoms = Atoms(numbers, values[:, :3] * self.length, cell=cell, pbc=cell is not None)
        charges, forces = values[:, 3], values[:, 4:] * (self.energy / self.length)
        if charges.any():
            atoms.set_initial_charges(charges)
        if self.comments:
            atoms.info["comment"] = "\n".join(self.comments)
        if self.single.get("charge"):
            atoms.info["charge"] = self.single["charge"]
        if "energy" in self.single:
            energy = self.single["energy"] * self.energy
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        return atoms

    def _table(self, rows: list[tuple[int, Words]], columns: list[int]) -> np.ndarray:
        """Return the numbers in some columns, (rows, columns)."""
        try:
            table = np.array([[float(words[k]) for k in columns] for _, words in rows])
        except ValueError:
            table = np.array(np.nan)
        if not np.isfinite(table).all():
            for number, words in rows:
                for k in columns:
                    self._number(number, words[k])
        return table

    def _number(self, number: int, word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._wrong(number, f"expected a number, got {word!r}")
        return value

    def _wrong(self, number: int, message: str) -> ValueError:
        return _error(self.path, number, message)


def write_data(
    path: str | os.PathLike[str], images: Iterable[Atoms], units: Units = "angstrom"
) -> int:
    """Write frames, whose calculators hold energies and forces, to a file; return their number.

    images : ase.Atoms, one after the other; an iterator is never held in memory
    units : of the file, as in `read_data`

    The file is there when it is complete. Raises ValueError that names the frame which has no
    energy or forces, or is periodic in one or two directions, which n2p2 does not know.
    """
    length, energy = factors(units)
    count = 0
    with replacing(path) as unfinished, open(unfinished, "w", encoding="utf8") as file:
        for count, atoms in enumerate(images, 1):
            file.write(_text(atoms, count - 1, length, energy))
    return count


def _text(atoms: Atoms, index: int, length: float, energy: float) -> str:
    try:
        total = float(atoms.get_potential_energy(apply_constraint=False)) / energy
        forces = atoms.get_forces(apply_constraint=False) * (length / energy)
    except (RuntimeError, PropertyNotImplementedError) as error:
        raise ValueError(f"frame {index} has no energy or no forces: {error}") from error
    if atoms.pbc.any() and not atoms.pbc.all():
        raise ValueError(
            f"frame {index} is periodic along {int(atoms.pbc.sum())} of its 3 directions; n2p2 "
            "knows three or none: give it a cell with vacuum and set pbc to True"
        )
    lines = ["begin"]
    lines += [f"comment {part}" for part in str(atoms.info.get("comment", "")).splitlines()]
    if atoms.pbc.all():
        lines += [
            "lattice {!r} {!r} {!r}".format(*row) for row in (atoms.cell[:] / length).tolist()
        ]
    charges = atoms.get_initial_charges()
    rows: Any = zip(
        (atoms.positions / length).tolist(),
        atoms.get_chemical_symbols(),
        charges.tolist(),
        forces.tolist(),
        strict=True,
    )
    lines += [
        f"atom {x!r} {y!r} {z!r} {symbol} {charge!r} 0.0 {fx!r} {fy!r} {fz!r}"
        for (x, y, z), symbol, charge, (fx, fy, fz) in rows
    ]
    charge = float(atoms.info.get("charge", charges.sum()))
    return "\n".join([*lines, f"energy {total!r}", f"charge {charge!r}", "end", ""])
