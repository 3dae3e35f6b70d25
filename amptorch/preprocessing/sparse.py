"""Sparse derivative matrices of data objects."""

import numpy as np
import torch


def sparse_block_diag(matrices):
    """The matrices (torch sparse COO) along the diagonal of one, also sparse COO.

    ValueError where there is no matrix.
    """
    if not matrices:
        raise ValueError("sparse_block_diag needs at least one matrix, got none")
    matrices = [matrix.coalesce() for matrix in matrices]
    sizes = torch.tensor([list(matrix.shape) for matrix in matrices])
    ends = sizes.cumsum(0)
    indices = [
        matrix.indices() + (end - size)[:, None].to(matrix.device)
        for matrix, size, end in zip(matrices, sizes, ends, strict=True)
    ]
    return torch.sparse_coo_tensor(
        torch.cat(indices, dim=1),
        torch.cat([matrix.values() for matrix in matrices]),
        tuple(ends[-1].tolist()),
        is_coalesced=True,
        check_invariants=False,
    )


class SparseDerivatives:
    """Derivative back end on one sparse matrix J, (n·S, 3·n), that covers every atom of a batch.

    It stands for the whole batch, so `frame_ids` is not looked at. J is of the scaled features
    where it comes from scaled data objects.
    """

    def __init__(self, matrix):
        self._matrix = matrix.coalesce()
        self.n_atoms = matrix.shape[1] // 3
        self.n_features = matrix.shape[0] // max(self.n_atoms, 1)

    def vjp(self, frame_ids, g):
        """Jᵀg, (n, 3), for g (n, S)."""
        return self._product(g, transposed=True).reshape(-1, 3)

    def jvp(self, frame_ids, v):
        """J v, (n, S), for v (n, 3)."""
        return self._product(v, transposed=False).reshape(self.n_atoms, self.n_features)

    def _product(self, vector, transposed):
        row, col = self._matrix.indices().cpu().numpy()
        rows, cols = self._matrix.shape
        if transposed:
            row, col, rows = col, row, cols
        weights = self._matrix.values().cpu().numpy() * np.ravel(vector)[col]
        return np.bincount(row, weights=weights, minlength=rows)
