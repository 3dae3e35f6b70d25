"""The tools that work within this process: stage timers, memory, cProfile, line_profiler."""

import cProfile
import io
import pstats
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import typer

from amptorch.profiling import plots
from amptorch.profiling.job import Estimate, Job
from amptorch.profiling.kernel_lines import MOST_ATOMS, kernel_lines, line_profiler, lines_of
from amptorch.profiling.memory import MemoryCurve, own_memory
from amptorch.profiling.recorder import Recorder, cost_of_a_timer
from amptorch.profiling.report import Report
from amptorch.profiling.stages import wrapped
from amptorch.profiling.tables import overall, phase_rows, stage_rows, stage_table
from amptorch.profiling.workload import Clock
from amptorch.reports import aligned

# Functions listed by cProfile, and points of the curve in report.json.
LISTED = 40
POINTS = 2000


def stages(
    job: Job,
    estimate: Estimate,
    folder: Path,
    environment: dict[str, Any],
    memory: Callable[[], int] = own_memory,
    tool: str = "stages",
) -> Report:
    """Measure times, calls and memory of every stage."""
    recorder = Recorder(memory)
    with wrapped(recorder.wrap):
        result = job.run("run", _announced(recorder))
    rows = stage_rows(recorder, result["atoms"])
    together = overall(rows, recorder.phases)
    tables = {"phases": phase_rows(rows, recorder.phases)}
    tables |= {phase: [row for row in rows if row.phase == phase] for phase in recorder.phases}
    tables["all phases together"] = together
    calls = sum(row.calls for row in rows)
    return Report(
        tool="stages",
        title=job.title(tool),
        data={
            **result,
            "seconds": recorder.phases,
            "estimated": estimate.seconds,
            "stages": [row.record() for row in rows],
            "all_phases": [row.record() for row in together],
            "timers": {"calls": calls, "seconds_a_call": cost_of_a_timer()},
            "memory": recorder.curve[:: max(1, -(-len(recorder.curve) // POINTS))],
        },
        page={
            "job": job,
            "estimate": estimate.text(),
            "shares": plots.shares(rows, together, recorder.phases),
            "memory": plots.memory(recorder.curve, getattr(memory, "samples", ())),
            "tables": {name: stage_table(part, 0.0) for name, part in tables.items()},
        },
        summary="\n\n".join(
            f"{name}\n{aligned(stage_table(part))}" for name, part in tables.items()
        ),
        environment=environment,
    )


def memory(job: Job, estimate: Estimate, folder: Path, environment: dict[str, Any]) -> Report:
    """Measure the same, with RSS and USS beside the memory of the process's own."""
    return stages(job, estimate, folder, environment, MemoryCurve(), "memory")


def cprofile(job: Job, estimate: Estimate, folder: Path, environment: dict[str, Any]) -> Report:
    """Measure Python functions, by own and by cumulative time, and write `cprofile.pstats`."""
    clock = Clock()
    with cProfile.Profile() as profiler:
        result = job.run("run", _announced(clock))
    profiler.dump_stats(folder / "cprofile.pstats")
    texts = {}
    for order in ("tottime", "cumulative"):
        stream = io.StringIO()
        pstats.Stats(profiler, stream=stream).strip_dirs().sort_stats(order).print_stats(LISTED)
        texts[order] = stream.getvalue().strip()
    return Report(
        tool="cprofile",
        title=job.title("cProfile"),
        data={**result, "seconds": clock.seconds},
        page={"job": job, **texts},
        summary=texts["tottime"],
        environment=environment,
    )


def line(job: Job, estimate: Estimate, folder: Path, environment: dict[str, Any]) -> Report:
    """Measure the lines of the stages' functions, and of the kernels without their compiler."""
    profiler, clock = line_profiler(), Clock()
    with wrapped(lambda function, _stage, _whole: profiler(function)):
        result = job.run("run", _announced(clock))
    texts = {"lines": lines_of(profiler), "kernel_lines": kernel_lines(job)}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf8")
    return Report(
        tool="line",
        title=job.title("line by line"),
        data={**result, "seconds": clock.seconds},
        page={"job": job, "most_atoms": MOST_ATOMS, **texts},
        summary="The lines are in lines.txt and kernel_lines.txt, and in the report.",
        environment=environment,
    )


def _announced(
    phase: Callable[[str], AbstractContextManager],
) -> Callable[[str], AbstractContextManager]:
    """Return `phase` with a line on the terminal before each phase begins."""

    @contextmanager
    def announced(name: str) -> Iterator[None]:
        typer.echo(f"{name} ...", err=True)
        with phase(name):
            yield

    return announced
