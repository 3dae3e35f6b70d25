"""Define the command `amptorch profile`, which `profiling/run_profile.py` is too."""

import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

# Generated frames of a profile, and of a comparison: v1.0 takes most of a second for each, in each
# of three phases.
FRAMES = 2000
COMPARED_FRAMES = 8
COMPARED_STEPS = 10
SLOWER = {
    "py-spy": "; with py-spy twice that, and several times more where it shows native frames",
    "cprofile": "; cProfile makes Python's part slower",
    "line": "; line_profiler makes Python's part slower, and the kernels take a minute more",
}


def profile(
    frames: Annotated[
        int | None,
        typer.Option(min=2, help="Number; by default 2000, or all of --data, or 8 to compare."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="File that ASE reads, instead of generated frames.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of AtomsTrainer's sections.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of training.")] = 2,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of dynamics; by default 200, or 10 to compare.")
    ] = None,
    tool: Annotated[
        Literal["stages", "memory", "cprofile", "line", "py-spy"],
        typer.Option(help="How it is measured."),
    ] = "stages",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; by default named by the time.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an old profile at --out.")
    ] = False,
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Hold the data in memory, without a store.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the kernels; by default all cores.")
    ] = None,
    implementation: Annotated[
        str | None,
        typer.Option(help="Python that has another amptorch, to be compared with this one."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of a comparison.")] = 3,
) -> None:
    """Show where time and memory go: preprocessing, training, prediction and dynamics.

    Says first how long it will take. Ends with tables, and a folder with report.html, report.json
    and what the tool wrote.
    """
    # As `amptorch train` runs the network, here (torch is not imported yet) and in other processes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from amptorch.profiling.compare import compare
    from amptorch.profiling.environment import environment
    from amptorch.profiling.job import Job, estimate, frames_of, generated, output_folder, sample
    from amptorch.profiling.py_spy import py_spy
    from amptorch.profiling.tools import cprofile, line, memory, stages

    if implementation is not None and shutil.which(implementation) is None:
        raise FileNotFoundError(f"--implementation: there is no program {implementation!r}")
    tools = {f.__name__.replace("_", "-"): f for f in (stages, memory, cprofile, line, py_spy)}
    out = out or Path(f"amptorch-profile-{datetime.now():%Y-%m-%d-%H-%M-%S}")
    with output_folder(out, overwrite) as folder:
        work = folder / "work"
        work.mkdir()
        if data is None:
            frames = frames or (COMPARED_FRAMES if implementation else FRAMES)
            data = str(work / "frames.traj")
            generated(frames, data)
        job = Job(
            config=_sections(config, threads),
            data=data,
            n_frames=len(frames_of(data)),
            epochs=epochs,
            md_steps=steps or (COMPARED_STEPS if implementation else 200),
            work=work,
            in_memory=in_memory,
        )
        about = environment(job.config.get("cmd", {}).get("threads"))
        if implementation is not None:
            images = sample(frames_of(data), frames or COMPARED_FRAMES)
            job = replace(job, n_frames=len(images))
            report = compare(job, images, implementation, repeats, about)
        else:
            if frames is not None and frames < job.n_frames:
                if not Path(data).exists():
                    raise ValueError(f"--data {data} is a slice already; leave --frames out")
                job = replace(job, data=f"{data}@:{frames}", n_frames=frames)
            typer.echo(f"{job.n_frames} frames; measuring a sample to say how long this will take")
            expected = estimate(job)
            typer.echo(expected.text() + SLOWER.get(tool, ""))
            report = tools[tool](job, expected, folder, about)
        report.write(folder)
        shutil.rmtree(work)
    typer.echo(f"\n{report.summary}\n\nreport: {out / 'report.html'}")
    if report.error:
        typer.echo(f"error: {report.error}", err=True)
        raise typer.Exit(1)


def _sections(path, threads):
    from amptorch.files import read_config
    from amptorch.profiling.workload import standard_config

    given = standard_config() if path is None else read_config(path)
    sections = {name: dict(section or {}) for name, section in given.items()}
    dataset = sections.setdefault("dataset", {})
    for key in ("raw_data", "store", "lmdb_path"):
        dataset.pop(key, None)
    if threads is not None:
        sections.setdefault("cmd", {})["threads"] = threads
    return sections
