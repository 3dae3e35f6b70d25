"""Define the command `amptorch lammps`."""

import ctypes
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer


def lammps(
    model: Annotated[Path, typer.Argument(help="Folder of a training run, or of an ensemble.")],
    script: Annotated[Path, typer.Argument(help="LAMMPS input, as `lmp -in` takes it.")],
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
) -> None:
    """Run a LAMMPS input with a trained potential.

    The input has `pair_style amptorch` and `pair_coeff * * H O Fe` (the element of each atom type),
    or no pair style. Several processes: mpiexec -n 2 amptorch lammps MODEL in.lammps
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the kernels have threads of their own

    from amptorch.lammps.library import start

    if not script.is_file():
        raise FileNotFoundError(f"there is no LAMMPS input {str(script)!r}")
    words = ["-log", "log.lammps", *arguments.split()]
    lmp = start(words)
    try:
        _run(lmp, model, script, elements.split() if elements else None, skin)
    except Exception as error:  # any: the other processes wait for this one
        _fail(lmp, error)
    lmp.close()


def _run(lmp: Any, model: Path, script: Path, given: list[str] | None, skin: float) -> None:
    from amptorch.lammps.coupling import FIX, attach, elements_by_mass, pair_zero
    from amptorch.lammps.script import pieces
    from amptorch.loading import load

    potential = load(model)
    # LAMMPS knows its units only when it has read them, and they scale the cutoff.
    style = _units(script)
    for piece in pieces(script, pair_zero(potential, style)):
        _execute(lmp, piece.text)
        if piece.elements is None:
            continue
        found = lmp.expand(" ".join(piece.elements)).split() if piece.elements else given
        found = found or elements_by_mass(lmp, potential.elements)
        if lmp.has_id("fix", FIX):
            lmp.command(f"unfix {FIX}")
        attach(lmp, potential, found, skin, on_error=lambda error: _fail(lmp, error))


def _execute(lmp: Any, text: str) -> None:
    """Let LAMMPS read some lines from a file, so that they may hold loops."""
    with tempfile.NamedTemporaryFile("w", suffix=".lammps", encoding="utf8") as file:
        file.write(text)
        file.flush()
        lmp.file(file.name)


def _units(script: Path) -> str:
    """Return LAMMPS's `units` in an input; `lj`, as LAMMPS does, where there are none."""
    for line in script.read_text(encoding="utf8").splitlines():
        words = line.split()
        if words[:1] == ["units"] and len(words) > 1:
            return words[1]
    return "lj"


def _fail(lmp: Any, error: Exception) -> None:
    """End all processes with one message, as LAMMPS's own errors do; what was written so far is
    kept."""
    rank = lmp.extract_setting("world_rank")
    size = lmp.extract_setting("world_size")
    lmp.flush_buffers()
    # Open dump files are LAMMPS's: whoever looks for the reason wants their last frames.
    ctypes.CDLL(None).fflush(None)
    if rank == 0:
        typer.echo(f"error: {error}", err=True)
    if size > 1:
        time.sleep(0 if rank == 0 else 2)  # the message first
        lmp.get_mpi_comm().Abort(1)
    os._exit(1)
