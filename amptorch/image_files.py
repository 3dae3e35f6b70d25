"""Which files a name means, and frames that know which file they are from."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from ase import Atoms
from ase.io.formats import parse_filename


def file_names(name: str) -> list[str]:
    """Return the names of the files that a pattern such as `runs/*/OUTCAR` or `part?.xyz@::10`
    means, sorted; the name itself where it is no pattern.

    Raises FileNotFoundError where there is no such file, and ValueError for an empty name.
    """
    if not name:
        raise ValueError("the name of a file of frames is empty")
    if Path(name).exists() or not has_magic(name):
        return [name]
    path, _ = parse_filename(name)
    found = sorted(glob(path, recursive=True))
    if not found:
        raise FileNotFoundError(f"there is no file that matches {path!r}")
    return [file + name[len(path) :] for file in found]


class FileImages(list):
    """Hold a list of frames, and know where each is from.

    files : [(name, number of frames)] in the order of the frames; None where that is not known
    places : in the list that these are some of
    """

    def __init__(
        self,
        images: Iterable[Atoms],
        files: list[tuple[str, int]] | None = None,
        places: list[int] | None = None,
    ) -> None:
        super().__init__(images)
        self.files = files
        self.places = list(range(len(self))) if places is None else places

    @classmethod
    def some_of(cls, images: list[Atoms], rows: Iterable[int]) -> FileImages:
        """Return those in these rows, by the names that they have in `images`."""
        of = images if isinstance(images, FileImages) else cls(images)
        rows = list(rows)
        return cls([of[row] for row in rows], of.files, [of.places[row] for row in rows])

    def origin(self, index: int) -> str | None:
        """Return the place in its file of what was frame `index` of all, as text; None where it is
        not known."""
        first = 0
        for name, count in self.files or ():
            if index < first + count:
                return f"frame {index - first} of {name}"
            first += count
        return None
