"""The interface of all back ends for derivatives of fingerprints.

J = ∂G/∂r of the frames of a data set is kept, read from a store or recomputed; whoever has it
offers two products with it. Forces are −Jᵀg with g = ∂E/∂G, and the gradient of a loss with respect
to g is −J ∂L/∂F; nothing else of J is needed. The same holds for the derivatives along a strain
and virials.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np

from amptorch.frames import Frames
from amptorch.kernels.structures import NeighborPairs

FrameIds: TypeAlias = Sequence[int] | np.ndarray
# J as (indices (2, n), values (n,), size (2,)); see `DerivativeBlocks.sparse`.
SparseMatrix: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


class Derivatives(Protocol):
    """Multiply with J for some frames of the data set that the back end is for.

    `frame_ids` picks the frames. g (n, S) and v (n, 3) have one row for each atom of these frames,
    in their order. `rows`, sorted positions among these atoms, leaves out all others.

    Classes need not inherit from this one. They are `DerivativeBlocks` and other
    `KeptDerivatives` (kept in memory or in a store), `RecomputedDerivatives` (contracted on the
    fly), and `SparseDerivatives` (v1.0's matrices).
    """

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames."""

    @property
    def n_features(self) -> int:
        """Return S, the length of a fingerprint."""

    def vjp(self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return Jᵀg (n, 3), or (len(rows), 3) for those atoms alone."""

    def jvp(
        self,
        frame_ids: FrameIds,
        v: np.ndarray,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return J v (n, S); with `rows`, v (len(rows), 3) moves those atoms alone, and with
        `strain` (frames, 6) the frames are strained beside: see `BaseDescriptor.jvp`."""

    def vjp_and_virials(
        self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Jᵀg as `vjp` does, and the strain derivative ∂E/∂ε (frames, 6) of each frame."""


def strain_matrices(strain: np.ndarray) -> np.ndarray:
    """Return the strains ε (F, 3, 3) of `strain` (F, 6): Voigt's order, engineering shears."""
    xx, yy, zz, yz, xz, xy = strain.T * np.array([1, 1, 1, 0.5, 0.5, 0.5])[:, None]
    return np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=1).reshape(-1, 3, 3)


def strained_pairs(
    frames: Frames, pairs: NeighborPairs, v: np.ndarray, strain: np.ndarray
) -> tuple[NeighborPairs, np.ndarray]:
    """Return pairs whose neighbours are atoms of their own, and velocities (N + P, 3) of all.

    What a strain does to a pair depends on the image of the neighbour, and not on its atom alone;
    so each neighbour gets a velocity of its own.
    """
    n = frames.n_atoms
    ends = v[pairs.neighbors]
    starts = pairs.offsets[frames.offsets]
    for first, last, matrix in zip(starts, starts[1:], strain_matrices(strain), strict=False):
        ends[first:last] += pairs.vectors[first:last] @ matrix.astype(v.dtype)
    own = pairs._replace(
        element=np.concatenate([pairs.element, pairs.element[pairs.neighbors]]),
        neighbors=np.arange(n, n + len(ends), dtype=pairs.neighbors.dtype),
    )
    return own, np.concatenate([v, ends])
