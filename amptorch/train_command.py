"""The commands `amptorch train`, `init` and `demo`. Heavy imports stand inside."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amptorch.tuning.command import seconds_of

if TYPE_CHECKING:
    from ase import Atoms

    from amptorch.config import Config
    from amptorch.descriptor.ahead import Ahead
    from amptorch.frames import Frames

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


# Of a store, spread over it, whose errors are shown after training.
REPORTED_FRAMES = 500
# Of the training frames in memory, at most, unless all are asked for.
SHOWN_FRAMES = 100


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
    from amptorch.threads import torch_threads
    from amptorch.training.prepare import wanted_images

    if config is None and data is None:
        raise ValueError("give --data FILE with frames to train on, or a configuration")
    if start is not None and resume is not None:
        raise ValueError("give --from for a new run or --resume for an interrupted one, not both")
    settings: dict[str, Any] = {"defaults": "recommended"}
    if config is not None:
        settings = read_config(config)
    # Before the frames are read, which may take long.
    Config.from_dict(settings)
    # An empty section of a YAML file is None.
    for name in ("dataset", "optim", "cmd"):
        settings[name] = dict(settings.get(name) or {})
    dataset, optim, cmd = settings["dataset"], settings["optim"], settings["cmd"]
    dataset |= keys_of(energy_key, forces_key, stress_key)
    if size is not None:
        settings["size"] = size
    if out is not None:
        cmd["run_dir"] = str(out)
    if valid is not None:
        dataset["val_data"] = valid
    if data is not None:
        dataset["raw_data"] = data
    if time is not None:
        optim["total_seconds"] = seconds_of(time)
    checked = Config.from_dict(settings)
    ahead = _compile_ahead(checked)
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
            images = read_images(dataset["raw_data"], labels)
            images = wanted_images(images, checked.dataset, checked.model.get_forces)
            dataset["raw_data"] = images
            sample = images if train_errors else images[:: -(-len(images) // SHOWN_FRAMES)]
            name = "training and validation" if checked.dataset.val_split else "training"
            some = "" if len(sample) == len(images) else f"{len(sample)} of {len(images)} "
            sets[some + name] = sample
        if dataset.get("val_data"):
            sets["validation"] = dataset["val_data"] = read_images(dataset["val_data"], labels)
        if test is not None:
            sets["test"] = read_images(test, labels)
    # On a busy machine torch's threads wait for each other: with two of them, on two cores shared
    # with other programs, an epoch of 3 x 20 nodes, with 64, 16 and 8 frames of 164 atoms a batch,
    # took 9, 14 and 29 times as long as with one.
    as_many = checked.optim.gpus or "OMP_NUM_THREADS" in os.environ
    with nullcontext() if as_many else torch_threads(1):
        _train_and_report(settings, sets, stages, ahead, start, resume)


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
    from amptorch.reports import Stages
    from amptorch.threads import torch_threads

    settings: dict[str, Any] = {
        "defaults": "recommended",
        "size": "small",
        "cmd": {"run_dir": str(out), "seed": seed},
    }
    ahead = _compile_ahead(Config.from_dict(settings))
    stages = Stages()
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
        _train_and_report(settings, sets, stages, ahead)


def _compile_ahead(config: "Config") -> "Ahead | None":
    """Begin to compile the kernels of a training, where these are of symmetry functions."""
    from amptorch.descriptor.ahead import Ahead

    # The processes of one training would all do so.
    if config.dataset.fp_scheme != "gaussian" or "RANK" in os.environ:
        return None
    return Ahead(["derivatives", "neighbors"])


def keys_of(energy: str | None, forces: str | None, stress: str | None) -> dict[str, Any]:
    """Return the keys of the section `dataset` that options of the command line say."""
    given = {"energy_key": energy, "forces_key": forces, "stress_key": stress}
    return {name: key for name, key in given.items() if key is not None}


def with_labels(
    name: str,
    images: "list[Atoms]",
    elements: list[str] | None,
    forces: bool,
    missing_forces: str = "error",
    stress: bool = False,
) -> "Frames":
    """Return the Frames of `images` with energies (and forces, and the stresses that are there); a
    ValueError says whose."""
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
    return 3.0 + 1.5e-4 * atoms


def _train_and_report(
    settings: dict[str, Any],
    sets: "dict[str, list[Atoms]]",
    stages: Any,
    ahead: "Ahead | None",
    start: Path | None = None,
    resume: Any = None,
) -> None:
    """Train, then print the errors on `sets` (name: images), and on the frames that were kept to
    validate or some that were trained on, the stages and the files written."""
    from amptorch.config import Config
    from amptorch.data.copies import duplicate_warning
    from amptorch.data.inspection import inspect_frames
    from amptorch.descriptor.ahead import compile_now
    from amptorch.files import images_of
    from amptorch.prediction import predict
    from amptorch.reports import (
        error_table,
        group_table,
        parity_plot,
        prediction_errors,
        unfair_groups,
        useless,
        worst_frames,
    )
    from amptorch.training.summary import summary
    from amptorch.v1.trainer import AtomsTrainer

    config = Config.from_dict(settings)
    options = config.dataset
    trained_on = options.raw_data if isinstance(options.raw_data, list) else None
    elements = options.elements
    if elements is None and trained_on is not None and options.store is None:
        elements = sorted({symbol for atoms in trained_on for symbol in set(atoms.symbols)})
    stress = config.optim.stress_coefficient > 0
    labels = elements, config.model.get_forces, options.missing_forces, stress
    frames = {name: with_labels(name, images, *labels) for name, images in sets.items()}
    if ahead is not None:
        with stages("compiling"):
            ahead.wait()
            # What predicts stresses, at the end: within the time that may be taken.
            if any(labelled.has_stress for labelled in frames.values()):
                compile_now(["gradients"])
    if trained_on is not None and options.store is None:
        with stages("looking at the frames"):
            for message in inspect_frames(trained_on):
                logger.warning("warning: %s", message)
            for name in {"validation", "test", "held out"} & set(sets):
                found = duplicate_warning(trained_on, sets[name], name)
                if found is not None:
                    logger.warning("warning: %s", found)
    if config.optim.total_seconds is not None:
        spent = _seconds_since_start() + _seconds_to_report(sets)
        left = max(1.0, config.optim.total_seconds - spent)
        settings = {**settings, "optim": {**settings["optim"], "total_seconds": left}}
    trainer: Any = AtomsTrainer(settings)
    if resume is None:
        with stages("fingerprints"):
            if start is None:
                trainer.load()
            else:
                trainer.load_pretrained(str(start))
            # Of the elements configured, or in the store, those that were trained on.
            for name, images in sets.items():
                with_labels(name, images, trainer.potential.elements, forces=False)
            if trainer.ranks.first and trainer.train_dataset is not None:
                typer.echo(summary(trainer.settings, trainer.train_dataset, trainer.model))
    with stages("training"):
        trainer.train(resume=resume or False)
    if not trainer.ranks.first:
        return
    # LMDB files, and stores that were made from them, hold no structures to predict.
    if options.store is not None and trainer.train_dataset.store.has_structures:
        sample = trainer.train_dataset.sample(REPORTED_FRAMES)
        name = f"{len(sample)} of {len(trainer.train_dataset)} frames"
        frames, sets = {name: sample, **frames}, {name: images_of(sample), **sets}
    # Where derivatives are stored, the kernels that make them are compiled.
    keep = getattr(trainer.train_dataset, "derivative_kind", None) == "stored"
    results = {}
    for name, images in sets.items():
        with stages("predicting"):
            prediction = (
                trainer.potential.predict(images, disable_tqdm=False, stress="optional")
                if frames[name].has_stress
                else predict(
                    trainer.potential, images, trainer.forcetraining, quiet=False, keep=keep
                )
            )
            results[name] = frames[name], prediction
    errors = {name: prediction_errors(*result) for name, result in results.items()}
    if errors:
        typer.echo(f"\n{error_table(errors)}")
    for name, (reference, prediction) in results.items():
        table = group_table(sets[name], reference, prediction)
        if table:
            typer.echo(f"\n{name}, by group\n{table}")
        typer.echo(f"\n{name}, worst frames\n{worst_frames(reference, prediction)}")
        scaler = trainer.potential.target_scaler
        references = scaler.references(reference.numbers, reference.counts)
        warnings = useless(reference, prediction, references + float(scaler.target_mean))
        for message in warnings + unfair_groups(sets[name], reference, prediction):
            logger.warning("warning: %s: %s", name, message)
    typer.echo(f"\n{stages.table()}")
    if not config.cmd.debug:
        typer.echo(f"\ncheckpoint:   {trainer.cp_dir}")
    if results and not config.cmd.debug:
        plot = Path(trainer.cp_dir) / "parity.png"
        parity_plot(plot, results)
        typer.echo(f"parity plot:  {plot}")
