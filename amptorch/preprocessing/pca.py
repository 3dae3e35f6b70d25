"""Fewer features by principal component analysis."""

import torch

from amptorch.preprocessing.sparse import sparse_block_diag


class PCAReducer:
    """Projects fingerprints on their leading principal components, fitted to data objects.

    `pca_setting`: {"num_pc": 20, "elementwise": False}; elementwise fits each element apart.
    A reduced fingerprint is (x − mean) V, with the components V (n_features, num_pc) by falling
    variance; `fprimes` become Vᵀ J where `forcetraining`.

    ValueError where num_pc is not between 1 and the number of features.
    """

    def __init__(self, data_list, forcetraining=False, pca_setting=None):
        setting = {"num_pc": 20, "elementwise": False, **(pca_setting or {})}
        self.forcetraining = forcetraining
        self.num_pc = setting["num_pc"]
        self.elementwise = setting["elementwise"]
        rows = torch.cat([data.fingerprint for data in data_list])
        numbers = torch.cat([data.atomic_numbers for data in data_list])
        if not 1 <= self.num_pc <= rows.shape[1]:
            raise ValueError(
                f"num_pc must be between 1 and the {rows.shape[1]} features, got {self.num_pc}"
            )
        groups = torch.unique(numbers).tolist() if self.elementwise else [None]
        self.components = {
            group: self._fit(rows if group is None else rows[numbers == group]) for group in groups
        }

    def _fit(self, rows):
        mean = rows.mean(dim=0)
        centred = rows - mean
        # Eigenvectors by rising variance, as many as features, however few the atoms.
        basis = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
        return mean, basis[:, : self.num_pc]

    def _of_atom(self, number):
        return self.components[int(number) if self.elementwise else None]

    def reduce(self, data_list):
        """Replace `fingerprint` (and `fprimes`) of the data objects in place; returns the list."""
        for data in data_list:
            parts = [self._of_atom(number) for number in data.atomic_numbers]
            data.fingerprint = torch.stack(
                [
                    (row - mean) @ components
                    for row, (mean, components) in zip(data.fingerprint, parts, strict=True)
                ]
            )
            if self.forcetraining:
                projection = [components.T.to_sparse() for _, components in parts]
                data.fprimes = torch.sparse.mm(
                    sparse_block_diag(projection), data.fprimes
                ).coalesce()
        return data_list
