"""Put LMDB files into a packed store."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.store import FrameStore
from amptorch.store.arrays import sha256
from amptorch.store.described import Described, write_described
from amptorch.v1.lmdb import AtomsLMDBDatasetPartialCache
from amptorch.v1.lmdb_file import data_file

# Frames in memory at one time.
CHUNK = 32


def lmdb_to_store(
    lmdb_paths: Any,
    out: str | os.PathLike[str],
    derivative_dtype: str = "float64",
    frames_per_shard: int = 512,
    forces: Any = None,
    verbose: bool = True,
) -> FrameStore:
    """Put the frames of LMDB files into a new packed store, and return its FrameStore.

    The files hold no positions, so the store has none: fingerprints, derivatives and targets, not
    scaled, from which any scaling may be fitted, but nothing to recompute or to describe anew.
    Where the structures are at hand, `amptorch preprocess` makes a better store in less time.

    forces : whether forces and derivatives are kept; None: where the files hold them

    Raises ValueError where derivatives cannot be kept as blocks because AMPTorch v1.0 had cut small
    ones off, FileExistsError where there is a store already, and what `AtomsLMDBDataset` raises.
    """
    dataset = AtomsLMDBDatasetPartialCache(lmdb_paths, forces, derivative_dtype=derivative_dtype)
    inputs = [
        {
            "path": str(file.path),
            "size": file.path.stat().st_size,
            "sha256": sha256(data_file(file.path)),
            "frames": len(file),
        }
        for file in dataset.files
    ]
    starts = range(0, len(dataset), frames_per_shard)
    with tqdm(total=len(dataset), desc="LMDB to store", unit="frame", disable=not verbose) as bar:
        shards = (
            _described(dataset, first, min(first + frames_per_shard, len(dataset)), bar)
            for first in starts
        )
        return write_described(
            shards,
            dataset.descriptor,
            out,
            inputs,
            dataset.forcetraining,
            str(np.dtype(derivative_dtype)),
            frames_per_shard,
        )


def _described(dataset: Any, first: int, last: int, bar: Any) -> Iterator[Any]:
    for start in range(first, last, CHUNK):
        frame_ids = np.arange(start, min(start + CHUNK, last))
        pack = dataset.pack(frame_ids)
        if dataset.forcetraining and not isinstance(pack.derivatives, DerivativeBlocks):
            raise ValueError(
                f"frames {start} to {frame_ids[-1]} of the LMDB files: small derivatives were cut "
                "off, which a store does not keep; make it from the structures with preprocess"
            )
        numbers = np.concatenate(pack.numbers)
        scaled = torch.from_numpy(np.concatenate(pack.fingerprints))
        files = np.searchsorted(dataset.starts, frame_ids, side="right") - 1
        yield Described(
            counts=np.array([len(part) for part in pack.numbers], dtype=np.int64),
            numbers=numbers,
            energies=pack.energies,
            indices=frame_ids - dataset.starts[files],
            fingerprints=dataset.feature_scaler.raw_rows(scaled, numbers).numpy(),
            forces=np.concatenate(pack.forces) if dataset.forcetraining else None,
            derivatives=pack.derivatives,
        )
        bar.update(len(frame_ids))
