"""From frames to a potential in one call, with the recommended values."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amptorch.config import Config
from amptorch.data.inspection import inspect_frames
from amptorch.frames import read_images
from amptorch.potential import Potential
from amptorch.recommended import RECOMMENDED
from amptorch.training.fit import fit
from amptorch.training.prepare import prepare

logger = logging.getLogger(__name__)


def train(
    frames: Any,
    seconds: float | None = None,
    size: str = "medium",
    valid: Any = None,
    folder: str | os.PathLike[str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    verbose: bool = True,
) -> Potential:
    """Train a potential on frames, with the recommended values of everything; warn of labels that
    look wrong, see `inspect_frames`.

    frames : list of Atoms with energies (and forces), or what `ase.io.read` takes
    seconds : for everything; None: 900
    size : "small", "medium" or "large", of functions and networks: from fast to accurate
    valid : frames that choose the best epoch; None: blocks of `frames`
    folder : where the checkpoint is written, as the training goes, in place of one that is there;
        None for none
    config : sections with values in place of the recommended ones
    verbose : print a line for each epoch

    Raises ValueError, TypeError or FileNotFoundError that names the key, frame or file which cannot
    be used.
    """
    sections: dict[str, Any] = {name: dict(part) for name, part in (config or {}).items()}
    sections.setdefault("cmd", {}).setdefault("verbose", verbose)
    if seconds is not None:
        sections.setdefault("optim", {})["total_seconds"] = seconds
    if valid is not None:
        sections.setdefault("dataset", {})["val_data"] = valid
    settings = Config.from_dict({"defaults": RECOMMENDED, "size": size, **sections})
    if settings.dataset.store is None:
        frames = read_images(frames, settings.dataset.labels)
        # Stresses that are trained on where they are right are looked at by `prepare`.
        for message in inspect_frames(frames, settings.optim.stress_per_mev is None):
            logger.warning("warning: %s", message)
    data = prepare(settings, frames)
    return fit(data, folder=None if folder is None else Path(folder))
