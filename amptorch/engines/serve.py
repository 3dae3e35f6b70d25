"""Define the command `amptorch serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[Path, typer.Argument(help="Folder of a training run, or of an ensemble.")],
    frame: Annotated[
        str, typer.Argument(help="Structure whose atoms are those of the driver, in its order.")
    ],
    unix: Annotated[
        str | None, typer.Option(help="Name of a Unix socket; or a host and a port.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where the driver runs.")] = "localhost",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="i-PI's is 31415.")] = None,
    stress: Annotated[
        bool | None, typer.Option(help="By default where the frame is periodic.")
    ] = None,
    skin: Annotated[
        float, typer.Option(min=0, help="Å beyond the cutoff up to which neighbours are listed.")
    ] = 0.5,
) -> None:
    """Answer a driver that speaks i-PI's protocol, until it says that it is done.

    The driver is started first and gives cells and positions; energies, forces and virials go back.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the kernels have threads of their own

    from ase.calculators.socketio import SocketClient

    from amptorch.calculator import AmpTorch
    from amptorch.frames import read_images

    if (unix is None) == (port is None):
        raise ValueError("give --unix NAME, or --port P (and --host), as the driver has it")
    atoms = read_images(frame)[0]
    atoms.calc = AmpTorch(model, skin=skin)
    try:
        client = SocketClient(host=host, port=port, unixsocket=unix)
    except OSError as error:
        where = f"the Unix socket {unix!r}" if unix else f"{host}:{port}"
        raise ConnectionError(
            f"no driver answers at {where} ({error.strerror}): start it first"
        ) from error
    typer.echo(f"answering at {unix or f'{host}:{port}'}, {len(atoms)} atoms")
    client.run(atoms, use_stress=bool(atoms.pbc.any()) if stress is None else stress)
