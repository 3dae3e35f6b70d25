"""Fingerprints of many frames, chunk by chunk, and the back end of their derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from tqdm import tqdm

from amptorch.descriptor.base import MEMORY_ADVICE, BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks, RecomputedDerivatives
from amptorch.descriptor.store import FingerprintStore
from amptorch.distances import check_cutoff, check_distances
from amptorch.frames import Frames
from amptorch.memory import require_memory
from amptorch.neighbors import neighbor_list

# Atoms described in one go: enough work for every core, little memory beside the result.
CHUNK_ATOMS = 4096
# Frames from which it is known what the derivatives of all will take.
SAMPLE = 4
# Copies of the fingerprints that there are at a time while they are scaled.
COPIES = 5


def chunks_of_frames(frames: Frames, max_atoms: int = CHUNK_ATOMS) -> Iterator[np.ndarray]:
    """Yield ranges of consecutive frames with at most `max_atoms` atoms each (one frame at
    least)."""
    first = 0
    while first < len(frames):
        last = int(np.searchsorted(frames.offsets, frames.offsets[first] + max_atoms, "right")) - 1
        last = max(last, first + 1)
        yield np.arange(first, last)
        first = last


def check_memory(
    descriptor: BaseDescriptor,
    frames: Frames,
    derivatives: str | None = None,
    dtype: np.dtype | type = np.float64,
    threads: int | None = None,
) -> None:
    """Raise ValueError where the fingerprints of `frames`, and their derivatives where these are
    "stored" as `dtype`, would not fit into memory."""
    needed = 8.0 * COPIES * frames.n_atoms * descriptor.n_features
    what = "fingerprints"
    # What one chunk takes the descriptor itself knows, without a sample.
    if derivatives == "stored" and frames.n_atoms > CHUNK_ATOMS:
        places = (np.arange(SAMPLE) + 0.5) * len(frames) / SAMPLE
        sample = frames.select(np.argsort(frames.counts, kind="stable")[places.astype(np.int64)])
        _, some = descriptor.values_and_derivatives(sample, dtype=dtype, threads=threads)
        # Those of all chunks are joined at the end, which takes them twice.
        taken = 2 * (some.nbytes + some.blocks.feature_row.nbytes)
        needed += taken * frames.n_atoms / sample.n_atoms
        what += " and derivatives"
    require_memory(
        needed,
        f"{what} of {len(frames)} frames, {frames.n_atoms} atoms, by {descriptor.n_features} "
        f"functions for {len(descriptor.elements)} elements",
        f"keep them on disk (dataset.store), or {MEMORY_ADVICE}",
    )


def describe(
    descriptor: BaseDescriptor,
    frames: Frames,
    derivatives: str | None = None,
    dtype: np.dtype | type = np.float64,
    images: Sequence[Atoms] | None = None,
    store: FingerprintStore | None = None,
    threads: int | None = None,
    verbose: bool = False,
    strains: bool = False,
) -> tuple[np.ndarray, DerivativeBlocks | RecomputedDerivatives | None]:
    """Return fingerprints (N, S), not scaled, and the back end of their derivatives.

    derivatives: "stored" (blocks of type `dtype`), "recompute" (neighbour lists are kept), or None
    for no back end. images, store: see `FingerprintStore.values`; the store is of no use to
    "stored". threads: of the kernels, None for all cores. strains: keep the derivatives along
    strains too, where derivatives are "stored".
    """
    check_distances(frames, threads)
    check_cutoff(frames, descriptor.cutoff)
    check_memory(descriptor, frames, derivatives, dtype, threads)
    # The lists of all frames are needed later where derivatives are recomputed; otherwise each
    # chunk makes its own and drops it.
    keep = derivatives == "recompute"
    neighbors = neighbor_list(frames, descriptor.cutoff, threads) if keep else None
    values: list[np.ndarray] = []
    blocks: list[DerivativeBlocks] = []
    with tqdm(total=len(frames), desc="fingerprints", unit="frame", disable=not verbose) as bar:
        for chunk in chunks_of_frames(frames):
            part = frames.select(chunk)
            if derivatives == "stored":
                make = descriptor.with_strains if strains else descriptor.values_and_derivatives
                value, block = make(part, dtype=dtype, threads=threads)
                blocks.append(block)
            else:
                listed = None if neighbors is None else neighbors.select(frames, chunk)
                if store is None or images is None:
                    value = descriptor.values(part, listed, threads)
                else:
                    atoms = [images[frame] for frame in chunk]
                    value = store.values(descriptor, part, atoms, listed, threads)
            values.append(value)
            bar.update(len(chunk))
    backend: DerivativeBlocks | RecomputedDerivatives | None = None
    if derivatives == "stored":
        backend = DerivativeBlocks.concatenate(blocks)
    elif neighbors is not None:
        backend = RecomputedDerivatives(descriptor, frames, neighbors)
    return np.concatenate(values), backend
