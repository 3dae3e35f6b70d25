"""Check whether distances and cutoffs look as if they were in Å."""

import warnings

import numpy as np

from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, neighbor_list

# Å; no chemistry has most of its atoms nearer to each other (H2: 0.74).
SHORTEST = 0.5
# Neighbours an atom, beyond which a cutoff looks as if it were in another unit (20 Å in a metal has
# some 3,000).
MANY = 5000
# Å, where the search for the nearest atoms ends, and frames that it is done for.
LONGEST, SOME = 1000.0, 16


def check_distances(frames: Frames, threads: int | None = None, training: bool = True) -> None:
    """Raise ValueError where two atoms of a frame are in one place, or in most frames most atoms
    have another within 0.5 Å, as in structures in nm; the latter is a warning if not `training`.

    Every neighbour list finds atoms in one place too, but frame by frame between long calculations;
    one as short as this takes 1/20 of a millisecond a frame.
    """
    near = neighbor_list(frames, SHORTEST, threads)
    if near.n_pairs == 0:
        return
    crowded = np.add.reduceat(near.counts > 0, frames.offsets[:-1]) > frames.counts / 2
    if crowded[frames.counts > 1].mean() <= 0.5:
        return
    message = (
        f"the typical distance of an atom to its nearest is {_typical(near):.2g} Å; are positions "
        "and cells in Å (not nm)?"
    )
    if training:
        raise ValueError(message)
    warnings.warn(message, stacklevel=3)


def check_cutoff(frames: Frames, cutoff: float) -> None:
    """Raise ValueError where no atom of any frame, lone atoms aside, has another within the cutoff
    (Å): all fingerprints would be zero. Warn where atoms have thousands of neighbours."""
    several = np.flatnonzero((frames.counts > 1) | frames.pbc.any(axis=1))
    for frame in several:
        pairs = neighbor_list(frames[int(frame)], cutoff)
        if pairs.n_pairs:
            neighbors = pairs.n_pairs / frames.counts[frame]
            if neighbors > MANY:
                warnings.warn(
                    f"an atom has {neighbors:.0f} neighbours within the cutoff of {cutoff:g} Å; "
                    "are cutoff and positions in Å?",
                    stacklevel=2,
                )
            return
    if len(several):
        raise ValueError(_beyond(frames.select(several[:SOME]), cutoff, "fingerprints are"))


def warn_of_lonely(frames: Frames, neighbors: NeighborList, cutoff: float) -> bool:
    """Warn where a frame of several atoms has no two within the cutoff; return whether. The
    neighbours may reach farther, as those of dynamics do."""
    within = np.einsum("ij,ij->i", neighbors.vectors, neighbors.vectors) < cutoff**2
    pairs = np.append(0, np.cumsum(within))[neighbors.offsets[frames.offsets]]
    lonely = np.flatnonzero((np.diff(pairs) == 0) & (frames.counts > 1))
    if len(lonely):
        frame = int(lonely[0])
        warnings.warn(
            f"frame {frames.name(frame)}: {_beyond(frames[frame], cutoff, 'forces are')}",
            stacklevel=3,
        )
    return len(lonely) > 0


def _beyond(frames: Frames, cutoff: float, what: str) -> str:
    reach, nearest = cutoff, None
    while nearest is None and reach < LONGEST:
        reach *= 2
        vectors = neighbor_list(frames, reach).vectors
        nearest = np.linalg.norm(vectors, axis=1).min() if len(vectors) else None
    distance = f"the nearest is at {nearest:.3g} Å" if nearest else f"nor within {reach:.0f} Å"
    return (
        f"no atom has another within the cutoff of {cutoff:g} Å, {distance}, so that all {what} "
        "zero; are cutoff and positions in Å?"
    )


def _typical(neighbors: NeighborList) -> float:
    distances = np.linalg.norm(neighbors.vectors, axis=1)
    several = neighbors.counts > 0
    nearest = np.minimum.reduceat(distances, neighbors.offsets[:-1][several])
    return float(np.median(nearest))
