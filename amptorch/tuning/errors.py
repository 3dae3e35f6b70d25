"""Errors of a potential in numbers for people and for the search."""

import numpy as np
from ase.data import chemical_symbols

from amptorch.frames import Frames

# Energies above this percentile of the training frames' (per atom) count as outliers.
OUTLIERS = 99
# What 1 eV/Å of force error weighs against 1 meV/atom of energy error.
FORCE_WEIGHT = 10.0


def outlier_energy(frames: Frames) -> float:
    """Return the energy per atom (eV) above which frames are outliers."""
    return float(np.percentile(frames.energies / frames.counts, OUTLIERS))


def summary(
    frames: Frames, energies: np.ndarray, forces: np.ndarray | None, above: float = np.inf
) -> dict:
    """Return RMSE, MAE and median absolute error, in JSON types.

    frames: Frames with the references; energies (F,), eV; forces (N, 3), eV/Å, or None. Keys:
    `frames`, how many; `energy`, meV/atom; `forces` (per component) and `forces_by_element`, eV/Å;
    `without_outliers`, the same without the frames whose reference energy per atom is beyond
    `above`, where there are any.
    """
    result = _summary(frames, energies, forces)
    usual = np.flatnonzero(frames.energies / frames.counts <= above)
    if 0 < len(usual) < len(frames):
        rows = frames.atom_rows(usual)
        result["without_outliers"] = _summary(
            frames.select(usual), energies[usual], None if forces is None else forces[rows]
        )
    return result


def _summary(frames, energies, forces):
    result = {
        "frames": len(frames),
        "energy": _statistics(1000 * (energies - frames.energies) / frames.counts),
    }
    if forces is not None:
        difference = forces - frames.forces
        result["forces"] = _statistics(difference)
        result["forces_by_element"] = {
            chemical_symbols[number]: _statistics(difference[frames.numbers == number])
            for number in np.unique(frames.numbers)
        }
    return result


def _statistics(difference):
    absolute = np.abs(difference)
    return {
        "rmse": float(np.sqrt(np.mean(absolute**2))),
        "mae": float(np.mean(absolute)),
        "median": float(np.median(absolute)),
    }


def combined(result: dict, metric: str = "rmse", force_weight: float = FORCE_WEIGHT) -> float:
    """Return what is minimised, meV/atom.

    It is the error of the energy (meV/atom) and, where there are forces, `force_weight` times that
    of the forces (eV/Å).
    """
    error = result["energy"][metric]
    if "forces" in result:
        error += force_weight * result["forces"][metric]
    return error


def mean_of(results):
    """Return the mean over folds of what `summary` gives, where all folds have a number."""
    first = results[0]
    if isinstance(first, dict):
        shared = [key for key in first if all(key in result for result in results)]
        return {key: mean_of([result[key] for result in results]) for key in shared}
    return float(np.mean(results)) if isinstance(first, float) else sum(results)
