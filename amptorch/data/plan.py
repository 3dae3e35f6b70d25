"""Decide whether derivatives are kept or computed anew: what either takes,
from a sample of the frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amptorch.data.loader import prefetched
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.threads import use_threads

# Frames that are measured, and atoms in them: a second of work, and means good to a few percent.
SAMPLE_FRAMES = 32
SAMPLE_ATOMS = 4096
# They are contracted in batches, as in training, and all is measured so many times, or as often as
# fits into some seconds.
BATCH = 16
RUNS = 5
SECONDS = 2.0
# Where what is kept takes less than this part of the memory for it, contracting anew is not timed:
# its kernels take half a minute to compile.
FITS_EASILY = 0.25
GB = 1e9


def sample_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return frames that stand for all those with `counts` (F,) atoms: evenly spaced in order of
    size."""
    counts = np.asarray(counts)
    n = min(len(counts), SAMPLE_FRAMES, max(2, int(SAMPLE_ATOMS / counts.mean())))
    order = np.argsort(counts, kind="stable")
    return np.sort(order[((np.arange(n) + 0.5) * len(counts) / n).astype(np.int64)])


@dataclass(frozen=True)
class Plan:
    """Hold what derivatives cost, and what is done about them.

    n_frames; atoms: mean number in a frame; dtype: of kept derivatives; stored_bytes: of those of
    all frames; seconds to make them once (`making`), and in each epoch to contract what is kept
    (`reading`; from a disk it takes longer) or to contract anew (`recomputing`; None where it was
    not timed, because what is kept takes little); budget: bytes; derivatives: "stored" or
    "recompute"; reason: of that choice.
    """

    n_frames: int
    atoms: float
    dtype: str
    stored_bytes: float
    making: float
    reading: float
    recomputing: float | None
    budget: float
    derivatives: str
    reason: str

    def table(self) -> str:
        """Return the plan as a table for people."""
        rows = [
            ("derivatives", "kept", "made once", "each epoch"),
            (
                f"stored, {self.dtype}",
                _size(self.stored_bytes),
                _time(self.making),
                _time(self.reading),
            ),
            ("recompute", "nothing", "", _time(self.recomputing)),
        ]
        lines = ["{:18} {:>10} {:>10} {:>10}".format(*row).rstrip() for row in rows]
        return "\n".join(
            [
                f"memory plan for {self.n_frames} frames of {self.atoms:.0f} atoms, "
                "times besides the network's",
                *lines,
                f"chosen: {self.derivatives} ({self.reason})",
            ]
        )


def make_plan(
    descriptor: BaseDescriptor,
    sample: Frames,
    n_frames: int,
    dtype: str = "float64",
    budget: float = 2 * GB,
    wanted: str = "auto",
    there: bool | None = None,
    threads: int | None = None,
    available: float = np.inf,
    strains: bool = False,
) -> Plan:
    """Return the plan for `n_frames` frames of which `sample` (Frames) is typical: see `sample_of`.

    wanted: "auto", "stored" or "recompute", as the configuration says. there: whether derivatives
    are stored already, which "auto" follows; None where they can be made, and then it stores what
    fits into `budget` bytes, and recomputes otherwise. threads: of the kernels. available: bytes of
    memory where derivatives are to be kept there; while they are joined they take it twice.
    strains: whether those along strains are kept too.
    """
    scale = n_frames / len(sample)
    little = 0.0
    if wanted != "recompute" and there is not False:
        little = FITS_EASILY * min(budget, available / 2) / scale
    measured = _measure(descriptor, sample, np.dtype(dtype), threads, little)
    if strains:
        measured[0] += sample.n_atoms * descriptor.n_features * 6 * np.dtype(dtype).itemsize
    stored, making, reading, *anew = measured * scale
    recomputing = anew[0] if anew else None
    if wanted != "auto":
        chosen, reason = wanted, "as dataset.derivatives says"
    elif there:
        chosen, reason = "stored", "they are in the store already"
    elif there is not None:
        chosen, reason = "recompute", "the store holds none"
    elif stored > budget:
        chosen, reason = "recompute", f"more than dataset.memory_budget of {budget / GB:g} GB"
    elif 2 * stored > available:
        chosen, reason = "recompute", f"only {available / GB:.3g} GB of memory are available"
    else:
        chosen, reason = "stored", f"within dataset.memory_budget of {budget / GB:g} GB"
    return Plan(
        n_frames=n_frames,
        atoms=sample.n_atoms / len(sample),
        dtype=str(np.dtype(dtype)),
        stored_bytes=stored,
        making=making,
        reading=reading,
        recomputing=recomputing,
        budget=budget,
        derivatives=chosen,
        reason=reason,
    )


def _measure(
    descriptor: BaseDescriptor,
    sample: Frames,
    dtype: np.dtype,
    threads: int | None,
    little: float,
) -> np.ndarray:
    """Return bytes and seconds of making, contracting and recomputing the derivatives of `sample`;
    not of recomputing where they take no more than `little` bytes."""
    with use_threads(threads):
        neighbors = neighbor_list(sample, descriptor.cutoff)
        # Kernels are compiled, or read from numba's cache, before the clock starts.
        taken = _times(descriptor, sample, neighbors, dtype, recompute=False)[0]
        recompute = taken > little
        if recompute:
            one = sample[0]
            _times(descriptor, one, neighbor_list(one, descriptor.cutoff), dtype, recompute)
        runs: list[list[float]] = []
        end = time.perf_counter() + SECONDS
        while not runs or (len(runs) < RUNS and time.perf_counter() < end):
            runs.append(_times(descriptor, sample, neighbors, dtype, recompute))
    return np.median(runs, axis=0)


def _times(
    descriptor: BaseDescriptor,
    frames: Frames,
    neighbors: NeighborList,
    dtype: np.dtype,
    recompute: bool,
) -> list[float]:
    start = time.perf_counter()
    values, blocks = descriptor.values_and_derivatives(frames, neighbors, dtype)
    making = time.perf_counter() - start

    def recomputed(part: np.ndarray) -> tuple[RecomputedDerivatives, np.ndarray]:
        # As in training: structures of their own for each batch, made ahead.
        chosen = frames.select(part)
        listed = neighbors.select(frames, part).moved(chosen)
        return RecomputedDerivatives(descriptor, chosen, listed), np.arange(len(part))

    n = len(frames)
    parts = [np.arange(first, min(first + BATCH, n)) for first in range(0, n, BATCH)]
    gradients = [values[frames.atom_rows(part)] for part in parts]
    seconds = []
    makers: list[Any] = [lambda part: (blocks, part), recomputed]
    for make in makers[: 1 + recompute]:
        start = time.perf_counter()
        for (back_end, ids), g in zip(prefetched(make, parts), gradients, strict=True):
            back_end.jvp(ids, back_end.vjp(ids, g))
        seconds.append(time.perf_counter() - start)
    # With many elements, what says which features stand in which block is not small, and grows with
    # the frames, as these differ.
    table = blocks.blocks.feature_row.nbytes
    return [blocks.nbytes + table, making, *seconds]


def _size(n_bytes: float) -> str:
    return f"{n_bytes / GB:.2f} GB" if n_bytes >= 0.1 * GB else f"{n_bytes / 1e6:.2f} MB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not timed"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
