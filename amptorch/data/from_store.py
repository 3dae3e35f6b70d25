"""The data set on disk: batches out of a packed store, of any size, in little memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from amptorch.data.batch import Batch, Batcher, Share, rows_inside, stress_targets
from amptorch.data.corrections import composition
from amptorch.data.domain import Domain
from amptorch.data.repulsion import Repulsion
from amptorch.data.samplers import known_rows, with_known_forces
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.data.weights import checked_weights, set_weights
from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.descriptor.construct import construct_descriptor
from amptorch.distances import check_cutoff
from amptorch.frames import Frames, symbol_numbers
from amptorch.store import FrameStore

# Frames whose fingerprints are held while the feature scaler is fitted.
CHUNK = 512
# Frames that are looked at where no two atoms are within the cutoff.
SAMPLE = 64


class StoreDataset(torch.utils.data.Dataset):
    """Hold the frames of a packed store, ready for training: what `AtomsDataset` is to frames in
    memory.

    Nothing of the size of the data set is held but a few numbers a frame: each batch is read from
    the memory maps and scaled, with the same result.

    Parameters
    ----------
    store : FrameStore, or its folder
    descriptor_setup : (fp_scheme, fp_params, cutoff_params, elements)
    forcetraining : whether forces are trained on
    scaling : as of `AtomsDataset`
    derivatives : "stored" contracts what `derivative_dtype` in the store holds, "recompute"
        computes them anew from structures and neighbour lists
    dtype : torch dtype of what the model sees
    feature_scaler, target_scaler : those of a trained model; None to fit them to these frames, in
        one pass through the store, or two with `pca`
    pca, target_scaling, atomic_correction, weights, missing_forces, stress, repulsion : as of
        `AtomsDataset`

    Raises ValueError where the store does not hold what is asked for, and that names the file where
    one is damaged.
    """

    def __init__(
        self,
        store: FrameStore | str | os.PathLike[str],
        descriptor_setup: tuple,
        forcetraining: bool = True,
        scaling: dict | None = None,
        derivatives: str = "recompute",
        derivative_dtype: str = "float64",
        dtype: torch.dtype = torch.float64,
        feature_scaler: FeatureScaler | None = None,
        target_scaler: TargetScaler | None = None,
        pca: dict | None = None,
        target_scaling: bool | str = True,
        atomic_correction: bool | dict = False,
        weights: Sequence[float] | np.ndarray | None = None,
        missing_forces: str = "error",
        stress: bool = False,
        repulsion: Repulsion | None = None,
    ) -> None:
        self.repulsion = repulsion
        self.with_stress = stress
        self.missing_forces = missing_forces
        self.store = store if isinstance(store, FrameStore) else FrameStore(store)
        self.descriptor_setup = descriptor_setup
        self.descriptor = construct_descriptor(descriptor_setup)
        self.elements = list(self.descriptor.elements)
        self.forcetraining = forcetraining
        self.scaling = scaling or {"type": "normalize", "range": (0, 1), "elementwise": True}
        self.derivative_kind = derivatives if forcetraining else None
        self.dtype = dtype
        self._hash = self.descriptor.descriptor_setup_hash
        self.energies = self._energies()
        self._check_targets()
        self._check_pairs()
        self._stored: Any = None
        if self.derivative_kind == "stored":
            self._stored = self.store.derivatives(self._hash, derivative_dtype, stress)
        elif self.derivative_kind == "recompute":
            self.store.check_reach(self.descriptor)
        if feature_scaler is None:
            feature_scaler = FeatureScaler.fitted(self._chunks, self.scaling, forcetraining, pca)
        self.feature_scaler = feature_scaler
        self.input_dim = self.feature_scaler.width(self.descriptor.n_features)
        if target_scaler is None:
            target_scaler = TargetScaler.fitted(
                self.energies,
                self._compositions,
                self.elements,
                forcetraining,
                atomic_correction,
                target_scaling,
                lambda: self._forces(self._spread(SAMPLE)) if forcetraining else None,
            )
        self.target_scaler = target_scaler
        self._references = self._reference_energies()
        self.weights = checked_weights(weights, len(self))
        self.batcher = Batcher(self.elements, self.feature_scaler, dtype)

    def __len__(self) -> int:
        return self.store.n_frames

    @property
    def counts(self) -> np.ndarray:
        """Return the (F,) atoms of each frame."""
        return self.store.counts

    @property
    def sizes(self) -> np.ndarray:
        """Return (F,) what reading a frame takes, in any unit."""
        return self.store.counts

    @property
    def shards(self) -> np.ndarray:
        """Return (F,) the shard that each frame is in."""
        return self.store.shard_of_frame

    @property
    def checksum(self) -> int:
        """Return a number that tells data apart: of energies, and of how batches are drawn."""
        return zlib.crc32(b"".join(a.tobytes() for a in (self.energies, self.counts, self.shards)))

    def __getitem__(self, index: int) -> Batch:
        """Return the batch of one frame."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.batch([index % len(self)])

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the batch of the frames at `indices`."""
        frame_ids = np.asarray(indices, dtype=np.int64)
        batch = self._inputs(frame_ids)
        labelled = self._labelled(frame_ids)
        batch.energy, batch.forces = self._targets(frame_ids, labelled)
        if self.with_stress:
            batch.stress, batch.volumes = self._stress(labelled)
        if self.weights is not None:
            set_weights(batch, self.weights[frame_ids], self.counts[frame_ids])
        return with_known_forces(batch)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        # torch's DataLoader asks for batches by this name.
        return self.batch(indices)

    def share(
        self,
        frame_ids: np.ndarray,
        first: int,
        last: int,
        draw: Callable[[int], np.ndarray] | None = None,
    ) -> Share:
        """Return the `Share` that has those of the sorted `frame_ids` which are in first:last.

        Of the other frames only energies and forces are read. draw: called for the places of the
        forces that are trained on among so many; None for all.
        """
        a, b = np.searchsorted(frame_ids, (first, last))
        part = self._inputs(frame_ids[a:b]) if a < b else None
        labelled = self._labelled(frame_ids)
        energy, forces = self._targets(frame_ids, labelled)
        force_rows = None if forces is None else known_rows(forces)
        if draw is not None and forces is not None:
            known = np.arange(len(forces)) if force_rows is None else force_rows
            force_rows = known[draw(len(known))]
        if force_rows is not None and forces is not None:
            forces = forces[torch.from_numpy(force_rows)]
        if force_rows is not None and part is not None:
            starts = np.concatenate(([0], np.cumsum(self.counts[frame_ids])))
            part.force_rows = rows_inside(force_rows, starts[a], starts[b])
        counts = torch.from_numpy(self.counts[frame_ids])
        share = Share(part, len(frame_ids), energy, forces, counts=counts)
        if self.with_stress:
            share.stress, volumes = self._stress(labelled)
            if part is not None:
                part.volumes = volumes[a:b]
        if self.weights is not None:
            set_weights(share, self.weights[frame_ids], self.counts[frame_ids], force_rows)
        return share

    def _inputs(self, frame_ids: np.ndarray) -> Batch:
        values = self.store.fingerprints(self._hash, frame_ids)
        numbers, counts = self.store.numbers(frame_ids), self.counts[frame_ids]
        derivatives: Any = self._stored
        called: np.ndarray | None = frame_ids
        # What the contractions need is read here, ahead of the network's work.
        if self.derivative_kind == "recompute":
            structures = self.store.structures(frame_ids)
            derivatives, called = RecomputedDerivatives(self.descriptor, *structures), None
        elif self.derivative_kind == "stored":
            self._stored.prepare(frame_ids)
        fingerprints = self._tensor(self.feature_scaler.transform_rows(values, numbers))
        return self.batcher(fingerprints, numbers, counts, derivatives, called)

    def _targets(
        self, frame_ids: np.ndarray, labelled: Frames | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return scaled energies and forces; labelled: what `_labelled` gives of these frames."""
        references = self._references[frame_ids]
        energies = self.target_scaler.norm_energies(self.energies[frame_ids], references)
        energy = self._tensor(energies)
        if not self.forcetraining:
            return energy, None
        forces = self._forces(frame_ids, labelled)
        return energy, self._tensor(self.target_scaler.norm_forces(forces))

    def _energies(self) -> np.ndarray:
        """Return the energies (F,), eV, of all frames, less the repulsion."""
        if self.repulsion is None:
            return self.store.energies
        self.repulsion.check(symbol_numbers(self.store.elements), self.descriptor.cutoff)
        structures = map(self.store.structures, self._chunks_of_frames())
        parts: list[Any] = [self.repulsion.without(*some).energies for some in structures]
        return np.concatenate(parts)

    def _forces(self, frame_ids: np.ndarray, labelled: Frames | None = None) -> np.ndarray:
        """Return the forces (n, 3), eV/Å, of frames, less the repulsion."""
        if labelled is None:
            labelled = self._labelled(frame_ids)
        forces: Any = self.store.forces(frame_ids) if labelled is None else labelled.forces
        return forces

    def _labelled(self, frame_ids: np.ndarray) -> Frames | None:
        """Return frames with labels less the repulsion; None where energies and forces, as they are
        in the store, are all that is needed."""
        if self.repulsion is not None and (self.forcetraining or self.with_stress):
            return self.repulsion.without(*self.store.structures(frame_ids))
        return self.store.frames(frame_ids) if self.with_stress else None

    def _stress(self, labelled: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled stresses and volumes of what `_labelled` gives."""
        stress, volumes = stress_targets(labelled)
        return self._tensor(self.target_scaler.norm_forces(stress)), self._tensor(volumes)

    def sample(self, n_frames: int) -> Frames:
        """Return at most `n_frames` of the Frames, spread evenly over the store."""
        return self.store.frames(self._spread(n_frames))

    def _spread(self, n_frames: int) -> np.ndarray:
        """Return the places of at most so many frames, spread evenly."""
        places = np.linspace(0, len(self) - 1, min(n_frames, len(self)))
        return np.unique(places.astype(np.int64))

    def domain(self) -> Domain:
        """Return the domain of all frames, in two passes through the store."""
        structures = map(self.store.frames, self._chunks_of_frames())
        return Domain.fitted(self._chunks, structures if self.store.has_structures else ())

    def _check_pairs(self) -> None:
        if self.store.has_structures:
            check_cutoff(self.sample(SAMPLE), self.descriptor.cutoff)

    def _check_targets(self) -> None:
        if self.forcetraining and not self.store.has_forces:
            raise ValueError(
                f"the store {self.store.path} holds no forces; set model.get_forces to False, or "
                "make a store with forces"
            )
        some = self.store.about.get("missing_forces") == "ignore"
        if self.forcetraining and some and self.missing_forces != "ignore":
            raise ValueError(
                f"the store {self.store.path} was made with dataset.missing_forces 'ignore', so "
                "that some of its frames may have no forces; set it for the training too"
            )

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype)

    def _compositions(self) -> np.ndarray:
        kinds = symbol_numbers(self.elements)
        parts = [
            composition(self.store.numbers(frame_ids), self.counts[frame_ids], kinds)
            for frame_ids in self._chunks_of_frames()
        ]
        return np.concatenate(parts)

    def _reference_energies(self) -> np.ndarray:
        if self.target_scaler.atomic is None:
            return np.zeros(len(self))
        energies = self.target_scaler.atomic.of_elements(symbol_numbers(self.elements))
        return self._compositions() @ energies

    def _chunks_of_frames(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self), CHUNK):
            yield np.arange(first, min(first + CHUNK, len(self)))

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for frame_ids in self._chunks_of_frames():
            values = self.store.fingerprints(self._hash, frame_ids)
            yield values, self.store.numbers(frame_ids)
