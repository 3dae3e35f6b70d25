"""Many structures as flat arrays: the only place where input is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.db import connect
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype, parse_filename

from amptorch.image_files import FileImages, file_names
from amptorch.labels import Labels, keys_there, stress_of
from amptorch.rows import offsets_of, rows_between
from amptorch.xyz import iter_xyz

# Where a frame is from, in words, by its place in the user's list; see `FileImages.origin`.
Origin: TypeAlias = Callable[[int], str | None]

# Å; two atoms nearer than this are one atom written twice (v1.0 skips such pairs in silence).
COINCIDENT = 1e-4
# Å; nothing is farther from the origin, but where dynamics has exploded: the number of cells to
# there soon fits no integer.
FARTHEST = 1e8
# Kinds of files that are ASE's databases.
DATABASES = ("db", "json")
# Determinant of the Gram matrix of unit vectors below which the periodic cell vectors count as
# linearly dependent.
DEGENERATE = 1e-10


@dataclass(frozen=True)
class Frames:
    """Hold F frames with N atoms in all, one after the other (units Å, eV, eV/Å).

    numbers (N,) int64 atomic numbers; positions (N, 3), as given, not wrapped; cells (F, 3, 3),
    rows are cell vectors, zeros where there is none; pbc (F, 3) bool; offsets (F + 1,) int64: frame
    f holds atoms offsets[f]:offsets[f + 1]; energies (F,) and forces (N, 3), or None; indices (F,)
    int64, the places of the frames in the list they came from, which errors name; origin: what
    `FileImages.origin` is, or None; stress (F, 6), eV/Å³, as `stress_of` gives it, NaN in frames
    without one, or None.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    offsets: np.ndarray
    energies: np.ndarray | None = None
    forces: np.ndarray | None = None
    indices: np.ndarray = None  # type: ignore[assignment]  # made where it is not given
    origin: Origin | None = None
    stress: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(len(self), dtype=np.int64))

    @classmethod
    def from_atoms(
        cls,
        images: Atoms | Iterable[Atoms],
        elements: Iterable[str] | None = None,
        energies: bool = False,
        forces: bool = False,
        first_index: int = 0,
        missing_forces: str = "error",
        stress: bool = False,
    ) -> Frames:
        """Return the frames of `images` (a list of ase.Atoms, or one), checked.

        `elements`: the symbols that may occur. `energies`, `forces`: read them from the images'
        calculators, without the forces of constraints. `first_index`: what errors call images[0].
        `missing_forces`: "ignore" takes frames without forces, whose `forces` are then NaN.
        `stress`: read those that are there, see `stress_of`; the others are NaN.

        Raises ValueError that names the frame and what is wrong: no frames, no atoms, NaN or
        infinity, an atom 10⁸ Å away, an element not in `elements`, a periodic direction without a
        cell vector, periodic cell vectors in one plane or line, energy or forces missing or not
        finite. TypeError where
        an image is not an ase.Atoms. Atoms in one place are found by `check_coincident`.
        """
        origin = getattr(images, "origin", None)
        places = getattr(images, "places", None)
        images = [images] if isinstance(images, Atoms) else list(images)
        if not images:
            raise ValueError("the list of frames is empty; at least one frame is needed")
        indices = np.arange(len(images), dtype=np.int64) if places is None else np.array(places)
        indices += first_index
        for index, atoms in zip(indices.tolist(), images, strict=True):
            if not isinstance(atoms, Atoms):
                raise TypeError(f"frame {index} is {type(atoms).__name__}, expected ase.Atoms")
            if len(atoms) == 0:
                raise ValueError(f"frame {_name(index, origin)} has no atoms")
        frames = cls(
            numbers=np.concatenate([atoms.numbers for atoms in images]).astype(np.int64),
            positions=np.concatenate([atoms.positions for atoms in images]).astype(np.float64),
            cells=np.array([atoms.cell.array for atoms in images], dtype=np.float64),
            pbc=np.array([atoms.pbc for atoms in images], dtype=bool),
            offsets=offsets_of([len(atoms) for atoms in images]),
            indices=indices,
            origin=origin,
        )
        frames._check_positions()
        frames._check_finite("cell", frames.cells, per_atom=False)
        frames._check_cells()
        frames._check_elements(elements)
        # Last, because a calculator that is not done yet computes them.
        if energies:
            frames._read_energies(images)
        if forces:
            frames._read_forces(images, missing_forces == "ignore")
        if stress:
            found = [stress_of(atoms, frames.name(k)) for k, atoms in enumerate(images)]
            rows = [np.full(6, np.nan) if one is None else one for one in found]
            object.__setattr__(frames, "stress", np.array(rows))
        return frames

    def moved(self, positions: np.ndarray) -> Frames:
        """Return the same atoms at other `positions` (N, 3), checked: a step of dynamics, for which
        cells and elements need not be looked at again."""
        moved = replace(self, positions=np.array(positions, dtype=np.float64))
        moved._check_positions()
        return moved

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int | slice) -> Frames:
        """Return one frame (or a slice of them) as Frames."""
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.select([index % len(self)])

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms in all frames."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> np.ndarray:
        """Return (F,), the number of atoms of each frame."""
        return np.diff(self.offsets)

    @property
    def volumes(self) -> np.ndarray:
        """Return (F,), the volume of each cell, Å³; NaN where there are no three cell vectors, or
        they lie in one plane."""
        volumes = np.abs(np.linalg.det(self.cells))
        largest = np.sqrt((self.cells**2).sum(axis=2).prod(axis=1))
        return np.where(volumes > DEGENERATE * largest, volumes, np.nan)

    @property
    def has_stress(self) -> bool:
        """Return whether any frame has a stress."""
        return self.stress is not None and not bool(np.isnan(self.stress).all())

    @property
    def frame_of_atom(self) -> np.ndarray:
        """Return (N,), the position in this object of the frame that each atom belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    def atom_rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the atoms of the frames at `indices`, frame after frame, as rows of the flat
        arrays."""
        indices = np.asarray(indices, dtype=np.int64)
        return rows_between(self.offsets[indices], self.offsets[indices + 1])

    def select(self, indices: Sequence[int] | np.ndarray) -> Frames:
        """Return the frames at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        rows = self.atom_rows(indices)
        return Frames(
            numbers=self.numbers[rows],
            positions=self.positions[rows],
            cells=self.cells[indices],
            pbc=self.pbc[indices],
            offsets=offsets_of(self.counts[indices]),
            energies=None if self.energies is None else self.energies[indices],
            forces=None if self.forces is None else self.forces[rows],
            indices=self.indices[indices],
            origin=self.origin,
            stress=None if self.stress is None else self.stress[indices],
        )

    def name(self, frame: int) -> int | str:
        """Return frame `frame` of these in the user's words: its place in the list that it came
        from, and in its file where there are several."""
        return _name(int(self.indices[frame]), self.origin)

    def place(self, atom: int) -> tuple[int | str, str]:
        """Return row `atom` of the flat arrays in the user's words: name of its frame, "index
        (symbol)" of the atom within the frame."""
        frame = int(np.searchsorted(self.offsets, atom, side="right")) - 1
        symbol = chemical_symbols[self.numbers[atom]]
        return self.name(frame), f"{atom - self.offsets[frame]} ({symbol})"

    def _check_finite(self, name: str, values: np.ndarray, per_atom: bool) -> None:
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if len(bad):
            where = "frame {}, atom {}" if per_atom else "frame {}"
            place = self.place(bad[0]) if per_atom else [self.name(bad[0])]
            value = values[bad[0]].tolist()
            raise ValueError(f"{where.format(*place)}: {name} {value} must be finite numbers")

    def _check_positions(self) -> None:
        self._check_finite("positions", self.positions, per_atom=True)
        if np.abs(self.positions).max() > FARTHEST:
            atom = np.flatnonzero((np.abs(self.positions) > FARTHEST).any(axis=1))[0]
            frame, name = self.place(atom)
            raise ValueError(
                f"frame {frame}, atom {name}: positions {self.positions[atom].tolist()} are more "
                f"than {FARTHEST:g} Å from the origin; check their unit, or the time step of the "
                "dynamics"
            )

    def _check_cells(self) -> None:
        lengths = np.linalg.norm(self.cells, axis=2)
        missing = np.argwhere(self.pbc & (lengths == 0))
        if len(missing):
            frame, axis = missing[0]
            raise ValueError(
                f"frame {self.name(frame)} is periodic along cell vector {axis}, which is zero; "
                f"give it a length or set pbc[{axis}] to False"
            )
        # Gram matrix of the unit vectors of the periodic directions; a direction without
        # periodicity counts as orthogonal to all others, whatever its vector.
        units = self.cells / np.where(lengths > 0, lengths, 1)[:, :, None]
        gram = np.einsum("fik,fjk->fij", units, units)
        both = self.pbc[:, :, None] & self.pbc[:, None, :]
        flat = np.flatnonzero(np.linalg.det(np.where(both, gram, np.eye(3))) < DEGENERATE)
        if len(flat):
            raise ValueError(
                f"frame {self.name(flat[0])}: the periodic cell vectors are linearly dependent: "
                f"{self.cells[flat[0]].tolist()}"
            )

    def _check_elements(self, elements: Iterable[str] | None) -> None:
        known = range(1, len(chemical_symbols)) if elements is None else symbol_numbers(elements)
        # Only the kinds that occur are compared, which is quicker than every atom.
        unknown = set(np.unique(self.numbers).tolist()).difference(known)
        if not unknown:
            return
        row = np.flatnonzero(np.isin(self.numbers, list(unknown)))[0]
        frame, atom = self.place(row)
        if elements is None or self.numbers[row] == 0:
            raise ValueError(
                f"frame {frame}, atom {atom} is no chemical element; remove such atoms, and their "
                "rows of the forces"
            )
        raise ValueError(
            f"frame {frame}, atom {atom}: this element is not in elements {list(elements)}; "
            "leave the frame out, or train with it too (and with dataset.elements that have it)"
        )

    def _read_energies(self, images: list[Atoms]) -> None:
        values = [_calculated(atoms, self.name(k), "energy") for k, atoms in enumerate(images)]
        energies = np.array(values, dtype=np.float64)
        object.__setattr__(self, "energies", energies)
        self._check_finite("energy", energies, per_atom=False)

    def _read_forces(self, images: list[Atoms], ignore_missing: bool) -> None:
        values, known = [], []
        for frame, atoms in enumerate(images):
            missing = ignore_missing and _result(atoms, "forces")[0] is None
            known.append(not missing)
            values.append(
                np.full((len(atoms), 3), np.nan)
                if missing
                else _calculated(atoms, self.name(frame), "forces")
            )
        forces = np.concatenate(values).astype(np.float64)
        object.__setattr__(self, "forces", forces)
        given = np.where(np.repeat(known, self.counts)[:, None], forces, 0.0)
        self._check_finite("forces", given, per_atom=True)


def _name(index: int, origin: Origin | None) -> int | str:
    found = None if origin is None else origin(index)
    return index if found is None else f"{index} ({found})"


def symbol_numbers(elements: Iterable[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols; raise ValueError that names one that is none
    or occurs twice."""
    elements = list(elements)
    for symbol in elements:
        if not isinstance(symbol, str) or not atomic_numbers.get(symbol):
            raise ValueError(f"elements: {symbol!r} is not a chemical symbol (such as 'Cu')")
        if elements.count(symbol) > 1:
            raise ValueError(f"elements: {symbol!r} is there twice in {elements}")
    return [atomic_numbers[symbol] for symbol in elements]


def element_table(elements: Iterable[str]) -> np.ndarray:
    """Return (119,) int64: the place in `elements` of each atomic number, -1 where it is not there.

    Raises what `symbol_numbers` raises.
    """
    numbers = symbol_numbers(elements)
    table = np.full(len(chemical_symbols), -1, dtype=np.int64)
    table[numbers] = np.arange(len(numbers))
    return table


def elements_of(frames: Frames) -> list[str]:
    """Return the chemical symbols that occur in `frames`, in alphabetical order."""
    return sorted(chemical_symbols[number] for number in np.unique(frames.numbers))


def check_coincident(
    frames: Frames, offsets: np.ndarray, neighbors: np.ndarray, distances: np.ndarray
) -> None:
    """Raise ValueError where a neighbour list has two atoms within 1e-4 Å of each other.

    offsets (N + 1,), neighbors (P,) and distances (P,) are those of a NeighborList of `frames`.
    """
    bad = np.flatnonzero(np.asarray(distances) < COINCIDENT)
    if len(bad) == 0:
        return
    pair = bad[0]
    atom = int(np.searchsorted(offsets, pair, side="right")) - 1
    frame, first = frames.place(atom)
    _, second = frames.place(neighbors[pair])
    raise ValueError(
        f"frame {frame}: atoms {first} and {second} (or a periodic image of it) are in one place, "
        f"{distances[pair]:.1e} Å apart; remove one of them or check the cell"
    )


def read_images(raw_data: Any, labels: Labels | None = None) -> list[Atoms]:
    """Return the list of ase.Atoms in `raw_data`; with `labels` (a `Labels`) their calculators hold
    what stands under other names.

    `raw_data`: path of a file that `ase.io.read(path, ":")` reads (ASE's `path@slice` too), a
    pattern such as `runs/*/OUTCAR`, a list of these, one ase.Atoms, an ASE database, or anything
    that yields Atoms (a list, a trajectory reader).

    Raises FileNotFoundError where there is no such file, ValueError that names the file where it
    cannot be read to its end or holds no frames, TypeError for anything else.
    """
    images = _images(raw_data)
    if labels is None or not labels.keys:
        return images
    found = FileImages(
        map(labels.apply, images, range(len(images))),
        getattr(images, "files", None),
        getattr(images, "places", None),
    )
    frames = [atoms for atoms in found if isinstance(atoms, Atoms)]
    if labels.stress and frames and all("stress" not in atoms.calc.results for atoms in frames):
        raise ValueError(
            f"no frame has anything under {labels.stress!r}, which dataset.stress_key names; "
            f"{keys_there(frames[0])}"
        )
    return found


def _images(raw_data: Any) -> list[Atoms]:
    if isinstance(raw_data, FileImages):
        return raw_data
    if isinstance(raw_data, Atoms):
        return [raw_data]
    if isinstance(raw_data, (str, PurePath)):
        names = file_names(str(raw_data))
        return _read_file(names[0]) if len(names) == 1 else _images(names)
    if hasattr(raw_data, "select") and hasattr(raw_data, "count"):
        return list(iter_rows(raw_data))
    if isinstance(raw_data, Iterable) or hasattr(raw_data, "__getitem__"):
        images = list(raw_data)
        if images and all(isinstance(image, (str, PurePath)) for image in images):
            names = [name for image in images for name in file_names(str(image))]
            parts = [(name, _read_file(name)) for name in names]
            if len(parts) == 1:
                return parts[0][1]
            files = [(name, len(part)) for name, part in parts]
            return FileImages((atoms for _, part in parts for atoms in part), files)
        return images
    raise TypeError(
        f"raw_data is {type(raw_data).__name__}; expected a path, a list of ase.Atoms, "
        "an ASE database or a trajectory reader"
    )


def _read_file(name: str) -> list[Atoms]:
    path, index = (name, None) if Path(name).exists() else parse_filename(name)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path!r}")
    # One of ASE's formats is a folder.
    if Path(path).is_dir() and not (Path(path) / "metadata.json").is_file():
        raise ValueError(
            f"{name} is a folder; give a file of frames, or files by a pattern, in quotes: "
            f"'{name.rstrip('/')}/*.xyz'"
        )
    images: Any
    try:
        kind = filetype(str(path))
        if index is None and kind in DATABASES:
            images = list(iter_rows(connect(path)))
        elif kind == "extxyz" and not isinstance(index, str):
            frames = list(iter_xyz(Path(path)))
            images = frames if index is None else frames[_as_slice(index)]
        else:
            images = read(path, _as_slice(index), do_not_split_by_at_sign=True)
    except UnknownFileTypeError as error:
        raise ValueError(f"{name}: ASE does not know this kind of file ({error})") from error
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # ASE has a hundred readers; each fails in a way of its own
        raise ValueError(
            f"{name}: cannot be read, damaged or cut short ({type(error).__name__}: {error})"
        ) from error
    if not images:
        raise ValueError(f"{name} holds no frames")
    return images if isinstance(images, list) else [images]


def iter_rows(database: Any) -> Iterator[Atoms]:
    """Yield the frames of an ASE database, with `data` and key-value pairs in their info, where
    ASE's own reader of such files leaves them out."""
    return (row.toatoms(add_additional_information=True) for row in database.select())


def _as_slice(index: Any) -> Any:
    """Return what follows the `@` of a path, where it is a number as a slice: beyond the end of the
    file it holds no frames, which ASE reports as any other failure."""
    if index is None:
        return ":"
    return slice(index, index + 1 or None) if isinstance(index, int) else index


def _result(atoms: Atoms, name: str) -> tuple[Any, str]:
    """Return (energy or forces of a frame as its calculator has them, without those of
    constraints; None and the reason where there are none)."""
    get = atoms.get_potential_energy if name == "energy" else atoms.get_forces
    try:
        return get(apply_constraint=False), "its calculator gives None"
    except (RuntimeError, NotImplementedError) as error:  # no calculator; no such result
        return None, str(error)


def _calculated(atoms: Atoms, name: int | str, quantity: str) -> Any:
    """Return energy or forces of the frame that errors call `name`; ValueError without them."""
    value, reason = _result(atoms, quantity)
    if value is None:
        hint = "; or set dataset.missing_forces to 'ignore'" if quantity == "forces" else ""
        keys = keys_there(atoms, getattr(atoms.calc, "results", {}))
        raise ValueError(
            f"frame {name} has no {quantity} ({reason}), and {keys}; else give it a calculator "
            "that holds it, such as ase.calculators.singlepoint.SinglePointCalculator, or leave "
            f"out such frames (in a training: dataset.skip_bad, --skip-bad){hint}"
        )
    try:
        value = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"frame {name}: {quantity} {value!r:.80} is not made of numbers") from None
    shape = () if quantity == "energy" else (len(atoms), 3)
    if value.shape != shape:
        raise ValueError(f"frame {name}: {quantity} of shape {value.shape}, expected {shape}")
    return value
