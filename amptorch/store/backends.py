"""Contract derivatives over a store, with the interface of `amptorch.descriptor.blocks`."""

from abc import abstractmethod
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks, KeptDerivatives, RecomputedDerivatives
from amptorch.descriptor.derivatives import FrameIds

if TYPE_CHECKING:
    from amptorch.store.store import FrameStore

# Batches whose structures are kept: the one in use and those that are made ahead.
KEPT_BATCHES = 4


class ShardedDerivatives(KeptDerivatives):
    """Contract derivatives of frames spread over the DerivativeBlocks of several shards."""

    @abstractmethod
    def locate(self, frame_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (shards, frames within them, numbers of their atoms) of `frame_ids`, each (k,)."""

    @abstractmethod
    def blocks(self, number: int) -> DerivativeBlocks:
        """Return the DerivativeBlocks of a shard."""

    def runs(
        self, frame_ids: FrameIds
    ) -> tuple[list[tuple[DerivativeBlocks, np.ndarray]], np.ndarray]:
        """Return [(blocks, frames within them)] of runs of frames in one shard, and their atoms."""
        shards, local, counts = self.locate(np.asarray(frame_ids))
        breaks = np.flatnonzero(shards[1:] != shards[:-1]) + 1
        firsts = shards[np.concatenate(([0], breaks))]
        blocks = [self.blocks(number) for number in firsts.tolist()]
        return list(zip(blocks, np.split(local, breaks), strict=True)), counts


class StoredDerivatives(ShardedDerivatives):
    """Contract derivatives that lie in a store, over the memory maps; nothing is copied."""

    def __init__(self, store: "FrameStore", setup_hash: str, dtype: str, strains: bool = False):
        self.store = store
        self.setup_hash = setup_hash
        self.dtype = np.dtype(dtype)
        self.strains = strains
        entry = store.reader(0).fingerprint_entry(setup_hash)
        self.n_features = entry["shape"][1]

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames."""
        return self.store.n_atoms

    @property
    def nbytes(self) -> int:
        """Return the bytes on disk."""
        return sum(
            self.store.reader(number).derivative_bytes(self.setup_hash, self.dtype.name)
            for number in range(self.store.n_shards)
        )

    def prepare(self, frame_ids: np.ndarray) -> None:
        """Open and check what `vjp` and `jvp` of these frames will need."""
        self.runs(frame_ids)

    def locate(self, frame_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (shards, frames within them, numbers of their atoms) of `frame_ids`."""
        return *self.store.locate(frame_ids), self.store.counts[np.asarray(frame_ids)]

    def blocks(self, number: int) -> DerivativeBlocks:
        """Return the DerivativeBlocks of a shard."""
        reader = self.store.reader(int(number))
        return reader.derivatives(self.setup_hash, self.dtype.name, self.n_features, self.strains)


class RecomputedFromStore:
    """Contract derivatives on the fly from the structures and neighbour lists of a store.

    Only those of the frames that are asked for are read; `prepare` may do so ahead, in a thread of
    its own. See `RecomputedDerivatives` for `vjp` and `jvp`.
    """

    def __init__(self, store: "FrameStore", descriptor: BaseDescriptor):
        if descriptor.cutoff > store.cutoff:
            raise ValueError(
                f"the descriptor reaches {descriptor.cutoff} Å, the neighbour lists of the store "
                f"{store.path} {store.cutoff} Å; make a store with this descriptor"
            )
        self.store = store
        self.descriptor = descriptor
        self._batches: OrderedDict[bytes, RecomputedDerivatives] = OrderedDict()
        self._lock = Lock()

    @property
    def n_atoms(self) -> int:
        return self.store.n_atoms

    @property
    def n_features(self) -> int:
        """Return the number of features of an atom."""
        return self.descriptor.n_features

    def prepare(self, frame_ids: np.ndarray) -> RecomputedDerivatives:
        """Return the RecomputedDerivatives of these frames alone, kept for calls to come."""
        frame_ids = np.asarray(frame_ids, dtype=np.int64)
        key = frame_ids.tobytes()
        with self._lock:
            batch = self._batches.get(key)
        if batch is None:
            batch = RecomputedDerivatives(self.descriptor, *self.store.structures(frame_ids))
            with self._lock:
                self._batches[key] = batch
                if len(self._batches) > KEPT_BATCHES:
                    self._batches.popitem(last=False)
        return batch

    def vjp(
        self, frame_ids: np.ndarray, g: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Return Jᵀg (n, 3) for g (n, S); with `rows`, (len(rows), 3) for those atoms alone."""
        return self.prepare(frame_ids).vjp(np.arange(len(frame_ids)), g, rows)

    def jvp(
        self,
        frame_ids: np.ndarray,
        v: np.ndarray,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return J v (n, S) for v (n, 3); with `rows`, v (len(rows), 3) moves those atoms alone,
        and `strain` (frames, 6) strains the frames beside."""
        return self.prepare(frame_ids).jvp(np.arange(len(frame_ids)), v, rows, strain)

    def vjp_and_virials(
        self, frame_ids: np.ndarray, g: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Jᵀg as `vjp` does, and ∂E/∂ε (frames, 6)."""
        return self.prepare(frame_ids).vjp_and_virials(np.arange(len(frame_ids)), g, rows)
