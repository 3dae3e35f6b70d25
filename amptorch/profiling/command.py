"""Define the command `amptorch profile`, which `profiling/run_profile.py` is too."""

import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

# 36 symmetry functions where there are three elements; the benchmarks have it too.
STANDARD = Path(__file__).with_name("standard.json")
SLOWER = {
    "py-spy": "; with py-spy several times more where it shows native frames",
    "cprofile": "; cProfile makes Python's part slower",
    "line": "; line_profiler makes Python's part slower, and the kernels take a minute more",
}


def profile(
    frames: Annotated[
        int | None, typer.Option(min=2, help="Number; by default 2000, or all of --data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="File that ASE reads, instead of generated frames.")
    ] = None,
    config: Annotated[
        Path, typer.Option(help="YAML or JSON file of a configuration.", show_default=False)
    ] = STANDARD,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of training.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Of dynamics.")] = 200,
    tool: Annotated[
        Literal["stages", "memory", "cprofile", "line", "py-spy"],
        typer.Option(help="How it is measured."),
    ] = "stages",
    out: Annotated[
        Path | None, typer.Option(help="New folder of the report; by default named by the time.")
    ] = None,
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Hold the data in memory, without a store.")
    ] = False,
) -> None:
    """Show where time and memory go: preprocessing, training, prediction and dynamics.

    Says first how long it will take. Ends with tables, and a folder with report.html, report.json
    and what the tool wrote.
    """
    # As `amptorch train` runs the network, here (torch is not imported yet) and in other processes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from amptorch.profiling.environment import environment
    from amptorch.profiling.estimate import estimate, number_of_frames
    from amptorch.profiling.job import Job
    from amptorch.profiling.py_spy import py_spy
    from amptorch.profiling.report import write_report
    from amptorch.profiling.tools import cprofile, line, memory, stages
    from amptorch.store.arrays import folder_when_complete

    tools = {f.__name__.replace("_", "-"): f for f in (stages, memory, cprofile, line, py_spy)}
    out = out or Path(f"amptorch-profile-{datetime.now():%Y-%m-%d-%H-%M-%S}")
    if out.exists():
        raise FileExistsError(f"{str(out)!r} exists already; give another --out")
    settings = settings_of(config, epochs)
    with folder_when_complete(out.absolute()) as folder:
        work = folder / "work"
        work.mkdir()
        if data is None:
            data = _generated(frames or 2000, work / "frames.traj")
        given = str(data.absolute())
        n_frames = number_of_frames(given)
        if frames is not None and frames < n_frames:
            given, n_frames = f"{given}@:{frames}", frames
        job = Job(settings, given, n_frames, steps, str(work), in_memory)
        machine = environment(settings["cmd"]["threads"])
        typer.echo(f"{n_frames} frames; measuring a sample to say how long this will take")
        expected = estimate(job)
        typer.echo(expected.text() + SLOWER.get(tool, ""))
        found = tools[tool](job, folder)
        write_report(folder, tool, job, expected, machine, found)
        shutil.rmtree(work)
    typer.echo(f"\n{found.summary}\n\nreport: {out / 'report.html'}")


def settings_of(path: Path, epochs: int) -> dict[str, dict]:
    """Return the sections of a configuration, without what says where its data are."""
    from amptorch.config import Config
    from amptorch.files import read_config

    given = read_config(path)
    given["optim"] = {**(given.get("optim") or {}), "epochs": epochs}
    sections = Config.from_dict(given).to_dict()
    sections["cmd"] |= {"debug": False, "verbose": False}
    return sections


def _generated(n_frames: int, path: Path) -> Path:
    """Write frames of `iron_water` to the trajectory `path`, and return it."""
    from ase.io import Trajectory
    from tqdm import tqdm

    from amptorch.datasets import iter_iron_water

    with Trajectory(path, "w") as trajectory:
        for atoms in tqdm(iter_iron_water(n_frames), "generating frames", n_frames, unit="frame"):
            trajectory.write(atoms)
    return path
