"""Define the command `amptorch lammps`."""

import ctypes
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer


def lammps(
    model: Annotated[
        Path | None, typer.Argument(help="Folder of a training run, or of an ensemble.")
    ] = None,
    script: Annotated[
        Path | None, typer.Argument(help="LAMMPS input, as `lmp -in` takes it.")
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(help='Element of each atom type, such as "H O Fe"; by default by its mass.'),
    ] = None,
    skin: Annotated[
        float, typer.Option(min=0, help="Å beyond the cutoff up to which neighbours are listed.")
    ] = 0.5,
    arguments: Annotated[
        str, typer.Option("--lammps", help='LAMMPS\'s own options, such as "-log none -var T 300".')
    ] = "",
    build: Annotated[
        bool,
        typer.Option("--build-plugin", help="Compile the pair style in C++; run nothing."),
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option(help="Source tree of the LAMMPS to build for; default: this Python's LAMMPS."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the plugin.")] = Path("."),
) -> None:
    """Run a LAMMPS input with a trained potential.

    The input has `pair_style amptorch` and `pair_coeff * * H O Fe` (the element of each atom type),
    or no pair style. Several processes: mpiexec -n 2 amptorch lammps MODEL in.lammps

    With --build-plugin it compiles the pair style in C++ instead, which LAMMPS itself runs, without
    this command: see `amptorch export --format lammps`.
    """
    if build:
        if model is not None:
            raise ValueError("--build-plugin runs no input: give neither MODEL nor SCRIPT with it")
        from amptorch.lammps.plugin import build_plugin

        typer.echo(f"plugin load {build_plugin(out, source).resolve()}")
        return
    if model is None or script is None:
        raise ValueError("give MODEL and SCRIPT: amptorch lammps MODEL in.lammps")
    if source is not None:
        raise ValueError("--source is for --build-plugin alone")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the kernels have threads of their own

    from amptorch.lammps.library import start

    if not script.is_file():
        raise FileNotFoundError(f"there is no LAMMPS input {str(script)!r}")
    lmp = start(arguments.split())
    try:
        _run(lmp, model, script, elements.split() if elements else None, skin)
    except Exception as error:  # any: other processes wait for this one
        if lmp.extract_setting("world_size") > 1:
            _fail(lmp, error)
        if isinstance(error, (ValueError, TypeError, OSError, ImportError)):
            raise
        raise ValueError(f"LAMMPS: {error}") from error
    finally:
        lmp.close()


def _run(lmp: Any, model: Path, script: Path, given: list[str] | None, skin: float) -> None:
    from ase.data import atomic_numbers

    from amptorch.lammps.coupling import FIX, attach, elements_by_mass, pair_zero
    from amptorch.lammps.script import pieces
    from amptorch.loading import load

    potential = load(model)
    for piece in pieces(script):
        _execute(lmp, piece.text)
        if piece.command is None:
            continue
        if piece.command[:1] == ("pair_style",):
            zero = pair_zero(lmp, potential)
            words = [zero if word == "amptorch" else word for word in piece.command]
            lmp.command(" ".join(words))
            continue
        named = lmp.expand(" ".join(piece.command[1:])).split() if piece.command else given
        if named and named[0] not in atomic_numbers:
            raise ValueError(
                f"`pair_coeff * * {' '.join(named)}` names a file, as for the pair style in C++, "
                "which `lmp -in` runs; `amptorch lammps MODEL` takes the elements alone"
            )
        if piece.command:
            hybrid = lmp.extract_global("pair_style").startswith("hybrid")
            lmp.command("pair_coeff * *" + " zero" * hybrid)
        if lmp.has_id("fix", FIX):
            lmp.command(f"unfix {FIX}")
        attach(
            lmp,
            potential,
            named or elements_by_mass(lmp, potential.elements),
            skin,
            on_error=lambda error: _fail(lmp, error),
        )


def _execute(lmp: Any, text: str) -> None:
    """Let LAMMPS read some lines from a file, so that they may hold loops."""
    with tempfile.NamedTemporaryFile("w", suffix=".lammps", encoding="utf8") as file:
        file.write(text)
        file.flush()
        lmp.file(file.name)


def _fail(lmp: Any, error: Exception) -> None:
    """End all processes with one message, as LAMMPS's own errors do; what was written so far is
    kept.

    No exception gets out of the callback of `fix external`, and LAMMPS can be told to end a run
    there, but not the input: the commands after it would be run, such as a `write_data` of atoms
    that have exploded. So the process ends here.
    """
    rank = lmp.extract_setting("world_rank")
    size = lmp.extract_setting("world_size")
    lmp.flush_buffers()
    # Open dump files are LAMMPS's: whoever looks for the reason wants their last frames.
    ctypes.CDLL(None).fflush(None)
    if rank > 0:
        time.sleep(2)  # one message: the first process ends all before, if it met the error too
    typer.echo(f"error: {error}", err=True)
    if size > 1:
        lmp.get_mpi_comm().Abort(1)
    os._exit(1)
