"""Read frames where they come from: files, of which a part is read at a time, or images in memory.

A source has `name`, `len()`, `record()` ({"path", "size", "sha256"}, and "slice" where it is not
all of the file) and `part(first, stop)`: a `Part`, which reads those frames, on another machine
too. Its `read()` yields `(index, get)` for each frame, where
`get()` gives the Atoms, or raises a ValueError that names the source and the frame, or an OSError
where it is not the file that is at fault.
"""

import errno
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import Trajectory, iread
from ase.io.formats import UnknownFileTypeError, filetype, parse_filename
from tqdm import tqdm

from amptorch.frames import COINCIDENT, DATABASES, Frames, iter_rows, read_images
from amptorch.image_files import FileImages, file_names
from amptorch.labels import Labels
from amptorch.neighbors import neighbor_list
from amptorch.store.arrays import sha256
from amptorch.xyz import frame_starts, iter_xyz, parse_frame

# Errors of reading that come of what is in a file: ASE's own, and places that are not in it.
DAMAGED = (None, errno.EINVAL, errno.EOVERFLOW)


@dataclass(frozen=True)
class Part:
    """Read frames `first` to `stop` of the source `name`; `labels`, if any, are put on them.

    frames() yields the function that gives each frame.
    """

    name: str
    first: int
    stop: int
    frames: Callable[[], Iterator[Callable[[], Atoms]]]
    labels: Labels | None = None

    def read(self) -> Iterator[tuple[int, Callable[[], Atoms]]]:
        """Yield (index, function that gives the Atoms) of each frame."""
        for index, get in enumerate(self.frames(), self.first):
            yield index, get if self.labels is None else partial(self._labelled, index, get)

    def _labelled(self, index: int, get: Callable[[], Atoms]) -> Atoms:
        labels: Any = self.labels
        try:
            return labels.apply(get(), index)
        except ValueError as error:
            reason = str(error)
            raise ValueError(reason if self.name in reason else f"{self.name}: {reason}") from error


def _images_part(name: str, first: int, images: list[Atoms]) -> Part:
    return Part(name, first, first + len(images), partial(_image_frames, images))


def _image_frames(images: list[Atoms]) -> Iterator[Any]:
    for atoms in images:
        yield lambda found=atoms: found


class _File:
    """Hold a file; `name` is what the user called it."""

    def __init__(self, name: str, path: Path):
        self.name = name
        self.path = path

    def record(self) -> dict[str, Any]:
        size = self.path.stat().st_size
        return {"path": self.name, "size": size, "sha256": sha256(self.path)}


class TrajectoryFile(_File):
    """Read ASE's own format, which gives any frame at once."""

    def __len__(self) -> int:
        with _open_trajectory(self.name, self.path) as trajectory:
            return len(trajectory)

    def part(self, first: int, stop: int) -> Part:
        frames = partial(_trajectory_frames, self.name, self.path, first, stop)
        return Part(self.name, first, stop, frames)


def _trajectory_frames(
    name: str, path: Path, first: int, stop: int
) -> Iterator[Callable[[], Atoms]]:
    with _open_trajectory(name, path) as trajectory:
        for index in range(first, stop):
            where = f"frame {index} cannot be read"
            yield partial(_reading, name, where, trajectory.__getitem__, index)


def _open_trajectory(name: str, path: Path) -> Any:
    return _reading(name, "cannot be read", Trajectory, path)


class XYZFile(_File):
    """Read text in the (extended) XYZ format, each frame found by the place where it starts."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def part(self, first: int, stop: int) -> Part:
        starts = self._starts[first : stop + 1]
        return Part(
            self.name, first, stop, partial(_xyz_frames, self.name, self.path, first, starts)
        )

    @cached_property
    def _starts(self) -> Any:
        with open(self.path, "rb") as file:
            return frame_starts(file, self.name)


def _xyz_frames(
    name: str, path: Path, first: int, starts: np.ndarray
) -> Iterator[Callable[[], Atoms]]:
    with open(path, "rb") as file:
        file.seek(starts[0])
        for index, size in enumerate(np.diff(starts), first):
            where = f"frame {index} cannot be read"
            yield partial(_reading, name, where, parse_frame, file.read(size))


class OtherFile(_File):
    """Read any other file, from its beginning on; `index` selects some of its frames."""

    def __init__(self, name: str, path: Path, form: str, index: Any = None):
        super().__init__(name, path)
        self.form = form
        self.index = ":" if index is None else index
        self._images: Iterator[Atoms] | None = None
        self._position = 0

    def __len__(self) -> int:
        return self._length

    def record(self) -> dict[str, Any]:
        record = super().record()
        return record if self.index == ":" else {**record, "slice": str(self.index)}

    @cached_property
    def _length(self) -> int:
        return _reading(self.name, "cannot be read", lambda: sum(1 for _ in self._iterate()))

    def part(self, first: int, stop: int) -> Part:
        begun = self._images
        if begun is None or self._position > first:
            begun = self._images = self._iterate()
            self._position = 0
        images = itertools.islice(begun, first - self._position, stop - self._position)
        self._position = stop
        where = f"frames {first} to {stop - 1} cannot be read"
        return _images_part(self.name, first, _reading(self.name, where, list, images))

    def _iterate(self) -> Iterator[Atoms]:
        if self.form in DATABASES and self.index == ":":
            return iter_rows(connect(self.path))
        if self.form == "extxyz" and self.index == ":":
            return iter_xyz(self.path)
        return iread(self.path, self.index, format=self.form, do_not_split_by_at_sign=True)


class Images:
    """Hold frames in memory: anything with a length that gives ase.Atoms by number."""

    name = "images"

    def __init__(self, images: Any):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def part(self, first: int, stop: int) -> Part:
        return _images_part(self.name, first, [self.images[k] for k in range(first, stop)])

    def record(self) -> dict[str, Any]:
        """Return a checksum of structures, and of the energies and forces that are given."""
        digest = hashlib.sha256()
        for atoms in self.images:
            if isinstance(atoms, Atoms):
                given = isinstance(atoms.calc, SinglePointCalculator)
                results = atoms.calc.results if given else {}
                targets = [results.get("energy"), results.get("forces")]
                structure = [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
                for array in (*structure, *targets):
                    if array is not None:
                        digest.update(np.ascontiguousarray(array).tobytes())
        return {"path": None, "size": len(self), "sha256": digest.hexdigest()}


class Labelled:
    """Wrap another source, whose frames' calculators hold what `labels` (a `Labels`) names."""

    def __init__(self, source: Any, labels: Labels):
        self.source = source
        self.labels = labels
        self.name = source.name

    def __len__(self) -> int:
        return len(self.source)

    def record(self) -> dict[str, Any]:
        return {**self.source.record(), "labels": self.labels.keys}

    def part(self, first: int, stop: int) -> Part:
        return replace(self.source.part(first, stop), labels=self.labels)


def open_sources(data: Any, labels: Labels | None = None) -> list[Any]:
    """Return the sources in `data`: a path (ASE's `path@slice` or a pattern too), a list of paths,
    or what `frames.read_images` takes; with `labels` as there.

    Raises FileNotFoundError where a file does not exist, ValueError where ASE does not know its
    kind, it cannot be read, or it holds no frames.
    """
    if isinstance(data, (str, PurePath)):
        data = [data]
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], (str, PurePath)):
        sources = [_open_file(name) for given in data for name in file_names(str(given))]
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, Atoms):
        sources = [Images(data)]
    else:
        sources = [Images(read_images(data))]
    for source in sources:
        if len(source) == 0:
            raise ValueError(f"{source.name}: there are no frames in it")
    if labels is not None and labels.keys:
        return [Labelled(source, labels) for source in sources]
    return sources


def checked_frame(
    atoms: Atoms,
    name: str,
    index: int,
    elements: list[str] | None = None,
    forces: bool = True,
    missing_forces: str = "error",
    stress: bool = False,
) -> Frames:
    """Return the Frames of one frame; ValueError names source and frame where it is unusable."""
    try:
        frame = Frames.from_atoms([atoms], elements, True, forces, index, missing_forces, stress)
        # What a neighbour list would find too, but here it is one frame that is to blame.
        neighbor_list(frame, 2 * COINCIDENT, threads=1)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error
    return frame


def usable(
    images: list[Atoms],
    elements: list[str] | None = None,
    forces: bool = True,
    missing_forces: str = "error",
) -> tuple[list[Atoms], list[str]]:
    """Return (the Atoms in `images` that can be used, why the others cannot), for `skip_bad`."""
    good, reasons = [], []
    for index, atoms in enumerate(images):
        try:
            checked_frame(atoms, "raw_data", index, elements, forces, missing_forces)
            good.append(index)
        except ValueError as error:
            reasons.append(str(error))
    if not good:
        raise ValueError(f"none of the {len(reasons)} frames can be used; {reasons[0]}")
    return FileImages.some_of(images, good), reasons


def find_elements(
    data: Any,
    skip_bad: bool = False,
    verbose: bool = False,
    forces: bool = True,
    labels: Labels | None = None,
) -> list[str]:
    """Return the symbols of the elements in `data` (see `open_sources`), sorted; read every frame.

    With `skip_bad`, in those frames that `preprocess` does not leave out, `forces` and `labels` as
    there.
    """
    found = set()
    labels = labels or Labels()
    sources = open_sources(data, labels)
    total = sum(len(source) for source in sources)
    with tqdm(total=total, desc="elements", unit="frame", disable=not verbose) as bar:
        for source in sources:
            for first in range(0, len(source), 512):
                for index, get in source.part(first, min(first + 512, len(source))).read():
                    bar.update()
                    try:
                        atoms = get()
                        if skip_bad:
                            missing = labels.missing_forces
                            checked_frame(atoms, source.name, index, None, forces, missing)
                        found.update(atoms.symbols)
                    except ValueError:
                        if not skip_bad:
                            raise
    # The frame with an atom that is none will be named.
    return sorted(found - {"X"})


def _open_file(name: str) -> Any:
    path, index = (name, None) if Path(name).exists() else parse_filename(name)
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        form = filetype(str(path))
    except UnknownFileTypeError as error:
        raise ValueError(f"{name}: ASE does not know this kind of file ({error})") from error
    if index is None and form == "traj":
        return TrajectoryFile(name, path)
    if index is None and form == "extxyz" and path.suffix in (".xyz", ".extxyz"):
        return XYZFile(name, path)
    return OtherFile(name, path, form, index)


def _reading(name: str, what: str, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except MemoryError:
        raise
    except Exception as error:  # ASE has a hundred readers; each fails in a way of its own
        if isinstance(error, OSError) and error.errno not in DAMAGED:
            # A disk, a server, a limit of the system: the frame may well be whole.
            reason = f"{name}: {what} ({error.strerror})"
            raise OSError(error.errno, reason, error.filename) from error
        raise ValueError(
            f"{name}: {what}, damaged or cut short ({type(error).__name__}: {error})"
        ) from error
