"""Make the folder of a training run, and keep other trainings out of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from amptorch.config import CmdConfig
from amptorch.locks import locked
from amptorch.training.ranks import Ranks

EPOCHS, LOCK = "epochs", ".lock"


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
def new_run(cmd: CmdConfig, ranks: Ranks | None = None) -> Iterator[Path | None]:
    """Make the folder of a run, to find out at once whether it can be written to; it goes again
    where the block fails before anything is in it. With `cmd.debug` there is none.

    Another training is kept out of it for as long as the block takes.
    """
    if cmd.debug:
        yield None
        return
    ranks = Ranks() if ranks is None else ranks
    run = ranks.from_first(lambda: new_run_folder(cmd.run_dir, cmd.identifier))
    own = run if ranks.first else None
    try:
        with lock_run(own):
            yield run
    except BaseException:
        remove_if_empty(own)
        raise


@contextmanager
def lock_run(run: str | os.PathLike[str] | None) -> Iterator[None]:
    """Keep all other trainings out of the folder of a run, and remove what a killed one had begun
    to write there; without a folder (None, or one that is not there) nothing is done.

    Raises BlockingIOError that names the folder where another training has it.
    """
    if run is None or not Path(run).is_dir():
        yield
        return
    busy = (
        f"another training is writing to the run {str(run)!r}; wait until it has ended, or "
        "start a new run (without resume)"
    )
    with locked(Path(run) / LOCK, busy, remove=True):
        remove_unfinished(run)
        yield


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
