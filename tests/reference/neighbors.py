"""Neighbours by trying every image of every atom."""

import itertools

import numpy as np


def neighbors(atoms, cutoff):
    """[(i, j, shift, vector)] of every ordered pair nearer than `cutoff`, self-images included."""
    repeats = [0, 0, 0]
    for axis in np.flatnonzero(atoms.pbc):
        # Images that far along a direction are nearer than this many cell vectors could reach.
        reach = cutoff + np.ptp(atoms.positions, axis=0).sum()
        repeats[axis] = int(reach * _inverse_height(atoms, axis)) + 1
    pairs = []
    for shift in itertools.product(*(range(-n, n + 1) for n in repeats)):
        translation = np.array(shift) @ atoms.cell.array
        vectors = atoms.positions + translation - atoms.positions[:, None]
        for i, j in np.argwhere(np.linalg.norm(vectors, axis=2) < cutoff).tolist():
            if i != j or shift != (0, 0, 0):
                pairs.append((i, j, shift, vectors[i, j]))
    return pairs


def _inverse_height(atoms, axis):
    """1 / height of the periodic cell along `axis`: length of the dual of its cell vector."""
    periodic = np.flatnonzero(atoms.pbc)
    dual = np.linalg.pinv(atoms.cell.array[periodic]).T
    return np.linalg.norm(dual[list(periodic).index(axis)])
