"""Open a store of frames as training sees it: frames by number, whatever shard they are in."""

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList
from amptorch.rows import offsets_of
from amptorch.store import layout
from amptorch.store.arrays import read_checked_json
from amptorch.store.backends import StoredDerivatives
from amptorch.store.reader import ShardReader, join_frames, join_neighbors

# Shards that are kept open at one time: each takes about twenty of the files that a process may
# have open, often 1024.
OPEN_SHARDS = 16
EMPTY = "the list of frames that are asked for is empty"


class FrameStore:
    """Open a complete store in the folder `path`, made by `amptorch.store.preprocess`.

    Nothing of the size of the data set is read but the sizes and energies of the frames; everything
    else is memory-mapped, shard by shard, and each array is compared with its checksum before its
    first use. May be used by several threads, and be pickled.

    Attributes
    ----------
    n_frames, n_atoms, n_pairs : int
    cutoff : float, of the neighbour lists, Å
    has_forces : bool
    has_structures : bool; without them (see `store.described`) there are fingerprints and
        derivatives of one set-up and nothing to recompute
    elements : chemical symbols that occur, sorted
    shard_starts : (K+1,) int64, shard k holds frames shard_starts[k]:shard_starts[k+1]
    skipped : [(name of the source, index in it, reason)] of the frames that were left out

    Raises FileNotFoundError where there is no store, ValueError where it is not complete, of
    another format version, or damaged: the message names the file and says what to do.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        about = read_store(self.path)
        if not about["complete"]:
            raise ValueError(
                f"the store {self.path} is not complete; run `amptorch preprocess` again"
            )
        self.about = about
        self.cutoff = about["cutoff"]
        self.has_forces = about["forces"]
        self.has_structures = about.get("structures", True)
        self.elements = about["elements"]
        sizes = np.array(about["shards"], dtype=np.int64).reshape(-1, 3)
        self.n_frames, self.n_atoms, self.n_pairs = (int(n) for n in sizes.sum(axis=0))
        self.shard_starts = offsets_of(sizes[:, 0])
        for number in range(len(sizes)):
            folder = layout.shard_folder(self.path, number)
            if not folder.is_dir():
                raise ValueError(
                    f"{folder} is missing from the store; run `amptorch preprocess` again"
                )
        self.skipped = [
            (about["inputs"][source]["path"] or "images", index, reason)
            for source, index, reason in about["skipped"]
        ]
        self._checked: set[Any] = set()
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return FrameStore, (self.path,)

    def __len__(self) -> int:
        return self.n_frames

    @property
    def n_shards(self) -> int:
        """Return the number of shards."""
        return len(self.shard_starts) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """Return the number of atoms (F,) of each frame."""
        return np.concatenate([self.reader(k).counts for k in range(self.n_shards)])

    @cached_property
    def energies(self) -> np.ndarray:
        """Return the energies (F,), eV."""
        return np.concatenate([self.reader(k).array("energies") for k in range(self.n_shards)])

    @cached_property
    def shard_of_frame(self) -> np.ndarray:
        """Return the shard (F,) that each frame is in."""
        return np.repeat(np.arange(self.n_shards), np.diff(self.shard_starts))

    def frames(self, frame_ids: np.ndarray) -> Frames:
        """Return the Frames of `frame_ids`, in that order; `indices` are places in their sources.

        ValueError in a store without structures, as of everything that needs them.
        """
        self._need_structures()
        return join_frames([reader.frames(local) for reader, local in self._runs(frame_ids)])

    def numbers(self, frame_ids: np.ndarray) -> np.ndarray:
        """Return the (n,) int64 atomic numbers of the atoms of `frame_ids`."""
        return self._atom_rows(lambda reader: reader.array("numbers"), frame_ids).astype(np.int64)

    def forces(self, frame_ids: np.ndarray) -> np.ndarray:
        """Return the forces (n, 3), eV/Å, of the atoms of `frame_ids`; nothing else is read."""
        return self._atom_rows(lambda reader: reader.array("forces"), frame_ids)

    def neighbors(self, frame_ids: np.ndarray, threads: int | None = None) -> NeighborList:
        """Return the NeighborList of `frame_ids`, as long as the store's cutoff."""
        return self.structures(frame_ids, threads)[1]

    def structures(
        self, frame_ids: np.ndarray, threads: int | None = None
    ) -> tuple[Frames, NeighborList]:
        """Return (Frames, NeighborList) of `frame_ids`."""
        self._need_structures()
        parts = []
        for reader, local in self._runs(frame_ids):
            frames = reader.frames(local)
            parts.append((frames, reader.neighbors(local, frames, self.cutoff, threads)))
        return join_frames([part[0] for part in parts]), join_neighbors([part[1] for part in parts])

    def has_fingerprints(self, setup_hash: str) -> bool:
        """Return whether every shard has the fingerprints of this set-up."""
        return all(
            layout.fingerprint_entry(self._folder(k), setup_hash).is_file()
            for k in range(self.n_shards)
        )

    def fingerprints(self, setup_hash: str, frame_ids: np.ndarray) -> np.ndarray:
        """Return fingerprints (n, S), not scaled; ValueError where none are of this set-up."""

        def array(reader: ShardReader) -> np.ndarray:
            if not reader.has_fingerprints(setup_hash):
                raise ValueError(
                    f"the store {self.path} has no fingerprints of the set-up {setup_hash}; run "
                    "`amptorch preprocess` on it with these symmetry functions"
                )
            return reader.fingerprints(setup_hash)

        return self._atom_rows(array, frame_ids)

    def has_derivatives(self, setup_hash: str, dtype: str, strains: bool = False) -> bool:
        """Return whether every shard has derivatives of this set-up, "float32" or "float64", with
        those along strains where asked for."""
        dtype = np.dtype(dtype).name
        return all(
            layout.derivative_folder(self._folder(k), setup_hash, dtype).is_dir()
            and (not strains or layout.strain_entry(self._folder(k), setup_hash, dtype).is_file())
            for k in range(self.n_shards)
        )

    def derivatives(self, setup_hash: str, dtype: str, strains: bool = False) -> StoredDerivatives:
        """Return the back end of the stored derivatives; ValueError where they are not there."""
        dtype = np.dtype(dtype).name
        if not self.has_derivatives(setup_hash, dtype, strains):
            stress = " --stress" if strains else ""
            raise ValueError(
                f"the store {self.path} has no {dtype} derivatives of the set-up {setup_hash}; run "
                f"`amptorch preprocess --derivatives {dtype}{stress}` on it with these symmetry "
                "functions"
            )
        return StoredDerivatives(self, setup_hash, dtype, strains)

    def check_reach(self, descriptor: BaseDescriptor) -> None:
        """Raise ValueError where derivatives of `descriptor` cannot be computed from the structures
        and neighbour lists: there are none, or its cutoff is longer than theirs."""
        self._need_structures()
        if descriptor.cutoff > self.cutoff:
            raise ValueError(
                f"the descriptor reaches {descriptor.cutoff} Å, the neighbour lists of the store "
                f"{self.path} {self.cutoff} Å; make a store with this descriptor"
            )

    def locate(self, frame_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (shards, frames within them) of `frame_ids`; IndexError where one is not there."""
        frame_ids = np.asarray(frame_ids, dtype=np.int64)
        if len(frame_ids) and not 0 <= frame_ids.min() <= frame_ids.max() < self.n_frames:
            raise IndexError(f"frames {frame_ids.min()} to {frame_ids.max()} of {self.n_frames}")
        shards = np.searchsorted(self.shard_starts, frame_ids, side="right") - 1
        return shards, frame_ids - self.shard_starts[shards]

    def reader(self, number: int) -> ShardReader:
        """Return the ShardReader of a shard; those not used for long are closed."""
        with self._lock:
            if number not in self._readers:
                self._readers[number] = ShardReader(self._folder(number), self._checked)
            self._readers.move_to_end(number)
            if len(self._readers) > OPEN_SHARDS:
                self._readers.popitem(last=False)
            return self._readers[number]

    def _need_structures(self) -> None:
        if not self.has_structures:
            raise ValueError(
                f"the store {self.path} holds no structures, it was made from LMDB files: nothing "
                "can be recomputed; use dataset.derivatives 'stored' and its own fingerprints"
            )

    def _folder(self, number: int) -> Path:
        return layout.shard_folder(self.path, number)

    @cached_property
    def _first_atoms(self) -> np.ndarray:
        """Return the first atom (F,) of each frame within its shard."""
        firsts = np.cumsum(self.counts) - self.counts
        return firsts - np.repeat(firsts[self.shard_starts[:-1]], np.diff(self.shard_starts))

    def _atom_rows(
        self, array_of: Callable[[ShardReader], np.ndarray], frame_ids: np.ndarray
    ) -> np.ndarray:
        """Return the rows of the atoms of `frame_ids`, of the arrays `array_of(ShardReader)`."""
        shards, _ = self.locate(frame_ids)
        if len(shards) == 0:
            raise ValueError(EMPTY)
        firsts = self._first_atoms[frame_ids]
        lasts = firsts + self.counts[frame_ids]
        arrays = {number: array_of(self.reader(number)) for number in np.unique(shards).tolist()}
        places = zip(shards.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
        return np.concatenate([arrays[shard][first:last] for shard, first, last in places])

    def _runs(self, frame_ids: np.ndarray) -> list[tuple[ShardReader, np.ndarray]]:
        """Return [(reader, frames within its shard)]: runs of frames that are in one shard."""
        shards, local = self.locate(frame_ids)
        if len(shards) == 0:
            raise ValueError(EMPTY)
        breaks = np.flatnonzero(np.diff(shards)) + 1
        starts = np.concatenate(([0], breaks))
        return [
            (self.reader(int(shards[start])), run)
            for start, run in zip(starts, np.split(local, breaks), strict=True)
        ]


def read_store(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what store.json in `path` says; errors as of FrameStore, but for incomplete ones."""
    file = Path(path) / layout.STORE
    if not file.is_file():
        raise FileNotFoundError(f"there is no store in {str(path)!r}: it has no {layout.STORE}")
    try:
        about = read_checked_json(file)
    except ValueError as error:
        raise ValueError(f"{error}; delete the store {path} and make it anew") from error
    if about.get("format") != layout.FORMAT or about.get("version") != layout.VERSION:
        raise ValueError(
            f"{file} says {about.get('format')!r}, version {about.get('version')!r}; this release "
            f"reads {layout.FORMAT!r}, version {layout.VERSION}: make the store anew"
        )
    return about
