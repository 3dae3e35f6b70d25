"""Weights of frames in the loss."""

import numpy as np
import torch

from amptorch.checks import weights as checked


def checked_weights(weights, n_frames):
    """(F,) float64 array of positive weights, or None; ValueError unless there is one a frame."""
    if weights is None:
        return None
    weights = checked("weights", weights)
    if len(weights) != n_frames:
        raise ValueError(f"there are {len(weights)} weights for {n_frames} frames; give one each")
    return weights


def weights_of(images, name):
    """(F,) weights that frames (list of ase.Atoms) have under `name` in their `info`.

    Raises ValueError that names the frame without one.
    """
    for index, atoms in enumerate(images):
        if name not in atoms.info:
            raise ValueError(
                f"frame {index} has no info[{name!r}], which dataset.weights asks for; "
                f"it has {sorted(atoms.info)}"
            )
    return checked(f"info[{name!r}]", [atoms.info[name] for atoms in images])


def set_weights(batch, weights, counts, rows=None):
    """Give a `Batch` or a `Share` the `weights` (k,) of its frames of `counts` (k,) atoms; `rows`:
    of the atoms whose forces are there, None for all."""
    dtype = batch.energy.dtype
    batch.weights = torch.as_tensor(weights, dtype=dtype)
    if batch.forces is not None:
        of_atoms = np.repeat(weights, counts)
        batch.force_weights = torch.as_tensor(
            of_atoms if rows is None else of_atoms[rows], dtype=dtype
        )
