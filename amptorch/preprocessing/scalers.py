"""Scaling of fingerprints and targets, fitted to the training frames.

Fingerprints are scaled feature by feature, for each element apart or for all atoms together:

- normalize: y = x·scale + offset, which maps the training minimum and maximum to `range`;
- standardize: y = (x − offset)/scale, with the mean and the population standard deviation.

Either way y = x·slope + intercept, and derivatives are multiplied by the slope.
"""

import numpy as np
import torch
from ase.data import chemical_symbols
from tqdm import tqdm

from amptorch.checks import scaling as checked_scaling
from amptorch.preprocessing.statistics import Statistics

TRANSFORMS = ("normalize", "standardize")
# In place of an element, where all atoms are scaled alike.
ALL = 0


class FeatureScaler:
    """Scaling of the features, fitted to a list of data objects (v1.0's way).

    `scaling`: {"type": "normalize" | "standardize", "range": (low, high), "elementwise": bool,
    "threshold": float}; a feature whose range (or standard deviation) is below the threshold is
    divided by 1. With `forcetraining`, `norm` also scales `fprimes`.

    Attributes, as in v1.0: `transform`, `forcetraining`, `elementwise`, `threshold`; elementwise,
    `unique` (sorted atomic numbers) and `scales[Z]`, otherwise `scale`: {"offset", "scale"}, both
    (n_features,).
    """

    def __init__(self, data_list, forcetraining, scaling=None):
        fingerprints = torch.cat([data.fingerprint for data in data_list])
        numbers = torch.cat([torch.as_tensor(data.atomic_numbers) for data in data_list])
        self._fit([(fingerprints, numbers)], forcetraining, scaling)

    @classmethod
    def from_arrays(cls, fingerprints, numbers, scaling=None, forcetraining=True):
        """Fitted to fingerprints (n_atoms, n_features) and atomic numbers (n_atoms,)."""
        return cls.from_chunks([(fingerprints, numbers)], scaling, forcetraining)

    @classmethod
    def from_chunks(cls, chunks, scaling=None, forcetraining=True):
        """Fitted in one pass to an iterable of (fingerprints, numbers), as to all of them at once;
        only one chunk is held at a time."""
        scaler = cls.__new__(cls)
        scaler._fit(chunks, forcetraining, scaling)
        return scaler

    def _fit(self, chunks, forcetraining, scaling):
        options = checked_scaling("scaling", scaling)
        self.transform = options["type"]
        self.forcetraining = forcetraining
        self.elementwise = options["elementwise"]
        self.threshold = options["threshold"]
        found = {}
        for fingerprints, numbers in chunks:
            for kind, rows in self._kinds(torch.as_tensor(fingerprints), torch.as_tensor(numbers)):
                here = Statistics.of(rows)
                found[kind] = found[kind].merged(here) if kind in found else here
        scales = {kind: self._scale(found[kind], options["range"]) for kind in sorted(found)}
        if self.elementwise:
            self.unique, self.scales = list(scales), scales
        else:
            self.scale = scales[ALL]

    def _kinds(self, fingerprints, numbers):
        """The rows that are scaled alike, with the number of their element."""
        if not self.elementwise:
            return [(ALL, fingerprints)]
        kinds = torch.unique(numbers.long()).tolist()
        return [(number, fingerprints[numbers == number]) for number in kinds]

    def _scale(self, statistics, limits):
        if self.transform == "standardize":
            return {"offset": statistics.mean, "scale": self._widened(statistics.deviation)}
        width = self._widened(statistics.highest - statistics.lowest)
        scale = (limits[1] - limits[0]) / width
        return {"offset": limits[0] - statistics.lowest * scale, "scale": scale}

    def _widened(self, width):
        return torch.where(width < self.threshold, torch.ones_like(width), width)

    def element_index(self, numbers):
        """Row of `slope_and_offset` that belongs to each atom, int64 (n_atoms,).

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

    def _index(self, numbers):
        if not self.elementwise:
            return torch.zeros_like(numbers)
        table = torch.full((len(chemical_symbols) + 1,), -1, dtype=torch.long)
        table[self.unique] = torch.arange(len(self.unique))
        return table.to(numbers.device)[numbers]

    def _stacked(self):
        parts = (
            [self.scales[number] for number in self.unique] if self.elementwise else [self.scale]
        )
        offset = torch.stack([part["offset"] for part in parts])
        return offset, torch.stack([part["scale"] for part in parts])

    def slope_and_offset(self):
        """(slope, intercept), each (n_elements, n_features): y = x·slope[k] + intercept[k] for the
        atoms of the k-th element in `unique`; a single row where the scaler is not elementwise."""
        offset, scale = self._stacked()
        if self.transform == "standardize":
            return 1 / scale, -offset / scale
        return scale, offset

    def slope_rows(self, numbers):
        """d scaled / d fingerprint of every atom, (n_atoms, n_features); NaN for an element that
        the scaler was not fitted to (`transform_rows` refuses its atoms)."""
        slope = self.slope_and_offset()[0]
        missing = torch.full_like(slope[:1], torch.nan)
        return torch.cat([slope, missing])[self._index(torch.as_tensor(numbers).long())]

    def transform_rows(self, fingerprints, numbers):
        """Scaled fingerprints (n_atoms, n_features); an array for an array, else a tensor."""
        rows = torch.as_tensor(fingerprints)
        index = self.element_index(numbers)
        offset, scale = (part.to(rows)[index] for part in self._stacked())
        if self.transform == "standardize":
            scaled = (rows - offset) / scale
        else:
            scaled = rows * scale + offset
        return scaled.numpy() if isinstance(fingerprints, np.ndarray) else scaled

    def norm(self, data_list, disable_tqdm=False):
        """Scale `fingerprint` (and `fprimes`) of the data objects in place; returns the list."""
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
        return data_list

    def state(self):
        """Everything in JSON types; `from_state` reads it back without loss."""
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
        return state

    @classmethod
    def from_state(cls, state):
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
        return scaler


def _tensors(part):
    return {name: torch.as_tensor(part[name], dtype=torch.float64) for name in ("offset", "scale")}


class TargetScaler:
    """Scaling of targets: energies minus their mean over their sample standard deviation, forces
    over the same standard deviation.

    Attributes: `target_mean`, `target_std` (0-dimensional tensors, eV), `forcetraining`. Mean and
    standard deviation are 0 and 1 where the deviation is 0 or undefined (one frame).
    """

    def __init__(self, data_list, forcetraining):
        energies = [torch.as_tensor(data.energy).reshape(-1) for data in data_list]
        self._fit(torch.cat(energies), forcetraining)

    @classmethod
    def from_arrays(cls, energies, forces=None):
        """Fitted to energies (n_frames,), eV; forces are scaled too where there are any."""
        scaler = cls.__new__(cls)
        scaler._fit(torch.as_tensor(energies), forces is not None)
        return scaler

    def _fit(self, energies, forcetraining):
        self.forcetraining = forcetraining
        energies = energies.double()
        mean = energies.mean()
        std = energies.std() if len(energies) > 1 else torch.zeros_like(mean)
        # Equal energies leave a deviation of rounding errors, which is no scale.
        defined = bool(std > 1e-14 * energies.abs().max())
        self.target_mean = mean if defined else torch.zeros_like(mean)
        self.target_std = std if defined else torch.ones_like(std)

    def norm(self, data_list, disable_tqdm=False):
        """Scale `energy` (and `forces`) of the data objects in place; returns the list."""
        for data in tqdm(data_list, desc="Scaling targets", disable=disable_tqdm, unit=" frames"):
            data.energy = self.norm_energies(data.energy)
            if self.forcetraining:
                data.forces = self.norm_forces(data.forces)
        return data_list

    def norm_energies(self, energies):
        return (energies - float(self.target_mean)) / float(self.target_std)

    def norm_forces(self, forces):
        return forces / float(self.target_std)

    def denorm(self, tensor, pred="energy"):
        """Energies (eV) or forces (eV/Å) out of scaled ones; ValueError for another `pred`."""
        if pred == "energy":
            return tensor * float(self.target_std) + float(self.target_mean)
        if pred == "forces":
            return tensor * float(self.target_std)
        raise ValueError(f"pred must be 'energy' or 'forces', got {pred!r}")

    def state(self):
        """Everything in JSON types; `from_state` reads it back without loss."""
        return {
            "target_mean": float(self.target_mean),
            "target_std": float(self.target_std),
            "forcetraining": self.forcetraining,
        }

    @classmethod
    def from_state(cls, state):
        scaler = cls.__new__(cls)
        scaler.forcetraining = state["forcetraining"]
        scaler.target_mean = torch.as_tensor(state["target_mean"], dtype=torch.float64)
        scaler.target_std = torch.as_tensor(state["target_std"], dtype=torch.float64)
        return scaler


class AtomicCorrectionScaler:
    """Removes a reference energy for each element, so that only binding is left to learn.

    The reference energies are the least-squares solution of E_frame = Σ_Z n_Z e_Z over the frames
    (the one of least norm where the compositions do not determine them).
    Attribute: `reference_energies`, {Z: eV}.
    """

    def __init__(self, data_list):
        numbers = [np.asarray(data.atomic_numbers, dtype=np.int64) for data in data_list]
        unique = np.unique(np.concatenate(numbers))
        counts = np.array([[np.sum(frame == number) for number in unique] for frame in numbers])
        energies = np.array([float(data.energy) for data in data_list])
        solution = np.linalg.lstsq(counts.astype(np.float64), energies, rcond=None)[0]
        self.reference_energies = {
            int(number): float(energy) for number, energy in zip(unique, solution, strict=True)
        }

    def correction(self, numbers):
        """Σ_Z n_Z e_Z of a frame, eV; ValueError for an element without a reference energy."""
        numbers = [int(number) for number in numbers]
        for number in numbers:
            if number not in self.reference_energies:
                raise ValueError(f"no reference energy for element {chemical_symbols[number]}")
        return sum(self.reference_energies[number] for number in numbers)

    def norm(self, data_list, disable_tqdm=False):
        """Subtract the corrections from `energy` of the data objects in place; returns the list."""
        for data in tqdm(data_list, desc="Correcting energies", disable=disable_tqdm):
            data.energy = data.energy - self.correction(data.atomic_numbers)
        return data_list

    def denorm(self, energies, data_list):
        """Add the corrections of the frames back to their energies, eV."""
        return [
            energy + self.correction(data.atomic_numbers)
            for energy, data in zip(energies, data_list, strict=True)
        ]
