"""Define the commands `amptorch export` and `amptorch convert`. Heavy imports stand inside."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or the file of lammps.")],
    form: Annotated[
        Literal["n2p2", "lammps"],
        typer.Option(
            "--format",
            help="n2p2: for n2p2 and LAMMPS's hdnnp; lammps: for our own pair style, which "
            "`amptorch lammps --build-plugin` compiles.",
        ),
    ] = "n2p2",
    data: Annotated[
        str | None,
        typer.Option(
            help="Training frames, for the ranges of functions in n2p2; default: as known."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a potential that is there.")
    ] = False,
) -> None:
    """Write a trained potential in the files of another program, with the same energies and forces.

    Names what the other program does not have, and what to train instead.
    """
    from amptorch.files import check_output
    from amptorch.frames import read_images
    from amptorch.lammps.export import write_potential as write_lammps
    from amptorch.loading import load
    from amptorch.n2p2.writing import write_potential as write_n2p2

    if form == "n2p2":
        _check_folder(out, "input.nn", overwrite)
        frames = None if data is None else read_images(data)
        potential = load(model)
        write_n2p2(potential, out, frames)
    else:
        check_output(out, overwrite)
        if data is not None:
            raise ValueError("--data is for --format n2p2 alone")
        potential = load(model)
        write_lammps(potential, out)
    typer.echo(f"{form} potential of {', '.join(potential.elements)}: {out}")


def convert(
    folder: Annotated[Path, typer.Argument(help="Folder of input.nn, scaling.data and weights.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint to write.")],
    units: Annotated[
        Literal["angstrom", "bohr"],
        typer.Option(help="Of the files: angstrom (Å, eV) or bohr (Bohr, Hartree)."),
    ] = "angstrom",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")
    ] = False,
) -> None:
    """Make a checkpoint of a potential of n2p2 or RuNNer, for every other command."""
    from amptorch.n2p2.reading import read_potential

    _check_folder(out, "config.json", overwrite)
    potential = read_potential(folder, units)
    potential.save(out)
    typer.echo(f"potential of {', '.join(potential.elements)}: {out}")


def _check_folder(folder: Path, file: str, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give the name of a folder")
    if (folder / file).exists() and not overwrite:
        raise FileExistsError(f"{str(folder)!r} holds one already; give --overwrite to replace it")
