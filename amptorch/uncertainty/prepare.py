"""Arrays for calibrators of one's own: coordinates of frames or atoms, and their errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amptorch.loading import potential_of
from amptorch.prediction import batches_of
from amptorch.uncertainty.calibrators import check_share
from amptorch.uncertainty.points import (
    LAST_HIDDEN,
    FeatureSpace,
    LatentSpace,
    frame_means,
    frames_for,
    without_forces,
)

QUANTITIES = ("energy", "forces")


def prepare_latentNerror_from_trainer(
    trainer: Any, images: Any, get_latent: int = LAST_HIDDEN, quantity: str = "energy"
) -> tuple[np.ndarray, np.ndarray]:
    """Return points and errors of images with energies (or forces), in the latent space.

    quantity "energy": (F, width) outputs of `model_net[get_latent]`, means over the atoms of each
    frame, and (F,) errors of the energies per atom, eV. "forces": (n, width) of the atoms, frame
    after frame, and (n, 3) errors of their forces, eV/Å. Errors are predictions minus references.
    get_latent: by default the last hidden layer.

    Raises ValueError that names the frame which cannot be used.
    """
    return _prepare(trainer, images, LatentSpace(get_latent), quantity)


def prepare_featureNerror_from_trainer(
    trainer: Any, images: Any, quantity: str = "energy"
) -> tuple[np.ndarray, np.ndarray]:
    """Return points and errors as `prepare_latentNerror_from_trainer`, of scaled fingerprints."""
    return _prepare(trainer, images, FeatureSpace(), quantity)


def _prepare(
    trainer: Any, images: Any, space: LatentSpace | FeatureSpace, quantity: str
) -> tuple[np.ndarray, np.ndarray]:
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {QUANTITIES}, got {quantity!r}")
    model = potential_of(trainer)
    if quantity == "forces" and not model.has_forces:
        raise ValueError("the model gives no forces; ask for quantity='energy'")
    of_forces = quantity == "forces"
    points, errors = [], []
    frames = frames_for(model, images, labels=True, forces=of_forces)
    for batch, part, _ in batches_of(model, frames):
        batch = batch if of_forces else without_forces(batch)
        rows = space(model, batch)
        energies, forces = model.evaluate(batch)
        points.append(rows if of_forces else frame_means(rows, part.counts))
        errors.append(
            forces - part.forces if of_forces else (energies - part.energies) / part.counts
        )
    return np.concatenate(points), np.concatenate(errors)


def split_test_calib(
    full_test_X: Sequence, full_test_y: Sequence, per_calib: float, seed: int = 0
) -> tuple:
    """Return test and calibration part of full_test_X, and of full_test_y, split alike at random;
    `per_calib`: the share for calibration. See `split_calibration`."""
    return split_calibration(full_test_X, full_test_y, calib_fraction=per_calib, seed=seed)


def split_calibration(
    *arrays: Sequence | np.ndarray, calib_fraction: float = 0.5, seed: int = 0
) -> tuple:
    """Split at random into parts for a test and for calibration.

    arrays: lists (of Atoms, for instance) or arrays of one length, which are split alike. Returns
    test and calibration part of the first, of the second, …: lists of lists, arrays of arrays.

    Frames of a trajectory are like their neighbours in time. A random split makes the parts
    exchangeable, which calibration rests on; it says nothing about where the trajectory goes next.

    Raises ValueError where lengths differ or a part would be empty.
    """
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1:
        raise ValueError(f"the lengths {lengths} differ; expected one length for all")
    n_calib = round(check_share("the share for calibration", calib_fraction) * lengths[0])
    if not 0 < n_calib < lengths[0]:
        raise ValueError(
            f"a share of {calib_fraction} makes {n_calib} of {lengths[0]} for calibration; "
            "both parts need at least one"
        )
    order = np.random.default_rng(seed).permutation(lengths[0])
    parts = np.sort(order[n_calib:]), np.sort(order[:n_calib])
    return tuple(_taken(array, part) for array in arrays for part in parts)


def _taken(array, places):
    return array[places] if isinstance(array, np.ndarray) else [array[k] for k in places]
