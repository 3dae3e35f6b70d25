"""Fit a pair potential to forces, and tell what it says of energies and stresses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms

from amptorch.data.corrections import composition
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, neighbor_list

# Share of the forces that a pair potential must explain.
EXPLAINED = 0.5
# Å, its reach; its intervals, and neighbours of an atom at most.
REACH, INTERVALS, NEIGHBORS = 5.0, 20, 150
# Frames and atoms for that fit.
MODEL_FRAMES, MODEL_ATOMS = (20, 80), (4_000, 20_000)
# Å, the longest bond of hydrogen to C, N or O.
HYDROGEN_BOND = 1.3
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


@dataclass(frozen=True)
class Labelled:
    """Hold a frame with its place in the list and those of its labels that are well formed."""

    index: int
    atoms: Atoms
    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None


def spread(n: int, most: int) -> list[int]:
    """Return at most `most` of the indices below n, spread evenly, two neighbours at each place."""
    if n <= most:
        return list(range(n))
    starts = np.linspace(0, n - 2, most // 2).astype(np.int64).tolist()
    return sorted({index for start in starts for index in (start, start + 1)})


def correlation_of(energies: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the correlation about zero and the slope, energies over expected, errors in both."""
    squares, others = float(energies @ energies), float(expected @ expected)
    if not squares or not others:
        return 0.0, 0.0
    correlation = float(energies @ expected) / np.sqrt(squares * others)
    return correlation, float(np.sign(correlation) * np.sqrt(squares / others))


class PairForces:
    """Hold neighbours in a few of the frames, for what forces along pairs of atoms say."""

    def __init__(self, frames: list[Labelled]) -> None:
        self.sample = self._chosen(frames)
        self.pairs: NeighborList | None = None
        if not self.sample:
            return
        try:
            self.frames = Frames.from_atoms([frame.atoms for frame in self.sample])
            self.pairs = neighbor_list(self.frames, self._cutoff())
        except ValueError:  # atoms in one place, a flat cell: what reads the frames names them
            return
        self.forces = np.concatenate([np.asarray(frame.forces) for frame in self.sample])
        self.distances = np.linalg.norm(self.pairs.vectors, axis=1)
        self.kinds, self.kind = np.unique(self.frames.numbers, return_inverse=True)
        n_kinds = len(self.kinds)
        first, second = self.kind[self.pairs.centers], self.kind[self.pairs.neighbors]
        self.types = np.minimum(first, second) * n_kinds + np.maximum(first, second)

    @staticmethod
    def _chosen(frames: list[Labelled]) -> list[Labelled]:
        """Return frames with forces that are not all zero, few enough for a quick fit."""
        moving = [frame for frame in frames if frame.forces is not None and frame.forces.any()]
        if len(moving) < MODEL_FRAMES[0]:
            return []
        atoms = np.mean([len(frame.atoms) for frame in moving])
        if atoms * MODEL_FRAMES[0] > MODEL_ATOMS[1]:
            return []
        n = int(np.clip(MODEL_ATOMS[0] / atoms, *MODEL_FRAMES))
        return [moving[k] for k in spread(len(moving), n)]

    def _cutoff(self) -> float:
        """Return a cutoff, Å, within which atoms have no more than about 150 neighbours."""
        periodic = self.frames.pbc.all(axis=1)
        if not periodic.any():
            return REACH
        volumes = np.abs(np.linalg.det(self.frames.cells[periodic]))
        density = float(np.median(self.frames.counts[periodic] / volumes))
        return float(min(REACH, (3 * NEIGHBORS / (4 * np.pi * density)) ** (1 / 3)))

    def fitted_energies(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (F,) energies and those of a pair potential fitted to the forces alone, eV, both
        without reference energies of the elements; None where that says nothing."""
        if self.fit is None or any(frame.energy is None for frame in self.sample):
            return None
        energies = np.array([frame.energy for frame in self.sample])
        return self._without_elements(energies), self._without_elements(self._energies(*self.fit))

    def fitted_stresses(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (k, 6) stresses and those of the same pair potential, eV/Å³, each less the median
        of the frames of one composition; None where that says nothing."""
        known = [k for k, frame in enumerate(self.sample) if frame.stress is not None]
        known = [k for k in known if not np.isnan(self.frames.volumes[k])]
        if self.fit is None or self.pairs is None or not known:
            return None
        r = self.pairs.vectors
        weights = self._slopes(*self.fit) / self.distances / 2
        of_pairs = [weights * r[:, a] * r[:, b] for a, b in VOIGT]
        n = len(self.frames)
        virials = [np.bincount(self._frame_of_pair, one, minlength=n) for one in of_pairs]
        fitted = np.stack(virials, axis=1)[known] / self.frames.volumes[known, None]
        labels: Any = [self.sample[k].stress for k in known]
        stresses = np.array(labels)
        counts = composition(self.frames.numbers, self.frames.counts, self.kinds)[known]
        shares = np.round(counts / counts.sum(axis=1, keepdims=True), 6)
        groups = np.unique(shares, axis=0, return_inverse=True)[1].reshape(-1)
        for group in np.unique(groups):
            rows = groups == group
            stresses[rows] -= np.median(stresses[rows], axis=0)
            fitted[rows] -= np.median(fitted[rows], axis=0)
        return stresses, fitted

    @cached_property
    def fit(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return a pair potential that is fitted to the forces alone; None where that says nothing.

        (pulls, types, place): slopes (types, INTERVALS), eV/Å; the type of each pair, and its place
        among the nodes. The slope of the potential of each pair of elements is piecewise linear.
        """
        if self.pairs is None or not len(self.distances) or not np.ptp(self.distances):
            return None
        names, types = np.unique(self.types, return_inverse=True)
        columns = len(names) * INTERVALS
        if columns * 10 > self.forces.size:
            return None
        start, width = self.distances.min(), np.ptp(self.distances) / INTERVALS
        place = np.minimum((self.distances - start) / width, INTERVALS - 1e-9)
        node = place.astype(np.int64)
        upper = place - node
        directions = self.pairs.vectors / self.distances[:, None]
        # Force on the central atom by a pull of 1 eV/Å at each node; at the last node it is zero.
        design = np.zeros((3, self.frames.n_atoms * columns))
        for nodes, weight in ((node, 1 - upper), (node + 1, upper)):
            inside = nodes < INTERVALS
            cells = self.pairs.centers * columns + types * INTERVALS + nodes
            for axis in range(3):
                design[axis] += np.bincount(
                    cells[inside],
                    weights=(weight * directions[:, axis])[inside],
                    minlength=design.shape[1],
                )
        matrix = design.reshape(-1, columns)
        target = self.forces.T.ravel()
        pulls = least_squares(matrix, target)
        left = target - matrix @ pulls
        if 1 - (left @ left) / (target @ target) < EXPLAINED:
            return None
        return pulls.reshape(-1, INTERVALS), types, place

    def _energies(self, pulls: np.ndarray, types: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return (F,) energies, eV, of the slopes of `fit`, integrated from where they end."""
        width = np.ptp(self.distances) / INTERVALS
        fine = np.linspace(0, INTERVALS, 50 * INTERVALS + 1)
        of_pairs = np.zeros(len(self.distances))
        for kind, slopes in enumerate(pulls):
            slope = np.interp(fine, np.arange(INTERVALS + 1), [*slopes, 0.0])
            steps = (slope[1:] + slope[:-1]) / 2 * (fine[1] - fine[0]) * width
            potential = np.append(0.0, np.cumsum(steps)) - steps.sum()
            here = types == kind
            of_pairs[here] = np.interp(place[here], fine, potential)
        return np.bincount(self._frame_of_pair, of_pairs / 2, minlength=len(self.frames))

    def _slopes(self, pulls: np.ndarray, types: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return (P,) the slope of the potential of `fit`, eV/Å, for each pair."""
        slopes = np.column_stack([pulls, np.zeros(len(pulls))])
        node = place.astype(np.int64)
        upper = place - node
        return (1 - upper) * slopes[types, node] + upper * slopes[types, node + 1]

    @property
    def _frame_of_pair(self) -> np.ndarray:
        pairs: Any = self.pairs
        return self.frames.frame_of_atom[pairs.centers]

    def _without_elements(self, energies: np.ndarray) -> np.ndarray:
        """Return the energies less the reference energies of the elements, each frame weighted by
        the root of its size."""
        counts = composition(self.frames.numbers, self.frames.counts, self.kinds)
        weights = 1 / np.sqrt(self.frames.counts)
        scaled = counts * weights[:, None]
        return energies * weights - scaled @ np.linalg.lstsq(scaled, energies * weights)[0]

    def wrong_sign(self) -> str | None:
        """Return a warning where atoms that come near their nearest neighbour are pulled to it."""
        types, stretches, pushes = self._nearest()
        many = [kind for kind in np.unique(types) if (types == kind).sum() >= MODEL_FRAMES[0]]
        if not many:
            return None
        x = np.concatenate([_centred(stretches[types == kind]) for kind in many])
        y = np.concatenate([_centred(pushes[types == kind]) for kind in many])
        correlation = correlation_of(y, x)[0]
        if correlation < 0.5:
            return None
        return (
            f"the forces look like gradients: over {len(x)} pairs of nearest atoms, the nearer two "
            f"are, the more they pull each other together (correlation {correlation:.2f}, which "
            "should be negative); multiply the forces by -1"
        )

    def stiffness(self) -> float | None:
        """Return the force constant of bonds of hydrogen to C, N and O, eV/Å², of either sign; None
        where there are too few."""
        types, lengths, pushes = self._nearest()
        x, y = [], []
        for kind in np.unique(types):
            one, other = (self.kinds[place] for place in divmod(int(kind), len(self.kinds)))
            bonds = (types == kind) & (lengths < HYDROGEN_BOND)
            if one == 1 and other in (6, 7, 8) and bonds.sum() >= MODEL_FRAMES[0]:
                x.append(_centred(lengths[bonds]))
                y.append(_centred(pushes[bonds]))
        if not x:
            return None
        length, push = np.concatenate(x), np.concatenate(y)
        if abs(correlation_of(push, length)[0]) < 0.7:
            return None
        return float(abs(push @ length) / (length @ length))

    def _nearest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return kinds of pair, distances (Å) and forces apart (eV/Å) of each atom and its
        nearest."""
        if self.pairs is None:
            return (np.empty(0),) * 3
        order = np.lexsort((self.distances, self.pairs.centers))
        centers, first = np.unique(self.pairs.centers[order], return_index=True)
        pair = order[first]
        difference = self.forces[self.pairs.neighbors[pair]] - self.forces[centers]
        push = np.einsum("pk,pk->p", difference, self.pairs.vectors[pair])
        return self.types[pair], self.distances[pair], push / self.distances[pair] / 2


def _centred(values: np.ndarray) -> np.ndarray:
    return values - np.median(values)


def least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return least-squares coefficients, damped where the data do not determine them."""
    square = matrix.T @ matrix
    scale = np.sqrt(np.diag(square))
    scale = np.where(scale > 1e-8 * scale.max(), scale, np.inf)
    square = square / scale[:, None] / scale + 1e-6 * np.eye(len(square))
    return np.linalg.solve(square, matrix.T @ target / scale) / scale
