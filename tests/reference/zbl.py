"""The repulsion of Ziegler, Biersack and Littmark, pair by pair."""

import math

from ase.data import covalent_radii


def energy(z1, z2, r, inner, outer):
    """Energy of a pair, eV, at a distance r, Å."""
    a = 0.4685 / (z1**0.23 + z2**0.23)
    x = r / a
    screening = (
        0.18175 * math.exp(-3.19980 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.40290 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    t = r / (covalent_radii[z1] + covalent_radii[z2])
    t = min(1.0, max(0.0, (t - inner) / (outer - inner)))
    switch = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
    return 14.399645 * z1 * z2 / r * screening * switch


def total(atoms, inner, outer):
    """Energy of a frame without periodic images."""
    distances = atoms.get_all_distances()
    return sum(
        energy(atoms.numbers[i], atoms.numbers[j], distances[i, j], inner, outer)
        for i in range(len(atoms))
        for j in range(i)
    )
