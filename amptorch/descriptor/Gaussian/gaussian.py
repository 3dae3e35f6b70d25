"""The descriptor of Behler-Parrinello symmetry functions."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import count_in_blocks, feature_rows
from amptorch.descriptor.Gaussian.descriptor_set import GaussianDescriptorSet
from amptorch.descriptor.Gaussian.functions import compile_functions, elements_of_features
from amptorch.descriptor.Gaussian.setup import (
    KINDS,
    PARAMETERS,
    cutoff_function,
    cutoff_parameters,
    descriptor_setup,
    setup_hash,
)
from amptorch.descriptor.util import symbol_list
from amptorch.frames import symbol_numbers
from amptorch.kernels import symmetry_functions
from amptorch.kernels.structures import Blocks, NeighborPairs, Work
from amptorch.rows import offsets_of


class Gaussian(BaseDescriptor):
    """Compute symmetry functions G1-G5 and weighted ones, with any cutoff function.

    J. Behler, J. Chem. Phys. 134, 074106 (2011); Int. J. Quantum Chem. 115, 1032 (2015).

        G1_i = Σ_j fc(r_ij)
        G2_i = Σ_j exp[−η (r_ij − Rs)²] fc(r_ij)
        G3_i = Σ_j cos(κ r_ij) fc(r_ij)
        G4_i = 2^(1−ζ) Σ_{j<k} (1 + λ cosθ_ijk)^ζ exp[−η (r_ij² + r_ik² + r_jk²)]
               fc(r_ij) fc(r_ik) fc(r_jk)
        G5_i = the same without r_jk

    j and k are of one element, or two, each. Weighted functions are sums over all neighbours, so
    that there are as many for any number of elements (M. Gastegger et al., J. Chem. Phys. 148,
    241709 (2018)):

        G2W_i = Σ_j Z_j exp[−η (r_ij − Rs)²] fc(r_ij)
        G4W_i = G4 with each term times Z_j Z_k; G5W_i = G5 so

    An Rs of angular functions takes the place of r² by (r − Rs)², for each of their distances.

    Parameters
    ----------
    Gs : dict or GaussianDescriptorSet
        The functions of each element: see `Gaussian.setup.descriptor_setup`.
    elements : list of chemical symbols
    cutoff_func : one of `setup.CUTOFF_FUNCTIONS`; or the configuration's `cutoff_params`, such as
        {"cutoff_func": "Polynomial", "gamma": 2.0} or {"cutoff_func": "poly2", "alpha": 0.5}, as in
        `setup.cutoff_function`; cosine where None
    gamma : number above 0, of "polynomial" alone
    dtype : numpy.float64 or numpy.float32, the type the kernels compute in

    Raises ValueError or TypeError that names the element and the key of `Gs` that is wrong.
    """

    KERNELS = symmetry_functions
    LACKING = "symmetry functions"
    SETUP = (*BaseDescriptor.SETUP, "cutoff_params")

    def __init__(
        self,
        Gs: Mapping[str, Any] | GaussianDescriptorSet,
        elements: Iterable[str],
        cutoff_func: str | Mapping[str, Any] | None = "cosine",
        gamma: float | None = None,
        dtype: np.dtype | type = np.float64,
    ) -> None:
        self.descriptor_type = "Gaussian"
        self.Gs = Gs
        self.elements = symbol_list(elements)
        # A descriptor set has its own cutoff function, which was hashed with its functions.
        given = getattr(Gs, "cutoff_params", None)
        self.cutoff_params = dict(given or cutoff_parameters(cutoff_func, gamma))
        self.descriptor_setup = descriptor_setup(Gs, self.elements)
        self.descriptor_setup_hash = setup_hash(self.descriptor_setup, self.cutoff_params)
        self.num_descriptors = {symbol: len(rows) for symbol, rows in self.descriptor_setup.items()}
        self.cutoff = float(max(rows[:, 3].max() for rows in self.descriptor_setup.values()))
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype is {dtype!r}, expected float64 or float32")
        numbers = symbol_numbers(self.elements)
        self._functions = compile_functions(
            self.descriptor_setup, numbers, cutoff_function(self.cutoff_params), self.dtype
        )
        # G5 are made of moments of the neighbours.
        self.has_moments = self._functions.angular.moments is not None
        self._sizes = symmetry_functions.sizes_of(self._functions)
        self._depends, self._weighted = elements_of_features(self.descriptor_setup, numbers)
        self._matters = (self._depends & ~self._weighted[:, :, None]).any(axis=1).astype(np.int8)
        tables = [
            depends.tobytes() + weighted.tobytes()
            for depends, weighted in zip(self._depends, self._weighted, strict=True)
        ]
        self._table = np.array([tables.index(table) for table in tables])
        self._reach = np.array([rows[:, 3].max() for rows in self.descriptor_setup.values()])

    def feature_name(self, symbol: str, column: int) -> str:
        """Return words for a function of the atoms of an element, such as "G2 with O (eta 0.5, rs
        0)"; eta in 1/Å², the others in Å."""
        row = self.descriptor_setup[symbol][column]
        kind = KINDS[int(row[0])]
        neighbors = "-".join(chemical_symbols[int(number)] for number in row[1:3] if number)
        names = [f"{name} {x:.4g}" for name, x in zip(PARAMETERS[kind], row[4:], strict=False)]
        words = kind + (f" with {neighbors}" if neighbors else "")
        return words + (f" ({', '.join(names)})" if names else "")

    def calculate_fingerprints(  # type: ignore[override]  # v1.0's order and names
        self, atoms: Any, element: str, calc_derivatives: bool, log: Any = None
    ) -> dict[str, Any]:
        """Return what `BaseDescriptor.calculate_fingerprints` does; nothing is written to `log`."""
        return super().calculate_fingerprints(atoms, element, calc_derivatives)

    def _tables(self) -> tuple[Any, ...]:
        return (self._functions,)

    def _derivative_tables(self) -> tuple[Any, ...]:
        return self._functions, self._reach

    def _scratch(self, neighbors: int) -> tuple[Work]:
        return (symmetry_functions.workspace(self._sizes, neighbors, self.dtype),)

    def _costs(self, counts: np.ndarray) -> np.ndarray:
        # Pairs of neighbours are what takes the time.
        return counts.astype(np.float64) ** 2 + 1

    def _empty_blocks(
        self, pairs: NeighborPairs, counts: np.ndarray, threads: int | None
    ) -> Blocks:
        elements, n, n_elements = pairs.element, len(pairs.element), len(self.elements)
        counts, present = count_in_blocks(self._reach, pairs, counts + 1, n_elements, threads)
        # An element that only weighted functions depend on makes no kinds.
        present &= self._matters[elements]
        # Atoms whose features depend on the same elements, with the same ones around, are one kind.
        # One element after the other keeps the numbers small, and is many times faster than
        # comparing rows.
        kind = self._table[elements]
        for e in range(n_elements):
            _, some_atom, kind = np.unique(
                2 * kind + present[:, e], return_index=True, return_inverse=True
            )
        # A feature is there where all elements that it depends on are; a weighted one everywhere.
        table = 8 * len(some_atom) * n_elements * self.n_features
        # Half as much again, for what it is made of.
        self.require_memory(1.5 * table, n)
        depends = self._depends[elements[some_atom]]
        absent = present[some_atom][:, None, :] == 0
        lacking = (depends & absent).any(axis=2) & ~self._weighted[elements[some_atom]]
        stands = (depends & ~lacking[:, :, None]).transpose(0, 2, 1)
        atom_start = offsets_of(counts.ravel())
        value_start = offsets_of((3 * counts * stands.sum(axis=2)[kind]).ravel())
        self.require_memory(self.dtype.itemsize * value_start[-1], n)
        return Blocks(
            atom_start=atom_start,
            atoms=np.empty(atom_start[-1], dtype=np.int32),
            value_start=value_start,
            values=self._zeros(value_start[-1]),
            kind=kind.astype(np.int64),
            feature_row=feature_rows(stands),
        )
