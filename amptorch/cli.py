"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amptorch import __version__
from amptorch.engines.serve import serve
from amptorch.export_command import convert, export
from amptorch.lammps.command import lammps
from amptorch.learning.command import learn, select
from amptorch.profiling.command import profile
from amptorch.train_command import (
    Data,
    EnergyKey,
    ForcesKey,
    Overwrite,
    StressKey,
    demo,
    init,
    keys_of,
    train,
)
from amptorch.train_run import with_labels
from amptorch.tuning import command as tuning

if TYPE_CHECKING:
    from amptorch.ensemble import Ensemble
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


app.command()(train)
app.command()(init)


@app.command()
def preprocess(
    data: Annotated[list[str], typer.Argument(help="Files of structures, as ase.io.read takes.")],
    config: Annotated[Path, typer.Option(help="YAML or JSON file of AtomsTrainer's sections.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; gone on with if it is there.")],
    derivatives: Annotated[
        Literal["float32", "float64"] | None, typer.Option(help="Keep derivatives in this type.")
    ] = None,
    stress: Annotated[
        bool, typer.Option("--stress", help="Keep stresses, and what training on them needs.")
    ] = False,
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
    from amptorch.data.fill import frames_to_look_at
    from amptorch.descriptor.construct import construct_descriptor
    from amptorch.files import read_config
    from amptorch.store import find_elements
    from amptorch.store import preprocess as make_store
    from amptorch.training.prepare import with_elements, with_functions

    settings = Config.from_dict(read_config(config))
    dataset = replace(settings.dataset, **keys_of(energy_key, forces_key, stress_key))
    labels = dataset.labels
    forces = settings.model.get_forces
    elements = dataset.elements
    if elements is None:
        elements = find_elements(data, skip_bad, verbose=True, forces=forces, labels=labels)
    settings = with_functions(
        with_elements(replace(settings, dataset=dataset), elements),
        lambda: frames_to_look_at(out, data, elements, skip_bad),
    )
    store = make_store(
        data,
        construct_descriptor(settings.dataset.descriptor_setup),
        out,
        derivatives=derivatives and "stored",
        derivative_dtype=derivatives or "float32",
        frames_per_shard=frames_per_shard,
        forces=forces,
        skip_bad=skip_bad,
        threads=threads,
        dask=dask,
        labels=labels,
        stress=stress,
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
    """Print the errors of a trained potential: of energies, and of forces and stresses where there
    are any."""

    from amptorch.config import DatasetConfig
    from amptorch.files import check_output
    from amptorch.frames import read_images
    from amptorch.reports import check_picture, error_table, parity_plot, prediction_errors

    if plot:
        check_picture(out)
        check_output(out, overwrite)
    # A damaged file of frames is found before the potential is loaded.
    images = read_images(data)
    potential = _load(checkpoint)
    keys = keys_of(energy_key, forces_key, stress_key)
    options = replace(
        DatasetConfig() if potential.settings is None else potential.settings.dataset, **keys
    )
    images = read_images(images, options.labels)
    name = Path(data).name
    forces = any(atoms.calc is not None and "forces" in atoms.calc.results for atoms in images)
    forces = forces and potential.has_forces
    frames = with_labels(
        name, images, potential.elements, forces, options.missing_forces, potential.has_forces
    )
    if stress_key is not None and not frames.has_stress:
        raise ValueError(
            f"{name}: no frame has a stress under {stress_key!r}, or the model has none"
        )
    prediction = potential.predict(
        images, disable_tqdm=False, stress="optional" if frames.has_stress else False
    )
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
    """Write predicted energies and forces to a file, and stresses of frames with three cell
    vectors.

    Columns beside the forces say how far each atom is from those of the training: `extrapolation`,
    1 for the farthest 1 % of these, `functions_outside` and `range_excess`.
    """
    from amptorch.extrapolation import far_frames
    from amptorch.files import check_output, labelled, output_format, write_images
    from amptorch.frames import read_images

    check_output(out, overwrite)
    images = read_images(data)
    form = output_format(out, len(images))
    potential = _load(checkpoint)
    stress: Any = "optional" if potential.has_forces else False
    prediction = potential.predict(images, disable_tqdm=False, stress=stress, extrapolation=True)
    write_images(out, labelled(images, prediction), form)
    typer.echo(f"{len(images)} frames with predictions: {out}")
    words = far_frames(prediction)
    if words:
        typer.echo(words)


@app.command("compile")
def compile_kernels() -> None:
    """Compile the kernels of symmetry functions now, in place of at their first use: for the image
    of a container, or for the users of a cluster who share NUMBA_CACHE_DIR."""
    from amptorch.descriptor.ahead import compile_all

    typer.echo(f"kernels are compiled: {compile_all()}")


app.command()(select)
app.command()(learn)
app.command()(tuning.tune)
app.command()(tuning.pick)
app.command()(tuning.report)


app.command()(demo)
app.command()(profile)
app.command()(export)
app.command()(convert)
app.command()(lammps)
app.command()(serve)


def _load(checkpoint: Path) -> "Potential | Ensemble":
    """Return the potential, or the `Ensemble`, in a folder."""
    from amptorch.loading import load

    return load(checkpoint)
