"""From a recorder's times to rows: what each stage took of each phase, and in all."""

from dataclasses import dataclass

from amptorch.profiling.recorder import OTHER
from amptorch.profiling.seams import WAITING

# Rows below this share of the time are shown as one in the terminal.
SMALLEST = 0.002
ALL = "all"


@dataclass(frozen=True)
class Row:
    """A stage of a phase.

    seconds: own time in the main thread; background: that in all other threads together, meanwhile
    or while the main thread waited; share: of the wall time of the phase, where the time that the
    main thread waited is divided among what the others did in the phase; per_atom: that share in
    microseconds for each atom that the phase treated (in each epoch, in each step); peak: most
    bytes that the process had for itself while a thread was in the stage, None where no sample fell
    into it.
    """

    phase: str
    stage: str
    seconds: float
    background: float
    share: float
    calls: int
    per_atom: float
    peak: int | None


def stage_rows(recorder, atoms):
    """Rows of each phase, largest share first; shares of a phase add up to 1.

    atoms: {phase: number of atoms treated}
    """
    main, others = recorder.totals(), recorder.totals(background=True)
    return [
        row
        for phase, wall in recorder.phases.items()
        for row in _rows_of(phase, wall, _of(phase, main), _of(phase, others), atoms[phase])
        for row in [_with_peak(row, recorder.peaks)]
    ]


def _of(phase, totals):
    return {stage: total for (at, stage), total in totals.items() if at == phase}


def _rows_of(phase, wall, main, others, atoms):
    waited = main.get(WAITING, (0.0, 0))[0]
    busy = sum(seconds for seconds, _ in others.values())
    rows = []
    for stage in {**main, **others}:
        seconds, calls = main.get(stage, (0.0, 0))
        background, more_calls = others.get(stage, (0.0, 0))
        taken = seconds
        if busy:
            taken = (0.0 if stage == WAITING else seconds) + waited * background / busy
        rows.append(
            Row(
                phase=phase,
                stage=stage,
                seconds=seconds,
                background=background,
                share=taken / wall,
                calls=calls + more_calls,
                per_atom=1e6 * taken / atoms,
                peak=None,
            )
        )
    return sorted(rows, key=lambda row: (row.stage == OTHER, -row.share, -row.seconds))


def _with_peak(row, peaks):
    return Row(**{**vars(row), "peak": peaks.get((row.phase, row.stage))})


def overall(rows, phases):
    """The rows of all phases together: the main table."""
    total = sum(phases.values())
    merged = {}
    for row in rows:
        merged.setdefault(row.stage, []).append(row)
    result = []
    for stage, parts in merged.items():
        peaks = [row.peak for row in parts if row.peak is not None]
        taken = [row.share * phases[row.phase] for row in parts]
        atoms = [
            seconds / row.per_atom if row.per_atom else 0.0
            for seconds, row in zip(taken, parts, strict=True)
        ]
        result.append(
            Row(
                phase=ALL,
                stage=stage,
                seconds=sum(row.seconds for row in parts),
                background=sum(row.background for row in parts),
                share=sum(taken) / total,
                calls=sum(row.calls for row in parts),
                per_atom=sum(taken) / sum(atoms) if sum(atoms) else 0.0,
                peak=max(peaks) if peaks else None,
            )
        )
    return sorted(result, key=lambda row: (row.stage == OTHER, -row.share, -row.seconds))


HEADER = ("stage", "seconds", "background", "share", "calls", "µs/atom", "peak MB")


def cells(row):
    """A row as text, under HEADER."""
    return [
        row.stage,
        f"{row.seconds:.2f}",
        f"{row.background:.2f}" if row.background else "",
        f"{100 * row.share:.1f} %",
        f"{row.calls}",
        f"{row.per_atom:.3g}" if row.per_atom else "",
        "" if row.peak is None else f"{row.peak / 1e6:.0f}",
    ]


def stage_lines(rows, smallest=SMALLEST):
    """Lines of cells, header first and sum last; stages below the share `smallest` in one line."""
    shown = [row for row in rows if row.share >= smallest or row.stage == WAITING]
    small = [row for row in rows if row not in shown]
    lines = [list(HEADER), *(cells(row) for row in shown)]
    if small:
        lines.append(["smaller ones", *_sums(small), str(sum(row.calls for row in small)), "", ""])
    lines.append(["sum", *_sums(rows), "", "", ""])
    return lines


def _sums(rows):
    background = sum(row.background for row in rows)
    return [
        f"{sum(row.seconds for row in rows):.2f}",
        f"{background:.2f}" if background else "",
        f"{100 * sum(row.share for row in rows):.1f} %",
    ]


def phase_lines(phases, result, curve, estimate):
    """Lines of cells about the phases as wholes, header first."""
    total = sum(phases.values())
    header = ["phase", "seconds", "estimated", "share", "atoms treated", "µs/atom", "peak MB"]
    lines = [header]
    for phase, seconds in phases.items():
        peak = max((used for _, used, at, _ in curve if at == phase), default=None)
        lines.append(
            [
                phase,
                f"{seconds:.2f}",
                f"{estimate[phase]:.2f}",
                f"{100 * seconds / total:.1f} %",
                f"{result['atoms'][phase]}",
                f"{1e6 * seconds / result['atoms'][phase]:.3g}",
                "" if peak is None else f"{peak / 1e6:.0f}",
            ]
        )
    estimated = sum(estimate.values())
    return [*lines, ["sum", f"{total:.2f}", f"{estimated:.2f}", "100.0 %", "", "", ""]]


def as_text(lines):
    """Lines of cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )
