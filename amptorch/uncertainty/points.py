"""Find coordinates of atoms and frames, in the space of fingerprints or of a network's layer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from amptorch.data.batch import Batch
from amptorch.frames import Frames
from amptorch.loading import potential_of
from amptorch.potential import Potential
from amptorch.prediction import batches_of, checked_frames
from amptorch.rows import offsets_of
from amptorch.threads import use_threads

# The last hidden layer of the networks, which the energy is linear in.
LAST_HIDDEN = -2
# Training frames at once.
CHUNK = 32


class LatentSpace:
    """Find coordinates in the output of `model_net[layer]` of each atom's network."""

    def __init__(self, layer: int = LAST_HIDDEN) -> None:
        self.layer = layer

    def __call__(self, potential: Potential, batch: Batch) -> np.ndarray:
        """Return the coordinates (n, width) of the atoms of a batch."""
        return potential.latent(batch, self.layer).astype(np.float64)


class FeatureSpace:
    """Find coordinates in the scaled fingerprint of each atom."""

    def __call__(self, potential: Potential, batch: Batch) -> np.ndarray:
        """Return the coordinates (n, features) of the atoms of a batch."""
        return batch.fingerprint.cpu().numpy().astype(np.float64)


def frame_means(rows: np.ndarray, counts: ArrayLike) -> np.ndarray:
    """Return the means (F, width) of rows (n, width) over the atoms of each frame."""
    counts = np.asarray(counts)
    return np.add.reduceat(rows, offsets_of(counts)[:-1], axis=0) / counts[:, None]


def frames_for(model: Any, images: Any, labels: bool, forces: bool = True) -> Frames:
    """Return `Frames` of images that `model`, a potential or an ensemble, can predict; with
    energies, and forces where it has them and `forces`, if `labels`. ValueError names the frame
    that cannot be used."""
    return checked_frames(model, images, labels, labels and forces and model.has_forces)


def without_forces(batch: Any) -> Any:
    """Return the batch of a potential without what its forces need."""
    return replace(batch, derivatives=None)


def training_batches(
    trainer: Any, most_frames: int, rng: np.random.Generator
) -> Iterator[tuple[Potential, Batch]]:
    """Yield (potential, batch) for parts of at most `most_frames` frames of the trainer's data set,
    drawn at random. ValueError where it has none, as after loading a checkpoint."""
    dataset = getattr(trainer, "train_dataset", None)
    if dataset is None:
        raise ValueError(
            "a potential, or a trainer that was loaded from a checkpoint, has no training frames; "
            "give them as train_images"
        )
    chosen = rng.choice(len(dataset), min(most_frames, len(dataset)), replace=False)
    potential = potential_of(trainer)
    with use_threads(potential.threads):
        for part in np.split(np.sort(chosen), range(CHUNK, len(chosen), CHUNK)):
            yield potential, dataset.batch(part)


def training_points(
    trainer: Any,
    space: LatentSpace | FeatureSpace,
    train_images: Any = None,
    most: int = 5000,
    forces: bool = True,
    seed: int = 0,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return the coordinates of the training frames and of their atoms in a `space`.

    These are (F, width) means of the frames, and {atomic number: (m, width)} of the atoms, where
    `forces` asks for them. At most `most` frames and `most` atoms of each element, drawn at random.
    train_images: the training frames; None for those that the trainer holds, with the ones that it
    validated on.
    """
    rng = np.random.default_rng(seed)
    if train_images is None:
        batches = training_batches(trainer, most, rng)
    else:
        model = potential_of(trainer)
        frames = frames_for(model, train_images, labels=False)
        if len(frames) > most:
            frames = frames.select(np.sort(rng.choice(len(frames), most, replace=False)))
        batches = ((model, batch) for batch, _, _ in batches_of(model, frames))
    means: list[np.ndarray] = []
    atoms: dict[int, _Drawn] = {}
    for potential, batch in batches:
        rows = space(potential, batch)
        image_idx = batch.image_idx.cpu().numpy()
        means.append(frame_means(rows, np.bincount(image_idx, minlength=batch.num_images)))
        numbers = batch.atomic_numbers.cpu().numpy()
        for number in np.unique(numbers) if forces else ():
            drawn = _Drawn(most, rows.shape[1]) if number not in atoms else atoms[number]
            atoms[int(number)] = drawn.add(rows[numbers == number], rng)
    return np.concatenate(means), {number: drawn.rows for number, drawn in atoms.items()}


class _Drawn:
    """Hold at most `most` of the rows that were added, each as likely as any other."""

    def __init__(self, most: int, width: int) -> None:
        self.most = most
        self.keys, self.rows = np.zeros(0), np.zeros((0, width))

    def add(self, rows: np.ndarray, rng: np.random.Generator) -> "_Drawn":
        """Add rows (n, width); return itself."""
        self.rows = np.concatenate([self.rows, rows])
        self.keys = np.concatenate([self.keys, rng.random(len(rows))])
        if len(self.keys) > self.most:
            kept = np.sort(np.argpartition(self.keys, self.most)[: self.most])
            self.keys, self.rows = self.keys[kept], self.rows[kept]
        return self
