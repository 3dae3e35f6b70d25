"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amptorch import __version__
from amptorch.profiling.command import profile
from amptorch.tuning import command as tuning

if TYPE_CHECKING:
    from ase import Atoms

    from amptorch.ensemble import Ensemble
    from amptorch.frames import Frames
    from amptorch.potential import Potential

logger = logging.getLogger("amptorch")
app = typer.Typer(
    help="Train, check and use neural network potentials on structures that ASE reads.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[Path, typer.Argument(help="Folder of a training run, or of an ensemble.")]
Data = Annotated[str, typer.Argument(help="File of structures, as ase.io.read takes it.")]
EnergyKey = Annotated[
    str | None, typer.Option(help="Name of the energies in Atoms.info, if no calculator has them.")
]
ForcesKey = Annotated[
    str | None, typer.Option(help="Name of the forces in Atoms.arrays, likewise.")
]
StressKey = Annotated[str | None, typer.Option(help="Name of the stress in Atoms.info, likewise.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the program; what a user can put right ends it with one line instead of a traceback."""
    try:
        app(args=arguments)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if logger.isEnabledFor(logging.DEBUG):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything; show tracebacks.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML or JSON file of sections; none: recommended values.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Frames; replaces dataset.raw_data.")] = None,
    valid: Annotated[str | None, typer.Option(help="Frames that choose the best epoch.")] = None,
    test: Annotated[str | None, typer.Option(help="Frames kept out of the training.")] = None,
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
        typer.Option("--from", help="Checkpoint whose parameters a new run starts with."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of an interrupted run, to go on with as it was.")
    ] = None,
    train_errors: Annotated[
        bool, typer.Option("--train-errors", help="Errors on all training frames at the end, too.")
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
    from amptorch.reports import Stages

    if config is None and data is None:
        raise ValueError("give --data FILE with frames to train on, or a configuration")
    if start is not None and resume is not None:
        raise ValueError("give --from for a new run or --resume for an interrupted one, not both")
    settings: dict[str, Any] = {"defaults": "recommended"}
    if config is not None:
        settings = read_config(config)
    # An empty section of a YAML file is None.
    for name in ("dataset", "optim", "cmd"):
        settings[name] = dict(settings.get(name) or {})
    dataset, optim, cmd = settings["dataset"], settings["optim"], settings["cmd"]
    # Before the frames are read, which may take long.
    Config.from_dict(settings)
    dataset |= _keys(energy_key, forces_key, stress_key)
    if size is not None:
        settings["size"] = size
    if out is not None:
        cmd["run_dir"] = str(out)
    if valid is not None:
        dataset["val_data"] = valid
    if data is not None:
        dataset["raw_data"] = data
    if time is not None:
        optim["total_seconds"] = tuning.seconds_of(time)
    checked = Config.from_dict(settings)
    labels = checked.dataset.labels
    if not any(dataset.get(key) for key in ("raw_data", "store", "lmdb_path")):
        raise ValueError(f"{config} has no dataset.raw_data; add it or give --data FILE")
    if dataset.get("raw_data") and dataset.get("lmdb_path"):
        raise ValueError(
            f"{config} has dataset.lmdb_path, and there is dataset.raw_data (--data) too; a "
            "training is on one of them: leave one out"
        )
    stages = Stages()
    sets: dict[str, Any] = {}
    with stages("reading"):
        # What a store is for is not read into memory.
        if dataset.get("raw_data") and not dataset.get("store"):
            dataset["raw_data"] = read_images(dataset["raw_data"], labels)
            if train_errors:
                sets["training"] = dataset["raw_data"]
        if dataset.get("val_data"):
            sets["validation"] = dataset["val_data"] = read_images(dataset["val_data"], labels)
        if test is not None:
            sets["test"] = read_images(test, labels)
    if checked.optim.total_seconds is not None:
        spent = _seconds_since_start() + _seconds_to_report(sets)
        optim["total_seconds"] = max(1.0, checked.optim.total_seconds - spent)
    # On a busy machine torch's threads wait for each other: with two of them, on two cores shared
    # with other programs, an epoch of 3 x 20 nodes, with 64, 16 and 8 frames of 164 atoms a batch,
    # took 9, 14 and 29 times as long as with one.
    as_many = checked.optim.gpus or "OMP_NUM_THREADS" in os.environ
    with nullcontext() if as_many else _torch_threads(1):
        _train_and_report(settings, sets, stages, start, resume)


@app.command()
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
    keys = _keys(energy_key, forces_key, stress_key)
    images = read_images(data, Labels(**keys))
    text = initial_config(data, images, size, tuning.seconds_of(time), keys)
    out.write_text(text, encoding="utf8")
    typer.echo(f"{out}: change what you like, then `amptorch train {out}`")


@app.command()
def preprocess(
    data: Annotated[list[str], typer.Argument(help="Files of structures, as ase.io.read takes.")],
    config: Annotated[Path, typer.Option(help="YAML or JSON file of AtomsTrainer's sections.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; gone on with if it is there.")],
    derivatives: Annotated[
        Literal["float32", "float64"] | None, typer.Option(help="Keep derivatives in this type.")
    ] = None,
    frames_per_shard: Annotated[int, typer.Option(min=1, help="Of a new store.")] = 512,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unusable frames; list them in the end.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    dask: Annotated[str | None, typer.Option(help="Scheduler to work on: tcp://host:port.")] = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
) -> None:
    """Make a store of fingerprints and neighbour lists that training reads from disk.

    Goes on where an earlier call for the same files was stopped.
    """
    from amptorch.config import Config
    from amptorch.descriptor.construct import construct_descriptor
    from amptorch.files import read_config
    from amptorch.store import find_elements
    from amptorch.store import preprocess as make_store

    settings = Config.from_dict(read_config(config))
    dataset = replace(settings.dataset, **_keys(energy_key, forces_key, stress_key))
    labels = dataset.labels
    forces = settings.model.get_forces
    elements = dataset.elements
    if elements is None:
        elements = find_elements(data, skip_bad, verbose=True, forces=forces, labels=labels)
    store = make_store(
        data,
        construct_descriptor(
            (dataset.fp_scheme, dataset.fp_params, dataset.cutoff_params, elements)
        ),
        out,
        derivatives=derivatives and "stored",
        derivative_dtype=derivatives or "float32",
        frames_per_shard=frames_per_shard,
        forces=forces,
        skip_bad=skip_bad,
        threads=threads,
        dask=dask,
        labels=labels,
    )
    typer.echo(
        f"store:  {out}\n{store.n_frames} frames, {store.n_atoms} atoms, "
        f"{store.n_pairs} neighbours within {store.cutoff} Å"
    )
    if store.skipped:
        reasons = "\n".join(f"  {reason}" for _, _, reason in store.skipped)
        typer.echo(f"left out {len(store.skipped)} frames:\n{reasons}")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    plot: Annotated[bool, typer.Option("--plot", help="Draw predictions over references.")] = False,
    out: Annotated[Path, typer.Option(help="The picture: .png, .pdf, .svg.")] = Path("parity.png"),
    overwrite: Overwrite = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
) -> None:
    """Print the errors of a trained potential: of energies, forces and stresses, where known."""
    from amptorch.config import DatasetConfig
    from amptorch.files import check_output
    from amptorch.frames import read_images
    from amptorch.reports import error_table, parity_plot, prediction_errors

    if plot:
        check_output(out, overwrite)
    # A damaged file of frames is found before the potential is loaded.
    images = read_images(data)
    potential = _load(checkpoint)
    options = DatasetConfig() if potential.settings is None else potential.settings.dataset
    options = replace(options, **_keys(energy_key, forces_key, stress_key))
    images = read_images(images, options.labels)
    name = Path(data).name
    forces = any(atoms.calc is not None and "forces" in atoms.calc.results for atoms in images)
    forces = forces and potential.has_forces
    frames = _with_labels(name, images, potential.elements, forces, options.missing_forces, True)
    prediction = potential.predict(images, disable_tqdm=False, stress="optional")
    typer.echo(error_table({name: prediction_errors(frames, prediction)}))
    if plot:
        parity_plot(out, {name: (frames, prediction)})
        typer.echo(f"parity plot: {out}")


@app.command()
def predict(
    checkpoint: Checkpoint,
    data: Data,
    out: Annotated[Path, typer.Argument(help="File to write: .traj, .xyz, .json or .db.")],
    overwrite: Overwrite = False,
) -> None:
    """Write predicted energies, forces, and stresses of frames with a cell to a file."""
    from amptorch.files import check_output, labelled, output_format, write_images
    from amptorch.frames import read_images

    check_output(out, overwrite)
    images = read_images(data)
    form = output_format(out, len(images))
    prediction = _load(checkpoint).predict(images, disable_tqdm=False, stress="optional")
    write_images(out, labelled(images, prediction), form)
    typer.echo(f"{len(images)} frames with predictions: {out}")


app.command()(tuning.tune)
app.command()(tuning.pick)
app.command()(tuning.report)


@app.command()
def demo(
    frames: Annotated[int, typer.Option(min=10, help="Frames to generate; a fifth is kept.")] = 200,
    time: Annotated[str, typer.Option(help="All that the command may take.")] = "90s",
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("amptorch-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the frames, weights and batches.")] = 0,
) -> None:
    """Train on generated frames of water on iron, with the recommended values.

    Ends with a table of errors, the times, a parity plot and the checkpoint.
    """
    from tqdm import tqdm

    from amptorch.datasets import iter_iron_water
    from amptorch.reports import Stages

    stages = Stages()
    with stages("generating frames"):
        generator = iter_iron_water(frames, seed=seed)
        images = list(tqdm(generator, total=frames, desc="generating frames"))
    kept = frames // 5
    sets = {"held out": images[-kept:]}
    spent = _seconds_since_start() + _seconds_to_report(sets)
    settings = {
        "defaults": "recommended",
        "size": "small",
        "optim": {"total_seconds": max(1.0, tuning.seconds_of(time) - spent)},
        "dataset": {"raw_data": images[:-kept]},
        "cmd": {"run_dir": str(out), "seed": seed},
    }
    with _torch_threads(1):
        _train_and_report(settings, sets, stages)


app.command()(profile)


# Of a store, spread over it, whose errors are shown after training.
REPORTED_FRAMES = 500


def _load(checkpoint: Path) -> "Potential | Ensemble":
    """Return the potential, or the `Ensemble`, in a folder."""
    from amptorch.loading import load

    return load(checkpoint)


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keys(energy: str | None, forces: str | None, stress: str | None) -> dict[str, Any]:
    """Return the keys of the section `dataset` that options of the command line say."""
    given = {"energy_key": energy, "forces_key": forces, "stress_key": stress}
    return {name: key for name, key in given.items() if key is not None}


def _with_labels(
    name: str,
    images: "list[Atoms]",
    elements: list[str] | None,
    forces: bool,
    missing_forces: str = "error",
    stress: bool = False,
) -> "Frames":
    """Return the Frames of `images` with energies (forces, stresses); a ValueError says whose."""
    from amptorch.frames import Frames

    try:
        return Frames.from_atoms(images, elements, True, forces, 0, missing_forces, stress)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _seconds_since_start() -> float:
    """Return how long this process has been running."""
    import time

    import psutil

    return time.time() - psutil.Process().create_time()


def _seconds_to_report(sets: "dict[str, list[Atoms]]") -> float:
    """Return about how long predictions of these frames, and what is written at the end, take."""
    atoms = sum(len(image) for images in sets.values() for image in images)
    return 5.0 + 5e-4 * atoms


def _train_and_report(
    settings: dict[str, Any],
    sets: "dict[str, list[Atoms]]",
    stages: Any,
    start: Path | None = None,
    resume: Any = None,
) -> None:
    """Train, then print the errors on `sets` (name: images), and on the frames that were kept to
    validate or some that were trained on, the stages and the files written."""
    from amptorch.config import Config
    from amptorch.data.inspection import duplicate_warning, inspect_frames
    from amptorch.files import images_of
    from amptorch.reports import (
        error_table,
        group_table,
        parity_plot,
        prediction_errors,
        unfair_groups,
        worst_frames,
    )
    from amptorch.training.summary import summary
    from amptorch.v1.trainer import AtomsTrainer

    config = Config.from_dict(settings)
    options = config.dataset
    trained_on = options.raw_data if isinstance(options.raw_data, list) else None
    if trained_on is not None and options.store is None:
        with stages("looking at the frames"):
            for message in inspect_frames(trained_on):
                logger.warning("warning: %s", message)
            others = {name: images for name, images in sets.items() if images is not trained_on}
            for name, images in others.items():
                found = duplicate_warning(trained_on, images, name)
                if found is not None:
                    logger.warning("warning: %s", found)
    trainer: Any = AtomsTrainer(settings)
    if resume is None:
        with stages("fingerprints"):
            if start is None:
                trainer.load()
            else:
                trainer.load_pretrained(str(start))
            if trainer.ranks.first and trainer.train_dataset is not None:
                typer.echo(summary(trainer.settings, trainer.train_dataset, trainer.model))
    elements = trainer.elements
    frames = {
        name: _with_labels(name, images, elements, config.model.get_forces, options.missing_forces)
        for name, images in sets.items()
    }
    with stages("training"):
        trainer.train(resume=resume or False)
    if not trainer.ranks.first:
        return
    # LMDB files, and stores that were made from them, hold no structures to predict.
    if options.store is not None and trainer.train_dataset.store.has_structures:
        sample = trainer.train_dataset.sample(REPORTED_FRAMES)
        name = f"{len(sample)} of {len(trainer.train_dataset)} frames"
        frames, sets = {name: sample, **frames}, {name: images_of(sample), **sets}
    results = {}
    for name, images in sets.items():
        with stages("predicting"):
            results[name] = frames[name], trainer.predict(images, disable_tqdm=False)
    errors = {name: prediction_errors(*result) for name, result in results.items()}
    if errors:
        typer.echo(f"\n{error_table(errors)}")
    for name, (reference, prediction) in results.items():
        table = group_table(sets[name], reference, prediction)
        if table:
            typer.echo(f"\n{name}, by group\n{table}")
        typer.echo(f"\n{name}, worst frames\n{worst_frames(reference, prediction)}")
        for message in unfair_groups(sets[name], reference, prediction):
            logger.warning("warning: %s: %s", name, message)
    typer.echo(f"\n{stages.table()}")
    if not config.cmd.debug:
        typer.echo(f"\ncheckpoint:   {trainer.cp_dir}")
    if results and not config.cmd.debug:
        plot = Path(trainer.cp_dir) / "parity.png"
        parity_plot(plot, results)
        typer.echo(f"parity plot:  {plot}")
