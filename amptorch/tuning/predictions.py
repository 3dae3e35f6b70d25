"""Reference and predicted energies and forces of held-out frames, kept for plots."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.frames import Frames
from amptorch.writing import replacing


def save_predictions(path: Path, frames: Frames, models: Mapping[str, tuple[Any, ...]]) -> None:
    """Write an .npz file.

    frames: Frames with references; models: {name: (energies (F,), forces (N, 3) or None)}; an
    ensemble has two more items, (…, energy_spread (F,), forces_spread (N, 3) or None).

    Entries: `counts`, `numbers`, `energies` (eV/atom), `forces` (eV/Å), and `NAME_energies`,
    `NAME_forces`, `NAME_energies_spread` and `NAME_forces_spread`. Forces are kept in float32.
    """
    counts = frames.counts
    content = {
        "counts": counts.astype(np.int32),
        "numbers": frames.numbers.astype(np.int16),
        "energies": frames.energies / counts,
    }
    for name, (energies, forces, *spread) in models.items():
        content[f"{name}_energies"] = energies / counts
        if forces is not None:
            content["forces"] = np.asarray(frames.forces).astype(np.float32)
            content[f"{name}_forces"] = forces.astype(np.float32)
        if spread:
            content[f"{name}_energies_spread"] = spread[0] / counts
            if spread[1] is not None:
                content[f"{name}_forces_spread"] = spread[1].astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        np.savez_compressed(unfinished, **content)


def load_predictions(path: Path) -> dict[str, np.ndarray] | None:
    """Return {entry: array} of a file that `save_predictions` wrote, or None without one."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def digest(frames: Frames) -> str:
    """Return a SHA-256 checksum of the frames, their energies and forces."""
    found = hashlib.sha256()
    for array in (frames.numbers, frames.positions, frames.cells, frames.energies, frames.forces):
        found.update(np.ascontiguousarray(array if array is not None else 0).tobytes())
    return found.hexdigest()
