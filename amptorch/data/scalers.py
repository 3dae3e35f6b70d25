"""Scaling of fingerprints, fitted to the training frames.

Fingerprints are scaled feature by feature, for each element apart or for all atoms together:

- normalize: y = x·scale + offset, which maps the training minimum and maximum to `range`;
- standardize: y = (x − offset)/scale, with the mean and the population standard deviation.

Either way y = x·slope + intercept, and derivatives are multiplied by the slope. What is scaled may
then be reduced to its principal components.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from tqdm import tqdm

from amptorch.checks import scaling as checked_scaling
from amptorch.data.domain import Domain
from amptorch.data.objects import DataObject
from amptorch.data.pca import Chunks, PCAReducer, Rows
from amptorch.data.statistics import Statistics

TRANSFORMS = ("normalize", "standardize")
# In place of an element, where all atoms are scaled alike.
ALL = 0


class FeatureScaler:
    """Scale features, as fitted to a list of data objects (v1.0's way).

    `scaling`: {"type": "normalize" | "standardize", "range": (low, high), "elementwise": bool,
    "threshold": float}; a feature whose range (or standard deviation) is below the threshold is
    divided by 1. With `forcetraining`, `norm` also scales `fprimes`.

    Attributes, as in v1.0: `transform`, `forcetraining`, `elementwise`, `threshold`; elementwise,
    `unique` (sorted atomic numbers) and `scales[Z]`, otherwise `scale`: {"offset", "scale"}, both
    (n_features,). `pca`: a `PCAReducer` that reduces what was scaled, or None. `ranges[Z]`: the
    lowest and highest value of each feature over the atoms of an element that it was fitted to,
    two tensors (n_features,); `ranges` is None where an older checkpoint does not know them.
    `domain`: where the atoms are that the potential was trained on last, which may be others than
    those the scaler was fitted to; None where that is not known.
    """

    pca: PCAReducer | None = None
    ranges: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
    domain: Domain | None = None

    def __init__(
        self, data_list: Sequence[DataObject], forcetraining: bool, scaling: dict | None = None
    ) -> None:
        fingerprints = torch.cat([data.fingerprint for data in data_list])
        numbers = torch.cat([torch.as_tensor(data.atomic_numbers) for data in data_list])
        self._fit([(fingerprints, numbers)], forcetraining, scaling)

    @classmethod
    def from_arrays(
        cls,
        fingerprints: np.ndarray | torch.Tensor,
        numbers: np.ndarray | torch.Tensor,
        scaling: dict | None = None,
        forcetraining: bool = True,
    ) -> FeatureScaler:
        """Return a scaler fitted to fingerprints (n_atoms, n_features) and atomic numbers
        (n_atoms,)."""
        return cls.from_chunks([(fingerprints, numbers)], scaling, forcetraining)

    @classmethod
    def from_chunks(
        cls, chunks: Chunks, scaling: dict | None = None, forcetraining: bool = True
    ) -> FeatureScaler:
        """Return a scaler fitted in one pass to an iterable of (fingerprints, numbers), as to all
        of them at once; only one chunk is held at a time."""
        scaler = cls.__new__(cls)
        scaler._fit(chunks, forcetraining, scaling)
        return scaler

    @classmethod
    def fitted(
        cls,
        chunks: Callable[[], Chunks],
        scaling: dict | None = None,
        forcetraining: bool = True,
        pca: dict | None = None,
    ) -> FeatureScaler:
        """Return one as `from_chunks`, fitted to what `chunks()` gives, and with the principal
        components of what is scaled, which takes a second pass, where `pca` is the setting of a
        `PCAReducer`."""
        scaler = cls.from_chunks(chunks(), scaling, forcetraining)
        if pca is not None:
            given: Any = chunks()
            scaled = ((scaler.transform_rows(rows, n), n) for rows, n in given)
            scaler.pca = PCAReducer.from_chunks(scaled, pca, forcetraining)
        return scaler

    def _fit(self, chunks: Chunks, forcetraining: bool, scaling: dict | None) -> None:
        options = checked_scaling("scaling", scaling)
        self.transform = options["type"]
        self.forcetraining = forcetraining
        self.elementwise = options["elementwise"]
        self.threshold = options["threshold"]
        found: dict[int, Statistics] = {}
        ranges: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for fingerprints, numbers in chunks:
            fingerprints, numbers = torch.as_tensor(fingerprints), torch.as_tensor(numbers)
            by_element = _by_element(fingerprints, numbers)
            for kind, rows in by_element if self.elementwise else [(ALL, fingerprints)]:
                here = Statistics.of(rows)
                found[kind] = found[kind].merged(here) if kind in found else here
            for number, rows in by_element:
                low, high = rows.amin(dim=0).double(), rows.amax(dim=0).double()
                known = ranges.get(number, (low, high))
                ranges[number] = torch.minimum(low, known[0]), torch.maximum(high, known[1])
        self.ranges = ranges
        scales = {kind: self._scale(found[kind], options["range"]) for kind in sorted(found)}
        if self.elementwise:
            self.unique, self.scales = list(scales), scales
        else:
            self.scale = scales[ALL]

    def _scale(self, statistics: Statistics, limits: Sequence[float]) -> dict[str, torch.Tensor]:
        if self.transform == "standardize":
            return {"offset": statistics.mean, "scale": self._widened(statistics.deviation)}
        width = self._widened(statistics.highest - statistics.lowest)
        scale = (limits[1] - limits[0]) / width
        return {"offset": limits[0] - statistics.lowest * scale, "scale": scale}

    def _widened(self, width: torch.Tensor) -> torch.Tensor:
        return torch.where(width < self.threshold, torch.ones_like(width), width)

    def element_index(self, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return the row of `slope_and_offset` that belongs to each atom, int64 (n_atoms,).

        ValueError where an element was not in the frames that the scaler was fitted to.
        """
        numbers = torch.as_tensor(numbers).long()
        index = self._index(numbers)
        if len(index) and int(index.min()) < 0:
            unknown = chemical_symbols[int(numbers[index < 0][0])]
            known = ", ".join(chemical_symbols[number] for number in self.unique)
            raise ValueError(
                f"element {unknown} was not in the training frames (they hold {known})"
            )
        return index

    def _index(self, numbers: torch.Tensor) -> torch.Tensor:
        if not self.elementwise:
            return torch.zeros_like(numbers)
        table = torch.full((len(chemical_symbols) + 1,), -1, dtype=torch.long)
        table[self.unique] = torch.arange(len(self.unique))
        return table.to(numbers.device)[numbers]

    def _stacked(self) -> tuple[torch.Tensor, torch.Tensor]:
        parts = (
            [self.scales[number] for number in self.unique] if self.elementwise else [self.scale]
        )
        offset = torch.stack([part["offset"] for part in parts])
        return offset, torch.stack([part["scale"] for part in parts])

    def with_domain(self, domain: Domain | None) -> FeatureScaler:
        """Return a scaler that scales alike and has this domain."""
        other = copy.copy(self)
        other.domain = domain
        return other

    def knows(self, number: int) -> bool:
        """Tell whether the scaler was fitted to this atomic number, or to all alike."""
        known = not self.elementwise or int(number) in self.scales
        return known and (self.pca is None or self.pca.knows(number))

    def known(self, elements: Sequence[str]) -> list[str]:
        """Return those of the elements (symbols) that it was fitted to: of others there is no
        scale, and their networks were never trained."""
        return [symbol for symbol in elements if self.knows(atomic_numbers[symbol])]

    def width(self, n_features: int) -> int:
        """Return the number of features that `transform_rows` makes of `n_features`."""
        return n_features if self.pca is None else self.pca.num_pc

    def slope_and_offset(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (slope, intercept), each (n_elements, n_features): y = x·slope[k] + intercept[k]
        for the atoms of the k-th element in `unique`; a single row where the scaler is not
        elementwise."""
        offset, scale = self._stacked()
        if self.transform == "standardize":
            return 1 / scale, -offset / scale
        return scale, offset

    def slope_rows(self, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return d scaled / d fingerprint of every atom, (n_atoms, n_features); NaN for an element
        that the scaler was not fitted to (`transform_rows` refuses its atoms)."""
        slope = self.slope_and_offset()[0]
        missing = torch.full_like(slope[:1], torch.nan)
        return torch.cat([slope, missing])[self._index(torch.as_tensor(numbers).long())]

    def transform_rows(self, fingerprints: Rows, numbers: np.ndarray | torch.Tensor) -> Rows:
        """Return scaled fingerprints (n_atoms, n_features), or (n_atoms, num_pc) with `pca`; an
        array for an array, else a tensor."""
        return self.transform_with(fingerprints, numbers, self.rows_of(numbers))

    def rows_of(self, numbers: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `transform_with` takes for atoms with these `numbers`: two tensors (n_atoms,
        n_features); raises what `element_index` raises."""
        index = self.element_index(numbers)
        offset, scale = self._stacked()
        return offset[index], scale[index]

    def transform_with(
        self,
        fingerprints: Rows,
        numbers: np.ndarray | torch.Tensor,
        rows: tuple[torch.Tensor, torch.Tensor],
    ) -> Rows:
        """Return what `transform_rows` does, with `rows` that `rows_of` has found for the atoms
        before: dynamics asks for the same atoms in every step."""
        given = torch.as_tensor(fingerprints)
        offset, scale = (part.to(given) for part in rows)
        if self.transform == "standardize":
            scaled = (given - offset) / scale
        else:
            scaled = given * scale + offset
        if self.pca is not None:
            scaled = self.pca.transform_rows(scaled, numbers)
        return scaled.numpy() if isinstance(fingerprints, np.ndarray) else scaled

    def raw_rows(self, scaled: torch.Tensor, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return fingerprints (n_atoms, n_features) out of scaled ones; undoes `transform_rows`.

        ValueError where they were reduced to principal components too.
        """
        if self.pca is not None:
            raise ValueError("fingerprints cannot be found again from their principal components")
        index = self.element_index(numbers)
        offset, scale = (part.to(scaled)[index] for part in self._stacked())
        if self.transform == "standardize":
            return scaled * scale + offset
        return (scaled - offset) / scale

    def norm(
        self, data_list: Sequence[DataObject], disable_tqdm: bool = False
    ) -> Sequence[DataObject]:
        """Scale `fingerprint` (and `fprimes`) of the data objects in place; return the list."""
        for data in tqdm(data_list, desc="Scaling features", disable=disable_tqdm, unit=" frames"):
            data.fingerprint = self.transform_rows(data.fingerprint, data.atomic_numbers)
            if self.forcetraining:
                slope = self.slope_rows(data.atomic_numbers).reshape(-1)
                matrix = data.fprimes.coalesce()
                row = matrix.indices()[0]
                data.fprimes = torch.sparse_coo_tensor(
                    matrix.indices(),
                    matrix.values() * slope.to(matrix.values())[row],
                    matrix.size(),
                    is_coalesced=True,
                    check_invariants=False,
                )
                if self.pca is not None:
                    data.fprimes = self.pca.reduce_primes(data.fprimes, data.atomic_numbers)
        return data_list

    def state(self) -> dict[str, Any]:
        """Return everything but the domain in JSON types; `from_state` reads it back without
        loss."""
        state = {
            name: getattr(self, name)
            for name in ("transform", "forcetraining", "elementwise", "threshold")
        }
        if self.elementwise:
            state["scales"] = {
                str(number): {name: part.tolist() for name, part in self.scales[number].items()}
                for number in self.unique
            }
        else:
            state["scale"] = {name: part.tolist() for name, part in self.scale.items()}
        if self.pca is not None:
            state["pca"] = self.pca.state()
        if self.ranges is not None:
            state["ranges"] = {
                str(number): [limit.tolist() for limit in self.ranges[number]]
                for number in sorted(self.ranges)
            }
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> FeatureScaler:
        scaler = cls.__new__(cls)
        for name in ("transform", "forcetraining", "elementwise", "threshold"):
            setattr(scaler, name, state[name])
        if scaler.transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {TRANSFORMS}, got {scaler.transform!r}")
        if scaler.elementwise:
            scaler.scales = {
                int(number): _tensors(part) for number, part in state["scales"].items()
            }
            scaler.unique = sorted(scaler.scales)
        else:
            scaler.scale = _tensors(state["scale"])
        if state.get("pca") is not None:
            scaler.pca = PCAReducer.from_state(state["pca"])
        if state.get("ranges") is not None:
            scaler.ranges = {
                int(number): (_tensor(low), _tensor(high))
                for number, (low, high) in state["ranges"].items()
            }
        return scaler

    # What pickles is plain, so that the restricted reader of pickles takes it.
    def __getstate__(self) -> dict[str, Any]:
        if self.domain is None:
            return self.state()
        return {**self.state(), "domain": self.domain.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(self.from_state(state)))
        if state.get("domain") is not None:
            self.domain = Domain.from_state(state["domain"])


def _by_element(
    fingerprints: torch.Tensor, numbers: torch.Tensor
) -> list[tuple[int, torch.Tensor]]:
    """Return the rows of each element, with its number."""
    kinds = torch.unique(numbers.long()).tolist()
    return [(number, fingerprints[numbers == number]) for number in kinds]


def _tensors(part: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: _tensor(part[name]) for name in ("offset", "scale")}


def _tensor(values: Sequence[float]) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
