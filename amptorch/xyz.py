"""Files in the (extended) XYZ format, frame by frame.

ASE's reader takes a blank line after a frame for the end of the file, although some programs leave
such lines, and joined files have them; here they are passed over.
"""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.formats import open_with_compression


def frame_starts(file: IO[bytes], name: str) -> np.ndarray:
    """Return (F+1,) the offset of each frame in a file and of the end, from the numbers of atoms
    alone.

    Raises ValueError that names the line where a frame should begin and does not.
    """
    starts: list[int] = []
    end, number = 0, 1
    while True:
        start, line = file.tell(), file.readline()
        if not line:
            return np.array([*starts, end])
        if line.strip() and not line.strip().isdigit():
            raise ValueError(
                f"{name}: line {number}, where frame {len(starts)} should begin, is {line[:40]!r}, "
                "expected a number of atoms"
            )
        number += 1
        if not line.strip():
            continue
        starts.append(start)
        # The comment and the atoms, then cell vectors in lines of their own, as ASE reads them.
        number += sum(1 for _ in itertools.islice(file, int(line) + 1))
        end = file.tell()
        while (line := file.readline()).lstrip().startswith(b"VEC"):
            end, number = file.tell(), number + 1
        file.seek(end)


def parse_frame(text: bytes) -> Atoms:
    """Return the one frame in the text."""
    (atoms,) = iread(io.StringIO(text.decode()), ":", format="extxyz")
    return atoms


def iter_xyz(path: Path) -> Iterator[Atoms]:
    """Yield the frames of a file, which may be compressed."""
    with open_with_compression(str(path), "rb") as file:
        starts = frame_starts(file, str(path))
        file.seek(starts[0])
        for size in np.diff(starts):
            yield parse_frame(file.read(size))
