"""Read one shard of a store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.frames import Frames
from amptorch.kernels.structures import Blocks
from amptorch.neighbors import NeighborList
from amptorch.rows import offsets_of
from amptorch.store import layout
from amptorch.store.arrays import open_array, read_checked_json

AGAIN = "and run `amptorch preprocess` again, which makes what is missing"


class ShardReader:
    """Read the arrays of a shard, memory-mapped when they are first asked for.

    `frames` are everywhere numbers of frames within the shard. Each array is compared with its
    checksum before its first use, unless its path is in `checked`, a set that may outlive this
    object. Raises ValueError that names the file that is missing or damaged, and what to do.
    """

    def __init__(self, folder: Path, checked: set[Any] | None = None):
        self.folder = Path(folder)
        self._checked = set() if checked is None else checked
        self._entries: dict[Path, dict[str, Any]] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._fingerprints: dict[str, np.ndarray] = {}
        self._blocks: dict[Any, DerivativeBlocks] = {}

    @property
    def about(self) -> dict[str, Any]:
        """Return what shard.json says."""
        return self._entry(self.folder / layout.SHARD, self.folder)

    def array(self, name: str) -> np.ndarray:
        """Return one of the arrays of structures and neighbour lists, such as "positions"."""
        if name not in self._arrays:
            path = self.folder / f"{name}.npy"
            self._arrays[name] = self._array(path, self.about["arrays"][name], self.folder)
        return self._arrays[name]

    @property
    def counts(self) -> np.ndarray:
        """Return the (F,) number of atoms of each frame."""
        return np.diff(self.array("offsets"))

    def frames(self, frames: np.ndarray) -> Frames:
        """Return those frames, with energies and with forces where the store has them."""
        first, last = self._atoms(frames)
        return Frames(
            numbers=_rows(self.array("numbers"), first, last).astype(np.int64),
            positions=_rows(self.array("positions"), first, last),
            cells=self.array("cells")[frames],
            pbc=self.array("pbc")[frames],
            offsets=offsets_of(last - first),
            energies=self.array("energies")[frames],
            forces=(
                _rows(self.array("forces"), first, last)
                if "forces" in self.about["arrays"]
                else None
            ),
            indices=self.array("indices")[frames],
            stress=self.array("stress")[frames] if "stress" in self.about["arrays"] else None,
        )

    def neighbors(
        self, frames: np.ndarray, structures: Frames, cutoff: float, threads: int | None = None
    ) -> NeighborList:
        """Return the neighbour list, up to `cutoff`, of frames, which are `structures`."""
        first, last = self._atoms(frames)
        offsets = self.array("neighbors/offsets")
        counts = _rows(np.diff(offsets), first, last)
        pairs = offsets[first], offsets[last]
        neighbors = _rows(self.array("neighbors/neighbors"), *pairs).astype(np.int32)
        # Within their frames they are counted from 0.
        neighbors += np.repeat(structures.offsets[:-1].astype(np.int32), pairs[1] - pairs[0])
        listed = NeighborList(
            cutoff=cutoff,
            offsets=offsets_of(counts),
            neighbors=neighbors,
            shifts=_rows(self.array("neighbors/shifts"), *pairs).astype(np.int32),
            vectors=np.empty((len(neighbors), 3)),
        )
        return listed.moved(structures)

    def fingerprint_entry(self, setup_hash: str) -> dict[str, Any]:
        """Return {"dtype", "shape", "crc32"} of the fingerprints."""
        path = layout.fingerprint_entry(self.folder, setup_hash)
        return self._entry(path, path)["array"]

    def has_fingerprints(self, setup_hash: str) -> bool:
        """Return whether they are there."""
        if setup_hash in self._fingerprints:
            return True
        return layout.fingerprint_entry(self.folder, setup_hash).is_file()

    def fingerprints(self, setup_hash: str) -> np.ndarray:
        """Return the fingerprints (N, S), not scaled, of all atoms."""
        if setup_hash not in self._fingerprints:
            entry = self.fingerprint_entry(setup_hash)
            path = layout.fingerprint_file(self.folder, setup_hash)
            delete = layout.fingerprint_entry(self.folder, setup_hash)
            self._fingerprints[setup_hash] = self._array(path, entry, delete)
        return self._fingerprints[setup_hash]

    def strains(self, setup_hash: str, dtype: str) -> np.ndarray:
        """Return the derivatives along strains (N, S, 6) of all atoms."""
        entry = layout.strain_entry(self.folder, setup_hash, dtype)
        path = layout.strain_file(self.folder, setup_hash, dtype)
        return self._array(path, self._entry(entry, entry)["array"], entry)

    def derivatives(
        self, setup_hash: str, dtype: str, n_features: int, strains: bool = False
    ) -> DerivativeBlocks:
        """Return DerivativeBlocks over the memory maps, with their `strains` where asked for."""
        key = setup_hash, dtype, strains
        if key not in self._blocks:
            folder = layout.derivative_folder(self.folder, setup_hash, dtype)
            entries = self._entry(folder / layout.DERIVATIVES, folder)["arrays"]
            arrays = {
                name: self._array(folder / f"{name}.npy", entries[name], folder)
                for name in Blocks._fields
            }
            along = self.strains(setup_hash, dtype) if strains else None
            blocks = DerivativeBlocks(Blocks(**arrays), n_features, self.array("offsets"), along)
            self._blocks[key] = blocks
        return self._blocks[key]

    def derivative_bytes(self, setup_hash: str, dtype: str) -> int:
        """Return the bytes of the derivatives on disk."""
        folder = layout.derivative_folder(self.folder, setup_hash, dtype)
        return sum(path.stat().st_size for path in folder.glob("*.npy"))

    def _atoms(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first atom of each frame, and the one behind its last."""
        frames = np.asarray(frames, dtype=np.int64)
        offsets = self.array("offsets")
        return offsets[frames], offsets[frames + 1]

    def _entry(self, path: Path, delete: Path) -> dict[str, Any]:
        if path not in self._entries:
            with _advice(delete):
                self._entries[path] = read_checked_json(path)
        return self._entries[path]

    def _array(self, path: Path, entry: dict[str, Any], delete: Path) -> np.ndarray:
        with _advice(delete):
            array = open_array(path, entry, check=path not in self._checked)
        self._checked.add(path)
        return array


@contextmanager
def _advice(delete: Path) -> Iterator[None]:
    """Add to a ValueError what to delete."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; delete {delete} {AGAIN}") from error


def join_frames(parts: Sequence[Frames]) -> Frames:
    """Join several Frames, one after the other, to one."""
    if len(parts) == 1:
        return parts[0]
    names = ("numbers", "positions", "cells", "pbc", "energies", "forces", "indices", "stress")
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in names
        if getattr(parts[0], name) is not None
    }
    arrays["offsets"] = offsets_of(np.concatenate([part.counts for part in parts]))
    return Frames(**arrays)


def join_neighbors(parts: Sequence[NeighborList]) -> NeighborList:
    """Join the neighbour lists of several Frames, one after the other, to one."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(len(part.counts) for part in parts)])
    return NeighborList(
        cutoff=parts[0].cutoff,
        offsets=offsets_of(np.concatenate([part.counts for part in parts])),
        neighbors=np.concatenate(
            [part.neighbors + np.int32(first) for part, first in zip(parts, firsts, strict=False)]
        ),
        shifts=np.concatenate([part.shifts for part in parts]),
        vectors=np.concatenate([part.vectors for part in parts]),
    )


def _rows(array: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """Return the rows first:last of each pair, one after the other; neighbouring ranges are one."""
    if len(firsts) == 0:
        return array[:0]
    breaks = np.flatnonzero(firsts[1:] != lasts[:-1]) + 1
    starts = firsts[np.concatenate(([0], breaks))]
    stops = lasts[np.concatenate((breaks - 1, [len(lasts) - 1]))]
    return np.concatenate([array[a:b] for a, b in zip(starts, stops, strict=True)])
