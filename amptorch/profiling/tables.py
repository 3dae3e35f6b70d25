"""Make the tables of a profile: the part of each stage in each phase, and in all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from amptorch.profiling.recorder import OTHER, Recorder
from amptorch.profiling.stages import WAITING

HEADER = ["stage", "seconds", "background", "share", "calls", "µs/atom", "peak MB"]


@dataclass(frozen=True)
class Row:
    """Hold a stage of a phase.

    seconds: own time in the main thread; background: time in all other threads together; taken:
    part of the phase's wall time, where the time that the main thread waited is divided among the
    stages of the others; wall: that of the phase; atoms: number treated in the phase, each epoch
    and step by itself; peak: most bytes that the process had for itself while a thread was in the
    stage, None where no sample fell into it.
    """

    phase: str
    stage: str
    seconds: float
    background: float
    taken: float
    calls: int
    atoms: int
    wall: float
    peak: int | None

    @property
    def share(self) -> float:
        """Return the fraction of the wall time."""
        return self.taken / self.wall

    @property
    def per_atom(self) -> float:
        """Return the microseconds for each atom, 0 where there are no atoms."""
        return 1e6 * self.taken / self.atoms if self.atoms else 0.0

    def record(self) -> dict[str, Any]:
        """Return the row in JSON's types."""
        return {**asdict(self), "share": self.share, "per_atom": self.per_atom}


def stage_rows(recorder: Recorder, atoms: Mapping[str, int]) -> list[Row]:
    """Return the rows of each phase, largest share first; shares of a phase add up to 1.

    atoms: {phase: number of atoms treated}
    """
    main, others = recorder.totals(), recorder.totals(background=True)
    nothing, rows = (0.0, 0), []
    for phase, wall in recorder.phases.items():
        keys = [key for key in {**main, **others} if key[0] == phase]
        waited = main.get((phase, WAITING), nothing)[0]
        busy = sum(others.get(key, nothing)[0] for key in keys)
        part = []
        for key in keys:
            (seconds, calls), (background, more) = main.get(key, nothing), others.get(key, nothing)
            taken = seconds
            if busy:
                taken = (0.0 if key[1] == WAITING else seconds) + waited * background / busy
            n_calls, peak = calls + more, recorder.peaks.get(key)
            part.append(Row(*key, seconds, background, taken, n_calls, atoms[phase], wall, peak))
        rows += _ordered(part)
    return rows


def overall(rows: Sequence[Row], phases: Mapping[str, float]) -> list[Row]:
    """Return a row of each stage for all phases together."""
    wall = sum(phases.values())
    stages = dict.fromkeys(row.stage for row in rows)
    return _ordered(_sum(stage, [r for r in rows if r.stage == stage], wall) for stage in stages)


def phase_rows(rows: Sequence[Row], phases: Mapping[str, float]) -> list[Row]:
    """Return a row of each phase as a whole."""
    wall = sum(phases.values())
    parts = {phase: [row for row in rows if row.phase == phase] for phase in phases}
    return [replace(_sum(phase, part, wall), atoms=part[0].atoms) for phase, part in parts.items()]


def _sum(stage: str, rows: Sequence[Row], wall: float) -> Row:
    names = ("seconds", "background", "taken", "calls", "atoms")
    sums = {name: sum(getattr(row, name) for row in rows) for name in names}
    peak = max((row.peak for row in rows if row.peak is not None), default=None)
    return Row("all", stage, wall=wall, peak=peak, **sums)


def _ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.stage == OTHER, -row.taken, -row.seconds))


def stage_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return rows of cells, header first and sum last."""
    total = _cells(_sum("sum", rows, rows[0].wall))
    return [HEADER, *map(_cells, rows), [*total[:4], "", "", ""]]


def _cells(row: Row) -> list[str]:
    return [
        row.stage,
        f"{row.seconds:.2f}",
        f"{row.background:.2f}" if row.background else "",
        f"{100 * row.share:.1f} %",
        f"{row.calls}",
        f"{row.per_atom:.3g}" if row.per_atom else "",
        "" if row.peak is None else f"{row.peak / 1e6:.0f}",
    ]
