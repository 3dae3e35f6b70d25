"""Scaling of fingerprints and targets, fitted to the training frames.

Fingerprints are scaled feature by feature, for each element apart or for all atoms together:

- normalize: y = x·scale + offset, which maps the training minimum and maximum to `range`;
- standardize: y = (x − offset)/scale, with the mean and the population standard deviation.

Either way y = x·slope + intercept, and derivatives are multiplied by the slope. What is scaled may
then be reduced to its principal components.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from tqdm import tqdm

from amptorch.checks import scaling as checked_scaling
from amptorch.data.corrections import (
    AtomicCorrectionScaler,
    Composition,
    composition,
    different,
    formula,
)
from amptorch.data.objects import DataObject
from amptorch.data.pca import Chunks, PCAReducer, Rows
from amptorch.data.statistics import Statistics

TRANSFORMS = ("normalize", "standardize")
# In place of an element, where all atoms are scaled alike.
ALL = 0
# Compositions of the training frames that are kept; where there are more, none are.
MOST_COMPOSITIONS = 1000


class FeatureScaler:
    """Scale features, as fitted to a list of data objects (v1.0's way).

    `scaling`: {"type": "normalize" | "standardize", "range": (low, high), "elementwise": bool,
    "threshold": float}; a feature whose range (or standard deviation) is below the threshold is
    divided by 1. With `forcetraining`, `norm` also scales `fprimes`.

    Attributes, as in v1.0: `transform`, `forcetraining`, `elementwise`, `threshold`; elementwise,
    `unique` (sorted atomic numbers) and `scales[Z]`, otherwise `scale`: {"offset", "scale"}, both
    (n_features,). `pca`: a `PCAReducer` that reduces what was scaled, or None.
    """

    pca: PCAReducer | None = None

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
        for fingerprints, numbers in chunks:
            for kind, rows in self._kinds(torch.as_tensor(fingerprints), torch.as_tensor(numbers)):
                here = Statistics.of(rows)
                found[kind] = found[kind].merged(here) if kind in found else here
        scales = {kind: self._scale(found[kind], options["range"]) for kind in sorted(found)}
        if self.elementwise:
            self.unique, self.scales = list(scales), scales
        else:
            self.scale = scales[ALL]

    def _kinds(
        self, fingerprints: torch.Tensor, numbers: torch.Tensor
    ) -> list[tuple[int, torch.Tensor]]:
        """Return the rows that are scaled alike, with the number of their element."""
        if not self.elementwise:
            return [(ALL, fingerprints)]
        kinds = torch.unique(numbers.long()).tolist()
        return [(number, fingerprints[numbers == number]) for number in kinds]

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

    def knows(self, number: int) -> bool:
        """Tell whether the scaler was fitted to this atomic number, or to all alike."""
        known = not self.elementwise or int(number) in self.scales
        return known and (self.pca is None or self.pca.knows(number))

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
        rows = torch.as_tensor(fingerprints)
        index = self.element_index(numbers)
        offset, scale = (part.to(rows)[index] for part in self._stacked())
        if self.transform == "standardize":
            scaled = (rows - offset) / scale
        else:
            scaled = rows * scale + offset
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
        """Return everything in JSON types; `from_state` reads it back without loss."""
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
        return scaler

    # What pickles is plain, so that the restricted reader of pickles takes it.
    __getstate__ = state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(self.from_state(state)))


def _tensors(part: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(part[name], dtype=torch.float64) for name in ("offset", "scale")}


class TargetScaler:
    """Scale targets: energies minus their mean over their sample standard deviation, forces
    over the same standard deviation.

    Attributes: `target_mean`, `target_std` (0-dimensional tensors, eV), `forcetraining`, and
    `atomic`, an `AtomicCorrectionScaler` of energies that are subtracted before the mean, or None.
    Mean and standard deviation are 0 and 1 where the deviation is 0 or undefined (one frame).

    `compositions`: those of the frames that it was fitted to, a set of ((Z, number of atoms), ...),
    or None where they are not known, or of no importance. A mean energy of whole frames is that of
    one composition: where it is subtracted from frames of several, which no sum over atoms can put
    right, and where one of another is predicted, there is a warning.
    """

    compositions: set[Composition] | None = None

    def __init__(self, data_list: Sequence[DataObject], forcetraining: bool) -> None:
        energies = [torch.as_tensor(data.energy).reshape(-1) for data in data_list]
        self._fit(torch.cat(energies), forcetraining)
        found: list[Any] = [getattr(data, "atomic_numbers", None) for data in data_list]
        if all(of_frame is not None for of_frame in found):
            counts, numbers = [len(of_frame) for of_frame in found], np.concatenate(found)
            kinds: Any = np.unique(numbers)
            self._remember(composition(numbers, counts, kinds), kinds)

    @classmethod
    def from_arrays(
        cls, energies: np.ndarray | torch.Tensor, forces: np.ndarray | torch.Tensor | None = None
    ) -> TargetScaler:
        """Return a scaler fitted to energies (n_frames,), eV; forces are scaled too where there are
        any."""
        scaler = cls.__new__(cls)
        scaler._fit(torch.as_tensor(energies), forces is not None)
        return scaler

    @classmethod
    def fitted(
        cls,
        energies: np.ndarray,
        compositions: Callable[[], np.ndarray],
        elements: Sequence[str],
        forcetraining: bool,
        correction: bool | Mapping[str | int, float] = False,
        scaled: bool = True,
    ) -> TargetScaler:
        """Return a scaler fitted to energies (F,), eV, of frames with `compositions()` (F, K) atoms
        of each of the K `elements`, symbols.

        correction : True takes off reference energies fitted to the frames, {symbol: eV} these
        scaled : False leaves mean and standard deviation at 0 and 1

        Raises ValueError where an element has no reference energy.
        """
        atomic, kinds = None, [atomic_numbers[symbol] for symbol in elements]
        found = compositions()
        if correction:
            if correction is True:
                atomic = AtomicCorrectionScaler.from_compositions(energies, found, kinds)
            else:
                atomic = AtomicCorrectionScaler.from_energies(correction)
            energies = energies - found @ atomic.of_elements(kinds)
        scaler = cls.__new__(cls)
        scaler._fit(torch.as_tensor(energies if scaled else [0.0]), forcetraining, atomic)
        scaler._remember(found, kinds)
        return scaler

    def _fit(
        self,
        energies: torch.Tensor,
        forcetraining: bool,
        atomic: AtomicCorrectionScaler | None = None,
    ) -> None:
        self.forcetraining = forcetraining
        self.atomic = atomic
        energies = energies.double()
        mean = energies.mean()
        std = energies.std() if len(energies) > 1 else torch.zeros_like(mean)
        # Equal energies leave a deviation of rounding errors, which is no scale.
        defined = bool(std > 1e-14 * energies.abs().max())
        self.target_mean = mean if defined else torch.zeros_like(mean)
        self.target_std = std if defined else torch.ones_like(std)

    @property
    def subtracts_frames(self) -> bool:
        """Tell whether the mean energy of whole frames is subtracted."""
        return self.atomic is None and float(self.target_mean) != 0

    def _remember(self, compositions: np.ndarray, kinds: Sequence[int] | np.ndarray) -> None:
        """Keep the `compositions` (F, K) of the training frames; warn where they differ."""
        if not self.subtracts_frames:
            return
        found = different(compositions, kinds)
        if len(found) <= MOST_COMPOSITIONS:
            self.compositions = found
        if len(found) > 1:
            some = ", ".join(formula(one) for one in sorted(found)[:3])
            warnings.warn(
                f"the training frames have {len(found)} different compositions ({some}"
                f"{', ...' if len(found) > 3 else ''}), and one mean energy of whole frames is "
                "subtracted from all of them, which no sum over atoms can put right: set "
                "dataset.atomic_correction to True",
                stacklevel=2,
            )

    def check_compositions(self, numbers: np.ndarray, counts: Sequence[int] | np.ndarray) -> None:
        """Warn where one of the frames of `counts` (F,) atoms with `numbers` (n,) has a composition
        that no training frame had, so that the energy that is added is not its own."""
        if not self.subtracts_frames or self.compositions is None:
            return
        kinds = np.unique(numbers)
        others = different(composition(numbers, counts, kinds), kinds) - self.compositions
        if others:
            trained = ", ".join(formula(one) for one in sorted(self.compositions)[:3])
            warnings.warn(
                f"no training frame had the composition {formula(min(others))} (they had {trained}"
                f"{', ...' if len(self.compositions) > 3 else ''}), and the mean energy of whole "
                "training frames, which is added to every prediction, is not that of these atoms: "
                "the energy is wrong; train with dataset.atomic_correction set to True",
                stacklevel=3,
            )

    def references(self, numbers: np.ndarray, counts: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the (F,) reference energies, eV, of frames of `counts` (F,) atoms with `numbers`
        (n,); zeros where there are none."""
        if self.atomic is None:
            return np.zeros(len(counts))
        return self.atomic.corrections(numbers, counts)

    def norm(
        self, data_list: Sequence[DataObject], disable_tqdm: bool = False
    ) -> Sequence[DataObject]:
        """Scale `energy` (and `forces`) of the data objects in place; return the list."""
        for data in tqdm(data_list, desc="Scaling targets", disable=disable_tqdm, unit=" frames"):
            references = 0.0 if self.atomic is None else self.atomic.correction(data.atomic_numbers)
            data.energy = self.norm_energies(data.energy, references)
            if self.forcetraining:
                data.forces = self.norm_forces(data.forces)
        return data_list

    def norm_energies(self, energies: Rows, references: np.ndarray | float = 0.0) -> Rows:
        """Return scaled energies out of energies, eV, of frames with these `references`."""
        unscaled: Any = energies
        return (unscaled - references - float(self.target_mean)) / float(self.target_std)

    def norm_forces(self, forces: Rows) -> Rows:
        return forces / float(self.target_std)

    def denorm(self, tensor: Rows, pred: str = "energy") -> Rows:
        """Return energies (eV) or forces (eV/Å) out of scaled ones; ValueError for another `pred`.

        The atoms are not known here: their `references` are still to be added to energies.
        """
        if pred == "energy":
            return tensor * float(self.target_std) + float(self.target_mean)
        if pred == "forces":
            return tensor * float(self.target_std)
        raise ValueError(f"pred must be 'energy' or 'forces', got {pred!r}")

    def state(self) -> dict[str, Any]:
        """Return everything in JSON types; `from_state` reads it back without loss."""
        state: dict[str, Any] = {
            "target_mean": float(self.target_mean),
            "target_std": float(self.target_std),
            "forcetraining": self.forcetraining,
        }
        if self.atomic is not None:
            energies = self.atomic.reference_energies
            state["references"] = {str(number): energy for number, energy in energies.items()}
        if self.compositions is not None:
            state["compositions"] = [dict(one) for one in sorted(self.compositions)]
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TargetScaler:
        scaler = cls.__new__(cls)
        scaler.forcetraining = state["forcetraining"]
        scaler.target_mean = torch.as_tensor(state["target_mean"], dtype=torch.float64)
        scaler.target_std = torch.as_tensor(state["target_std"], dtype=torch.float64)
        scaler.atomic = None
        if state.get("references") is not None:
            energies: Any = {int(number): energy for number, energy in state["references"].items()}
            scaler.atomic = AtomicCorrectionScaler.from_energies(energies)
        if state.get("compositions") is not None:
            scaler.compositions = {
                tuple(sorted((int(z), int(n)) for z, n in one.items()))
                for one in state["compositions"]
            }
        return scaler

    # What pickles is plain, so that the restricted reader of pickles takes it.
    __getstate__ = state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(self.from_state(state)))
