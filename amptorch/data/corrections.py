"""Reference energies of the elements, which leave only binding to be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from tqdm import tqdm

from amptorch.data.objects import DataObject

# The elements of a frame, as ((Z, number of atoms), ...).
Composition: TypeAlias = tuple[tuple[int, int], ...]
# One energy or several, eV.
Energies: TypeAlias = float | torch.Tensor | Sequence[float | torch.Tensor]


class AtomicCorrectionScaler:
    """Remove a reference energy for each element, so that only binding is left to learn.

    The reference energies are the least-squares solution of E_frame = Σ_Z n_Z e_Z over the frames.
    Where the compositions do not determine them (water alone: only e_O + 2 e_H is known) it is the
    solution of least norm, which fits the frames as well as any other; of other compositions the
    energies then mean little.

    data_list : data objects with `atomic_numbers` and `energy`, eV
    load_correction_dictionary : {symbol or atomic number: eV}, to take instead of fitting
    Attribute: `reference_energies`, {Z: eV}.
    """

    def __init__(
        self,
        data_list: Sequence[DataObject],
        load_correction_dictionary: Mapping[str | int, float] | None = None,
    ) -> None:
        if load_correction_dictionary is not None:
            self._take(load_correction_dictionary)
            return
        of_frames = [np.asarray(data.atomic_numbers, dtype=np.int64) for data in data_list]
        counts = [len(frame) for frame in of_frames]
        energies = np.array([float(data.energy) for data in data_list])
        numbers = np.concatenate(of_frames)
        kinds = np.unique(numbers)
        self._fit(energies, composition(numbers, counts, kinds), kinds)

    @classmethod
    def from_compositions(
        cls, energies: np.ndarray, compositions: np.ndarray, kinds: Sequence[int] | np.ndarray
    ) -> AtomicCorrectionScaler:
        """Return a scaler fitted to energies (F,), eV, and the numbers (F, K) of atoms of each of
        `kinds` (K,), atomic numbers."""
        scaler = cls.__new__(cls)
        scaler._fit(np.asarray(energies, dtype=np.float64), np.asarray(compositions), kinds)
        return scaler

    @classmethod
    def from_energies(cls, energies: Mapping[str | int, float]) -> AtomicCorrectionScaler:
        """Return a scaler with known reference energies: {symbol or atomic number: eV}."""
        scaler = cls.__new__(cls)
        scaler._take(energies)
        return scaler

    def _take(self, energies: Mapping[str | int, float]) -> None:
        self.reference_energies = {
            atomic_numbers[key] if isinstance(key, str) else int(key): float(energy)
            for key, energy in energies.items()
        }

    def _fit(
        self, energies: np.ndarray, compositions: np.ndarray, kinds: Sequence[int] | np.ndarray
    ) -> None:
        solution = np.linalg.lstsq(compositions.astype(np.float64), energies, rcond=None)[0]
        self.reference_energies = {
            int(number): float(energy) for number, energy in zip(kinds, solution, strict=True)
        }

    def of_elements(self, kinds: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the (K,) reference energies, eV, of the atomic numbers `kinds`; ValueError for an
        element without one."""
        for number in np.asarray(kinds).tolist():
            if number not in self.reference_energies:
                raise ValueError(f"no reference energy for element {chemical_symbols[number]}")
        return np.array([self.reference_energies[int(number)] for number in kinds])

    def correction(self, numbers: np.ndarray | torch.Tensor) -> float:
        """Return Σ_Z n_Z e_Z of a frame, eV; ValueError for an element without a reference
        energy."""
        return float(self.corrections(numbers, [len(numbers)])[0])

    def corrections(
        self, numbers: np.ndarray | torch.Tensor, counts: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Return (F,) Σ_Z n_Z e_Z, eV, of frames of `counts` (F,) atoms with `numbers` (n,)."""
        kinds, place = np.unique(np.asarray(numbers, dtype=np.int64), return_inverse=True)
        frames = np.repeat(np.arange(len(counts)), counts)
        energies = self.of_elements(kinds)[place.reshape(-1)]
        return np.bincount(frames, weights=energies, minlength=len(counts))

    def norm(
        self, data_list: Sequence[DataObject], disable_tqdm: bool = False
    ) -> Sequence[DataObject]:
        """Subtract the corrections from `energy` of the data objects in place; return the list."""
        for data in tqdm(data_list, desc="Correcting energies", disable=disable_tqdm):
            data.energy = data.energy - self.correction(data.atomic_numbers)
        return data_list

    def denorm(self, tensor: Any, data: Any) -> Any:
        """Add the corrections back to energies, eV: one of one data object, or a list of each."""
        if hasattr(data, "atomic_numbers"):
            return tensor + self.correction(data.atomic_numbers)
        return [self.denorm(energy, one) for energy, one in zip(tensor, data, strict=True)]


def composition(
    numbers: np.ndarray, counts: Sequence[int] | np.ndarray, kinds: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Count the (F, K) atoms of each of the elements `kinds` (K,), atomic numbers, in frames of
    `counts` (F,) atoms with `numbers` (n,), frame after frame; all of them must be among
    `kinds`."""
    kinds = np.asarray(kinds, dtype=np.int64)
    place = np.zeros(kinds.max() + 1, dtype=np.int64)
    place[kinds] = np.arange(len(kinds))
    frames = np.repeat(np.arange(len(counts)), counts)
    cells = frames * len(kinds) + place[np.asarray(numbers, dtype=np.int64)]
    return np.bincount(cells, minlength=len(counts) * len(kinds)).reshape(len(counts), len(kinds))


def different(compositions: np.ndarray, kinds: Sequence[int] | np.ndarray) -> set[Composition]:
    """Return the set of different rows of compositions (F, K), each as ((Z, number of atoms), ...)
    of the elements `kinds` (K,), atomic numbers, that are there."""
    order = np.argsort(kinds)
    kinds = np.asarray(kinds)[order].tolist()
    rows = np.unique(np.asarray(compositions)[:, order], axis=0).tolist()
    return {tuple((z, n) for z, n in zip(kinds, row, strict=True) if n) for row in rows}


def formula(composition: Composition) -> str:
    """Return a composition ((Z, number of atoms), ...) as text such as "Cu12O"."""
    return Formula.from_dict({chemical_symbols[z]: n for z, n in composition}).format("hill")
