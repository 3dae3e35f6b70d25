"""Tables of errors and times, and parity plots."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.units import GPa
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from amptorch.frames import Frames
from amptorch.metrics import error_statistics, rms

# A picture shows no more points than this, drawn at random from all.
MOST_POINTS = 20_000

# Keys of `Atoms.info` that name the kind of a frame, and rows of a table of groups.
GROUP_KEYS, MOST_GROUPS = ("config_type", "group"), 12
# A group of at least so many frames is fitted unfairly where its energy error is this many times
# the median group's, and more than so many meV/atom; an element, where its force error is this
# many times that of the others.
FEWEST_FRAMES, UNFAIR_ENERGY, LEAST_ENERGY, UNFAIR_FORCES = 3, 5.0, 20.0, 4.0


@dataclass(frozen=True)
class ErrorRow:
    """Hold root mean square and mean absolute error of a quantity, in `unit`, of `count` values."""

    quantity: str
    unit: str
    rmse: float
    mae: float
    count: int


def prediction_errors(frames: Frames, prediction: Mapping[str, Any]) -> list[ErrorRow]:
    """Return a row of errors for each quantity: energy (meV/atom), forces (eV/Å, per component),
    forces on each element, and stress (GPa, per component).

    frames: `amptorch.frames.Frames` with energies, and with forces and stresses where they are to
    be compared; prediction: what `AtomsTrainer.predict` or `Potential.predict` returned for the
    same structures. Without forces or stresses on either side there are no rows for them; frames
    without (NaN) are left out.
    """
    rows = [_error_row("energy", "meV/atom", 1000 * _energy_errors(frames, prediction))]
    return rows + _force_rows(frames, prediction) + _stress_rows(frames, prediction)


def _force_rows(frames: Frames, prediction: Mapping[str, Any]) -> list[ErrorRow]:
    difference = _force_errors(frames, prediction)
    if difference is None:
        return []
    known = ~np.isnan(difference[:, 0])
    difference, numbers = difference[known], frames.numbers[known]
    rows = [_error_row("forces", "eV/Å", difference)]
    symbols = {chemical_symbols[number]: number for number in np.unique(numbers)}
    for symbol in sorted(symbols):
        on_element = difference[numbers == symbols[symbol]]
        rows.append(_error_row(f"forces on {symbol}", "eV/Å", on_element))
    return rows


def _stress_rows(frames: Frames, prediction: Mapping[str, Any]) -> list[ErrorRow]:
    pair = _stresses(frames, prediction)
    return [] if pair is None else [_error_row("stress", "GPa", pair[1] - pair[0])]


def _stresses(
    frames: Frames, prediction: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return reference and predicted stresses (k, 6), GPa, of the frames that have both; None where
    there are none."""
    if frames.stress is None or "stress" not in prediction:
        return None
    predicted = np.array(prediction["stress"])
    known = np.isfinite(predicted + frames.stress).all(axis=1)
    return (frames.stress[known] / GPa, predicted[known] / GPa) if known.any() else None


def error_table(errors: Mapping[str, Sequence[ErrorRow]]) -> str:
    """Return a table of errors as text.

    errors: a dict from the name of a set of frames to its ErrorRows. A quantity that a set does not
    have, such as the forces on an element, is left empty there.
    """
    header = [("", "")] + [column for name in errors for column in ((name, "RMSE"), ("", "MAE"))]
    lines = [[top for top, _ in header], [bottom for _, bottom in header]]
    sets = [{f"{row.quantity} ({row.unit})": row for row in rows} for rows in errors.values()]
    for quantity in dict.fromkeys(name for rows in sets for name in rows):
        cells = [_cells(rows.get(quantity)) for rows in sets]
        lines.append([quantity, *(cell for pair in cells for cell in pair)])
    counts = [[row.count for row in rows[:1]] for rows in errors.values()]
    lines.append(["frames", *(str(cell) for count in counts for cell in (*count, ""))])
    return aligned(lines)


def group_table(
    images: Sequence[Atoms], frames: Frames, prediction: Mapping[str, Any], key: str | None = None
) -> str:
    """Return a table of errors for each group of frames, the worst energies first; an empty text
    where there is one group only.

    images : the Atoms that `frames` are of, in the same order; frames, prediction : as in
        `prediction_errors`; key : of `Atoms.info`, else "config_type", "group", the number of atoms
        or the composition, the first that tells frames apart

    Columns are frames, RMSE of the energy (meV/atom) and of the forces (eV/Å, per component). After
    11 groups all others are one row. Raises ValueError where `images` and `frames` do not have the
    same length, or no frame has `key`.
    """
    what, groups = _groups(images, frames, key)
    if len(groups) < 2:
        return ""
    energies = 1000 * _energy_errors(frames, prediction)
    forces = _force_errors(frames, prediction)
    ordered = sorted(groups.items(), key=lambda group: -rms(energies[group[1]]))
    if len(ordered) > MOST_GROUPS:
        rest = ordered[MOST_GROUPS - 1 :]
        others = (f"{len(rest)} others", np.concatenate([rows for _, rows in rest]))
        ordered = [*ordered[: MOST_GROUPS - 1], others]
    lines = [[what, "frames", "energy RMSE (meV/atom)", "forces RMSE (eV/Å)"]]
    for name, rows in ordered:
        of_atoms = np.empty(0) if forces is None else _known(forces[frames.atom_rows(rows)])
        cell = f"{rms(of_atoms):.3g}" if of_atoms.size else ""
        lines.append([name, str(len(rows)), f"{rms(energies[rows]):.4g}", cell])
    return aligned(lines if forces is not None else [line[:-1] for line in lines])


def worst_frames(frames: Frames, prediction: Mapping[str, Any], number: int = 3) -> str:
    """Return a line for each of the frames with the largest errors of energy: its index, and file
    where that is known, formula, error of the energy (meV/atom), largest error of a force (eV/Å)
    and the atom that has it.

    frames, prediction : as in `prediction_errors`; number : of frames
    """
    energies = 1000 * _energy_errors(frames, prediction)
    forces = _force_errors(frames, prediction)
    lines = []
    for frame in np.argsort(-np.abs(energies), kind="stable")[:number]:
        line = (
            f"frame {frames.name(frame)}, {_formula(frames, frame)}: energy off by "
            f"{energies[frame]:+.3g} meV/atom"
        )
        rows = frames.atom_rows([frame])
        sizes = np.zeros(0) if forces is None else np.linalg.norm(forces[rows], axis=1)
        if not np.isnan(sizes).all():
            atom = rows[np.nanargmax(sizes)]
            line += f", forces by up to {np.nanmax(sizes):.3g} eV/Å on atom {frames.place(atom)[1]}"
        lines.append(line)
    return "\n".join(lines)


def useless(frames: Frames, prediction: Mapping[str, Any], references: np.ndarray) -> list[str]:
    """Return warnings where predictions are no better than the simplest guess: the reference
    energies (F,), eV, of the frames' elements, or no forces at all; an empty list where they are.

    frames, prediction : as in `prediction_errors`
    """
    found = []
    error = 1000 * rms(_energy_errors(frames, prediction))
    alone = 1000 * rms((frames.energies - references) / frames.counts)
    if error >= alone:
        found.append(
            f"the energies are no better than the reference energies of the elements alone: "
            f"{error:.3g} meV/atom, and {alone:.3g} without any network"
        )
    forces = _force_errors(frames, prediction)
    if forces is not None and len(known := _known(forces)):
        error, alone = rms(known), rms(_known(np.asarray(frames.forces)))
        # By symmetry forces may all be zero, and predicted so.
        if error >= alone and error > 0:
            found.append(
                f"the forces are no better than none at all: {error:.3g} eV/Å, where their own "
                f"size is {alone:.3g}"
            )
    advice = "; more frames, or more time, are needed" if found else ""
    return [message + advice for message in found]


def unfair_groups(
    images: Sequence[Atoms], frames: Frames, prediction: Mapping[str, Any], key: str | None = None
) -> list[str]:
    """Return warnings where a group of frames or an element is fitted far worse than the rest; an
    empty list where none is.

    Arguments are those of `group_table`, and groups are looked for in the same way; frames of
    similar size are one more way. A group of three frames or more is named where its RMSE of the
    energy is above 20 meV/atom and five times that of the median group; an element, where the RMSE
    of its forces is four times that of the forces on all others.
    """
    energies = 1000 * _energy_errors(frames, prediction)
    found = []
    divisions = dict([_groups(images, frames, key), ("atoms", _by_size(frames))])
    for what, groups in divisions.items():
        errors = {
            name: rms(energies[rows]) for name, rows in groups.items() if len(rows) >= FEWEST_FRAMES
        }
        if len(errors) < 2:
            continue
        # The lower of the two in the middle, so that one of two groups can be far from the other.
        typical = sorted(errors.values())[(len(errors) - 1) // 2]
        for name, error in sorted(errors.items(), key=lambda item: -item[1]):
            if error > max(UNFAIR_ENERGY * typical, LEAST_ENERGY):
                found.append(
                    f"energies of the {len(groups[name])} frames with {what} {name} are off by "
                    f"{error:.3g} meV/atom, those of the median group by {typical:.3g}; more such "
                    "frames, or a larger weight of them, may help, if their labels are right"
                )
    return found + _unfair_elements(frames, prediction)


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise ValueError where the name of a picture does not end with a format that matplotlib
    writes, such as .png, .pdf or .svg."""
    ending = Path(path).suffix[1:].lower()
    if ending not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(
            f"no picture can be written to {str(path)!r}: its name must end with .png, .pdf or .svg"
        )


def parity_plot(
    path: str | os.PathLike[str], sets: Mapping[str, tuple[Frames, Mapping[str, Any]]]
) -> None:
    """Draw predicted against reference energies (eV/atom), forces (eV/Å) and stresses (GPa) into
    the file `path`, in the format that its name ends with; see `check_picture`.

    sets: a dict from the name of a set of frames to (frames, prediction) as in
    `prediction_errors`. Forces are drawn where all sets have some, and so are stresses. The drawing
    needs no display and leaves matplotlib's backend alone. At most 20,000 points, drawn at random,
    are shown of a set.
    """
    check_picture(path)
    energies = {name: _energies(*pair) for name, pair in sets.items()}
    drawn: list[tuple[str, str, Any]] = [("energy", "eV/atom", energies)]
    if all(_force_errors(*pair) is not None for pair in sets.values()):
        forces = {name: (f.forces, np.concatenate(p["forces"])) for name, (f, p) in sets.items()}
        drawn.append(("force", "eV/Å", forces))
    stresses = {name: _stresses(*pair) for name, pair in sets.items()}
    if None not in stresses.values():
        drawn.append(("stress", "GPa", stresses))
    figure = Figure(figsize=(4.8 * len(drawn), 4.6), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, (quantity, unit, pairs) in zip(panels, drawn, strict=True):
        draw_parity(panel, quantity, unit, pairs)
    figure.savefig(path, dpi=150)


def draw_parity(
    panel: Any,
    quantity: str,
    unit: str,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    colors: Mapping[str, str] | None = None,
) -> None:
    """Draw predicted against reference values into axes of matplotlib, with their RMSE.

    pairs: {name: (reference, predicted)} in `unit`, NaN where there is none; an RMSE of the
    quantity "energy", eV/atom, is shown in meV/atom. colors: {name: colour}, else matplotlib's
    """
    scale, small = (1000, "meV/atom") if quantity == "energy" else (1, unit)
    for name, (reference, predicted) in pairs.items():
        x, y = np.ravel(reference), np.ravel(predicted)
        errors = y - x
        label = f"{name}: RMSE {scale * rms(errors[np.isfinite(errors)]):.3g} {small}"
        if len(x) > MOST_POINTS:
            shown = np.random.default_rng(0).choice(len(x), MOST_POINTS, replace=False)
            x, y = x[shown], y[shown]
        style: dict[str, Any] = {"ms": 5 if len(x) < 1000 else 2, "color": (colors or {}).get(name)}
        panel.plot(x, y, ".", alpha=0.5, label=label, rasterized=True, **style)
    panel.axline((panel.dataLim.x0, panel.dataLim.x0), slope=1, color="0.4", lw=0.8, zorder=3)
    panel.set(xlabel=f"reference {quantity} ({unit})", ylabel=f"predicted {quantity} ({unit})")
    panel.legend(loc="upper left", frameon=False, fontsize="small")


class Stages:
    """Measure the wall times of the stages of a job: `with stages("training"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage `name`, also where it ends in an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def table(self) -> str:
        """Return a table of the stages, in the order of their first start, and their sum."""
        rows = [*self.seconds.items(), ("total", sum(self.seconds.values()))]
        return aligned([["stage", "seconds"], *([name, f"{value:.1f}"] for name, value in rows)])


def _unfair_elements(frames: Frames, prediction: Mapping[str, Any]) -> list[str]:
    """Return warnings of elements with forces fitted far worse than those on all others."""
    forces = _force_errors(frames, prediction)
    if forces is None:
        return []
    found = []
    for number in np.unique(frames.numbers):
        own = _known(forces[frames.numbers == number])
        others = _known(forces[frames.numbers != number])
        if own.size and others.size and rms(own) > UNFAIR_FORCES * rms(others):
            found.append(
                f"forces on {chemical_symbols[number]} are off by {rms(own):.3g} eV/Å, those on "
                f"other elements by {rms(others):.3g}; look at its symmetry functions and at how "
                f"many of its surroundings are in the training set ({len(own)} atoms here)"
            )
    return found


def _groups(
    images: Sequence[Atoms], frames: Frames, key: str | None
) -> tuple[str, dict[str, np.ndarray]]:
    """Return by what frames are told apart, and the rows of `frames` of each group."""
    if len(images) != len(frames):
        raise ValueError(f"{len(images)} images for {len(frames)} frames; they must be the same")
    if key is not None and not any(key in atoms.info for atoms in images):
        there = sorted({str(name) for atoms in images for name in atoms.info})
        raise ValueError(f"no frame has {key!r} in Atoms.info; there are {there}")
    for name in GROUP_KEYS if key is None else (key,):
        groups = _rows_of([str(atoms.info.get(name, "(none)")) for atoms in images])
        if key is not None or len(groups) > 1:
            return name, groups
    sizes = _by_size(frames)
    if len(sizes) > 1:
        return "atoms", sizes
    return "composition", _rows_of([_formula(frames, frame) for frame in range(len(frames))])


def _by_size(frames: Frames) -> dict[str, np.ndarray]:
    """Return the rows of frames by number of atoms: each number, or four ranges of as many frames
    each where there are more than six."""
    counts = frames.counts
    if len(np.unique(counts)) <= 6:
        return _rows_of([str(count) for count in counts])
    bins = np.searchsorted(np.quantile(counts, [0.25, 0.5, 0.75]), counts)
    groups = (np.flatnonzero(bins == k) for k in np.unique(bins))
    return {f"{counts[rows].min()}-{counts[rows].max()}": rows for rows in groups}


def _rows_of(names: Sequence[str]) -> dict[str, np.ndarray]:
    labels = np.array(names)
    return {str(name): np.flatnonzero(labels == name) for name in np.unique(labels)}


def _formula(frames: Frames, frame: int) -> str:
    numbers = frames.numbers[frames.offsets[frame] : frames.offsets[frame + 1]]
    kinds, counts = np.unique(numbers, return_counts=True)
    symbols = {chemical_symbols[z]: int(n) for z, n in zip(kinds, counts, strict=True)}
    return Formula.from_dict(symbols).format("hill")


def _known(forces: np.ndarray) -> np.ndarray:
    """Return the rows of forces that are there."""
    return forces[~np.isnan(forces[:, 0])]


def _energies(frames: Frames, prediction: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return reference and predicted energies (F,), eV/atom."""
    reference = np.asarray(frames.energies) / frames.counts
    return reference, np.asarray(prediction["energy"]) / frames.counts


def _energy_errors(frames: Frames, prediction: Mapping[str, Any]) -> np.ndarray:
    predicted = np.asarray(prediction["energy"], dtype=np.float64)
    if frames.energies is None:
        raise ValueError(
            "the frames have no energies to compare with; read them with energies=True"
        )
    if predicted.shape != frames.energies.shape:
        raise ValueError(f"{len(predicted)} predictions for {len(frames)} frames")
    return (predicted - frames.energies) / frames.counts


def _force_errors(frames: Frames, prediction: Mapping[str, Any]) -> np.ndarray | None:
    predicted = np.concatenate(prediction["forces"])
    if frames.forces is None or not predicted.size or np.isnan(frames.forces).all():
        return None
    return predicted - frames.forces


def _error_row(quantity: str, unit: str, difference: np.ndarray) -> ErrorRow:
    found = error_statistics(difference)
    return ErrorRow(quantity, unit, found["rmse"], found["mae"], len(difference))


def _cells(row: ErrorRow | None) -> tuple[str, str]:
    return ("", "") if row is None else (f"{row.rmse:.4g}", f"{row.mae:.4g}")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """Return a time for people, such as "0.42 s", "45 s", "12 min" or "2.1 h"."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
