"""Making one shard of a store, or adding to it: the task that is run in parallel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.distances import check_distances
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.store import layout
from amptorch.store.arrays import disk_errors, folder_when_complete, write_checked_json
from amptorch.store.reader import ShardReader, join_frames
from amptorch.store.sharing import SharedFunctions, compute
from amptorch.store.sources import checked_frame
from amptorch.store.writers import (
    StructureWriter,
    derivative_writer,
    fingerprint_writer,
    strain_writer,
)

# Atoms described in one go: enough work for every core, little memory beside the result.
CHUNK_ATOMS = 4096


@dataclass(frozen=True)
class Settings:
    """Hold what all shards of a store are made with; `derivatives` is their dtype, None for none.

    missing_forces : "error", or "ignore" for frames without forces, which are kept as NaN
    stress : whether frames have stresses that are kept, and derivatives come with those along
        strains
    share : whether a set of functions that is added takes from other sets what they have in common
    """

    store: Path
    descriptor: BaseDescriptor
    cutoff: float
    forces: bool
    derivatives: str | None
    skip_bad: bool
    threads: int | None = None
    missing_forces: str = "error"
    stress: bool = False
    share: bool = False


class StoppedError(Exception):
    """Say that the work was called off because other work failed."""


def make_shard(
    settings: Settings,
    number: int,
    parts: list[Any],
    progress: Callable[[int], None] | None = None,
    stopped: Any = None,
) -> Any:
    """Make shard `number`, or add the fingerprints and derivatives that it has not got.

    parts: [(number of the source, part of it)]; progress(frames read) is called now and then;
    stopped() tells whether to give up. Raises ValueError that names an unusable frame.
    """

    def proceed(n_frames: int) -> None:
        if progress is not None:
            progress(n_frames)
        if stopped is not None and stopped():
            raise StoppedError

    folder = layout.shard_folder(settings.store, number)
    with disk_errors(settings.store):
        if folder.is_dir():
            _add_descriptions(folder, settings, proceed)
        else:
            with folder_when_complete(folder) as unfinished:
                _write_shard(unfinished, settings, parts, proceed)


def missing_descriptions(folder: Path, settings: Settings) -> set[str]:
    """Return which of "fingerprints", "derivatives" and "strains" a shard should have and has
    not."""
    name, dtype = settings.descriptor.descriptor_setup_hash, settings.derivatives
    missing = set()
    if not layout.fingerprint_entry(folder, name).is_file():
        missing.add("fingerprints")
    if dtype is not None and not layout.derivative_folder(folder, name, dtype).is_dir():
        missing.add("derivatives")
    if dtype is None or not settings.stress:
        return missing
    if not layout.strain_entry(folder, name, dtype).is_file():
        missing.add("strains")
    return missing


def _write_shard(
    folder: Path, settings: Settings, parts: list[Any], proceed: Callable[[int], None]
) -> Any:
    structures = StructureWriter(settings.forces, settings.stress)
    skipped: list[Any] = []
    with _descriptions(folder, settings, missing_descriptions(folder, settings)) as add:
        for source, part in parts:
            for n_read, frames in _checked_chunks(source, part, settings, skipped):
                if frames is not None:
                    check_distances(frames, settings.threads)
                    neighbors = neighbor_list(frames, settings.cutoff, settings.threads)
                    # As they are read again later: then what is computed is the same to the bit.
                    neighbors = neighbors.moved(frames)
                    add(*compute(settings.descriptor, frames, neighbors, settings))
                    structures.add(frames, neighbors)
                proceed(n_read)
    inputs = [[source, part.first, part.stop] for source, part in parts]
    about = {**structures.write(folder), "inputs": inputs, "skipped": skipped}
    # Frames of other elements are among those left out.
    about["elements"] = sorted(settings.descriptor.elements)
    write_checked_json(folder / layout.SHARD, about)


def _add_descriptions(folder: Path, settings: Settings, proceed: Callable[[int], None]) -> None:
    shard = ShardReader(folder)
    described = SharedFunctions(shard, settings)
    with _descriptions(folder, settings, missing_descriptions(folder, settings)) as add:
        for chunk in _chunks(shard.counts):
            add(*described.describe(chunk))
            proceed(len(chunk))


@contextmanager
def _descriptions(
    folder: Path, settings: Settings, missing: set[str]
) -> Iterator[Callable[..., None]]:
    """Give a function of (fingerprints, DerivativeBlocks), for one chunk of frames after the
    other; what is missing of both is written to the shard in `folder` at the end."""
    descriptor = settings.descriptor
    name = descriptor.descriptor_setup_hash
    wanted: list[Any] = [nullcontext(), nullcontext(), nullcontext()]
    if "fingerprints" in missing:
        wanted[0] = fingerprint_writer(folder, name, descriptor.n_features)
    if "derivatives" in missing and settings.derivatives is not None:
        wanted[1] = derivative_writer(folder, name, settings.derivatives)
    if "strains" in missing and settings.derivatives is not None:
        wanted[2] = strain_writer(folder, name, settings.derivatives, descriptor.n_features)
    with wanted[0] as fingerprints, wanted[1] as derivatives, wanted[2] as strains:

        def add(values: np.ndarray, blocks: DerivativeBlocks | None) -> None:
            if fingerprints is not None:
                fingerprints.append(values)
            if derivatives is not None:
                derivatives.add(blocks)
            if strains is not None and blocks is not None:
                strains.append(blocks.strains)

        yield add


def _checked_chunks(
    source: str, part: Any, settings: Settings, skipped: list[Any]
) -> Iterator[tuple[int, Frames | None]]:
    """Yield (frames read, Frames or None) of about CHUNK_ATOMS atoms each.

    An unusable frame is a ValueError that names it, or with `skip_bad` is listed in `skipped`.
    """
    pieces, n_read = [], 0
    for index, get in part.read():
        n_read += 1
        try:
            options = settings.forces, settings.missing_forces, settings.stress
            elements = settings.descriptor.elements
            pieces.append(checked_frame(get(), part.name, index, elements, *options))
        except ValueError as error:
            if not settings.skip_bad:
                raise
            skipped.append([source, index, str(error)])
        if sum(piece.n_atoms for piece in pieces) >= CHUNK_ATOMS:
            yield n_read, join_frames(pieces)
            pieces, n_read = [], 0
    yield n_read, join_frames(pieces) if pieces else None


def _chunks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield ranges of consecutive frames: the chunks that `_checked_chunks` made of them."""
    first, n_atoms = 0, 0
    for frame, count in enumerate(counts):
        n_atoms += count
        if n_atoms >= CHUNK_ATOMS or frame == len(counts) - 1:
            yield np.arange(first, frame + 1)
            first, n_atoms = frame + 1, 0
