"""Scaling of energies and forces, fitted to the training frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from tqdm import tqdm

from amptorch.data.corrections import (
    AtomicCorrectionScaler,
    Composition,
    composition,
    different,
    formula,
)
from amptorch.data.objects import DataObject
from amptorch.data.pca import Rows

# Compositions of the training frames that are kept; where there are more, none are.
MOST_COMPOSITIONS = 1000


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

    `start`: (K,) mean energy, eV, that an atom of each element has beside its reference energy,
    where it was fitted "per_atom"; fresh networks begin with it. It is not part of the state.
    """

    compositions: set[Composition] | None = None
    start: np.ndarray | None = None

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
        scaled: bool | str = True,
        forces: Callable[[], np.ndarray | None] = lambda: None,
    ) -> TargetScaler:
        """Return a scaler fitted to energies (F,), eV, of frames with `compositions()` (F, K) atoms
        of each of the K `elements`, symbols.

        correction : True takes off reference energies fitted to the frames, {symbol: eV} these
        scaled : False leaves mean and standard deviation at 0 and 1; "per_atom" leaves the mean at
            0, as a sum over atoms has no constant of a whole frame, takes a unit that follows the
            forces, fits reference energies without the frames of a single atom, and `start`
        forces : gives (n, 3) of some frames, eV/Å, NaN where there are none; asked by "per_atom"

        Raises ValueError where an element has no reference energy.
        """
        atomic, kinds = None, [atomic_numbers[symbol] for symbol in elements]
        found = compositions()
        if scaled == "per_atom":
            scaler = cls._per_atom(energies, found, kinds, correction)
            scaler.forcetraining = forcetraining
            scaler.target_std = _unit_of(forces(), float(found.sum(axis=1).mean()))
            return scaler
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

    @classmethod
    def _per_atom(
        cls,
        energies: np.ndarray,
        compositions: np.ndarray,
        kinds: list[int],
        correction: bool | Mapping[str | int, float],
    ) -> TargetScaler:
        """Return a scaler without a constant of whole frames, and without a unit."""
        counts = compositions.sum(axis=1)
        bound = counts > 1 if (counts > 1).any() else counts > 0
        scaler = cls.__new__(cls)
        scaler.atomic = AtomicCorrectionScaler.from_energies(dict.fromkeys(kinds, 0.0))
        if isinstance(correction, Mapping):
            scaler.atomic = AtomicCorrectionScaler.from_energies(correction)
        elif correction:
            scaler.atomic = AtomicCorrectionScaler.from_compositions(
                energies[bound], compositions[bound], kinds
            )
        left = energies - compositions @ scaler.atomic.of_elements(kinds)
        atoms = compositions[bound].astype(np.float64)
        scaler.start = np.linalg.lstsq(atoms, left[bound], rcond=None)[0]
        scaler.target_mean = torch.zeros((), dtype=torch.float64)
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
        """Return scaled forces, or stresses, out of those in eV/Å, or eV/Å³."""
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


def _unit_of(forces: np.ndarray | None, n_atoms: float) -> torch.Tensor:
    """Return the unit, eV, of the targets of frames of `n_atoms` atoms (mean) with these forces,
    eV/Å: 1 where there are none.

    The Kalman filter takes it for the noise of a frame's energy, and with `force_coefficient` that
    of its forces. Measured with 0.1 to 40 eV: the best were near 0.4 for acetylacetone (15 atoms,
    forces of 1.05 eV/Å, root mean square), 0.6 to 1 for lithium (50, 0.26), 10 for water on iron
    (164, 2.1), and silicon (52, 0.87) did not care between 0.3 and 3.
    """
    known = np.empty(0) if forces is None else forces[~np.isnan(forces)]
    rms = float(np.sqrt(np.mean(known**2))) if known.size else 0.0
    return torch.tensor(0.03 * n_atoms * rms if rms > 0 else 1.0, dtype=torch.float64)
