"""Structures, neighbour lists and fingerprints that all trials of a study share.

A packed store (docs/store.md) in the study's folder. Neighbour lists reach as far as the longest
cutoff of the search space, and are made once; the fingerprints and derivatives of a set of
functions are made by the first trial that asks for it, and memory-mapped by all that follow.

Sets are kept as a whole, and functions that a new one has in common with others are copied: read in
two parts, radial and angular, every contraction would take half as long again, which over a trial
of a minute is more than a copy.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amptorch.data.corrections import composition
from amptorch.data.from_store import StoreDataset
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import symbol_numbers
from amptorch.locks import locked
from amptorch.store import FrameStore, layout, preprocess
from amptorch.store.arrays import UNFINISHED
from amptorch.store.build import write_setup
from amptorch.store.shard import Settings, make_shard

logger = logging.getLogger(__name__)
GB = 1e9
DTYPE = "float32"
# Frames whose fingerprints are held while the feature scaler is fitted.
CHUNK = 512
# Seconds after which the process that began an unfinished file is taken for dead.
ABANDONED = 3600


class Cache:
    """Hold the store in `folder` for the frames of `data` (as `preprocess` takes them).

    forces : whether derivatives are needed, too
    limit : bytes that the sets may take; the least recently used are removed beyond it
    """

    def __init__(
        self, folder: str | os.PathLike[str], data: Any, forces: bool = True, limit: float = 10 * GB
    ):
        self.folder = Path(folder)
        self.data = data
        self.forces = forces
        self.limit = limit

    def begin(self, elements: Sequence[str], cutoff: float) -> None:
        """Make the structures and their neighbour lists up to `cutoff` (Å), once for all trials."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.folder.parent / ".structures.lock"):
            try:
                self.store()
            except (FileNotFoundError, ValueError):  # not there, or not complete
                nothing = Gaussian({"default": {"cutoff": cutoff, "G1": {}}}, elements)
                preprocess(self.data, nothing, self.folder, forces=self.forces, verbose=False)

    def store(self) -> FrameStore:
        """Open the store."""
        return FrameStore(self.folder)

    def describe(self, descriptor: BaseDescriptor) -> tuple[FrameStore, float]:
        """Return the store, with the fingerprints of `descriptor`, and the seconds they took."""
        start = time.perf_counter()
        store = self.store()
        name = descriptor.descriptor_setup_hash
        # `preprocess` lets one process write at a time; here every set has a lock of its own.
        with locked(self.folder.parent / f".{name}.lock"):
            if not self._has(store, name):
                settings = Settings(
                    store=self.folder,
                    descriptor=descriptor,
                    cutoff=store.cutoff,
                    forces=self.forces,
                    derivatives=DTYPE if self.forces else None,
                    skip_bad=False,
                    share=True,
                )
                for number in range(store.n_shards):
                    make_shard(settings, number, [])
                write_setup(self.folder, descriptor)
                self._make_room(name)
            self._touch(store, name)
        return store, time.perf_counter() - start

    def dataset(
        self,
        setup: tuple,
        train: np.ndarray,
        scaling: dict[str, Any],
        dtype: torch.dtype,
        correction: bool | Mapping[str | int, float] = False,
        target_scaling: bool | str = True,
    ) -> tuple[StoreDataset, float]:
        """Return a StoreDataset of all frames, and the seconds that its fingerprints took.

        setup: (fp_scheme, fp_params, cutoff_params, elements); train: the frames that the scalers
        and reference energies are fitted to; correction: `dataset.atomic_correction`;
        target_scaling: `dataset.target_scaling`.
        """
        descriptor = construct_descriptor(setup)
        store, seconds = self.describe(descriptor)
        name, kinds = descriptor.descriptor_setup_hash, symbol_numbers(setup[3])

        def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for first in range(0, len(train), CHUNK):
                part = train[first : first + CHUNK]
                yield store.fingerprints(name, part), store.frames(part).numbers

        dataset = StoreDataset(
            store,
            setup,
            self.forces,
            scaling,
            "stored" if self.forces else "recompute",
            DTYPE,
            dtype,
            FeatureScaler.from_chunks(chunks(), scaling, self.forces),
            TargetScaler.fitted(
                store.energies[train],
                lambda: composition(store.numbers(train), store.counts[train], kinds),
                setup[3],
                self.forces,
                correction,
                target_scaling,
            ),
        )
        return dataset, seconds

    def _has(self, store: FrameStore, name: str) -> bool:
        derivatives = not self.forces or store.has_derivatives(name, DTYPE)
        return store.has_fingerprints(name) and derivatives

    def _touch(self, store: FrameStore, name: str) -> None:
        for number in range(store.n_shards):
            os.utime(layout.fingerprint_entry(layout.shard_folder(self.folder, number), name))

    def _make_room(self, keep: str) -> None:
        """Remove the least recently used sets, but not the one named `keep`.

        A trial that is using one keeps its mappings until it ends.
        """
        for left in self.folder.glob(f"shards/*/*/*{UNFINISHED}*"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                _remove(left)
        sets: dict[str, list[Path]] = {}
        used: dict[str, float] = {}
        for entry in self.folder.glob("shards/*/fingerprints/*.json"):
            shard, name = entry.parents[1], entry.stem
            paths = sets.setdefault(name, [])
            paths += [entry, layout.fingerprint_file(shard, name)]
            paths.append(layout.derivative_folder(shard, name, DTYPE))
            used[name] = max(used.get(name, 0.0), entry.stat().st_mtime)
        sizes = {name: sum(map(_size, paths)) for name, paths in sets.items()}
        total = sum(sizes.values())
        for name in sorted(sets, key=lambda name: used[name]):
            if total > self.limit and name != keep:
                total -= sizes[name]
                logger.info("fingerprints %s are removed to make room", name)
                for path in sets[name]:
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in (path, *path.glob("*")) if part.is_file())
