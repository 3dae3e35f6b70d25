"""Where a training run writes."""

from datetime import datetime
from pathlib import Path


def new_run_folder(run_dir, identifier=None):
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


def remove_if_empty(folder):
    """Remove the folder of a run that ended before it wrote anything."""
    if folder is not None and Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()
