"""The interface of all back ends for derivatives of fingerprints.

J = ∂G/∂r of the frames of a data set is kept, read from a store or recomputed; whoever has it
offers two products with it. Forces are −Jᵀg with g = ∂E/∂G, and the gradient of a loss with respect
to g is −J ∂L/∂F; nothing else of J is needed.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np

FrameIds: TypeAlias = Sequence[int] | np.ndarray
# J as (indices (2, n), values (n,), size (2,)); see `DerivativeBlocks.sparse`.
SparseMatrix: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


class Derivatives(Protocol):
    """Multiply with J for some frames of the data set that the back end is for.

    `frame_ids` picks the frames. g (n, S) and v (n, 3) have one row for each atom of these frames,
    in their order. `rows`, sorted positions among these atoms, leaves out all others.

    Classes need not inherit from this one. They are `DerivativeBlocks` and other
    `KeptDerivatives` (kept in memory or in a store), `RecomputedDerivatives` and
    `RecomputedFromStore` (contracted on the fly), and `SparseDerivatives` (v1.0's matrices).
    """

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames."""

    @property
    def n_features(self) -> int:
        """Return S, the length of a fingerprint."""

    def vjp(self, frame_ids: FrameIds, g: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return Jᵀg (n, 3), or (len(rows), 3) for those atoms alone."""

    def jvp(self, frame_ids: FrameIds, v: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return J v (n, S); with `rows`, v (len(rows), 3) moves those atoms alone."""
