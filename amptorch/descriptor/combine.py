"""Fingerprints and derivatives put together from those of other sets of functions."""

from dataclasses import dataclass

import numpy as np

from amptorch.descriptor.blocks import DerivativeBlocks, feature_rows
from amptorch.kernels.features import copy_features
from amptorch.kernels.structures import Blocks
from amptorch.rows import offsets_of
from amptorch.threads import run_chunks


@dataclass(frozen=True)
class Part:
    """Hold what another set of functions gives of the one that is wanted.

    columns : (E, S) for each central element and feature that is wanted its column in this part,
        -1 where it does not come from here
    values : (n, S') fingerprints of the atoms
    derivatives : DerivativeBlocks, or None
    first : the place of the n atoms' first in `derivatives`
    """

    columns: np.ndarray
    values: np.ndarray
    derivatives: DerivativeBlocks | None = None
    first: int = 0


def combine(
    parts: list[Part], elements: np.ndarray, frame_offsets: np.ndarray, threads: int | None = None
) -> tuple[np.ndarray, DerivativeBlocks | None]:
    """Return (fingerprints (n, S), DerivativeBlocks or None) out of the `parts`.

    elements : (n,) place of each atom's element among the E
    frame_offsets : (F+1,) first atom of each frame

    The parts must be of the same atoms with the same neighbours: of one cutoff for all functions.
    """
    values = np.zeros((len(elements), parts[0].columns.shape[1]))
    for part in parts:
        for element, columns in enumerate(part.columns):
            wanted = np.flatnonzero(columns >= 0)
            rows = np.flatnonzero(elements == element)
            values[np.ix_(rows, wanted)] = part.values[np.ix_(rows, columns[wanted])]
    derivatives = [part.derivatives for part in parts if part.derivatives is not None]
    if not derivatives:
        return values, None
    blocks = _combined_blocks(parts, derivatives, elements, threads)
    return values, DerivativeBlocks(blocks, values.shape[1], frame_offsets)


def _combined_blocks(
    parts: list[Part],
    derivatives: list[DerivativeBlocks],
    elements: np.ndarray,
    threads: int | None,
) -> Blocks:
    n = len(elements)
    given = [kept.blocks for kept in derivatives]
    # Atoms that are of one kind in every part are of one kind here.
    kinds = [
        blocks.kind[part.first : part.first + n] for part, blocks in zip(parts, given, strict=True)
    ]
    _, some_atom, kind = np.unique(
        np.column_stack([elements, *kinds]), axis=0, return_index=True, return_inverse=True
    )
    kind = kind.reshape(-1)
    columns = [part.columns[elements[some_atom], None] for part in parts]
    # (kinds, E, S) row of each feature in each part, -1 where it is not there.
    rows = [
        np.where(
            wanted >= 0,
            np.take_along_axis(
                blocks.feature_row[numbers[some_atom]],
                np.maximum(wanted, 0),
                axis=2,
            ),
            -1,
        )
        for blocks, numbers, wanted in zip(given, kinds, columns, strict=True)
    ]
    stands = np.any([of_part >= 0 for of_part in rows], axis=0)
    atom_start, atoms = _neighbors(given[0], parts[0].first, n)
    counts = np.diff(atom_start).reshape(n, -1)
    sizes = 3 * counts * stands.sum(axis=2)[kind]
    value_start = offsets_of(sizes.ravel())
    combined = Blocks(
        atom_start=atom_start,
        atoms=atoms,
        value_start=value_start,
        values=np.empty(value_start[-1], dtype=derivatives[0].dtype),
        kind=kind,
        feature_row=feature_rows(stands),
    )
    for part, blocks, of_part in zip(parts, given, rows, strict=True):
        copied = of_part >= 0
        row_start = offsets_of(copied.sum(axis=2).ravel())
        from_to = (row_start, of_part[copied], combined.feature_row[copied])

        def copy(
            start: int,
            stop: int,
            part: Part = part,
            blocks: Blocks = blocks,
            from_to: tuple[np.ndarray, ...] = from_to,
        ) -> None:
            copy_features(blocks, part.first, combined, *from_to, start, stop)

        run_chunks(copy, counts.sum(axis=1) + 1, threads)
    return combined


def _neighbors(blocks: Blocks, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (atom_start, atoms) of n atoms of some blocks, counted from atom `first`."""
    n_elements = blocks.feature_row.shape[1]
    start = blocks.atom_start[first * n_elements : (first + n) * n_elements + 1]
    atoms = blocks.atoms[start[0] : start[-1]] - np.int32(first)
    return start - start[0], atoms
