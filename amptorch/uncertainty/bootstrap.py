"""Ensembles trained in one call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from amptorch.config import Config
from amptorch.data.weights import checked_weights
from amptorch.ensemble import Ensemble
from amptorch.frames import read_images
from amptorch.training.fit import fit
from amptorch.training.prepare import prepare
from amptorch.training.run_folder import new_run


def train_ensemble(
    config: Mapping[str, Any], n_members: int = 5, bootstrap: bool = True
) -> Ensemble:
    """Return the `Ensemble` of potentials trained by one configuration with the seeds `cmd.seed`,
    `cmd.seed` + 1, …

    With `bootstrap` each member sees as many frames as there are, drawn with replacement by its
    seed (L. Breiman, Mach. Learn. 24, 123, 1996); so a frame may be in a member's training and
    validation parts at once, where `dataset.val_split` makes some. Otherwise members differ in
    their first weights and batches alone.

    config: sections of a `Config`; it is not changed. Each member has a run folder of its own.

    Raises ValueError for fewer than two members, where there are no frames to draw from, and where
    `dataset.weights` do not fit them.
    """
    if n_members < 2:
        raise ValueError(f"n_members is {n_members}; an ensemble has two or more")
    dataset, cmd = dict(config.get("dataset", {})), dict(config.get("cmd", {}))
    seed = cmd.get("seed", 0)
    images: list[Atoms] = []
    weights = None
    if bootstrap:
        images = _frames_to_draw_from(dataset)
        # Weights under a name in `Atoms.info` go with their frames.
        if not isinstance(dataset.get("weights"), str):
            weights = checked_weights(dataset.get("weights"), len(images))
        if dataset.get("elements") is None:
            # Members whose draws miss an element would have other fingerprints.
            dataset["elements"] = sorted({symbol for atoms in images for symbol in atoms.symbols})
    members = []
    for k in range(n_members):
        if bootstrap:
            drawn = np.random.default_rng(seed + k).integers(len(images), size=len(images))
            dataset["raw_data"] = [images[frame] for frame in drawn]
            if weights is not None:
                dataset["weights"] = weights[drawn]
        cmd["seed"] = seed + k
        settings = Config.from_dict({**config, "dataset": dict(dataset), "cmd": dict(cmd)})
        with new_run(settings.cmd) as folder:
            members.append(fit(prepare(settings), folder=folder))
    return Ensemble(members)


def _frames_to_draw_from(dataset: Mapping[str, Any]) -> list[Atoms]:
    if dataset.get("raw_data") is None:
        raise ValueError("dataset.raw_data is not given; bootstrap draws from it, or set it False")
    return read_images(dataset["raw_data"])
