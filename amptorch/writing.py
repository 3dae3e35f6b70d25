"""Files that are replaced as a whole."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file beside `path` that replaces `path` when the block ends without an error.

    Missing folders are made. The data are on the disk before the name is changed, so that a power
    failure leaves either the old file or the new one. After an error the old file is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished-{uuid.uuid4().hex[:8]}")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a file to write, which becomes `path` at the end, or is removed on an
    error; what was there before is left as it is until then."""
    path = Path(path)
    unfinished = path.with_name(f"unfinished-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
