"""Batches: what the model sees of some frames, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from ase.data import atomic_numbers

from amptorch.data.scalers import FeatureScaler
from amptorch.descriptor.derivatives import Derivatives
from amptorch.frames import Frames

RowsT = TypeVar("RowsT", np.ndarray, torch.Tensor, None)


class AtomicParts(NamedTuple):
    """Hold what the n atoms of some frames have of energies, forces and strain derivatives.

    energies (n,), eV, add up to the energy of each frame; forces (n, 3), eV/Å; virials (n, 6), eV,
    add up to the derivative ∂E/∂ε with respect to the strain, in the order xx, yy, zz, yz, xz, xy.
    Forces and virials have no rows where the model gives no forces.
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray


@dataclass
class Batch:
    """Hold some frames as the model sees them: n atoms, frame after frame, with S features each.

    fingerprint (n, S): scaled; with `components` reduced to (n, num_pc). atomic_numbers (n,),
    image_idx (n,): int64, the element and the frame (counted within the batch) of each atom.
    num_images: number of frames. element_rows: for each element, in the order of the networks, the
    rows of its atoms; None: found by the model. slope (n, S): d scaled fingerprint / d fingerprint,
    or None where `derivatives` are those of the scaled fingerprint. components: matrices
    (S, num_pc) that the scaled fingerprint was multiplied by, one for each element or one for all;
    None where it was not. derivatives: back end with `vjp(frame_ids, g)` and `jvp(frame_ids, v)`,
    or None where no forces are asked for. frame_ids: int64 array, what the frames are called there.
    energy (num_images,) and forces (n, 3): scaled targets, or None. force_rows: sorted int64 array
    of the atoms whose forces are computed and compared, one row of `forces` each; None for all.
    weights (num_images,), force_weights (rows of forces,): of the errors in the loss, or None.
    stress (num_images, 6): scaled targets, NaN in frames that have none, and volumes (num_images,),
    Å³, 1 where there is none, so that stresses are predicted; or None. base: what is added to the
    atoms' energies, forces and virials that the model gives, in eV and Å; or None.
    values (n, S): the fingerprint as the descriptor gives it, where a potential was asked.
    """

    fingerprint: torch.Tensor
    atomic_numbers: torch.Tensor
    image_idx: torch.Tensor
    num_images: int
    element_rows: list[torch.Tensor] | None = None
    slope: torch.Tensor | None = None
    components: list[torch.Tensor] | None = None
    derivatives: Derivatives | None = None
    frame_ids: np.ndarray | None = None
    energy: torch.Tensor | None = None
    forces: torch.Tensor | None = None
    force_rows: np.ndarray | None = None
    weights: torch.Tensor | None = None
    force_weights: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    volumes: torch.Tensor | None = None
    base: AtomicParts | None = None
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return self.num_images

    @property
    def batch(self) -> torch.Tensor:
        """Return `image_idx`, by v1.0's name."""
        return self.image_idx

    @property
    def counts(self) -> torch.Tensor:
        """Return the number of atoms of each frame, (num_images,) int64."""
        return torch.bincount(self.image_idx, minlength=len(self))

    @property
    def targets(self) -> list[torch.Tensor]:
        """Return [energy, forces], or [energy] where there are no forces; with weights [energy,
        forces, weights, force_weights], the forces (0, 3) where there are none; with stresses
        [energy, forces, weights, force_weights, stress], the weights 1 where there are none."""
        return _targets(self)

    def pulled_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return ∂E/∂G (n, S), of the fingerprint as the descriptor gives it, out of
        ∂E/∂fingerprint."""
        if self.components is not None:
            gradient = self._multiplied(gradient, [matrix.T for matrix in self.components])
        return gradient if self.slope is None else gradient * self.slope

    def pushed_forward(self, change: torch.Tensor) -> torch.Tensor:
        """Return what a change (n, S) of the descriptor's fingerprint does to `fingerprint`."""
        change = change if self.slope is None else change * self.slope
        return change if self.components is None else self._multiplied(change, self.components)

    def _multiplied(self, x: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
        if len(matrices) == 1:
            return x @ matrices[0]
        out = x.new_zeros((len(x), matrices[0].shape[1]))
        for rows, matrix in zip(self.element_rows or (), matrices, strict=True):
            out = out.index_copy(0, rows, x[rows] @ matrix)
        return out

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on `device`; itself where they are there already."""
        device = torch.device(device)
        if self.fingerprint.device == device:
            return self
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        for name in ("element_rows", "components"):
            if getattr(self, name) is not None:
                moved[name] = [tensor.to(device) for tensor in getattr(self, name)]
        return replace(self, **moved)


@dataclass
class Share:
    """Hold what one of several processes has of a batch of `num_images` frames.

    part: Batch, without targets, of the frames that it evaluates, or None where there are none.
    energy, forces, weights, force_weights, counts, stress: of the whole batch, as of `Batch`. The
    parts of all processes, one after the other, are the batch.
    """

    part: Batch | None
    num_images: int
    energy: torch.Tensor
    forces: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    force_weights: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    stress: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.num_images

    @property
    def targets(self) -> list[torch.Tensor]:
        """Return what `Batch.targets` of the whole batch returns."""
        return _targets(self)


def rows_inside(rows: RowsT, first: int, last: int) -> RowsT:
    """Return those of sorted `rows` (array, tensor or None) that are in first:last, counted from
    first."""
    return None if rows is None else rows[(rows >= first) & (rows < last)] - first


class Batcher:
    """Make batches from flat arrays, for one list of elements and one feature scaler."""

    def __init__(
        self, elements: Sequence[str], feature_scaler: FeatureScaler, dtype: torch.dtype
    ) -> None:
        numbers = np.array([atomic_numbers[symbol] for symbol in elements])
        self.n_elements = len(numbers)
        self._species = np.full(numbers.max() + 1, -1)
        self._species[numbers] = np.arange(len(numbers))
        self._scaled_as = feature_scaler.element_index
        self._slopes = feature_scaler.slope_and_offset()[0].to(dtype)
        pca = feature_scaler.pca
        self._components = None if pca is None else pca.matrices(elements, dtype)

    def __call__(
        self,
        fingerprint: torch.Tensor,
        numbers: np.ndarray,
        counts: np.ndarray,
        derivatives: Derivatives | None = None,
        frame_ids: np.ndarray | None = None,
    ) -> Batch:
        """Return the batch of atoms with scaled (and reduced) `fingerprint` and `numbers` (n,)
        array; frame k of the batch has `counts[k]` of them and is `frame_ids[k]` to the back end
        `derivatives`."""
        species = self._species[numbers]
        return Batch(
            fingerprint=fingerprint,
            atomic_numbers=torch.from_numpy(numbers),
            image_idx=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            num_images=len(counts),
            element_rows=[
                torch.from_numpy(np.flatnonzero(species == k)) for k in range(self.n_elements)
            ],
            slope=None if derivatives is None else self._slopes[self._scaled_as(numbers)],
            components=self._components,
            derivatives=derivatives,
            frame_ids=np.arange(len(counts)) if frame_ids is None else frame_ids,
        )


def stress_targets(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Return the stresses (F, 6), eV/Å³, NaN where there is none to train on, and the volumes (F,),
    Å³, 1 where there is no stress.

    Raises ValueError where the frames were read without stresses.
    """
    if frames.stress is None:
        raise ValueError(
            "stresses are to be trained on (optim.stress_coefficient), and the frames were kept "
            "without: make the store anew"
        )
    known = ~np.isnan(frames.stress[:, 0]) & ~np.isnan(frames.volumes)
    return np.where(known[:, None], frames.stress, np.nan), np.where(known, frames.volumes, 1.0)


def _targets(batch: Any) -> list[torch.Tensor]:
    energy, forces, weights = batch.energy, batch.forces, batch.weights
    if batch.stress is not None:
        if weights is None:
            weights, force_weights = torch.ones_like(energy), forces.new_ones(len(forces))
        else:
            force_weights = batch.force_weights
        return [energy, forces, weights, force_weights, batch.stress]
    if weights is None:
        return [energy] if forces is None else [energy, forces]
    if forces is None:
        no_forces = energy.new_zeros((0, 3))
        return [energy, no_forces, weights, no_forces.new_zeros(0)]
    return [energy, forces, weights, batch.force_weights]


def with_targets(batch: Batch | Share) -> tuple[Batch | Share, list[torch.Tensor]]:
    """Return what training takes: the batch and what it is compared with."""
    return batch, batch.targets
