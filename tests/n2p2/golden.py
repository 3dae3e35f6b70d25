"""Potentials in n2p2's files, with the energies and forces that n2p2 gave."""

import json
from pathlib import Path

import numpy as np
from ase import Atoms

FOLDER = Path(__file__).parents[1] / "golden" / "n2p2"
CASES = sorted(FOLDER.iterdir())
# More of them, beside the repository.
SHARED = Path(__file__).parents[3] / "shared" / "golden" / "n2p2"
COMPACT = sorted(SHARED.glob("compact_*"))
ALL = [*CASES, *sorted(path for path in SHARED.glob("*") if path not in COMPACT)]


def structure(path, name):
    """Return the Atoms of a case, its energy and its forces."""
    golden = json.loads((path / f"{name}.json").read_text())
    cell = golden["cell"] if golden["pbc"] else None
    atoms = Atoms(golden["symbols"], golden["positions"], cell=cell, pbc=golden["pbc"])
    return atoms, golden["energy"], np.array(golden["forces"])


def structures(path):
    """Return the two Atoms of a case."""
    return [structure(path, name)[0] for name in ("crystal", "cluster")]


def largest_difference(one, two, images):
    """Return the largest differences of energies and of forces, relative to the largest of both."""
    first, second = one.predict(images), two.predict(images)
    found = []
    for name in ("energy", "forces"):
        a, b = (np.concatenate([np.ravel(x) for x in p[name]]) for p in (first, second))
        found.append(np.abs(a - b).max() / np.abs(a).max())
    return found
