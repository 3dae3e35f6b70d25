"""The tools that work within this process: stage timers, memory, cProfile, line_profiler."""

import cProfile
import io
import pstats
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from amptorch.profiling import plots
from amptorch.profiling.estimate import sample
from amptorch.profiling.job import Job, Phase
from amptorch.profiling.kernel_lines import MOST_ATOMS, kernel_lines, line_profiler, lines_of
from amptorch.profiling.memory import MemoryCurve, own_memory
from amptorch.profiling.recorder import Recorder, cost_of_a_timer
from amptorch.profiling.report import Findings
from amptorch.profiling.stages import wrapped
from amptorch.profiling.tables import overall, phase_rows, stage_rows, stage_table
from amptorch.reports import Stages, aligned

# Functions listed by cProfile, and points of the curve in report.json.
LISTED = 40
POINTS = 2000


def stages(job: Job, folder: Path, memory: Callable[[], int] = own_memory) -> Findings:
    """Measure times, calls and memory of every stage."""
    recorder = Recorder(memory)
    with wrapped(recorder.wrap):
        result = job.run("run", _announced(recorder))
    rows = stage_rows(recorder, result["atoms"])
    together = overall(rows, recorder.phases)
    parts = {"phases": phase_rows(rows, recorder.phases)}
    parts |= {phase: [row for row in rows if row.phase == phase] for phase in recorder.phases}
    parts["all phases together"] = together
    tables = {name: stage_table(part) for name, part in parts.items()}
    calls = sum(row.calls for row in rows)
    return Findings(
        data={
            **result,
            "seconds": recorder.phases,
            "stages": [row.record() for row in rows],
            "all_phases": [row.record() for row in together],
            "timers": {"calls": calls, "seconds_a_call": cost_of_a_timer()},
            "memory": recorder.curve[:: max(1, -(-len(recorder.curve) // POINTS))],
        },
        page={
            "shares": plots.shares(rows, together, recorder.phases),
            "memory": plots.memory(recorder.curve, getattr(memory, "samples", ())),
            "tables": tables,
        },
        summary="\n\n".join(f"{name}\n{aligned(table)}" for name, table in tables.items()),
    )


def memory(job: Job, folder: Path) -> Findings:
    """Measure the same, with RSS and USS beside the memory of the process's own."""
    return stages(job, folder, MemoryCurve())


def cprofile(job: Job, folder: Path) -> Findings:
    """Measure Python functions, by own and by cumulative time, and write `cprofile.pstats`."""
    clock = Stages()
    with cProfile.Profile() as profiler:
        result = job.run("run", _announced(clock))
    profiler.dump_stats(folder / "cprofile.pstats")
    texts = {}
    for order in ("tottime", "cumulative"):
        stream = io.StringIO()
        pstats.Stats(profiler, stream=stream).strip_dirs().sort_stats(order).print_stats(LISTED)
        texts[order] = stream.getvalue().strip()
    return Findings({**result, "seconds": clock.seconds}, texts, texts["tottime"])


def line(job: Job, folder: Path) -> Findings:
    """Measure the lines of the stages' functions, and of the kernels without their compiler."""
    profiler, clock = line_profiler(), Stages()
    with wrapped(lambda function, _stage, _whole: profiler(function)):
        result = job.run("run", _announced(clock))
    (atoms,) = sample(job.data, 1)
    texts = {"lines": lines_of(profiler), "kernel_lines": kernel_lines(job.config, atoms)}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf8")
    return Findings(
        data={**result, "seconds": clock.seconds},
        page={"most_atoms": MOST_ATOMS, **texts},
        summary="The lines are in lines.txt and kernel_lines.txt, and in the report.",
    )


def _announced(phase: Phase) -> Phase:
    """Return `phase` with a line on the terminal before each phase begins."""

    @contextmanager
    def announced(name: str) -> Iterator[None]:
        typer.echo(f"{name} ...", err=True)
        with phase(name):
            yield

    return announced
