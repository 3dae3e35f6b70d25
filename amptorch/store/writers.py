"""Collect the arrays of a shard frame by frame, and write them when they are complete."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from amptorch.descriptor.blocks import DerivativeBlocks, Kinds
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList
from amptorch.rows import offsets_of
from amptorch.store import layout
from amptorch.store.arrays import (
    ArrayWriter,
    folder_when_complete,
    unfinished_name,
    write_array,
    write_checked_json,
)

# {name: (type, shape of a row)} of what is kept of each atom, frame or pair.
ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "numbers": (np.uint8, ()),
    "positions": (np.float64, (3,)),
    "cells": (np.float64, (3, 3)),
    "pbc": (np.bool_, (3,)),
    "counts": (np.int64, ()),
    "indices": (np.int64, ()),
    "energies": (np.float64, ()),
    "pair_counts": (np.int64, ()),
    "neighbors": (np.uint8, ()),
    "shifts": (np.int8, (3,)),
}


class StructureWriter:
    """Collect structures, targets and neighbour lists; with `forces` and `stress`, these too."""

    def __init__(self, forces: bool, stress: bool = False):
        kept = {**ARRAYS}
        if forces:
            kept["forces"] = np.float64, (3,)
        if stress:
            kept["stress"] = np.float64, (6,)
        # The first, empty piece gives each array its type where no frame is usable.
        self._pieces: dict[str, list[np.ndarray]] = {
            name: [np.empty((0, *row), kind)] for name, (kind, row) in kept.items()
        }

    def add(self, frames: Frames, neighbors: NeighborList) -> None:
        """Add frames: neighbours as numbers within them, all integers in as few bytes as do."""
        first_atoms = np.repeat(frames.offsets[:-1], frames.counts)
        pieces: dict[str, Any] = {
            "numbers": frames.numbers.astype(np.uint8),
            "pair_counts": neighbors.counts,
            "neighbors": _smallest(
                neighbors.neighbors - np.repeat(first_atoms, neighbors.counts),
                (np.uint8, np.uint16),
            ),
            "shifts": _smallest(neighbors.shifts, (np.int8, np.int16)),
        }
        for name, kept in self._pieces.items():
            kept.append(pieces[name] if name in pieces else getattr(frames, name))

    def write(self, folder: Path) -> dict[str, Any]:
        """Write all arrays; return what the shard's JSON says of them."""
        arrays = {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}
        self._pieces.clear()
        arrays["offsets"] = offsets_of(arrays.pop("counts"))
        arrays["neighbors/offsets"] = offsets_of(arrays.pop("pair_counts"))
        arrays["neighbors/neighbors"] = arrays.pop("neighbors")
        arrays["neighbors/shifts"] = arrays.pop("shifts")
        (folder / "neighbors").mkdir()
        return write_arrays(folder, arrays)


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write the arrays of a shard to its folder; return what shard.json says of them."""
    return {
        "n_frames": len(arrays["energies"]),
        "n_atoms": len(arrays["numbers"]),
        "n_pairs": len(arrays.get("neighbors/neighbors", ())),
        "numbers": np.unique(arrays["numbers"]).tolist(),
        "arrays": {
            name: write_array(folder / f"{name}.npy", array) for name, array in arrays.items()
        },
    }


@contextmanager
def fingerprint_writer(shard: Path, setup_hash: str, n_features: int) -> Iterator[ArrayWriter]:
    """Take the fingerprints (N, S) of one chunk of frames after the other with `append`; they go
    to disk as they come, and the file has its name at the end."""
    path = layout.fingerprint_file(shard, setup_hash)
    entry = layout.fingerprint_entry(shard, setup_hash)
    with _growing_array(path, entry, np.float64, (n_features,)) as values:
        yield values


@contextmanager
def strain_writer(
    shard: Path, setup_hash: str, dtype: str, n_features: int
) -> Iterator[ArrayWriter]:
    """Take the derivatives along strains (N, S, 6), likewise."""
    path = layout.strain_file(shard, setup_hash, dtype)
    entry = layout.strain_entry(shard, setup_hash, dtype)
    with _growing_array(path, entry, dtype, (n_features, 6)) as values:
        yield values


@contextmanager
def _growing_array(
    path: Path, entry: Path, dtype: DTypeLike, row_shape: tuple[int, ...]
) -> Iterator[ArrayWriter]:
    path.parent.mkdir(exist_ok=True)
    unfinished = unfinished_name(path)
    try:
        with ArrayWriter(unfinished, dtype, row_shape) as values:
            yield values
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    # The entry comes last: where it is, the array is complete.
    write_checked_json(entry, {"array": values.entry})


@contextmanager
def derivative_writer(shard: Path, setup_hash: str, dtype: str) -> Iterator["_DerivativeWriter"]:
    """Take the DerivativeBlocks of one chunk of frames after the other with `add`.

    Their values, by far the most, go to disk as they come; the folder has its name at the end.
    """
    with folder_when_complete(layout.derivative_folder(shard, setup_hash, dtype)) as folder:
        with ArrayWriter(folder / "values.npy", dtype) as values:
            writer = _DerivativeWriter(values)
            yield writer
        writer.write(folder)


class _DerivativeWriter:
    def __init__(self, values: ArrayWriter):
        self._values = values
        self._kinds = Kinds()
        self._pieces: dict[str, list[np.ndarray]] = {
            "atom_start": [np.zeros(1, np.int64)],
            "atoms": [np.empty(0, np.int32)],
            "value_start": [np.zeros(1, np.int64)],
            "kind": [np.empty(0, np.int64)],
        }
        self._n_atoms = 0

    def add(self, derivatives: DerivativeBlocks) -> None:
        """Add the derivatives of the next chunk of frames."""
        blocks, pieces = derivatives.blocks, self._pieces
        pieces["atoms"].append(blocks.atoms + np.int32(self._n_atoms))
        pieces["kind"].append(self._kinds.add(blocks.feature_row)[blocks.kind])
        for name in ("atom_start", "value_start"):
            pieces[name].append(getattr(blocks, name)[1:] + pieces[name][-1][-1])
        self._values.append(blocks.values)
        self._n_atoms += len(blocks.kind)

    def write(self, folder: Path) -> None:
        """Write what is beside the values."""
        entries = {"values": self._values.entry}
        arrays = {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}
        for name, array in {**arrays, "feature_row": self._kinds.feature_row}.items():
            entries[name] = write_array(folder / f"{name}.npy", array)
        write_checked_json(folder / layout.DERIVATIVES, {"arrays": entries})


def _smallest(array: np.ndarray, dtypes: Iterable[type]) -> np.ndarray:
    """Return the array as the first of the integer types that holds it, else as int32."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for dtype in dtypes:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array.astype(np.int32)
