"""Hold sparse derivative matrices of data objects."""

from typing import Any

import numpy as np
import torch

from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.kernels.structures import Blocks
from amptorch.rows import offsets_of

NO_STRAINS = (
    "derivatives as AMPTorch v1.0 keeps them say nothing of strains, so that stresses cannot be "
    "trained on; train on the frames themselves (dataset.raw_data)"
)
# Share of the largest derivative that moving all atoms together may change, in each precision.
TRANSLATION_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def sparse_tensor(indices: Any, values: Any, size: Any) -> torch.Tensor:
    """Return the matrix of `DerivativeBlocks.sparse`, whose entries are in order, without a copy.

    indices (2, n) and values (n,): arrays or tensors; size: rows and columns
    """
    return torch.sparse_coo_tensor(
        torch.as_tensor(indices),
        torch.as_tensor(values),
        tuple(map(int, size)),
        is_coalesced=True,
        check_invariants=False,
    )


def sparse_block_diag(arrs: Any) -> torch.Tensor:
    """Return the matrices `arrs` (torch sparse COO) along the diagonal of one, also sparse COO.

    ValueError where there is no matrix.
    """
    if not arrs:
        raise ValueError("sparse_block_diag needs at least one matrix, got none")
    matrices = [matrix.coalesce() for matrix in arrs]
    sizes = torch.tensor([list(matrix.shape) for matrix in matrices])
    ends = sizes.cumsum(0)
    indices = [
        matrix.indices() + (end - size)[:, None].to(matrix.device)
        for matrix, size, end in zip(matrices, sizes, ends, strict=True)
    ]
    values = torch.cat([matrix.values() for matrix in matrices])
    return sparse_tensor(torch.cat(indices, dim=1), values, ends[-1])


class SparseDerivatives:
    """Multiply with one sparse matrix J, (n·S, 3·n), that covers every atom of a batch.

    It stands for the whole batch, so `frame_ids` is not looked at. J is of the scaled features
    where it comes from scaled data objects.
    """

    def __init__(self, matrix: Any):
        self._matrix = matrix.coalesce()
        self.n_atoms = matrix.shape[1] // 3
        self.n_features = matrix.shape[0] // max(self.n_atoms, 1)

    def vjp(
        self, frame_ids: np.ndarray, g: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Return Jᵀg, (n, 3), for g (n, S); with `rows`, (len(rows), 3) for those atoms alone."""
        if len(g) != self.n_atoms:
            raise ValueError(
                f"{len(g)} atoms are asked for out of a sparse matrix of {self.n_atoms}: batches "
                "of data objects cannot be shared between processes; train in one process, or take "
                "dataset.cache 'full'"
            )
        result = self._product(g, transposed=True).reshape(-1, 3)
        return result if rows is None else result[rows]

    def jvp(
        self,
        frame_ids: np.ndarray,
        v: np.ndarray,
        rows: np.ndarray | None = None,
        strain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return J v (n, S) for v (n, 3); with `rows`, v (len(rows), 3) moves those atoms."""
        if strain is not None:
            raise ValueError(NO_STRAINS)
        if rows is not None:
            some, v = v, np.zeros((self.n_atoms, 3))
            v[rows] = some
        return self._product(v, transposed=False).reshape(self.n_atoms, self.n_features)

    def vjp_and_virials(
        self, frame_ids: np.ndarray, g: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raise ValueError: v1.0's matrices say nothing of strains."""
        raise ValueError(NO_STRAINS)

    def _product(self, vector: np.ndarray, transposed: bool) -> np.ndarray:
        row, col = self._matrix.indices().cpu().numpy()
        rows, cols = self._matrix.shape
        if transposed:
            row, col, rows = col, row, cols
        weights = self._matrix.values().cpu().numpy() * np.ravel(vector)[col]
        return np.bincount(row, weights=weights, minlength=rows)


def blocks_from_coo(matrix: Any, numbers: Any, kinds: Any) -> DerivativeBlocks | None:
    """Return the DerivativeBlocks of one frame out of its sparse J (n·S, 3n).

    kinds : atomic numbers, in the order of the blocks. None is returned where the columns of an
    atom are not minus the sum of all others, which blocks rely on: AMPTorch v1.0 cuts small
    derivatives of some fingerprints off.
    """
    tolerance = TRANSLATION_TOLERANCE[matrix.dtype]
    matrix = matrix.coalesce()
    n, n_kinds = len(numbers), len(kinds)
    n_features = matrix.shape[0] // n
    row, col = matrix.indices().numpy()
    val = matrix.values().double().numpy()
    centre, feature = np.divmod(row, n_features)
    atom, axis = np.divmod(col, 3)
    moved = np.bincount(3 * row + axis, weights=val, minlength=3 * n * n_features)
    if np.abs(moved).max(initial=0) > tolerance * np.abs(val).max(initial=0):
        return None
    others = centre != atom
    centre, feature, atom, axis, val = (a[others] for a in (centre, feature, atom, axis, val))
    kind = np.searchsorted(kinds, numbers, sorter=np.argsort(kinds))
    kind = np.argsort(kinds)[kind]
    stands = np.zeros((n_kinds, n_kinds, n_features), dtype=bool)
    stands[kind[centre], kind[atom], feature] = True
    feature_row = np.where(stands, np.cumsum(stands, axis=2) - 1, -1)
    # Pairs of a central atom and another, in the order of the blocks.
    near = np.zeros((n, n), dtype=bool)
    near[centre, atom] = True
    of_pair, at_pair = np.nonzero(near)
    order = np.lexsort((at_pair, kind[at_pair], of_pair))
    of_pair, at_pair = of_pair[order], at_pair[order]
    width = stands.sum(axis=2)
    pair_start = offsets_of(3 * width[kind[of_pair], kind[at_pair]])
    blocks = of_pair * n_kinds + kind[at_pair]
    atom_start = offsets_of(np.bincount(blocks, minlength=n * n_kinds))
    first = np.zeros((n, n), dtype=np.int64)
    first[of_pair, at_pair] = pair_start[:-1]
    pair = kind[centre], kind[atom]
    values = np.zeros(pair_start[-1])
    values[first[centre, atom] + axis * width[pair] + feature_row[pair[0], pair[1], feature]] = val
    return DerivativeBlocks(
        Blocks(
            atom_start=atom_start,
            atoms=at_pair.astype(np.int32),
            value_start=pair_start[atom_start],
            values=values,
            kind=kind,
            feature_row=feature_row,
        ),
        n_features,
        np.array([0, n]),
    )
