"""Look for wrong units and signs in labelled structures, before any training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import GPa

from amptorch.data.copies import SAME, atoms_key, repeated_warning
from amptorch.data.corrections import composition
from amptorch.data.units import FORCE_UNITS, STIFFNESS, likely_units
from amptorch.frames import Frames
from amptorch.labels import stress_of
from amptorch.neighbors import NeighborList, neighbor_list

# Frames that are looked at, spread evenly, and frames of one composition that are paired.
SAMPLE, PAIRED = 500, 60
# Å: no atom of a pair of frames moves farther. Pairs: at least, at most the nearest.
FARTHEST_MOVE, FEWEST_PAIRS, MOST_PAIRS = 1.0, 8, 200
# Correlation of energies with the work of the forces from which on the slope says something, and
# the slopes that pass. Real data reach 0.997 and 0.8 to 1.3.
SURE, SLOPES = 0.9, (0.65, 1.55)
# The same for a pair potential fitted to the forces, which is a cruder measure; the share of the
# forces that it must explain; Å, its reach; its intervals, and neighbours of an atom at most.
SURE_OF_MODEL, SLOPES_OF_MODEL, EXPLAINED = 0.8, (0.2, 5.0), 0.5
REACH, INTERVALS, NEIGHBORS = 5.0, 20, 150
# Frames and atoms for that fit.
MODEL_FRAMES, MODEL_ATOMS = (20, 80), (4_000, 20_000)
# Å, the longest bond of hydrogen to C, N or O.
HYDROGEN_BOND = 1.3
# eV/Å: rms forces outside this range are no forces of a training set.
FORCES = (1e-3, 1e3)
# Sum of the forces of a frame: share of what chance would give, and eV/Å.
FORCE_SUM, LEAST_SUM = 0.1, 0.05
# eV/Å³, the median of the largest component of a stress (48 GPa).
LARGE_STRESS = 0.3
# Correlation of stresses with those of a pair potential from which on it says something.
SURE_OF_STRESS = 0.6
SHEARS = ("yz", "xz", "xy")
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
# An energy this far off, in eV/atom and in median absolute deviations, is a gross outlier.
OUTLIER, DEVIATIONS = 1.0, 20


@dataclass(frozen=True)
class _Labelled:
    """Hold a frame with its place in the list and those of its labels that are well formed."""

    index: int
    atoms: Atoms
    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None


def inspect_frames(images: Sequence[Atoms]) -> list[str]:
    """Return warnings about labels that look wrong, each with its number and what to do about it;
    an empty list where nothing does.

    images : frames; `atoms.calc.results` may hold "energy" (eV) and "forces" (n, 3) (eV/Å), and
        stresses (eV/Å³) are found as by `stress_of`; whatever is missing or not finite is passed
        over

    Checked are: whether energies and forces fit each other in units and sign, the size of forces
    and stresses, whether stresses fit the forces in sign and order, sums of forces, energies far
    from all others, and frames that are there twice. Of more than 500 frames that many are looked
    at, spread evenly; duplicates are sought among all. Nothing is computed with a calculator, and
    nothing is raised.
    """
    frames = [_labelled(k, images[k]) for k in _spread(len(images), SAMPLE)]
    outliers = _outliers(frames)
    far = {frame.index for frame, _ in outliers}
    usual = [frame for frame in frames if frame.index not in far]
    mismatch = _energies_against_forces(usual)
    found = [
        _force_sizes(frames),
        mismatch,
        _force_sums(frames),
        _stresses(frames) or _stress_order(usual),
        # In a wrong unit energies seem farther from each other than they are.
        None if mismatch else _outlier_warning(outliers, len(frames)),
        repeated_warning(images),
    ]
    return [warning for warning in found if warning]


def _labelled(index: int, atoms: Atoms) -> _Labelled:
    """Return a frame with the labels that have the right shape and are finite."""
    results = getattr(atoms.calc, "results", None) or {}

    def label(name: str, *shapes: tuple[int, ...]) -> np.ndarray | None:
        try:
            value = np.asarray(results.get(name), dtype=np.float64)
        except (TypeError, ValueError):
            return None
        return value if value.shape in shapes and np.isfinite(value).all() else None

    usable = len(atoms) > 0 and np.isfinite(atoms.positions).all()
    usable = usable and np.isfinite(atoms.cell.array).all()
    energy = label("energy", ()) if usable else None
    forces = label("forces", (len(atoms), 3)) if usable else None
    try:
        stress = stress_of(atoms, index)
    except ValueError:  # what reads the frames names it
        stress = None
    return _Labelled(index, atoms, None if energy is None else float(energy), forces, stress)


def _spread(n: int, most: int) -> list[int]:
    """Return at most `most` of the indices below n, spread evenly, two neighbours at each place."""
    if n <= most:
        return list(range(n))
    starts = np.linspace(0, n - 2, most // 2).astype(np.int64).tolist()
    return sorted({index for start in starts for index in (start, start + 1)})


def _force_sizes(frames: list[_Labelled]) -> str | None:
    forces = [frame.forces.ravel() for frame in frames if frame.forces is not None]
    if not forces:
        return None
    rms = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    # Frames at rest by symmetry have forces of exactly zero, and are right.
    if rms == 0 or FORCES[0] <= rms <= FORCES[1]:
        return None
    size = "small" if rms < FORCES[0] else "large"
    return (
        f"the forces are very {size}: their root mean square is {rms:.2g} eV/Å, that of most "
        "training sets between 0.05 and 5; check that they are in eV/Å"
    )


def _energies_against_forces(frames: list[_Labelled]) -> str | None:
    """Return a warning where energies and forces do not fit each other in unit or sign."""
    neighbors = _Neighbors(frames)
    stiffness = neighbors.stiffness()
    energies, work = _pairs_of_frames(frames)
    correlation, slope = _correlation(energies, work)
    if len(energies) >= FEWEST_PAIRS and abs(correlation) >= SURE:
        of = f"the work of the forces ({len(energies)} pairs of similar frames)"
        atoms = float(np.median([len(frame.atoms) for frame in frames]))
        warning = _mismatch(slope, SLOPES, of, 1.3, stiffness, atoms)
    else:
        fitted = neighbors.fitted_energies()
        correlation, slope = (0.0, 0.0) if fitted is None else _correlation(*fitted)
        if fitted is None or abs(correlation) < SURE_OF_MODEL:
            return neighbors.wrong_sign() or _soft_or_stiff(stiffness)
        of = f"what a pair potential fitted to the forces gives ({len(fitted[0])} frames)"
        warning = _mismatch(slope, SLOPES_OF_MODEL, of, 1.6, stiffness, None)
    return warning or _soft_or_stiff(stiffness)


def _correlation(energies: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the correlation about zero and the slope, energies over expected, errors in both."""
    squares, others = float(energies @ energies), float(expected @ expected)
    if not squares or not others:
        return 0.0, 0.0
    correlation = float(energies @ expected) / np.sqrt(squares * others)
    return correlation, float(np.sign(correlation) * np.sqrt(squares / others))


def _mismatch(
    slope: float,
    right: tuple[float, float],
    of: str,
    trust: float,
    stiffness: float | None,
    atoms: float | None,
) -> str | None:
    """Return the warning for a slope outside of the range `right`; None for one inside.

    of : what the energies are compared with; trust : factor by which the slope may be off
    """
    if right[0] <= slope <= right[1]:
        return None
    if right[0] <= abs(slope) <= right[1]:
        advice = "the forces look like gradients, multiply them by -1"
    else:
        units = " or ".join(likely_units(abs(slope), trust, stiffness, atoms)[:3])
        advice = f"this looks like {units}" if units else "check the units of both"
        if slope < 0:
            advice += ", and forces with the wrong sign"
    return (
        f"energies and forces do not belong together: differences of energy are {slope:.3g} times "
        f"{of}, where about 1 is right; {advice}. Energies must be in eV and forces in eV/Å"
    )


def _soft_or_stiff(stiffness: float | None) -> str | None:
    """Return a warning where bonds of hydrogen are much softer or stiffer than in any molecule."""
    if stiffness is None or STIFFNESS[0] <= stiffness <= STIFFNESS[1]:
        return None
    near = [
        unit for unit, factor in FORCE_UNITS.items() if abs(np.log(stiffness / (35 * factor))) < 0.8
    ]
    unit = f"; this looks like {' or '.join(near)}" if near else ""
    return (
        f"forces look wrong by a factor: bonds of hydrogen to C, N or O have a force constant of "
        f"{stiffness:.2g}, in molecules it is 25 to 60 eV/Å²{unit}. Forces must be in eV/Å (and "
        "energies in eV)"
    )


def _pairs_of_frames(frames: list[_Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Return (P,) differences in energy and (P,) the work of the forces, eV, of the pairs of frames
    of the same atoms and cell that are nearest to each other.

    ΔE ≈ −½ Σ (F_i + F_j)·(r_j − r_i), which is exact in a harmonic potential.
    """
    groups: dict[bytes, list[_Labelled]] = {}
    for frame in frames:
        if frame.energy is not None and frame.forces is not None:
            groups.setdefault(atoms_key(frame.atoms), []).append(frame)
    found = [np.empty((0, 3))]
    for group in groups.values():
        found += _pairs_of_group([group[k] for k in _spread(len(group), PAIRED)], len(group))
        if len(group) > PAIRED:
            found += _pairs_of_group(group, 2)
    move, energies, work = np.concatenate(found).T
    nearest = np.argsort(move, kind="stable")[:MOST_PAIRS]
    return energies[nearest], work[nearest]


def _pairs_of_group(group: list[_Labelled], farthest: int) -> Iterator[np.ndarray]:
    """Yield rows (largest move, ΔE, work) of pairs of frames, up to `farthest` apart in the list;
    all have the same atoms."""
    positions = np.array([frame.atoms.positions for frame in group])
    cells = np.array([frame.atoms.cell.array for frame in group])
    full = np.array([frame.atoms.cell.complete().array for frame in group])
    energies = np.array([frame.energy for frame in group], dtype=np.float64)
    forces = np.array([frame.forces for frame in group])
    periodic = group[0].atoms.pbc
    for apart in range(1, min(len(group), farthest + 1)):
        near = np.flatnonzero(np.abs(cells[apart:] - cells[:-apart]).max(axis=(1, 2)) < 1e-3)
        if not len(near):
            continue
        moves = positions[near + apart] - positions[near]
        if periodic.any():
            scaled = moves @ np.linalg.inv(full[near])
            moves = (scaled - np.round(scaled) * periodic) @ full[near]
        moves -= moves.mean(axis=1, keepdims=True)
        work = -0.5 * np.einsum("pik,pik->p", forces[near] + forces[near + apart], moves)
        move = np.sqrt((moves**2).sum(axis=2).max(axis=1))
        rows = np.stack([move, energies[near + apart] - energies[near], work], axis=1)
        yield rows[(move < FARTHEST_MOVE) & (move > SAME)]


class _Neighbors:
    """Hold neighbours in a few of the frames, for what forces along pairs of atoms say."""

    def __init__(self, frames: list[_Labelled]) -> None:
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
    def _chosen(frames: list[_Labelled]) -> list[_Labelled]:
        """Return frames with forces that are not all zero, few enough for a quick fit."""
        moving = [frame for frame in frames if frame.forces is not None and frame.forces.any()]
        if len(moving) < MODEL_FRAMES[0]:
            return []
        atoms = np.mean([len(frame.atoms) for frame in moving])
        if atoms * MODEL_FRAMES[0] > MODEL_ATOMS[1]:
            return []
        n = int(np.clip(MODEL_ATOMS[0] / atoms, *MODEL_FRAMES))
        return [moving[k] for k in _spread(len(moving), n)]

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
        """(pulls, types, place): slopes (types, INTERVALS), eV/Å, of a pair potential fitted to the
        forces alone, the type of each pair, and its place among the nodes; None where that says
        nothing. The slope of the potential of each pair of elements is piecewise linear.
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
        pulls = _least_squares(matrix, target)
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
        correlation = _correlation(y, x)[0]
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
        if abs(_correlation(push, length)[0]) < 0.7:
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


def _least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return least-squares coefficients, damped where the data do not determine them."""
    square = matrix.T @ matrix
    scale = np.sqrt(np.diag(square))
    scale = np.where(scale > 1e-8 * scale.max(), scale, np.inf)
    square = square / scale[:, None] / scale + 1e-6 * np.eye(len(square))
    return np.linalg.solve(square, matrix.T @ target / scale) / scale


def _force_sums(frames: list[_Labelled]) -> str | None:
    worst, total, bad = None, 0.0, 0
    tested = 0
    for frame in frames:
        forces = frame.forces
        if forces is None or len(forces) < 2 or frame.atoms.constraints:
            continue
        if (forces == 0).all(axis=1).any():
            continue
        tested += 1
        largest = float(np.abs(forces.sum(axis=0)).max())
        chance = np.sqrt(np.mean(forces**2) * len(forces))
        if largest > max(FORCE_SUM * chance, LEAST_SUM):
            bad += 1
            if largest > total:
                worst, total = frame.index, largest
    if worst is None:
        return None
    return (
        f"in {bad} of {tested} frames the forces do not add up to zero; the largest sum is "
        f"{total:.3g} eV/Å in frame {worst}. Check that these are the forces of all atoms, without "
        "those of constraints or an external field"
    )


def _stresses(frames: list[_Labelled]) -> str | None:
    largest = [np.abs(frame.stress).max() for frame in frames if frame.stress is not None]
    median = float(np.median(largest)) if largest else 0.0
    if median <= LARGE_STRESS:
        return None
    return (
        f"the stresses are large: the largest component of a frame is {median:.3g} eV/Å³ in the "
        f"median, which is {median / GPa:.3g} GPa. If they are in GPa, divide them by "
        f"{1 / GPa:.1f} (kbar: {10 / GPa:.0f})"
    )


def _stress_order(frames: list[_Labelled]) -> str | None:
    """Return a warning where stresses have another sign or order than a pair potential that is
    fitted to the forces."""
    if not any(frame.stress is not None for frame in frames):
        return None
    found = _Neighbors(frames).fitted_stresses()
    if found is None or len(found[0]) < FEWEST_PAIRS:
        return None
    stresses, fitted = found
    axial = _correlation(stresses[:, :3].ravel(), fitted[:, :3].ravel())[0]
    if axial < -SURE_OF_STRESS:
        return (
            f"the stresses have the wrong sign: they go against those of a pair potential fitted "
            f"to the forces ({len(stresses)} frames, correlation {axial:.2f}); multiply them by "
            "-1. ASE's are positive under tension; VASP's and virials are not"
        )
    # By the places at which a label would have ASE's shears.
    shear = {
        order: _correlation(stresses[:, order].ravel(), fitted[:, 3:].ravel())[0]
        for order in permutations((3, 4, 5))
    }
    best = max(shear, key=shear.__getitem__)
    right = shear[3, 4, 5]
    if axial < 0 or shear[best] < SURE_OF_STRESS or right > 0.6 * shear[best]:
        return None
    names = " ".join(SHEARS[best.index(place)] for place in (3, 4, 5))
    return (
        f"the shears of the stresses look as if they were in the order {names}: so they correlate "
        f"with those of a pair potential fitted to the forces ({len(stresses)} frames) by "
        f"{shear[best]:.2f}, and in ASE's order, {' '.join(SHEARS)}, by {right:.2f}; bring them "
        "into ASE's order"
    )


def _outliers(frames: list[_Labelled]) -> list[tuple[_Labelled, float]]:
    """Return frames with an energy far from what their elements have elsewhere, and by how much,
    eV/atom; the farthest first."""
    # A lone atom is not bound, and is a reference that people put there on purpose.
    known = [frame for frame in frames if frame.energy is not None and len(frame.atoms) > 1]
    if len(known) < 4:
        return []
    numbers = np.concatenate([frame.atoms.numbers for frame in known])
    counts = np.array([len(frame.atoms) for frame in known])
    shares = composition(numbers, counts, np.unique(numbers)) / counts[:, None]
    energies = np.array([frame.energy for frame in known], dtype=np.float64) / counts
    energies -= np.median(energies)
    off = energies
    # Least absolute deviations by weights: outliers do not draw the reference energies to them.
    for _ in range(10):
        weights = 1 / np.sqrt(np.maximum(np.abs(off), 1e-3))
        solution = _least_squares(shares * weights[:, None], energies * weights)
        off = energies - shares @ solution
    off -= np.median(off)
    limit = max(OUTLIER, DEVIATIONS * float(np.median(np.abs(off))))
    return [(known[k], float(off[k])) for k in np.argsort(-np.abs(off)) if abs(off[k]) > limit]


def _outlier_warning(outliers: list[tuple[_Labelled, float]], n_frames: int) -> str | None:
    if not outliers:
        return None
    named = ", ".join(
        f"frame {frame.index} ({frame.atoms.get_chemical_formula()}, {off:+.3g} eV/atom)"
        for frame, off in outliers[:3]
    )
    return (
        f"{len(outliers)} of {n_frames} frames have an energy far from all others, given what "
        f"their elements have elsewhere: {named}{' and more' if len(outliers) > 3 else ''}. Check "
        "whether these calculations converged and have the same settings, and leave them out if not"
    )
