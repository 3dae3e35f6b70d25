"""Define the command `amptorch convert`. Heavy imports stand inside."""

from pathlib import Path
from typing import Annotated, Literal

import typer


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

    check_folder(out, "config.json", overwrite)
    potential = read_potential(folder, units)
    potential.save(out)
    typer.echo(f"potential of {', '.join(potential.elements)}: {out}")


def check_folder(folder: Path, file: str, overwrite: bool) -> None:
    """Raise NotADirectoryError or FileExistsError where `file` cannot be written to a folder."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give the name of a folder")
    if (folder / file).exists() and not overwrite:
        raise FileExistsError(f"{str(folder)!r} holds one already; give --overwrite to replace it")
