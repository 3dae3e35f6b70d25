"""Find structures that are there more than once, within a set and between two."""

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

# Å; frames whose positions and cells differ less are the same.
SAME = 1e-6


def duplicates(training: Sequence[Atoms], other: Sequence[Atoms]) -> list[tuple[int, int]]:
    """Return (index in `training`, index in `other`) of each frame of `other` that is also in
    `training`: the same atoms in the same order, with positions and cell equal to 1e-6 Å.

    Where a frame is in `training` several times, the first is named.
    """
    groups = _by_composition(other)
    return sorted(
        (
            pair
            for key, first in _by_composition(training).items()
            if key in groups
            for pair in _matches(training, first, other, groups[key])
        ),
        key=lambda pair: pair[1],
    )


def duplicate_warning(training: Sequence[Atoms], test: Sequence[Atoms], name: str) -> str | None:
    """Return a warning where frames of `test`, which the text calls `name`, are in `training`; None
    where there are none."""
    same = duplicates(training, test)
    if not same:
        return None
    first, second = same[0]
    return (
        f"{len(same)} of the {len(test)} frames of {name} are also in the training set (frame "
        f"{second} is its frame {first}), so that errors on them say nothing about new "
        "structures; take them out of one of the two"
    )


def repeated_warning(images: Sequence[Atoms]) -> str | None:
    """Return a warning of frames that are there more than once; None where there are none."""
    pairs = [
        pair
        for group in _by_composition(images).values()
        if len(group) > 1
        for pair in _matches(images, group, images, group)
        if pair[0] < pair[1]
    ]
    if not pairs:
        return None
    first, second = min(pairs, key=lambda pair: pair[1])
    return (
        f"{len(pairs)} of {len(images)} frames are copies of an earlier one (frame {second} is "
        f"frame {first} again); held-out frames that are also trained on hide errors, so remove "
        "the copies"
    )


def atoms_key(atoms: Atoms) -> bytes:
    """Return what is equal for frames of the same atoms in the same order and periodicity."""
    return atoms.numbers.astype(np.int64).tobytes() + atoms.pbc.tobytes()


def _by_composition(images: Sequence[Atoms]) -> dict[bytes, list[int]]:
    """Return the places of frames with the same atoms in the same order."""
    groups: dict[bytes, list[int]] = {}
    for index, atoms in enumerate(images):
        groups.setdefault(atoms_key(atoms), []).append(index)
    return groups


def _matches(
    first: Sequence[Atoms], places: list[int], second: Sequence[Atoms], others: list[int]
) -> Iterator[tuple[int, int]]:
    """Yield (place in `first`, place in `second`) of frames that are the same; all have the same
    atoms."""
    # A sum of all numbers tells nearly all frames apart; only those of the same sum are compared.
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (len(first[places[0]]) + 3, 3))
    tolerance = SAME * weights.sum()

    def rows(images: Sequence[Atoms], index: int) -> np.ndarray:
        return np.concatenate([images[index].positions, images[index].cell.array])

    sums = np.array([np.vdot(rows(first, index), weights) for index in places])
    order = np.argsort(sums, kind="stable")
    ordered = sums[order]
    for other in others:
        wanted = rows(second, other)
        total = np.vdot(wanted, weights)
        start, stop = np.searchsorted(ordered, [total - tolerance, total + tolerance])
        for place in sorted(places[k] for k in order[start:stop]):
            if np.abs(rows(first, place) - wanted).max() <= SAME:
                yield place, other
                break
