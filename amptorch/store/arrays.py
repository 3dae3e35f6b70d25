"""Keep arrays on disk: plain .npy files with checksums, complete or not there.

What is being written has a name with UNFINISHED in it and gets its own when it is complete, so that
a program killed at any moment leaves nothing that looks complete and is not.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from amptorch.writing import write_atomically

UNFINISHED = ".unfinished-"
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_array(path: str | os.PathLike[str], array: np.ndarray) -> dict[str, Any]:
    """Write `path`; return its entry {"dtype", "shape", "crc32"}."""
    array = np.asarray(array)
    with ArrayWriter(path, array.dtype, array.shape[1:]) as writer:
        writer.append(array)
    return writer.entry


class ArrayWriter:
    """Write a .npy file that grows along its first axis; `entry` describes it once it is closed."""

    def __init__(
        self, path: str | os.PathLike[str], dtype: DTypeLike, row_shape: tuple[int, ...] = ()
    ):
        self.dtype = np.dtype(dtype)
        self.row_shape = tuple(row_shape)
        self.length = 0
        self.crc32 = 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> "ArrayWriter":
        self._write_header()
        return self

    def __exit__(self, kind: type | None, value: object, traceback: object) -> None:
        try:
            if kind is None:
                # numpy leaves room in the header for the first axis to grow.
                self._file.seek(0)
                self._write_header()
        finally:
            self._file.close()

    @property
    def entry(self) -> dict[str, Any]:
        """Return what the JSON beside the file says of it: {"dtype", "shape", "crc32"}."""
        shape = [self.length, *self.row_shape]
        return {"dtype": self.dtype.str, "shape": shape, "crc32": self.crc32}

    def append(self, array: np.ndarray) -> None:
        """Add rows (n, *row_shape)."""
        array = np.ascontiguousarray(array, dtype=self.dtype)
        if array.size:
            data = array.data.cast("B")
            self.crc32 = zlib.crc32(data, self.crc32)
            write_bytes(self._file, data)
        self.length += len(array)

    def _write_header(self) -> None:
        header = {
            "descr": npy.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.length, *self.row_shape),
        }
        npy.write_array_header_1_0(self._file, header)


def write_bytes(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write to a file; every byte of an array goes through here."""
    file.write(data)


def open_array(path: Path, entry: dict[str, Any], check: bool = True) -> np.ndarray:
    """Return the array in `path`, memory-mapped, after `check` of its data against its `entry`.

    Raises ValueError that names the file where it is missing, damaged or cut short.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            version = npy.read_magic(file)
            shape, fortran_order, dtype = npy.read_array_header_1_0(file)
            start = file.tell()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except (ValueError, TokenError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read ({error})") from error
    found = [version, fortran_order, dtype.str, list(shape)]
    wanted = [(1, 0), False, entry["dtype"], entry["shape"]]
    if found != wanted:
        raise ValueError(f"{path} is damaged: its header says {found}, expected {wanted}")
    size = path.stat().st_size - start
    if size != dtype.itemsize * prod(shape):
        raise ValueError(
            f"{path} is cut short: {size} bytes, expected {dtype.itemsize * prod(shape)}"
        )
    if size == 0:
        return np.empty(shape, dtype)
    # A private, writable mapping shares its pages with everyone as long as nobody writes, and
    # numba has its kernels compiled for writable arrays already.
    array = np.asarray(np.memmap(path, dtype, mode="c", offset=start, shape=shape))
    if check and zlib.crc32(array.data.cast("B")) != entry["crc32"]:
        raise ValueError(f"{path} is damaged: its data do not match their checksum")
    return array


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_checked_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Replace `path` by `content`, with a checksum, as a whole."""
    text = json.dumps({**content, "checksum": _json_checksum(content)}, indent=1)
    with write_atomically(path) as file:
        file.write(text.encode("utf8"))


def read_checked_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `write_checked_json` wrote; ValueError names a missing or damaged file."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except ValueError as error:  # no JSON, no UTF-8
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict) or "checksum" not in content:
        raise ValueError(f"{path} is damaged: it holds no checksum")
    if content.pop("checksum") != _json_checksum(content):
        raise ValueError(f"{path} is damaged: its content does not match its checksum")
    return content


def _json_checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def unfinished_name(path: Path) -> Path:
    """Return a name beside `path` for what is not complete yet."""
    return path.with_name(f"{path.name}{UNFINISHED}{uuid.uuid4().hex[:8]}")


@contextmanager
def folder_when_complete(path: Path) -> Iterator[Path]:
    """Give a new folder to write to; it becomes `path` at the end, or is removed on an error.

    Where `path` is there by then (another worker was given the same task), that one stays.
    """
    unfinished = unfinished_name(path)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        try:
            os.rename(unfinished, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: Path, patterns: Iterable[str]) -> None:
    """Remove what a program that was killed left behind."""
    for pattern in patterns:
        for path in Path(folder).glob(pattern + UNFINISHED + "*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def disk_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a full disk where it is full and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(folder).free / 1e6
        raise OSError(
            error.errno,
            f"no space left for {folder} ({free:.0f} MB free); what is complete stays there: make "
            "room and run the same again",
        ) from error
