"""A set of symmetry functions put together one by one, or by lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from amptorch.descriptor.Gaussian.setup import (
    ETA_IN_RC2,
    KINDS,
    PARAMETERS,
    WEIGHTED_KINDS,
    check_cutoff,
    cutoff_function,
    descriptor_setup,
    neighbor_elements,
    setup_hash,
    table,
    table_row,
)
from amptorch.descriptor.util import list_symbols_to_indices, symbol_list
from amptorch.frames import symbol_numbers

__all__ = ["GDS", "GaussianDescriptorSet", "list_symbols_to_indices"]

COSINE = {"cutoff_func": "cosine"}
# The functions that Amp uses where the user names none.
DEFAULT_INTERACTIONS = {
    "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), 4), "rs_s": [0.0]},
    "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
}


class GaussianDescriptorSet:
    """Collect symmetry functions per central element, for `fp_params` of the scheme "gaussian".

    `elements`: chemical symbols; their order is that of pairs and of the hash. `cutoff`: Å, of the
    functions added without one of their own. `cutoff_params`: as in the configuration, copied.
    `default_interactions`: start with Amp's default functions (four G2 and four G4) for every
    combination of elements.

    `add_g1` to `add_g5` and `add_weighted` return the set. Parameters are in the units of
    `fp_params`: the eta of G2, G4, G2W and G4W in 1/Rc², that of G5 and G5W in 1/Å².
    `descriptor_setup` {symbol: (n, 7 or 8) table} and `descriptor_setup_hash` are those of a
    `Gaussian` built from the same functions; two sets are equal where the hashes are. With
    `update=False` they change at the next `update()`.

    Raises ValueError where a value has no meaning or an element is not in `elements`.
    """

    def __init__(
        self,
        elements: Iterable[str],
        cutoff: float = 6.5,
        cutoff_params: Mapping[str, Any] | None = COSINE,
        default_interactions: bool = False,
    ) -> None:
        self.elements = symbol_list(elements)
        self.numbers = dict(zip(self.elements, symbol_numbers(self.elements), strict=True))
        self.cutoff = check_cutoff("GaussianDescriptorSet", cutoff)
        cutoff_function(cutoff_params)
        self.cutoff_params = dict(cutoff_params or COSINE)
        self._rows: dict[str, list[tuple[float, ...]]] = {symbol: [] for symbol in self.elements}
        self.update()
        if default_interactions:
            self.process_combinatorial_Gs({"default": {"cutoff": cutoff, **DEFAULT_INTERACTIONS}})

    @classmethod
    def from_setup(
        cls,
        elements: Iterable[str],
        cutoff: float,
        cutoff_params: Mapping[str, Any] | None,
        descriptor_setup: Mapping[str, np.ndarray],
    ) -> GaussianDescriptorSet:
        """Return the set with this `descriptor_setup`, {symbol: (n, 7 or 8) table}, in which every
        eta is in 1/Å².

        Raises ValueError, KeyError or TypeError where it is no such table.
        """
        result = cls(elements, cutoff, cutoff_params)
        symbols = {number: symbol for symbol, number in result.numbers.items()}
        for symbol, rows in descriptor_setup.items():
            for kind, first, second, reach, eta, *rest in np.asarray(rows, np.float64).tolist():
                name = KINDS[int(kind)]
                neighbors = [symbols[number] for number in (first, second) if number]
                values = (eta, *rest)[: len(PARAMETERS[name])]
                result._add(name, symbol, neighbors, values, reach, False, eta_in_rc2=False)
        result.update()
        return result

    def add_g1(
        self, element_i: str, element_j: str, cutoff: float | None = None, update: bool = True
    ) -> GaussianDescriptorSet:
        """Add G1 of the neighbours `element_j` of atoms `element_i`."""
        return self._add("G1", element_i, [element_j], (), cutoff, update)

    def add_g2(
        self,
        element_i: str,
        element_j: str,
        eta: float = 3.0,
        rs: float = 0.0,
        cutoff: float | None = None,
        update: bool = True,
    ) -> GaussianDescriptorSet:
        """Add G2 of the neighbours `element_j` of atoms `element_i`; eta in 1/Rc², rs in Å."""
        return self._add("G2", element_i, [element_j], (eta, rs), cutoff, update)

    def add_g3(
        self,
        element_i: str,
        element_j: str,
        kappa: float = 1.0,
        cutoff: float | None = None,
        update: bool = True,
    ) -> GaussianDescriptorSet:
        """Add G3 of the neighbours `element_j` of atoms `element_i`; kappa in 1/Å."""
        return self._add("G3", element_i, [element_j], (kappa,), cutoff, update)

    def add_g4(
        self,
        element_i: str,
        element_j: str,
        element_k: str,
        eta: float = 0.005,
        zeta: float = 1.0,
        gamma: float = 1.0,
        cutoff: float | None = None,
        update: bool = True,
        rs: float = 0.0,
    ) -> GaussianDescriptorSet:
        """Add G4 of the pairs {`element_j`, `element_k`} around `element_i`; eta in 1/Rc², rs in
        Å."""
        return self._add(
            "G4", element_i, [element_j, element_k], (eta, zeta, gamma, rs), cutoff, update
        )

    def add_g5(
        self,
        element_i: str,
        element_j: str,
        element_k: str,
        eta: float = 0.005,
        zeta: float = 1.0,
        gamma: float = 1.0,
        cutoff: float | None = None,
        update: bool = True,
        rs: float = 0.0,
    ) -> GaussianDescriptorSet:
        """Add G5 of the pairs {`element_j`, `element_k`} around `element_i`; eta in 1/Å², rs in
        Å."""
        return self._add(
            "G5", element_i, [element_j, element_k], (eta, zeta, gamma, rs), cutoff, update
        )

    def add_weighted(
        self,
        kind: str,
        element_i: str,
        *values: float,
        cutoff: float | None = None,
        update: bool = True,
    ) -> GaussianDescriptorSet:
        """Add a function of all neighbours of atoms `element_i`, weighted by atomic numbers.

        `kind`: "G2W", with the values (eta, rs), eta in 1/Rc²; "G4W", with (eta, zeta, gamma, rs);
        "G5W", with the same and eta in 1/Å². The rs, in Å, may be left out.
        """
        if kind not in WEIGHTED_KINDS:
            raise ValueError(f"kind is {kind!r}, expected one of {[*WEIGHTED_KINDS]}")
        return self._add(kind, element_i, [], values, cutoff, update)

    def batch_add_descriptors(
        self,
        number: int | str,
        param1s: Sequence[float],
        param2s: Sequence[float] | None = None,
        param3s: Sequence[float] | None = None,
        cutoff: float | None = None,
        update: bool = True,
    ) -> None:
        """Add G<number> for every combination of elements with each set of parameters.

        The lists are zipped: (eta, rs) for 2 and "2W", (kappa,) for 3, (eta, zeta, gamma) for 4, 5,
        "4W" and "5W".
        ValueError where they differ in length or are too few.
        """
        kind = f"G{number}"
        names = PARAMETERS.get(kind, ())[:3]
        if not names:
            raise ValueError(f"number is {number!r}, expected 2, 3, 4 or 5, '2W', '4W' or '5W'")
        lists = (param1s, param2s, param3s)[: len(names)]
        lengths = {
            name: None if p is None else len(p) for name, p in zip(names, lists, strict=True)
        }
        if None in lengths.values() or len(set(lengths.values())) != 1:
            raise ValueError(f"{kind} needs lists of one length for {names}, got {lengths}")
        for values in zip(*lists, strict=True):
            for symbol in self.elements:
                for neighbors in neighbor_elements(kind, self.elements):
                    self._add(kind, symbol, neighbors, values, cutoff, update=False)
        if update:
            self.update()

    def process_combinatorial_Gs(self, Gs: Mapping[str, Any]) -> None:
        """Add what the dictionary or Amp list form of `fp_params` describes."""
        for symbol, rows in descriptor_setup(Gs, self.elements).items():
            # An eighth column may be missing.
            self._rows[symbol] += [(*row, 0.0)[:8] for row in rows.tolist()]
        self.update()

    def update(self) -> None:
        """Bring `descriptor_setup` and `descriptor_setup_hash` up to date."""
        self.descriptor_setup = {
            symbol: table(rows, f"GaussianDescriptorSet: {symbol!r}")
            for symbol, rows in self._rows.items()
            if rows
        }
        self.descriptor_setup_hash = setup_hash(self.descriptor_setup, self.cutoff_params)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GaussianDescriptorSet):
            return NotImplemented
        return self.descriptor_setup_hash == other.descriptor_setup_hash

    def __hash__(self) -> int:
        return hash(self.descriptor_setup_hash)

    def _add(
        self,
        kind: str,
        element: str,
        neighbors: Iterable[str],
        values: Iterable[float],
        cutoff: float | None,
        update: bool,
        eta_in_rc2: bool = True,
    ) -> GaussianDescriptorSet:
        where = f"{kind} of {'-'.join(map(str, (element, *neighbors)))}"
        for symbol in (element, *neighbors):
            if symbol not in self.numbers:
                raise ValueError(f"{where}: {symbol!r} is not in elements {self.elements}")
        pair = [self.numbers[symbol] for symbol in sorted(neighbors, key=self.elements.index)]
        cutoff = self.cutoff if cutoff is None else cutoff
        in_rc2 = eta_in_rc2 and kind in ETA_IN_RC2
        row = table_row(where, kind, pair, cutoff, values, in_rc2)
        self._rows[element].append(row)
        if update:
            self.update()
        return self


GDS = GaussianDescriptorSet
