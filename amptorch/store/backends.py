"""Contract derivatives over a store, with the interface of `amptorch.descriptor.blocks`."""

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from amptorch.descriptor.blocks import DerivativeBlocks, KeptDerivatives
from amptorch.descriptor.derivatives import FrameIds

if TYPE_CHECKING:
    from amptorch.store.store import FrameStore


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
