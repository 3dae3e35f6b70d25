"""Predictions for many frames, batch by batch."""

import time

import numpy as np
from tqdm import tqdm

from amptorch.data.fingerprints import chunks_of_frames
from amptorch.distances import check_distances, warn_of_lonely
from amptorch.frames import Frames, read_images

# Atoms in a batch: enough for every core, little memory.
BATCH_ATOMS = 4096


def predict(potential, images, forces=True, layer=None, descriptors=False, store=None, quiet=True):
    """v1.0's dictionary of predictions for `images`, in their order.

    energy: floats, eV; forces: (n_atoms, 3) arrays, eV/Å, empty ones where not `forces`; with
    `layer`, latent: output of `model_net[layer]`, mean over the atoms; with `descriptors`: scaled
    fingerprint, mean over the atoms; t_fingerPrint, t_forwardPass: seconds.

    Raises ValueError that names the frame that cannot be used, before any long work.
    """
    images = read_images(images)
    frames = Frames.from_atoms(images, potential.elements)
    check_distances(frames, training=False)
    potential.check_compositions(frames)
    result = {"energy": [], "forces": []}
    if layer is not None:
        result["latent"] = []
    if descriptors:
        result["descriptors"] = []
    t_fingerprint = t_forward = 0.0
    warned, cutoff = False, potential.descriptor.cutoff
    with tqdm(total=len(frames), desc="predictions", unit="frame", disable=quiet) as bar:
        for chunk in chunks_of_frames(frames, BATCH_ATOMS):
            start = time.perf_counter()
            part = frames.select(chunk)
            atoms = None if store is None else [images[frame] for frame in chunk]
            batch = potential.batch(part, images=atoms, store=store)
            described = time.perf_counter()
            warned = warned or warn_of_lonely(part, batch.derivatives.neighbors, cutoff)
            energies, force = potential.evaluate(batch)
            result["energy"] += energies.tolist()
            result["forces"] += (
                np.split(force, part.offsets[1:-1]) if forces else [np.empty((0, 3)) for _ in chunk]
            )
            if layer is not None:
                result["latent"] += _frame_means(potential.latent(batch, layer), part)
            if descriptors:
                result["descriptors"] += _frame_means(batch.fingerprint.numpy(), part)
            t_fingerprint += described - start
            t_forward += time.perf_counter() - described
            bar.update(len(chunk))
    return {**result, "t_fingerPrint": t_fingerprint, "t_forwardPass": t_forward}


def _frame_means(rows, frames):
    """List of the means over the atoms of each frame."""
    return list(np.add.reduceat(rows, frames.offsets[:-1], axis=0) / frames.counts[:, None])
