"""Make the folder of a training run, and keep other trainings out of it."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

EPOCHS, LOCK = "epochs", ".lock"
# Of file systems without locks, among them NFS whose lock service is off.
NO_LOCK_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def new_run_folder(run_dir: str | os.PathLike[str], identifier: str | None = None) -> Path:
    """Make and return `run_dir/checkpoints/<YYYY-MM-DD-HH-MM-SS>[-identifier]`.

    A number is added where the folder is there already, so that no run writes over another.

    Raises ValueError that names the folder where it cannot be made or written to.
    """
    name = datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    if identifier:
        name = f"{name}-{identifier}"
    parent = Path(run_dir) / "checkpoints"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder, copy = parent / name, 1
        while True:
            try:
                folder.mkdir()
                break
            except FileExistsError:
                copy += 1
                folder = parent / f"{name}-{copy}"
    except OSError as error:
        raise ValueError(
            f"cannot write checkpoints to {parent} ({error}); set cmd.run_dir to a folder that can "
            "be written to, or cmd.debug to True to keep none"
        ) from error
    return folder


@contextmanager
def lock_run(run: str | os.PathLike[str] | None) -> Iterator[None]:
    """Keep all other trainings out of the folder of a run, and remove what a killed one had begun
    to write there; without a folder (None, or one that is not there) nothing is done.

    The lock is the operating system's, so that it is gone with the process that has it, however
    that ended. Raises BlockingIOError that names the folder where another training has it.
    """
    if run is None or not Path(run).is_dir():
        yield
        return
    path = Path(run) / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"another training is writing to the run {str(run)!r}; wait until it has ended, or "
            "start a new run (without resume)"
        ) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCK_ERRORS:
            raise
        warnings.warn(
            f"{str(run)!r} is on a file system without locks ({error}): nothing keeps a second "
            "training from writing to it; do not resume it twice at a time",
            stacklevel=2,
        )
    try:
        remove_unfinished(run)
        yield
    finally:
        if lock.is_locked:
            # While it is held: whoever comes later makes another one. Windows will not have it.
            with suppress(OSError):
                path.unlink()
            lock.release()


def remove_unfinished(run: str | os.PathLike[str]) -> None:
    """Remove what a killed process had begun to write."""
    for path in Path(run).glob(".*.*"):
        if path.suffix[1:].isdigit() and path.is_file():
            path.unlink(missing_ok=True)
    for path in (Path(run) / EPOCHS).glob(".*.*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_if_empty(folder: str | os.PathLike[str] | None) -> None:
    """Remove the folder of a run that ended before it wrote anything."""
    if folder is not None and Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()
