"""Predictions for many frames, batch by batch."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from tqdm import tqdm

from amptorch.data.batch import AtomicParts
from amptorch.data.fingerprints import chunks_of_frames
from amptorch.descriptor.store import FingerprintStore
from amptorch.distances import check_distances, warn_of_lonely
from amptorch.extrapolation import NOT_KNOWN, Extrapolation
from amptorch.frames import Frames, read_images
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.threads import use_threads

if TYPE_CHECKING:
    from amptorch.potential import Potential

# Atoms in a batch: enough for every core, little memory.
BATCH_ATOMS = 4096


# Whether stresses are asked for; "optional": where model and frames have them, see `Potential`.
Stress: TypeAlias = bool | Literal["optional"]


class EnergyModel(Protocol):
    """Give energies and forces of frames: a `Potential` or an `Ensemble` of them.

    elements : symbols of the elements that frames may hold
    cutoff : Å, how far neighbours are listed
    has_forces : whether `evaluate` gives forces
    threads : of the kernels; None for all cores
    """

    elements: list[str]
    has_forces: bool
    threads: int | None

    @property
    def cutoff(self) -> float: ...

    def batch(self, frames: Frames, neighbors: NeighborList | None = None) -> Any:
        """Return the batch of `frames`, which `evaluate` takes."""
        ...

    def evaluate(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (F,), eV, and forces (n, 3), eV/Å, or (0, 3)."""
        ...

    def evaluate_atoms(self, batch: Any) -> AtomicParts:
        """Return energies, forces and virials of the atoms of a batch."""
        ...

    def extrapolation(self, batch: Any) -> Extrapolation | None:
        """Return how far the atoms of a batch are from those of the training; None for not
        known."""
        ...

    def check_compositions(self, frames: Frames) -> None:
        """Warn of frames with a composition for which energies are known to be off."""
        ...


def checked_frames(model: Any, images: Any, energies: bool = False, forces: bool = False) -> Frames:
    """Return `Frames` of images that a potential or an ensemble can predict.

    images : list of Atoms, or what `read_images` reads
    energies, forces : whether they must have some

    Raises ValueError that names the frame which cannot be used, and warns of compositions for which
    energies are known to be off.
    """
    frames = Frames.from_atoms(read_images(images), model.elements, energies, forces)
    check_distances(frames, training=False)
    model.check_compositions(frames)
    return frames


def batches_of(
    model: EnergyModel,
    frames: Frames,
    quiet: bool = True,
    make: Callable[..., Any] | None = None,
) -> Iterator[tuple[Any, Frames, np.ndarray]]:
    """Yield (batch, part, indices) for parts of the frames, in their order.

    quiet : show no progress bar
    make : called for `(part, neighbors, indices)` in place of `model.batch(part, neighbors)`
    """
    warned = False
    bar = tqdm(total=len(frames), desc="predictions", unit="frame", disable=quiet)
    with use_threads(model.threads), bar:
        for chunk in chunks_of_frames(frames, BATCH_ATOMS):
            part = frames.select(chunk)
            neighbors = neighbor_list(part, model.cutoff)
            warned = warned or warn_of_lonely(part, neighbors, model.cutoff)
            batch = model.batch(part, neighbors) if make is None else make(part, neighbors, chunk)
            yield batch, part, chunk
            bar.update(len(chunk))


def predict(
    potential: "Potential",
    images: Any,
    forces: bool = True,
    layer: int | None = None,
    descriptors: bool = False,
    store: FingerprintStore | None = None,
    quiet: bool = True,
    keep: bool = False,
) -> dict[str, Any]:
    """Return v1.0's dictionary of predictions for `images`, in their order.

    energy: floats, eV; forces: (n_atoms, 3) arrays, eV/Å, empty ones where not `forces`; with
    `layer`, latent: output of `model_net[layer]`, mean over the atoms; with `descriptors`: scaled
    fingerprint, mean over the atoms; t_fingerPrint, t_forwardPass: seconds. store, keep: see
    `Potential.batch`.

    Raises ValueError that names the frame that cannot be used, before any long work.
    """
    images = read_images(images)
    frames = checked_frames(potential, images)
    result: dict[str, Any] = {"energy": [], "forces": []}
    if layer is not None:
        result["latent"] = []
    if descriptors:
        result["descriptors"] = []

    def make(part: Frames, neighbors: NeighborList, chunk: np.ndarray) -> Any:
        if keep and store is None and part.n_atoms <= BATCH_ATOMS:
            return potential.batch(part, neighbors, keep=True)
        return potential.batch(part, neighbors, [images[frame] for frame in chunk], store)

    t_fingerprint = t_forward = 0.0
    start = time.perf_counter()
    for batch, part, chunk in batches_of(potential, frames, quiet, make):
        described = time.perf_counter()
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
        start = time.perf_counter()
        t_forward += start - described
    return {**result, "t_fingerPrint": t_fingerprint, "t_forwardPass": t_forward}


def predict_atoms(
    model: EnergyModel,
    images: Any,
    stress: Stress = True,
    quiet: bool = True,
    extrapolation: bool = False,
    evaluate: Callable[[Any, Frames], tuple[AtomicParts, dict[str, list]]] | None = None,
) -> dict[str, list]:
    """Return lists of `energy`, `forces`, and what `stress` and `extrapolation` ask for, with an
    entry for each frame, as `Potential.predict` describes them.

    evaluate : called for (batch, its frames) in place of `model.evaluate_atoms(batch)`; returns
        what that does, and lists of more
    """
    frames = checked_frames(model, images)
    if stress:
        check_stress(model, frames, stress)
    result: dict[str, list] = {}
    for batch, part, _ in batches_of(model, frames, quiet):
        parts, more = evaluate(batch, part) if evaluate else (model.evaluate_atoms(batch), {})
        found = by_frame(parts, part)
        if not stress:
            found = {name: found[name] for name in ("energy", "forces")}
        found |= more
        if extrapolation:
            found |= extrapolation_by_frame(model.extrapolation(batch), part)
        for name, values in found.items():
            result.setdefault(name, []).extend(values)
    if extrapolation and "extrapolation" not in result:
        warnings.warn(NOT_KNOWN, stacklevel=3)
    return result


def check_stress(model: EnergyModel, frames: Frames, stress: Stress = True) -> None:
    """Raise ValueError where the model gives no stress, or `stress` is no such option, and ASE's
    PropertyNotImplementedError that names a frame without three cell vectors, unless the stress is
    "optional"."""
    if stress not in (True, "optional"):
        raise ValueError(f"stress is {stress!r}; expected True, False or 'optional'")
    if stress == "optional":
        return
    if not model.has_forces:
        raise ValueError("the model gives no forces, and thus no stress (model.get_forces)")
    missing = np.flatnonzero(np.isnan(frames.volumes))
    if len(missing):
        raise PropertyNotImplementedError(
            f"frame {frames.name(missing[0])} has no stress: it needs three cell vectors, and its "
            f"cell is {frames.cells[missing[0]].tolist()}"
        )


def by_frame(parts: AtomicParts, frames: Frames) -> dict[str, list]:
    """Return `energy`, `energies`, `forces`, `stress` and `stresses` of each frame, from what their
    atoms have; stresses are NaN where a frame has no volume, and not there without virials."""
    first, ends = frames.offsets[:-1], frames.offsets[1:-1]
    found: dict[str, list] = {
        "energy": np.add.reduceat(parts.energies, first).tolist(),
        "energies": np.split(parts.energies, ends),
    }
    found["forces"] = forces_by_frame(parts.forces, frames)
    if not len(parts.virials):
        return found
    stresses = parts.virials / np.repeat(frames.volumes, frames.counts)[:, None]
    return {
        **found,
        "stress": list(np.add.reduceat(stresses, first, axis=0)),
        "stresses": np.split(stresses, ends),
    }


def extrapolation_by_frame(found: Extrapolation | None, frames: Frames) -> dict[str, list]:
    """Return `extrapolation`, `functions_outside` and `range_excess` of each frame; nothing where
    they are not known."""
    if found is None:
        return {}
    columns = {
        "extrapolation": found.distance,
        "functions_outside": found.outside,
        "range_excess": found.excess,
    }
    return {name: np.split(rows, frames.offsets[1:-1]) for name, rows in columns.items()}


def forces_by_frame(forces: np.ndarray, frames: Frames) -> list[np.ndarray]:
    """Return the rows (n_atoms, 3) of each frame; empty arrays where there are no forces."""
    if not len(forces):
        return [np.empty((0, 3)) for _ in range(len(frames))]
    return np.split(forces, frames.offsets[1:-1])


def _frame_means(rows: np.ndarray, frames: Frames) -> list[np.ndarray]:
    """Return the means over the atoms of each frame."""
    return list(np.add.reduceat(rows, frames.offsets[:-1], axis=0) / frames.counts[:, None])
