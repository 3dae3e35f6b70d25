"""The same work by this package and by that of another interpreter, in turns."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import typer
from ase import Atoms

from amptorch.profiling import workload
from amptorch.profiling.job import Job
from amptorch.profiling.processes import own_environment, run_process, workload_command
from amptorch.profiling.report import Report
from amptorch.reports import aligned

HEADER = ["phase", "here, s", "there, s", "ratio", "lowest", "highest", "here µs/atom", "there"]


def compare(
    job: Job, images: Sequence[Atoms], python: str, repeats: int, environment: dict[str, Any]
) -> Report:
    """Do the work `repeats` times with either implementation, each time in a new process.

    images: frames in place of the job's data; python: the other interpreter. Where the other fails,
    the report says why and has this package's times.
    """
    records = [workload.frame_record(atoms) for atoms in images]
    path = replace(job, in_memory=True).write("turns", records)
    ours: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    error = None
    try:
        for turn in range(repeats):
            typer.echo(f"turn {turn + 1} of {repeats}: this amptorch", err=True)
            ours.append(_one_turn(sys.executable, path, own_environment()))
            typer.echo(f"turn {turn + 1} of {repeats}: {python}", err=True)
            others.append(_one_turn(python, path, workload.environment_of_another()))
    except ChildProcessError as failure:
        error = str(failure)
        if not ours:
            raise
    ratios, table = _times(ours, others)
    sides = {"here": ours[0], **({"there": others[0]} if others else {})}
    about = [f"{side}: {workload.in_words(result)}" for side, result in sides.items()]
    return Report(
        tool="comparison",
        title=f"This amptorch and that of {python}",
        data={"here": ours, "there": others, "ratios": ratios},
        page={"job": job, "table": table, "about": about, "turns": len(others)},
        summary="\n".join([aligned(table), "", *about]),
        environment=environment,
        error=error,
    )


def _one_turn(python: str, path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    result = path.with_name("result.json")
    run_process(workload_command(python, path, result), [result], environment, path.parent)
    return json.loads(result.read_text(encoding="utf8"))


def _times(
    ours: list[dict[str, Any]], others: list[dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[list[str]]]:
    """Return {phase: ratios of the two processes of each turn}, {} without a whole turn, and the
    table of medians."""
    ratios: dict[str, dict[str, Any]] = {}
    table = [HEADER]
    for phase in workload.PHASES:
        here, there = ([turn["seconds"][phase] for turn in side] for side in (ours, others))
        per_atom = 1e6 / ours[0]["atoms"][phase]
        cells = [f"{median(here):.3f}", "", "", "", "", f"{per_atom * median(here):.3g}", ""]
        if there:
            each = [b / a for a, b in zip(here, there, strict=False)]
            found = {"median": median(each), "lowest": min(each), "highest": max(each)}
            ratios[phase] = {"each": each, **found}
            cells[1:5] = [f"{median(there):.3f}", *(f"{ratio:.3g}" for ratio in found.values())]
            cells[6] = f"{per_atom * median(there):.3g}"
        table.append([phase, *cells])
    return ratios, table
