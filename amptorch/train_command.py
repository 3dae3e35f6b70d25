"""The commands `amptorch train`, `init` and `demo`. Heavy imports stand inside."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from amptorch.train_run import (
    command_stages,
    compile_ahead,
    interruptions,
    settings_of_run,
    train_and_report,
)
from amptorch.tuning.command import seconds_of

logger = logging.getLogger("amptorch")

Data = Annotated[str, typer.Argument(help="File of structures, as ase.io.read takes it.")]
EnergyKey = Annotated[
    str | None, typer.Option(help="Name of the energies in Atoms.info, if no calculator has them.")
]
ForcesKey = Annotated[
    str | None, typer.Option(help="Name of the forces in Atoms.arrays, likewise.")
]
StressKey = Annotated[str | None, typer.Option(help="Name of the stress in Atoms.info, likewise.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


# Of the training frames in memory, at most, unless all are asked for.
SHOWN_FRAMES = 100


def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML or JSON file of sections; none: recommended values.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Frames; replaces dataset.raw_data. Once for each file or pattern."),
    ] = None,
    valid: Annotated[
        list[str] | None, typer.Option(help="Frames that choose the best epoch, likewise.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="Frames kept out of the training, likewise.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="All that the command may take, such as 15m. Default: 15m.")
    ] = None,
    size: Annotated[
        Literal["small", "medium", "large"] | None,
        typer.Option(help="Of functions and networks: from fast to accurate. Default: medium."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Replaces cmd.run_dir.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Run or checkpoint whose parameters a new run starts with."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of an interrupted run, to go on with; give its --data again."),
    ] = None,
    train_errors: Annotated[
        bool, typer.Option("--train-errors", help="Errors on all training frames at the end, too.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out frames that cannot be used; say why.")
    ] = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
) -> None:
    """Train a potential on the frames of a file.

    Without a configuration, `amptorch train --data frames.xyz` takes the recommended values, which
    `amptorch init frames.xyz` writes out. Under `torchrun --no-python --nproc-per-node N amptorch
    train ...` N processes train together. The network runs on one CPU thread, everything else on
    all; OMP_NUM_THREADS gives it more. Ends with errors, the times, a parity plot and the
    checkpoint.
    """
    from amptorch.config import Config
    from amptorch.files import read_config
    from amptorch.frames import read_images
    from amptorch.image_files import FileImages
    from amptorch.threads import torch_threads
    from amptorch.training.prepare import wanted_images

    if config is None and not data:
        raise ValueError("give --data FILE with frames to train on, or a configuration")
    if start is not None and resume is not None:
        raise ValueError("give --from for a new run or --resume for an interrupted one, not both")
    settings: dict[str, Any] = {"defaults": "recommended"}
    if config is not None:
        settings = read_config(config)
    elif resume is not None and size is None:
        settings = settings_of_run(resume)
    # Before the frames are read, which may take long.
    Config.from_dict(settings)
    # An empty section of a YAML file is None.
    for name in ("dataset", "optim", "cmd"):
        settings[name] = dict(settings.get(name) or {})
    dataset, optim, cmd = settings["dataset"], settings["optim"], settings["cmd"]
    dataset |= keys_of(energy_key, forces_key, stress_key)
    if skip_bad:
        dataset["skip_bad"] = True
    if size is not None:
        settings["size"] = size
    if out is not None:
        cmd["run_dir"] = str(out)
    if valid:
        dataset["val_data"] = valid
    if data:
        dataset["raw_data"] = data
    if time is not None:
        optim["total_seconds"] = seconds_of(time)
    checked = Config.from_dict(settings)
    ahead = compile_ahead(checked, checked.dataset.elements)
    labels = checked.dataset.labels
    if not any(dataset.get(key) for key in ("raw_data", "store", "lmdb_path")):
        raise ValueError(f"{config} has no dataset.raw_data; add it or give --data FILE")
    if dataset.get("raw_data") and dataset.get("lmdb_path"):
        raise ValueError(
            f"{config} has dataset.lmdb_path, and there is dataset.raw_data (--data) too; a "
            "training is on one of them: leave one out"
        )
    stages = command_stages()
    sets: dict[str, Any] = {}
    with stages("reading"):
        # What a store is for is not read into memory.
        if dataset.get("raw_data") and not dataset.get("store"):
            images = read_images(dataset["raw_data"], labels)
            images = wanted_images(images, checked.dataset, checked.model.get_forces)
            dataset["raw_data"] = images
            step = 1 if train_errors else -(-len(images) // SHOWN_FRAMES)
            sample = FileImages.some_of(images, range(0, len(images), step))
            name = "training and validation" if checked.dataset.val_split else "training"
            some = "" if len(sample) == len(images) else f"{len(sample)} of {len(images)} "
            sets[some + name] = sample
        if dataset.get("val_data"):
            sets["validation"] = dataset["val_data"] = read_images(dataset["val_data"], labels)
        if test:
            sets["test"] = read_images(test, labels)
    # On a busy machine torch's threads wait for each other: with two of them, on two cores shared
    # with other programs, an epoch of 3 x 20 nodes, with 64, 16 and 8 frames of 164 atoms a batch,
    # took 9, 14 and 29 times as long as with one.
    as_many = checked.optim.gpus or "OMP_NUM_THREADS" in os.environ
    with nullcontext() if as_many else torch_threads(1), interruptions() as seen:
        # The time that a run goes on with is what is left of it, after all that comes before.
        limited = resume is None or time is not None
        folder = train_and_report(settings, sets, stages, ahead, start, resume, limited)
    if seen and folder is not None:
        typer.echo(
            f"\ninterrupted; to go on: amptorch train --resume {folder} --data ...", err=True
        )
        raise typer.Exit(130)


def init(
    data: Data,
    out: Annotated[Path, typer.Option(help="The configuration.")] = Path("config.yaml"),
    size: Annotated[
        Literal["small", "medium", "large"], typer.Option(help="From fast to accurate.")
    ] = "medium",
    time: Annotated[str, typer.Option(help="For the whole training.")] = "15m",
    overwrite: Overwrite = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
) -> None:
    """Write the configuration that `amptorch train --data` would use, with comments, to change."""
    from amptorch.files import check_output
    from amptorch.frames import read_images
    from amptorch.labels import Labels
    from amptorch.training.initial import initial_config

    check_output(out, overwrite)
    keys = keys_of(energy_key, forces_key, stress_key)
    images = read_images(data, Labels(**keys))
    text = initial_config(data, images, size, seconds_of(time), keys)
    out.write_text(text, encoding="utf8")
    typer.echo(f"{out}: change what you like, then `amptorch train {out}`")


def demo(
    frames: Annotated[int, typer.Option(min=10, help="Frames to generate; a fifth is kept.")] = 200,
    time: Annotated[str, typer.Option(help="All that the command may take.")] = "40s",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training frames, in place of a time.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("amptorch-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the frames, weights and batches.")] = 0,
) -> None:
    """Train on generated frames of water on iron, with the recommended values.

    Ends with a table of errors, the times, a parity plot and the checkpoint.
    """
    from tqdm import tqdm

    from amptorch.config import Config
    from amptorch.datasets import iter_iron_water
    from amptorch.threads import torch_threads

    settings: dict[str, Any] = {
        "defaults": "recommended",
        "size": "small",
        "cmd": {"run_dir": str(out), "seed": seed},
    }
    ahead = compile_ahead(Config.from_dict(settings), ["Fe", "H", "O"])
    stages = command_stages()
    with stages("generating frames"):
        generator = iter_iron_water(frames, seed=seed)
        images = list(tqdm(generator, total=frames, desc="generating frames"))
    kept = frames // 5
    sets = {"training": images[:-kept], "held out": images[-kept:]}
    settings["dataset"] = {"raw_data": images[:-kept]}
    settings["optim"] = (
        {"total_seconds": seconds_of(time)} if epochs is None else {"epochs": epochs}
    )
    with torch_threads(1):
        train_and_report(settings, sets, stages, ahead)


def keys_of(energy: str | None, forces: str | None, stress: str | None) -> dict[str, Any]:
    """Return the keys of the section `dataset` that options of the command line say."""
    given = {"energy_key": energy, "forces_key": forces, "stress_key": stress}
    return {name: key for name, key in given.items() if key is not None}
