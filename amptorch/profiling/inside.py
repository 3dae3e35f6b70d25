"""The tools that work within this process: stage timers, memory, cProfile, line_profiler."""

import cProfile
import io
import pstats
from contextlib import contextmanager
from dataclasses import asdict

import typer

from amptorch.profiling import plots
from amptorch.profiling.memory import MemoryCurve, own_memory
from amptorch.profiling.recorder import Recorder, cost_of_a_timer
from amptorch.profiling.report import Report, Section
from amptorch.profiling.seams import WAITING, wrapped
from amptorch.profiling.tables import as_text, overall, phase_lines, stage_lines, stage_rows
from amptorch.profiling.workload import Clock

# Functions listed by cProfile, and points of the curve in report.json.
LISTED = 40
POINTS = 2000

HOW_TO_READ = (
    "Seconds are a stage's own, in the main thread: with what it waits for and with “other”, which "
    "no stage claims, they add up to the wall time. “background” is the time of all other threads "
    "together, which work at the same time. The share is that of the wall time, where the time "
    f"“{WAITING}” is divided among what those threads did; µs/atom follows from it. Peak memory is "
    "the process's own (without pages of mapped files), sampled 50 times a second while a thread "
    "was in the stage; stages too short for a sample have none."
)


def stages(job, estimate, _folder, environment, memory=own_memory, title="stages"):
    """Times, calls and memory of every stage."""
    recorder = Recorder(memory)
    with wrapped(recorder.wrap):
        result = job.run("run", _announced(recorder))
    rows = stage_rows(recorder, result["atoms"])
    everything = overall(rows, recorder.phases)
    wall = sum(recorder.phases.values())
    calls = sum(calls for totals in _both(recorder) for _, calls in totals.values())
    cost = cost_of_a_timer()
    overhead = (
        f"The timers took about {calls * cost:.2f} s, {100 * calls * cost / wall:.2g} % of the "
        f"time: {calls} calls of {1e6 * cost:.2f} µs."
    )
    phases = phase_lines(recorder.phases, result, recorder.curve, estimate.seconds)
    sections = [
        Section("Where the time goes", svg=plots.shares(rows, recorder.phases)),
        Section("Phases", lines=phases),
        Section("All phases together", note=HOW_TO_READ, lines=stage_lines(everything, 0.0)),
        Section("Memory", svg=plots.memory(recorder.curve, getattr(memory, "samples", ()))),
    ]
    parts = {phase: [row for row in rows if row.phase == phase] for phase in recorder.phases}
    sections += [
        Section(phase.capitalize(), lines=stage_lines(part, 0.0)) for phase, part in parts.items()
    ]
    texts = [as_text(phases)]
    texts += [f"{phase}\n{as_text(stage_lines(part))}" for phase, part in parts.items()]
    texts += [f"all phases together\n{as_text(stage_lines(everything))}", overhead]
    step = -(-len(recorder.curve) // POINTS)
    return Report(
        title=_title(title, job),
        notes=[_what(job, result), f"Beforehand it said: {estimate.text()}.", overhead],
        sections=sections,
        summary="\n\n".join(texts),
        data={
            **result,
            "seconds": recorder.phases,
            "estimated": estimate.seconds,
            "stages": [asdict(row) for row in rows],
            "all_phases": [asdict(row) for row in everything],
            "timers": {"calls": calls, "seconds_a_call": cost},
            "memory": recorder.curve[:: max(1, step)],
        },
        environment=environment,
    )


def memory(job, estimate, folder, environment):
    """The same, with RSS and USS beside the memory of the process's own."""
    return stages(job, estimate, folder, environment, MemoryCurve(), "memory")


def cprofile(job, estimate, folder, environment):
    """Python functions, by own and by cumulative time; also as a file for snakeviz and the like."""
    profiler, clock = cProfile.Profile(), Clock()
    profiler.enable()
    try:
        result = job.run("run", _announced(clock))
    finally:
        profiler.disable()
    profiler.dump_stats(folder / "cprofile.pstats")
    note = (
        "Functions of the main thread, the profiler's own cost included; compiled code counts for "
        "the Python function that calls it. The file cprofile.pstats is for tools such as snakeviz."
    )
    texts = {order: _listed(profiler, order) for order in ("tottime", "cumulative")}
    return Report(
        title=_title("cProfile", job),
        notes=[_what(job, result), note],
        sections=[
            Section("By own time", text=texts["tottime"], links=["cprofile.pstats"]),
            Section("By time with all they call", text=texts["cumulative"]),
        ],
        summary=texts["tottime"],
        data={**result, "seconds": clock.seconds},
        environment=environment,
    )


def _listed(profiler, order):
    stream = io.StringIO()
    pstats.Stats(profiler, stream=stream).strip_dirs().sort_stats(order).print_stats(LISTED)
    return stream.getvalue().strip()


def line(job, estimate, folder, environment):
    """The lines of the functions of every stage, and of the kernels with their JIT switched off."""
    from amptorch.profiling.kernel_lines import kernel_lines, line_profiler

    profiler, clock = line_profiler(), Clock()
    with wrapped(lambda function, _stage, _whole: profiler(function)):
        result = job.run("run", _announced(clock))
    stream = io.StringIO()
    profiler.print_stats(stream, output_unit=1e-3, stripzeros=True)
    python, (kernels, about) = stream.getvalue().strip(), kernel_lines(job)
    (folder / "lines.txt").write_text(python, encoding="utf8")
    (folder / "kernel_lines.txt").write_text(f"{about}\n\n{kernels}", encoding="utf8")
    return Report(
        title=_title("line by line", job),
        notes=[_what(job, result)],
        sections=[
            Section("Python", "Milliseconds, the profiler's own cost included.", text=python),
            Section("Kernels, not compiled", about, text=kernels),
        ],
        summary="The lines are in lines.txt and kernel_lines.txt, and in the report.",
        data={**result, "seconds": clock.seconds},
        environment=environment,
    )


def _announced(phase):
    """The context `phase`, which says at each start what is done."""

    @contextmanager
    def announced(name):
        typer.echo(f"{name} ...", err=True)
        with phase(name):
            yield

    return announced


def _both(recorder):
    return recorder.totals(), recorder.totals(background=True)


def _title(tool, job):
    return f"Profile of {job.n_frames} frames: {tool}"


def _what(job, result):
    data = "in memory" if job.in_memory else "in a store"
    size = result["atoms"]["prediction"] / result["frames"]
    return (
        f"{result['frames']} frames of {size:.0f} atoms "
        f"on average, {data}: preprocessing, {result['epochs']} epochs of training, prediction of "
        f"all frames, {job.md_steps} steps of dynamics with the largest frame (its atoms move at "
        "300 K and are made so heavy that the forces of a potential trained so briefly do not act)."
    )
