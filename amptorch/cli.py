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
    config: Annotated[Path, typer.Argument(help="YAML or JSON file of AtomsTrainer's sections.")],
    data: Annotated[str | None, typer.Option(help="Frames; replaces dataset.raw_data.")] = None,
    test: Annotated[str | None, typer.Option(help="Frames kept out of the training.")] = None,
    out: Annotated[Path | None, typer.Option(help="Replaces cmd.run_dir.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Checkpoint whose parameters a new run starts with."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of an interrupted run, to go on with as it was.")
    ] = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
) -> None:
    """Train a potential on the frames of a file.

    Under `torchrun --no-python --nproc-per-node N amptorch train ...` N processes train together.
    The network runs on one CPU thread, everything else on all; OMP_NUM_THREADS gives it more.
    Ends with a table of errors, the times, a parity plot and the checkpoint.
    """
    from amptorch.config import Config
    from amptorch.files import read_config
    from amptorch.frames import read_images
    from amptorch.reports import Stages
    from amptorch.training.prepare import wanted_images

    settings = read_config(config)
    # Before the frames are read, which may take long.
    checked = Config.from_dict(settings)
    dataset = settings["dataset"] = dict(settings.get("dataset") or {})
    dataset |= _keys(energy_key, forces_key, stress_key)
    labels = Config.from_dict(settings).dataset.labels
    if out is not None:
        settings["cmd"] = {**(settings.get("cmd") or {}), "run_dir": str(out)}
    if data is not None:
        dataset["raw_data"] = data
    if not any(dataset.get(key) for key in ("raw_data", "store", "lmdb_path")):
        raise ValueError(f"{config} has no dataset.raw_data; add it or give --data FILE")
    if dataset.get("raw_data") and dataset.get("lmdb_path"):
        raise ValueError(
            f"{config} has dataset.lmdb_path, and there is dataset.raw_data (--data) too; a "
            "training is on one of them: leave one out"
        )
    if start is not None and resume is not None:
        raise ValueError("give --from for a new run or --resume for an interrupted one, not both")
    stages = Stages()
    with stages("reading"):
        sets = {}
        # What a store is for is not read into memory.
        if dataset.get("raw_data") and not dataset.get("store"):
            images = read_images(dataset["raw_data"], labels)
            dataset["raw_data"] = wanted_images(images, checked.dataset, checked.model.get_forces)
            trained_on = "training and validation" if dataset.get("val_split") else "training"
            sets[trained_on] = dataset["raw_data"]
        if test is not None:
            sets["test"] = read_images(test, labels)
    # On a busy machine torch's threads wait for each other: with two of them, on two cores shared
    # with other programs, an epoch of 3 x 20 nodes, with 64, 16 and 8 frames of 164 atoms a batch,
    # took 9, 14 and 29 times as long as with one.
    as_many = checked.optim.gpus or "OMP_NUM_THREADS" in os.environ
    with nullcontext() if as_many else _torch_threads(1):
        _train_and_report(settings, sets, stages, start, resume)


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
    """Print the errors of a trained potential: of energies, and of forces where there are any."""
    from amptorch.config import DatasetConfig
    from amptorch.files import check_output
    from amptorch.frames import read_images
    from amptorch.reports import error_table, parity_plot, prediction_errors

    if plot:
        check_output(out, overwrite)
    # A damaged file of frames is found before the potential is loaded.
    images = read_images(data)
    potential = _load(checkpoint)
    keys = _keys(energy_key, forces_key, stress_key)
    options = replace(
        DatasetConfig() if potential.settings is None else potential.settings.dataset, **keys
    )
    images = read_images(images, options.labels)
    name = Path(data).name
    forces = any(atoms.calc is not None and "forces" in atoms.calc.results for atoms in images)
    forces = forces and potential.has_forces
    frames = _with_labels(name, images, potential.elements, forces, options.missing_forces)
    prediction = potential.predict(images, disable_tqdm=False)
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
    """Write predicted energies and forces to a file."""
    from amptorch.files import check_output, labelled, output_format, write_images
    from amptorch.frames import read_images

    check_output(out, overwrite)
    images = read_images(data)
    form = output_format(out, len(images))
    prediction = _load(checkpoint).predict(images, disable_tqdm=False)
    write_images(out, labelled(images, prediction), form)
    typer.echo(f"{len(images)} frames with predictions: {out}")


app.command()(tuning.tune)
app.command()(tuning.pick)
app.command()(tuning.report)


@app.command()
def demo(
    frames: Annotated[int, typer.Option(min=10, help="Frames to generate; a fifth is kept.")] = 200,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training frames.")] = 80,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("amptorch-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the frames, weights and batches.")] = 0,
) -> None:
    """Train on generated frames of water on iron.

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
    sets = {"training": images[:-kept], "held out": images[-kept:]}
    settings = {
        "model": {
            "get_forces": True,
            "num_layers": 3,
            "num_nodes": 20,
            "initialization": "small",
        },
        "optim": {
            "force_coefficient": 300.0,
            "lr": 1e-2,
            "batch_size": 4,
            "epochs": epochs,
            "scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": epochs}},
        },
        "dataset": {
            "raw_data": sets["training"],
            "atomic_correction": True,
            "fp_scheme": "gaussian",
            "fp_params": DEMO_SYMMETRY_FUNCTIONS,
            "scaling": {"type": "standardize"},
            "save_fps": False,
        },
        "cmd": {"run_dir": str(out), "seed": seed},
    }
    with _torch_threads(1):
        _train_and_report(settings, sets, stages)


app.command()(profile)


# From the length of a bond to the whole neighbourhood; etas are in units of 1/cutoff².
DEMO_SYMMETRY_FUNCTIONS = {
    "default": {
        "cutoff": 5.0,
        "G2": {"etas": [0.5, 2.0, 8.0, 25.0, 80.0], "rs_s": [0.0]},
        "G4": {"etas": [1.0], "zetas": [1.0], "gammas": [1.0, -1.0]},
    }
}


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
) -> "Frames":
    """Return the Frames of `images` with energies (and forces); a ValueError says whose."""
    from amptorch.frames import Frames

    try:
        return Frames.from_atoms(images, elements, True, forces, 0, missing_forces)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _train_and_report(
    settings: dict[str, Any],
    sets: "dict[str, list[Atoms]]",
    stages: Any,
    start: Path | None = None,
    resume: Any = None,
) -> None:
    """Train, then print the errors on `sets` (name: images), the stages and the files written."""
    from amptorch.config import Config
    from amptorch.files import images_of
    from amptorch.reports import error_table, parity_plot, prediction_errors
    from amptorch.v1.trainer import AtomsTrainer

    config = Config.from_dict(settings)
    elements = config.dataset.elements
    if elements is None and config.dataset.store is None and config.dataset.raw_data is not None:
        elements = sorted(
            {symbol for atoms in config.dataset.raw_data for symbol in set(atoms.symbols)}
        )
    frames = {
        name: _with_labels(
            name, images, elements, config.model.get_forces, config.dataset.missing_forces
        )
        for name, images in sets.items()
    }
    trainer: Any = AtomsTrainer(settings)
    if resume is None:
        with stages("fingerprints"):
            if start is None:
                trainer.load()
            else:
                trainer.load_pretrained(str(start))
            # Of the elements configured, or in the store, those that were trained on.
            for name, images in sets.items():
                _with_labels(name, images, trainer.potential.elements, forces=False)
    with stages("training"):
        trainer.train(resume=resume or False)
    if not trainer.ranks.first:
        return
    # LMDB files, and stores that were made from them, hold no structures to predict.
    if config.dataset.store is not None and trainer.train_dataset.store.has_structures:
        sample = trainer.train_dataset.sample(REPORTED_FRAMES)
        name = f"{len(sample)} of {len(trainer.train_dataset)} frames"
        frames, sets = {name: sample, **frames}, {name: images_of(sample), **sets}
    results = {}
    for name, images in sets.items():
        with stages("predicting"):
            results[name] = frames[name], trainer.predict(images, disable_tqdm=False)
    errors = {name: prediction_errors(*result) for name, result in results.items()}
    table = f"\n{error_table(errors)}\n" if errors else ""
    typer.echo(f"{table}\n{stages.table()}")
    if not config.cmd.debug:
        typer.echo(f"\ncheckpoint:   {trainer.cp_dir}")
    if results and not config.cmd.debug:
        plot = Path(trainer.cp_dir) / "parity.png"
        parity_plot(plot, results)
        typer.echo(f"parity plot:  {plot}")
