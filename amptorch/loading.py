"""Opening what was trained."""

import os
from pathlib import Path
from typing import Any

from amptorch.checkpoints.folder import load_checkpoint
from amptorch.ensemble import Ensemble, is_ensemble
from amptorch.potential import Potential


def load(folder: str | os.PathLike[str], device: str = "cpu") -> Potential | Ensemble:
    """Return the potential in a folder, ready to predict.

    folder : a checkpoint, also one of v1.0's; an ensemble; or what a training wrote to: the folder
        of a run, or one with `checkpoints/` in it, of which the newest checkpoint is taken
    device : where the network is, such as "cpu" or "cuda:0"

    Raises FileNotFoundError where there is no such folder or nothing in it to load, and ValueError
    that names the damaged file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to load a potential from")
    if is_ensemble(path):
        return Ensemble.load(path, device)
    return Potential.from_checkpoint(load_checkpoint(checkpoint_in(path)), device)


def checkpoint_in(folder: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a folder is, or the newest one of what a training wrote to it.

    Raises FileNotFoundError where there is none.
    """
    found = _newest_checkpoint(Path(folder))
    if found is None:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no potential: expected a checkpoint (config.json, params.pt, "
            "…), the folder of a run, or one with checkpoints/ in it"
        )
    return found


def potential_of(model: Any) -> Any:
    """Return the potential that is meant: one itself, an `Ensemble`, a trainer's, or that of a
    folder."""
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    return getattr(model, "potential", model)


def _newest_checkpoint(folder: Path) -> Path | None:
    # One that lacks parameters is incomplete, which loading says; no epoch stands for it.
    if any((folder / name).is_file() for name in ("params.pt", "config.json")):
        return folder
    epochs = folder / "epochs"
    if epochs.is_dir():
        numbers = sorted(int(path.name) for path in epochs.iterdir() if path.name.isdigit())
        return epochs / str(numbers[-1]) if numbers else None
    runs = folder / "checkpoints"
    if runs.is_dir():
        # Their names begin with the time when they began.
        for run in sorted(runs.iterdir(), reverse=True):
            found = _newest_checkpoint(run) if run.is_dir() else None
            if found is not None:
                return found
    return None
