"""Fewer features by principal component analysis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from scipy.sparse import block_diag, coo_array
from tqdm import tqdm

from amptorch.checks import pca as checked_setting
from amptorch.data.objects import DataObject
from amptorch.data.statistics import Covariance

# In place of an element, where all atoms have the same components.
ALL = 0
# Share of the largest variance below which there is none: rounding of a covariance.
NO_VARIANCE = 1e-14

# (features (n, S), atomic numbers (n,)) of some atoms after others.
Chunks: TypeAlias = Iterable[tuple[np.ndarray | torch.Tensor, np.ndarray | torch.Tensor]]
Rows = TypeVar("Rows", np.ndarray, torch.Tensor)


class PCAReducer:
    """Project fingerprints on their leading principal components (I. T. Jolliffe, Principal
    Component Analysis, 2nd ed., Springer 2002), fitted to data objects.

    `pca_setting`: {"num_pc": 20, "elementwise": False}; elementwise fits each element apart.
    A reduced fingerprint is (x − mean) V, with the components V (n_features, num_pc) by falling
    variance; `fprimes` become Vᵀ J where `forcetraining`. The largest entry of each component is
    positive; components without variance are zero.

    Attributes: `num_pc`, `elementwise`, `forcetraining`, and `components`, {Z: (mean, V)}, with
    Z = 0 for all elements together.

    ValueError where num_pc is not between 1 and the number of features.
    """

    def __init__(
        self,
        data_list: Sequence[DataObject],
        forcetraining: bool = False,
        pca_setting: dict | None = None,
    ) -> None:
        chunks = [(data.fingerprint, data.atomic_numbers) for data in data_list]
        self._fit(chunks, forcetraining, pca_setting)

    @classmethod
    def from_chunks(
        cls, chunks: Chunks, pca_setting: dict | None = None, forcetraining: bool = True
    ) -> PCAReducer:
        """Return one fitted in one pass to an iterable of (fingerprints (n, S), atomic numbers
        (n,))."""
        reducer = cls.__new__(cls)
        reducer._fit(chunks, forcetraining, pca_setting)
        return reducer

    def _fit(self, chunks: Chunks, forcetraining: bool, setting: dict | None) -> None:
        setting = checked_setting("pca", setting or {})
        self.forcetraining = forcetraining
        self.num_pc, self.elementwise = setting["num_pc"], setting["elementwise"]
        found: dict[int, Covariance] = {}
        for rows, numbers in chunks:
            rows, numbers = torch.as_tensor(rows), torch.as_tensor(numbers).long()
            if self.num_pc > rows.shape[1]:
                raise ValueError(
                    f"pca.num_pc must be between 1 and the {rows.shape[1]} features, "
                    f"got {self.num_pc}"
                )
            for kind in torch.unique(numbers).tolist() if self.elementwise else [ALL]:
                here = Covariance.of(rows[numbers == kind] if kind else rows)
                found[kind] = found[kind].merged(here) if kind in found else here
        self.components = {kind: self._principal(found[kind]) for kind in sorted(found)}

    def _principal(self, covariance: Covariance) -> tuple[torch.Tensor, torch.Tensor]:
        # By rising variance, as many as features, however few the atoms.
        variances, basis = torch.linalg.eigh(covariance.products)
        variances, basis = variances.flip(0)[: self.num_pc], basis.flip(1)[:, : self.num_pc]
        largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
        basis = basis * torch.sign(largest)
        # Which of the directions without variance these are is rounding.
        varied = variances > NO_VARIANCE * variances[0].clamp(min=0)
        basis = torch.where(varied, basis, torch.zeros_like(basis))
        # Of one layout, whether fitted or read from a file: products are rounded alike.
        return covariance.mean, basis.contiguous()

    def knows(self, number: int) -> bool:
        """Tell whether there are components for this atomic number."""
        return not self.elementwise or int(number) in self.components

    def matrices(
        self, elements: Sequence[str], dtype: torch.dtype = torch.float64
    ) -> list[torch.Tensor]:
        """Return V (n_features, num_pc) of each of the `elements` (symbols), zeros for those that
        were not there to fit; a single one for all where not `elementwise`."""
        kinds = [atomic_numbers[symbol] for symbol in elements] if self.elementwise else [ALL]
        missing = torch.zeros_like(next(iter(self.components.values()))[1])
        return [self.components.get(kind, (None, missing))[1].to(dtype) for kind in kinds]

    def transform_rows(self, rows: Rows, numbers: np.ndarray | torch.Tensor) -> Rows:
        """Return reduced fingerprints (n, num_pc) of rows (n, n_features); an array for an array.

        ValueError for an element that was not there to fit.
        """
        given: Any = torch.as_tensor(rows)
        numbers = torch.as_tensor(numbers).long()
        reduced: Any = given.new_zeros((len(given), self.num_pc))
        for kind in torch.unique(numbers).tolist() if self.elementwise else [ALL]:
            if kind not in self.components:
                raise ValueError(
                    f"element {chemical_symbols[kind]} was not in the frames that the principal "
                    "components were fitted to"
                )
            mean, basis = (part.to(given) for part in self.components[kind])
            here = numbers == kind if kind else slice(None)
            reduced[here] = (given[here] - mean) @ basis
        return reduced.numpy() if isinstance(rows, np.ndarray) else reduced

    def reduce_primes(
        self, fprimes: torch.Tensor, numbers: np.ndarray | torch.Tensor
    ) -> torch.Tensor:
        """Return Vᵀ J (n·num_pc, 3n), sparse, of a sparse J (n·n_features, 3n) of atoms
        `numbers`."""
        kinds = [int(number) if self.elementwise else ALL for number in numbers]
        projections = block_diag([self.components[kind][1].T.numpy() for kind in kinds], "csr")
        matrix = fprimes.coalesce()
        indices, values = matrix.indices().numpy(), matrix.values().numpy()
        reduced = (projections @ coo_array((values, indices), matrix.shape)).tocoo()
        return torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([reduced.row, reduced.col])),
            torch.from_numpy(reduced.data).to(fprimes.dtype),
            reduced.shape,
            check_invariants=False,
        ).coalesce()

    def reduce(
        self, data_list: Sequence[DataObject], disable_tqdm: bool = False
    ) -> Sequence[DataObject]:
        """Replace `fingerprint` (and `fprimes`) of the data objects in place; return the list."""
        for data in tqdm(data_list, desc="Reducing features", disable=disable_tqdm, unit=" frames"):
            data.fingerprint = self.transform_rows(data.fingerprint, data.atomic_numbers)
            if self.forcetraining:
                data.fprimes = self.reduce_primes(data.fprimes, data.atomic_numbers)
        return data_list

    def state(self) -> dict[str, Any]:
        """Return everything in JSON types; `from_state` reads it back without loss."""
        return {
            "num_pc": self.num_pc,
            "elementwise": self.elementwise,
            "forcetraining": self.forcetraining,
            "components": {
                str(kind): {"mean": mean.tolist(), "basis": basis.tolist()}
                for kind, (mean, basis) in self.components.items()
            },
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PCAReducer:
        reducer = cls.__new__(cls)
        for name in ("num_pc", "elementwise", "forcetraining"):
            setattr(reducer, name, state[name])
        as_tensor = partial(torch.as_tensor, dtype=torch.float64)
        reducer.components = {
            int(kind): (as_tensor(part["mean"]), as_tensor(part["basis"]))
            for kind, part in state["components"].items()
        }
        return reducer
