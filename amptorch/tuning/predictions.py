"""Reference and predicted energies and forces of held-out frames, kept for plots."""

import hashlib

import numpy as np

from amptorch.writing import write_atomically


def save_predictions(path, frames, models):
    """Write an .npz file, as a whole.

    frames: Frames with references; models: {name: (energies (F,), forces (n, 3) or None) and,
    where there is a spread, (…, energy_spread (F,), forces_spread (n, 3) or None)}. Entries:
    `counts`, `numbers`, `energies` (eV/atom), `forces` (eV/Å), and `NAME_energies`, `NAME_forces`,
    `NAME_energies_spread` and `NAME_forces_spread`. Forces are kept in float32.
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
            content["forces"] = frames.forces.astype(np.float32)
            content[f"{name}_forces"] = forces.astype(np.float32)
        if spread:
            content[f"{name}_energies_spread"] = spread[0] / counts
            if spread[1] is not None:
                content[f"{name}_forces_spread"] = spread[1].astype(np.float32)
    with write_atomically(path) as file:
        np.savez_compressed(file, **content)


def load_predictions(path):
    """{entry: array} of such a file, or None where there is none."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def digest(frames):
    """What tells these frames, their energies and forces from others: a hexadecimal number."""
    found = hashlib.sha256()
    for array in (frames.numbers, frames.positions, frames.cells, frames.energies, frames.forces):
        found.update(np.ascontiguousarray(array if array is not None else 0).tobytes())
    return found.hexdigest()
