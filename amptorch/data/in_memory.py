"""The data set in memory: fingerprints, derivatives and targets as flat arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms

from amptorch.data.batch import Batch, Batcher, stress_targets
from amptorch.data.corrections import composition
from amptorch.data.domain import Domain
from amptorch.data.fingerprints import describe
from amptorch.data.repulsion import Repulsion
from amptorch.data.samplers import with_known_forces
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.data.weights import checked_weights, set_weights
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.store import FingerprintStore
from amptorch.frames import Frames, read_images, symbol_numbers

# v1.0's default; elementwise as any other.
SCALING = {"type": "normalize", "range": (0, 1), "threshold": 1e-6}


class MemoryDataset(torch.utils.data.Dataset):
    """Hold frames with their scaled fingerprints and targets, ready for training.

    Parameters
    ----------
    images : list of ase.Atoms with energies (and forces), or what `frames.read_images` reads
    descriptor_setup : (fp_scheme, fp_params, cutoff_params, elements)
    forcetraining : whether forces, and the derivatives that they need, are there
    save_fps : take fingerprints from `store` and keep them there
    scaling : {"type": "normalize", "range": (0, 1), "elementwise": True} or "standardize"
    cores : threads of the kernels; None for all
    process : False leaves the work to a later call of `process()`
    derivatives : "stored" keeps d fingerprint / d position, "recompute" contracts it anew each time
    derivative_dtype : "float64" or "float32", precision of the stored derivatives
    dtype : torch dtype of what the model sees
    feature_scaler, target_scaler : those of a trained model; None to fit them to these frames
    store : FingerprintStore or None; not used where the derivatives are computed anyway
    verbose : show a progress bar
    pca : {"num_pc": 20, "elementwise": False}, principal components of the scaled fingerprints
    target_scaling, atomic_correction : see `TargetScaler.fitted`
    weights : (F,) positive numbers, of the frames' errors in the loss; None for equal ones
    missing_forces : "error", or "ignore" for frames without forces, to train on their energies
    stress : whether stresses are trained on, where frames have them
    repulsion : what is subtracted from the labels, or None

    Attributes
    ----------
    frames : Frames with N atoms in all; energies in eV, forces in eV/Å
    fingerprint : (N, S) tensor, scaled, or (N, num_pc)
    energy, forces : (F,) and (N, 3) tensors, scaled; forces None without `forcetraining`
    stress, volumes : (F, 6) and (F,) tensors, as of `Batch`, or None
    derivatives : the back end, `vjp(frame_ids, g)` and `jvp(frame_ids, v)`, or None
    counts, energies : (F,) atoms, and energy in eV, of each frame
    elements, descriptor, feature_scaler, target_scaler, input_dim, data_list : as in v1.0

    Raises ValueError that names the frame that cannot be used, before any long work.
    """

    def __init__(
        self,
        images: Sequence[Atoms] | str | os.PathLike[str],
        descriptor_setup: tuple,
        forcetraining: bool = True,
        save_fps: bool = True,
        scaling: dict | None = SCALING,
        cores: int | None = 1,
        process: bool = True,
        derivatives: str = "stored",
        derivative_dtype: str = "float64",
        dtype: torch.dtype = torch.float64,
        feature_scaler: FeatureScaler | None = None,
        target_scaler: TargetScaler | None = None,
        store: FingerprintStore | None = None,
        verbose: bool = True,
        pca: dict | None = None,
        target_scaling: bool | str = True,
        atomic_correction: bool | dict = False,
        weights: Sequence[float] | np.ndarray | None = None,
        missing_forces: str = "error",
        stress: bool = False,
        repulsion: Repulsion | None = None,
    ) -> None:
        if derivatives not in ("stored", "recompute"):
            raise ValueError(f"derivatives must be 'stored' or 'recompute', got {derivatives!r}")
        self.images = read_images(images)
        self.descriptor_setup = descriptor_setup
        self.descriptor = construct_descriptor(descriptor_setup)
        self.elements = list(self.descriptor.elements)
        self.forcetraining = forcetraining
        self.scaling = scaling or SCALING
        self.cores = cores
        self.derivative_kind = derivatives if forcetraining else None
        self.derivative_dtype = np.dtype(derivative_dtype)
        self.dtype = dtype
        self.feature_scaler = feature_scaler
        self.target_scaler = target_scaler
        self.store = store if save_fps else None
        self.verbose = verbose
        self.pca = pca
        self.target_scaling = target_scaling
        self.atomic_correction = atomic_correction
        self.weights = checked_weights(weights, len(self.images))
        self.missing_forces = missing_forces
        self.with_stress = stress
        self.repulsion = repulsion
        # Frames, once processed.
        self.frames: Any = None
        if process:
            self.process()

    def process(self) -> None:
        """Check the frames, compute their fingerprints, and scale."""
        self.frames = Frames.from_atoms(
            self.images,
            self.elements,
            energies=True,
            forces=self.forcetraining,
            missing_forces=self.missing_forces,
            stress=self.with_stress,
        )
        if self.repulsion is not None:
            self.repulsion.check(np.unique(self.frames.numbers), self.descriptor.cutoff)
            self.frames = self.repulsion.without(self.frames)
        values, self.derivatives = describe(
            self.descriptor,
            self.frames,
            self.derivative_kind,
            self.derivative_dtype,
            self.images,
            self.store,
            self.cores,
            self.verbose,
            self.with_stress,
        )
        numbers = self.frames.numbers
        if self.feature_scaler is None:
            self.feature_scaler = FeatureScaler.fitted(
                lambda: [(values, numbers)], self.scaling, self.forcetraining, self.pca
            )
        domain = Domain.fitted(lambda: [(values, numbers)], [self.frames])
        self.feature_scaler = self.feature_scaler.with_domain(domain)
        if self.target_scaler is None:
            kinds = symbol_numbers(self.elements)
            self.target_scaler = TargetScaler.fitted(
                self.frames.energies,
                lambda: composition(numbers, self.counts, kinds),
                self.elements,
                self.forcetraining,
                self.atomic_correction,
                self.target_scaling,
                lambda: self.frames.forces,
            )
        self.fingerprint = self._tensor(self.feature_scaler.transform_rows(values, numbers))
        references = self.target_scaler.references(numbers, self.counts)
        self.energy = self._tensor(
            self.target_scaler.norm_energies(self.frames.energies, references)
        )
        self.forces: torch.Tensor | None = None
        if self.forcetraining:
            self.forces = self._tensor(self.target_scaler.norm_forces(self.frames.forces))
        self.stress: torch.Tensor | None = None
        self.volumes: torch.Tensor | None = None
        if self.with_stress:
            stress, volumes = stress_targets(self.frames)
            self.stress = self._tensor(self.target_scaler.norm_forces(stress))
            self.volumes = self._tensor(volumes)
        self.batcher = Batcher(self.elements, self.feature_scaler, self.dtype)

    # All frames are as near as any other: see `BlockSampler`.
    shards: np.ndarray | None = None

    @property
    def input_dim(self) -> int | None:
        """Return the features of an atom, as the network sees them; None before `process()`."""
        return None if self.frames is None else self.fingerprint.shape[1]

    @property
    def counts(self) -> np.ndarray:
        return self.frames.counts

    @property
    def energies(self) -> np.ndarray:
        return self.frames.energies

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the batch of the frames at `indices`: index arithmetic only, nothing made per
        frame."""
        frame_ids = np.asarray(indices, dtype=np.int64)
        atoms = self.frames.atom_rows(frame_ids)
        batch = self.batcher(
            self.fingerprint[atoms],
            self.frames.numbers[atoms],
            self.frames.counts[frame_ids],
            self.derivatives,
            frame_ids,
        )
        batch.energy = self.energy[frame_ids]
        batch.forces = None if self.forces is None else self.forces[atoms]
        if self.stress is not None and self.volumes is not None:
            batch.stress, batch.volumes = self.stress[frame_ids], self.volumes[frame_ids]
        if self.weights is not None:
            set_weights(batch, self.weights[frame_ids], self.counts[frame_ids])
        return with_known_forces(batch)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        # torch's DataLoader asks for batches by this name.
        return self.batch(indices)
