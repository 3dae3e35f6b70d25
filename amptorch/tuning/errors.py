"""Errors of a potential in numbers for people and for the search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from amptorch.frames import Frames
from amptorch.metrics import error_statistics

# Energies above this percentile of the training frames' (per atom) count as outliers.
OUTLIERS = 99
# meV/atom of energy error that 1 eV/Å of force error counts as.
FORCE_WEIGHT = 10.0


def outlier_energy(frames: Frames) -> float:
    """Return the energy per atom (eV) above which frames are outliers."""
    return float(np.percentile(frames.energies / frames.counts, OUTLIERS))


def summary(
    frames: Frames, energies: np.ndarray, forces: np.ndarray | None, above: float = np.inf
) -> dict[str, Any]:
    """Return RMSE, MAE and median absolute error, in JSON types.

    frames: Frames with the references; energies (F,), eV; forces (N, 3), eV/Å, or None.

    Keys: `frames`, their number; `energy`, meV/atom; `forces` (per component) and
    `forces_by_element`, eV/Å; `without_outliers`, the same without the frames whose reference
    energy per atom is higher than `above`, if there are such frames and others.
    """
    result = _summary(frames, energies, forces)
    usual = np.flatnonzero(frames.energies / frames.counts <= above)
    if 0 < len(usual) < len(frames):
        own = None if forces is None else forces[frames.atom_rows(usual)]
        result["without_outliers"] = _summary(frames.select(usual), energies[usual], own)
    return result


def _summary(frames: Frames, energies: np.ndarray, forces: np.ndarray | None) -> dict[str, Any]:
    per_atom = error_statistics(1000 * (energies - frames.energies) / frames.counts)
    result: dict[str, Any] = {"frames": len(frames), "energy": per_atom}
    if forces is not None:
        difference = forces - frames.forces
        result["forces"] = error_statistics(difference)
        result["forces_by_element"] = {
            chemical_symbols[number]: error_statistics(difference[frames.numbers == number])
            for number in np.unique(frames.numbers)
        }
    return result


def combined(
    result: dict[str, Any], metric: str = "rmse", force_weight: float = FORCE_WEIGHT
) -> float:
    """Return the number that is minimised, meV/atom: the error of the energy (meV/atom), and with
    forces also `force_weight` times their error (eV/Å)."""
    error = result["energy"][metric]
    if "forces" in result:
        error += force_weight * result["forces"][metric]
    return error


def mean_of(results: Sequence[Any]) -> Any:
    """Return the mean over folds of `summary`'s results, of the numbers that all folds have."""
    first = results[0]
    if isinstance(first, dict):
        shared = [key for key in first if all(key in result for result in results)]
        return {key: mean_of([result[key] for result in results]) for key in shared}
    return float(np.mean(results)) if isinstance(first, float) else sum(results)
