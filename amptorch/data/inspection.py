"""Look for wrong units and signs in labelled structures, before any training."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.units import GPa

from amptorch.data.copies import SAME, atoms_key, repeated_warning
from amptorch.data.corrections import composition
from amptorch.data.pair_forces import Labelled, PairForces, correlation_of, least_squares, spread
from amptorch.data.units import FORCE_UNITS, STIFFNESS, likely_units
from amptorch.labels import stress_of

# Frames that are looked at, spread evenly, and frames of one composition that are paired.
SAMPLE, PAIRED = 500, 60
# Å: no atom of a pair of frames moves farther. Pairs: at least, at most the nearest.
FARTHEST_MOVE, FEWEST_PAIRS, MOST_PAIRS = 1.0, 8, 200
# Correlation of energies with the work of the forces from which on the slope says something, and
# the slopes that pass. Real data reach 0.997 and 0.8 to 1.3.
SURE, SLOPES = 0.9, (0.65, 1.55)
# Slopes of total energies of dynamics, over a frame at rest: twice as much, by equipartition.
KINETIC = (1.7, 2.4)
# The same for a pair potential fitted to the forces, which is a cruder measure.
SURE_OF_MODEL, SLOPES_OF_MODEL = 0.8, (0.2, 5.0)
# eV/Å: rms forces outside this range are no forces of a training set.
FORCES = (1e-3, 1e3)
# A force that is larger, in eV/Å and in rms forces of the median frame, is of an exploded frame.
LARGE_FORCE, MANY_TIMES = 200.0, 100
# Sum of the forces of a frame: share of what chance would give, and eV/Å.
FORCE_SUM, LEAST_SUM = 0.1, 0.05
# eV/Å³, the median of the largest component of a stress (48 GPa).
LARGE_STRESS = 0.3
# The same (160 GPa), from which on they are not trained on where the forces say nothing of them.
TOO_LARGE_STRESS = 1.0
# Correlation of stresses with those of a pair potential from which on it says something.
SURE_OF_STRESS = 0.6
SHEARS = ("yz", "xz", "xy")
# An energy this far off, in eV/atom and in median absolute deviations, is a gross outlier.
OUTLIER, DEVIATIONS = 1.0, 20


def inspect_frames(images: Sequence[Atoms], order: bool = True) -> list[str]:
    """Return warnings about labels that look wrong, each with its number and what to do about it;
    an empty list where nothing does.

    order : look at stresses too, as `wrong_stresses` does
    images : frames; `atoms.calc.results` may hold "energy" (eV) and "forces" (n, 3) (eV/Å), and
        stresses (eV/Å³) are found as by `stress_of`; whatever is missing or not finite is passed
        over

    Checked are: whether energies differ, and fit the forces in units and sign, the size of forces
    and stresses, whether stresses fit the forces in sign and order, sums of forces, energies far
    from all others, and frames that are there twice. Of more than 500 frames that many are looked
    at, spread evenly; duplicates are sought among all. Nothing is computed with a calculator, and
    nothing is raised.
    """
    frames, usual, outliers = _looked_at(images)
    mismatch = _energies_against_forces(usual)
    found = [
        _same_energies(frames),
        _force_sizes(frames),
        mismatch,
        _force_sums(frames),
        (_wrong_stresses(usual) if order else None) or _large_stresses(frames),
        # In a wrong unit energies seem farther from each other than they are.
        None if mismatch else _outlier_warning(outliers, len(frames)),
        repeated_warning(images),
    ]
    return [warning for warning in found if warning]


def wrong_stresses(images: Sequence[Atoms]) -> str | None:
    """Return a warning where stresses are in another unit or have another sign than ASE's, or their
    shears another order: they go against a pair potential that is fitted to the forces, or are
    large where none can be fitted."""
    return _wrong_stresses(_looked_at(images)[1])


def _looked_at(
    images: Sequence[Atoms],
) -> tuple[list[Labelled], list[Labelled], list[tuple[Labelled, float]]]:
    """Return the frames that are looked at, those of them with usual energies, and the others."""
    frames = [_labelled(k, images[k]) for k in spread(len(images), SAMPLE)]
    outliers = _outliers(frames)
    far = {frame.index for frame, _ in outliers}
    return frames, [frame for frame in frames if frame.index not in far], outliers


def _labelled(index: int, atoms: Atoms) -> Labelled:
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
    return Labelled(index, atoms, None if energy is None else float(energy), forces, stress)


def _same_energies(frames: list[Labelled]) -> str | None:
    """Return a warning where frames have forces, and all one energy: then these are no energies."""
    known = [(f.energy, f.forces.tobytes()) for f in frames if f.forces is not None]
    energies = {energy for energy, _ in known if energy is not None}
    if len(energies) != 1 or len({forces for _, forces in known}) < FEWEST_PAIRS:
        return None
    return (
        f"the energies are all {energies.pop():g} eV, which cannot be with these forces; in a dump "
        "of LAMMPS, which has none, ASE makes them 0 (and elements H, He, … of the types 1, 2, …)"
    )


def _force_sizes(frames: list[Labelled]) -> str | None:
    sizes = {
        frame.index: (float(np.sqrt(np.mean(frame.forces**2))), float(np.abs(frame.forces).max()))
        for frame in frames
        # Frames at rest by symmetry have forces of exactly zero, and are right.
        if frame.forces is not None and frame.forces.any()
    }
    if not sizes:
        return None
    rms = float(np.median([size for size, _ in sizes.values()]))
    if not FORCES[0] <= rms <= FORCES[1]:
        size = "small" if rms < FORCES[0] else "large"
        return (
            f"the forces are very {size}: their root mean square is {rms:.2g} eV/Å in the median "
            "frame, that of most training sets between 0.05 and 5; check that they are in eV/Å"
        )
    limit = max(LARGE_FORCE, MANY_TIMES * rms)
    found = [(largest, k) for k, (_, largest) in sizes.items() if largest > limit]
    if not found:
        return None
    named = ", ".join(f"frame {k} ({largest:.3g} eV/Å)" for largest, k in sorted(found)[:-4:-1])
    return (
        f"{len(found)} of {len(frames)} frames have forces far larger than all others, whose root "
        f"mean square is {rms:.2g} eV/Å: {named}{' and more' if len(found) > 3 else ''}. A "
        "training fits these before all others: leave them out, unless they are what it is for"
    )


def _energies_against_forces(frames: list[Labelled]) -> str | None:
    """Return a warning where energies and forces do not fit each other in unit or sign."""
    neighbors = PairForces(frames)
    stiffness = neighbors.stiffness()
    energies, work = _pairs_of_frames(frames)
    correlation, slope = correlation_of(energies, work)
    if len(energies) >= FEWEST_PAIRS and abs(correlation) >= SURE:
        of = f"the work of the forces ({len(energies)} pairs of similar frames)"
        atoms = float(np.median([len(frame.atoms) for frame in frames]))
        warning = _mismatch(slope, SLOPES, of, 1.3, stiffness, atoms)
    else:
        fitted = neighbors.fitted_energies()
        correlation, slope = (0.0, 0.0) if fitted is None else correlation_of(*fitted)
        if fitted is None or abs(correlation) < SURE_OF_MODEL:
            return neighbors.wrong_sign() or _soft_or_stiff(stiffness)
        of = f"what a pair potential fitted to the forces gives ({len(fitted[0])} frames)"
        warning = _mismatch(slope, SLOPES_OF_MODEL, of, 1.6, stiffness, None)
    return warning or _soft_or_stiff(stiffness)


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
        if right is SLOPES and KINETIC[0] < slope < KINETIC[1]:
            advice += ", or energies that include the kinetic energy of dynamics"
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


def _pairs_of_frames(frames: list[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Return (P,) differences in energy and (P,) the work of the forces, eV, of the pairs of frames
    of the same atoms and cell that are nearest to each other.

    ΔE ≈ −½ Σ (F_i + F_j)·(r_j − r_i), which is exact in a harmonic potential.
    """
    groups: dict[bytes, list[Labelled]] = {}
    for frame in frames:
        if frame.energy is not None and frame.forces is not None:
            groups.setdefault(atoms_key(frame.atoms), []).append(frame)
    found = [np.empty((0, 3))]
    for group in groups.values():
        found += _pairs_of_group([group[k] for k in spread(len(group), PAIRED)], len(group))
        if len(group) > PAIRED:
            found += _pairs_of_group(group, 2)
    move, energies, work = np.concatenate(found).T
    nearest = np.argsort(move, kind="stable")[:MOST_PAIRS]
    return energies[nearest], work[nearest]


def _pairs_of_group(group: list[Labelled], farthest: int) -> Iterator[np.ndarray]:
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


def _force_sums(frames: list[Labelled]) -> str | None:
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


def _wrong_stresses(frames: list[Labelled]) -> str | None:
    if not any(frame.stress is not None for frame in frames):
        return None
    found = PairForces(frames).fitted_stresses()
    if found is None or len(found[0]) < FEWEST_PAIRS:
        return _large_stresses(frames, TOO_LARGE_STRESS)
    return _stress_order(*found, _large_stresses(frames))


def _large_stresses(frames: list[Labelled], limit: float = LARGE_STRESS) -> str | None:
    largest = [np.abs(frame.stress).max() for frame in frames if frame.stress is not None]
    median = float(np.median(largest)) if largest else 0.0
    if median <= limit:
        return None
    return (
        f"the stresses are large: the largest component of a frame is {median:.3g} eV/Å³ in the "
        f"median, which is {median / GPa:.3g} GPa. If they are in GPa, divide them by "
        f"{1 / GPa:.1f} (kbar: {10 / GPa:.0f})"
    )


def _stress_order(stresses: np.ndarray, fitted: np.ndarray, large: str | None) -> str | None:
    """Return a warning where stresses (k, 6) have another sign, size or order than those of a pair
    potential that is fitted to the forces; `large` is that of their size."""
    axial, slope = correlation_of(stresses[:, :3].ravel(), fitted[:, :3].ravel())
    if axial < -SURE_OF_STRESS:
        return (
            f"the stresses have the wrong sign: they go against those of a pair potential fitted "
            f"to the forces ({len(stresses)} frames, correlation {axial:.2f}); multiply them by "
            "-1. ASE's are positive under tension; VASP's and virials are not"
        )
    # Of matter under high pressure they are large and right.
    if large and not (axial > SURE_OF_STRESS and slope < SLOPES_OF_MODEL[1]):
        return large
    # By the places at which a label would have ASE's shears.
    shear = {
        order: correlation_of(stresses[:, order].ravel(), fitted[:, 3:].ravel())[0]
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


def _outliers(frames: list[Labelled]) -> list[tuple[Labelled, float]]:
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
        solution = least_squares(shares * weights[:, None], energies * weights)
        off = energies - shares @ solution
    off -= np.median(off)
    limit = max(OUTLIER, DEVIATIONS * float(np.median(np.abs(off))))
    return [(known[k], float(off[k])) for k in np.argsort(-np.abs(off)) if abs(off[k]) > limit]


def _outlier_warning(outliers: list[tuple[Labelled, float]], n_frames: int) -> str | None:
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
