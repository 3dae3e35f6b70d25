"""The command `amptorch profile`, which `profiling/run_profile.py` is too."""

import os
import shutil
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

# Generated frames of a profile, and of a comparison: v1.0 takes most of a second for each, in each
# of three phases.
FRAMES = 2000
COMPARED_FRAMES = 8
COMPARED_STEPS = 10


def profile(
    frames: Annotated[
        int | None,
        typer.Option(min=2, help="How many; by default 2000, or all of --data, or 8 to compare."),
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
        typer.Option(help="What to look with."),
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
):
    """Show where time and memory go: preprocessing, training, prediction and dynamics.

    Says first how long it will take. Ends with tables, and a folder with report.html, report.json
    and what the tool wrote.
    """
    from amptorch.profiling.environment import environment
    from amptorch.profiling.job import generated, output_folder

    if implementation is not None and shutil.which(implementation) is None:
        raise FileNotFoundError(f"--implementation: there is no program {implementation!r}")
    out = out or Path(f"amptorch-profile-{datetime.now():%Y-%m-%d-%H-%M-%S}")
    with output_folder(out, overwrite) as folder, _network_on_one_thread():
        work = folder / "work"
        work.mkdir()
        if data is None:
            frames = frames or (COMPARED_FRAMES if implementation else FRAMES)
            data = str(work / "frames.traj")
            generated(frames, data)
        job = _job(data, frames, config, epochs, steps, threads, in_memory, work, implementation)
        about = environment(job.config.get("cmd", {}).get("threads"))
        if implementation is None:
            report = _measure(job, tool, folder, about)
        else:
            report = _compare(job, implementation, repeats, about)
        report.write(folder)
        shutil.rmtree(work)
    typer.echo(f"\n{report.summary}\n\nreport: {out / 'report.html'}")
    if report.error:
        typer.echo(f"error: {report.error}", err=True)
        raise typer.Exit(1)


@contextmanager
def _network_on_one_thread():
    """As `amptorch train` runs it, here and in processes that are started: OMP_NUM_THREADS gives it
    more."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        torch.set_num_threads(before)


def _job(data, frames, config, epochs, steps, threads, in_memory, work, implementation):
    from amptorch.files import read_config
    from amptorch.profiling.job import Job, frames_of
    from amptorch.profiling.workload import standard_config

    sections = standard_config() if config is None else read_config(config)
    sections = {name: dict(section or {}) for name, section in sections.items()}
    sections.setdefault("dataset", {})
    for key in ("raw_data", "store", "lmdb_path"):
        sections["dataset"].pop(key, None)
    if threads is not None:
        sections["cmd"] = {**sections.get("cmd", {}), "threads": threads}
    n_frames = len(frames_of(data))
    if implementation is not None:
        # Taken from all over the file, and handed over as they are.
        n_frames = min(n_frames, frames or COMPARED_FRAMES)
    elif frames is not None and frames < n_frames:
        if not Path(data).exists():
            raise ValueError(f"--data {data} is a slice already; leave --frames out")
        data, n_frames = f"{data}@:{frames}", frames
    return Job(
        config=sections,
        data=data,
        n_frames=n_frames,
        epochs=epochs,
        md_steps=steps or (COMPARED_STEPS if implementation else 200),
        work=work,
        in_memory=in_memory,
    )


def _measure(job, tool, folder, about):
    from amptorch.profiling import inside, outside
    from amptorch.profiling.job import estimate

    tools = {
        "stages": inside.stages,
        "memory": inside.memory,
        "cprofile": inside.cprofile,
        "line": inside.line,
        "py-spy": outside.py_spy,
    }
    typer.echo(f"{job.n_frames} frames; measuring a sample to say how long this will take")
    expected = estimate(job)
    typer.echo(expected.text() + _more(tool))
    return tools[tool](job, expected, folder, about)


def _more(tool):
    return {
        "py-spy": "; with py-spy twice that, and several times more where it shows native frames",
        "cprofile": "; cProfile makes Python's part slower",
        "line": "; line_profiler makes Python's part slower, and the kernels take a minute more",
    }.get(tool, "")


def _compare(job, python, repeats, about):
    from amptorch.profiling.job import frames_of, sample
    from amptorch.profiling.outside import compare

    images = sample(frames_of(job.data), job.n_frames)
    return compare(job, images, python, repeats, about, lambda text: typer.echo(text, err=True))
