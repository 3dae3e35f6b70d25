"""Make stores of frames whose fingerprints, derivatives and targets alone are known.

They lack positions, cells and neighbour lists, so that nothing can be recomputed, and no other
symmetry functions can be added; otherwise training reads them as any other store.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.rows import offsets_of
from amptorch.store import layout
from amptorch.store.arrays import disk_errors, folder_when_complete, write_checked_json
from amptorch.store.build import locked_store, summary_of, write_setup
from amptorch.store.reader import ShardReader
from amptorch.store.store import FrameStore, read_store
from amptorch.store.writers import derivative_writer, fingerprint_writer, write_arrays


@dataclass(frozen=True)
class Described:
    """Hold some frames: `counts` (F,) atoms of each, `numbers` (n,), `energies` (F,), eV, `indices`
    (F,) places in their file, `fingerprints` (n, S), not scaled, and with forces `forces` (n, 3),
    eV/Å, and `derivatives`, DerivativeBlocks of the fingerprints."""

    counts: np.ndarray
    numbers: np.ndarray
    energies: np.ndarray
    indices: np.ndarray
    fingerprints: np.ndarray
    forces: np.ndarray | None = None
    derivatives: object = None


def write_described(
    shards: Iterable[Any],
    descriptor: BaseDescriptor,
    out: str | os.PathLike[str],
    inputs: list[dict[str, Any]],
    forces: bool,
    dtype: str = "float64",
    frames_per_shard: int = 512,
) -> FrameStore:
    """Make the store in the new folder `out`, and return its FrameStore.

    shards : of iterables of `Described`, each of `frames_per_shard` frames in all but the last
    inputs : of {"path", "size", "sha256", "frames"}, where the frames come from
    forces : whether there are forces and derivatives, which are kept as `dtype`

    Raises FileExistsError where there is a store already, and OSError where it cannot be written.
    """
    root = Path(out).absolute()
    about = {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "cutoff": descriptor.cutoff,
        "forces": forces,
        "structures": False,
        "frames_per_shard": frames_per_shard,
        "inputs": inputs,
        "skipped": [],
        "complete": False,
    }
    with locked_store(root), disk_errors(root):
        if (root / layout.STORE).exists():
            before = read_store(root)
            if before["complete"] or before.get("structures", True):
                raise FileExistsError(
                    f"there is a store in {str(root)!r} already; give a new folder"
                )
            # Left behind by a call that was stopped.
            shutil.rmtree(root / "shards", ignore_errors=True)
        write_checked_json(root / layout.STORE, about)
        write_setup(root, descriptor)
        for number, parts in enumerate(shards):
            _write_shard(layout.shard_folder(root, number), parts, descriptor, forces, dtype)
        found = [ShardReader(path).about for path in sorted((root / "shards").iterdir())]
        write_checked_json(root / layout.STORE, {**about, **summary_of(found)})
    return FrameStore(root)


def _write_shard(
    shard: Path, parts: Any, descriptor: BaseDescriptor, forces: bool, dtype: str
) -> Any:
    name = descriptor.descriptor_setup_hash
    kept = ("counts", "numbers", "energies", "indices") + (("forces",) if forces else ())
    with folder_when_complete(shard) as folder:
        pieces: dict[str, list[np.ndarray]] = {key: [] for key in kept}
        described = fingerprint_writer(folder, name, descriptor.n_features)
        writer = derivative_writer(folder, name, dtype) if forces else nullcontext()
        with described as fingerprints, writer as derivatives:
            for part in parts:
                for key in kept:
                    pieces[key].append(getattr(part, key))
                fingerprints.append(part.fingerprints)
                if derivatives is not None:
                    derivatives.add(part.derivatives)
        arrays = {key: np.concatenate(values) for key, values in pieces.items()}
        arrays["numbers"] = arrays["numbers"].astype(np.uint8)
        arrays["offsets"] = offsets_of(arrays.pop("counts"))
        content = {**write_arrays(folder, arrays), "inputs": [], "skipped": []}
        write_checked_json(folder / layout.SHARD, content)
