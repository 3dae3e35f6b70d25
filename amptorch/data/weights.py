"""Weights of frames in the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase import Atoms

from amptorch.checks import weights as checked
from amptorch.data.batch import Batch, Share


def checked_weights(
    weights: Sequence[float] | np.ndarray | None, n_frames: int
) -> np.ndarray | None:
    """Return a (F,) float64 array of positive weights, or None; ValueError unless there is one a
    frame."""
    if weights is None:
        return None
    found = np.asarray(checked("weights", weights))
    if len(found) != n_frames:
        raise ValueError(f"there are {len(found)} weights for {n_frames} frames; give one each")
    return found


def weights_of(images: Sequence[Atoms], name: str) -> np.ndarray:
    """Return the (F,) weights that frames (list of ase.Atoms) have under `name` in their `info`.

    Raises ValueError that names the frame without one.
    """
    for index, atoms in enumerate(images):
        if name not in atoms.info:
            raise ValueError(
                f"frame {index} has no info[{name!r}], which dataset.weights asks for; "
                f"it has {sorted(atoms.info)}"
            )
    return np.asarray(checked(f"info[{name!r}]", [atoms.info[name] for atoms in images]))


def weights_of_groups(
    images: Sequence[Atoms], key: str, of_group: Mapping[str, float]
) -> np.ndarray:
    """Return the (F,) weights of frames (list of ase.Atoms) whose groups are `info[key]`.

    A frame without it is of the group "", and a group that `of_group` does not name has weight 1.
    Raises ValueError that names the groups in `of_group` that no frame is of.
    """
    groups = [str(atoms.info.get(key, "")) for atoms in images]
    unknown = sorted(set(of_group) - set(groups))
    if unknown:
        raise ValueError(
            f"dataset.group_weights: no frame is of the group {str(unknown)[1:-1]}; by "
            f"info[{key!r}] (dataset.group_key) there are {str(sorted(set(groups)))[1:-1]}"
        )
    return np.array([of_group.get(group, 1.0) for group in groups])


def set_weights(
    batch: Batch | Share, weights: np.ndarray, counts: np.ndarray, rows: np.ndarray | None = None
) -> None:
    """Give a `Batch` or a `Share` the `weights` (k,) of its frames of `counts` (k,) atoms; `rows`:
    of the atoms whose forces are there, None for all."""
    dtype = None if batch.energy is None else batch.energy.dtype
    batch.weights = torch.as_tensor(weights, dtype=dtype)
    if batch.forces is not None:
        of_atoms = np.repeat(weights, counts)
        batch.force_weights = torch.as_tensor(
            of_atoms if rows is None else of_atoms[rows], dtype=dtype
        )
