"""A trained potential: all that it takes to go from frames to energies and forces."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from ase import Atoms

from amptorch.checkpoints.folder import Checkpoint, load_checkpoint, save_checkpoint
from amptorch.config import Config
from amptorch.data.batch import Batch, Batcher
from amptorch.data.domain import Domain
from amptorch.data.repulsion import Repulsion
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.derivatives import Derivatives
from amptorch.descriptor.store import FingerprintStore
from amptorch.extrapolation import Extrapolation, measure
from amptorch.frames import Frames
from amptorch.model import AtomicModel, make_model
from amptorch.model.arrays import energies_and_gradient
from amptorch.modes import ordinary_tensors
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.prediction import AtomicParts, Stress, predict, predict_atoms

if TYPE_CHECKING:
    from amptorch.calculator import AmpTorch


class _LastFrames(NamedTuple):
    """Hold what batches of the same atoms have in common."""

    numbers: np.ndarray
    offsets: np.ndarray
    rows: tuple[torch.Tensor, torch.Tensor]
    batch: Batch

    def same(self, frames: Frames) -> bool:
        """Tell whether frames have these atoms, wherever they are."""
        same = np.array_equal(frames.numbers, self.numbers)
        return same and np.array_equal(frames.offsets, self.offsets)


class Potential:
    """Predict energies and forces of frames by descriptor, scalers and model; J is never formed.

    model : a BPNN or SingleNN on `device`, whose parameters have the type `dtype`
    settings : the `Config` that it was trained with, with `dataset.elements`; None where it was
        made by hand, and then it cannot be saved
    history : a dictionary for each epoch of its training

    Attributes
    ----------
    elements : symbols of the elements that frames may hold: those of the training frames
    has_forces : whether it gives forces
    threads : of the kernels; None is AMPTORCH_NUM_THREADS, or every core
    domain : where the training atoms are; None where the checkpoint is too old to know
    units : of what it gives, {"energy": "eV", "forces": "eV/Å", "length": "Å"}

    It can be pickled and copied.
    """

    units: ClassVar[dict[str, str]] = {"energy": "eV", "forces": "eV/Å", "length": "Å"}
    # Dynamics asks for the same atoms in every step.
    _last: _LastFrames | None = None

    def __init__(
        self,
        descriptor: BaseDescriptor,
        model: AtomicModel,
        feature_scaler: FeatureScaler,
        target_scaler: TargetScaler,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        settings: Config | None = None,
        history: Sequence[dict[str, Any]] = (),
    ):
        self.descriptor = descriptor
        self.model = model
        self.feature_scaler = feature_scaler
        self.target_scaler = target_scaler
        self.mean = float(target_scaler.target_mean)
        self.std = float(target_scaler.target_std)
        self.dtype = dtype
        self.device = device
        self.settings = _without_frames(settings)
        self.history = history
        self.has_forces = model.get_forces
        self.threads = None if settings is None else settings.cmd.threads
        self.repulsion = None if settings is None else Repulsion.of(settings.model.repulsion)
        self.elements = feature_scaler.known(descriptor.elements)
        self.batcher = Batcher(descriptor.elements, feature_scaler, dtype)
        self.domain = feature_scaler.domain
        if self.domain is None and feature_scaler.ranges is not None:
            self.domain = Domain.of_ranges(feature_scaler.ranges)

    @classmethod
    @ordinary_tensors()
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: torch.device | str = "cpu"
    ) -> "Potential":
        """Return the potential that a checkpoint holds.

        Raises ValueError where its files do not fit each other, and FileNotFoundError where a file
        of densities that its descriptor needs is gone.
        """
        settings = Config.from_dict(checkpoint.config)
        options = settings.dataset
        try:
            descriptor = construct_descriptor(options.descriptor_setup)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; the checkpoint {checkpoint.folder} was made with it: load it by "
                "AtomsTrainer with a configuration whose atom_gaussians has the paths that the "
                "files have now"
            ) from error
        n_inputs = checkpoint.feature_scaler.width(descriptor.n_features)
        # Its parameters are replaced at once: the user's random numbers are left alone.
        with torch.random.fork_rng(devices=[]):
            model = make_model(settings.model, descriptor.elements, n_inputs, settings.cmd.dtype)
        checkpoint.load_params(model)
        return cls(
            descriptor,
            model.to(device),
            checkpoint.feature_scaler,
            checkpoint.target_scaler,
            settings.cmd.dtype,
            device,
            settings,
            checkpoint.history,
        )

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> "Potential":
        """Return the potential of a checkpoint folder, also of v1.0's; errors as of
        `load_checkpoint`."""
        return cls.from_checkpoint(load_checkpoint(folder), device)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a checkpoint folder, which `amptorch.load` reads.

        Raises ValueError for a potential that was made by hand, and OSError that names the file
        which cannot be written.
        """
        if self.settings is None:
            raise ValueError("a potential without settings cannot be saved: train it with `fit`")
        os.makedirs(folder, exist_ok=True)
        save_checkpoint(
            folder,
            self.settings,
            self.feature_scaler,
            self.target_scaler,
            self.model.state_dict(),
            history=list(self.history),
        )

    @property
    def cutoff(self) -> float:
        """Return how far neighbours are listed, Å."""
        return self.descriptor.cutoff

    def predict(
        self,
        images: Any,
        disable_tqdm: bool = True,
        stress: Stress = False,
        extrapolation: bool = False,
    ) -> dict[str, list]:
        """Return energies and forces of frames, in order, and with `stress` stresses and energies
        of atoms.

        images : list of Atoms, or what `read_images` reads
        stress : True, or "optional" to take what there is: NaN for frames without three cell
            vectors, no `stress` at all of a model that gives no forces
        extrapolation : how far atoms are from those of the training

        Returns a dictionary of lists with an entry for each frame: `energy`, float, eV; `forces`
        (n_atoms, 3), eV/Å, empty arrays where the model gives none. With `stress` also `stress`
        (6,) and `stresses` (n_atoms, 6), eV/Å³, positive under tension, xx, yy, zz, yz, xz, xy, and
        `energies` (n_atoms,), eV; those of the atoms add up to those of the frame. With
        `extrapolation` also `extrapolation` (n_atoms,), the distance from the training atoms, 1 for
        their farthest 1 %; `functions_outside` (n_atoms,), the number of functions off their range;
        and `range_excess` (n_atoms,), how far the farthest of them is off, in widths of its range;
        see `Extrapolation`. An older checkpoint knows no distances (NaN), or nothing at all: then
        there is a warning.

        Raises ValueError that names the frame which cannot be used, or where the model gives no
        forces and thus no stress, and ASE's PropertyNotImplementedError that names the frame which
        has no three cell vectors.
        """
        if stress or extrapolation:
            return predict_atoms(self, images, stress, disable_tqdm, extrapolation)
        found = predict(self, images, self.has_forces, quiet=disable_tqdm)
        return {name: found[name] for name in ("energy", "forces")}

    def get_calc(self, skin: float = 0.3, **options: Any) -> "AmpTorch":
        """Return the ASE calculator; skin and other options: see `AmpTorch`."""
        from amptorch.calculator import AmpTorch

        return AmpTorch(self, skin, **options)

    # --- batches ---

    def batch(
        self,
        frames: Frames,
        neighbors: NeighborList | None = None,
        images: list[Atoms] | None = None,
        store: FingerprintStore | None = None,
        keep: bool = False,
    ) -> Batch:
        """Return the batch of `frames`.

        neighbors : their list, if there is one; it may go beyond the cutoff
        images, store : where fingerprints may be kept, see `FingerprintStore.values`
        keep : make the derivatives of the fingerprints with these, as training does: no other
            kernels need to be compiled after it
        """
        if neighbors is None:
            neighbors = neighbor_list(frames, self.cutoff)
        blocks = None
        if keep:
            values, blocks = self.descriptor.values_and_derivatives(frames, neighbors)
        elif store is None or images is None:
            values = self.descriptor.values(frames, neighbors)
        else:
            values = store.values(self.descriptor, frames, images, neighbors)
        batch = self.batch_of(frames, neighbors, values, blocks)
        return self.with_base(batch, frames, neighbors)

    def with_base(self, batch: Batch, frames: Frames, neighbors: NeighborList) -> Batch:
        """Return the batch of `frames` with the repulsion that is added to what the model gives."""
        if self.repulsion is not None:
            batch.base = self.repulsion.parts(frames, neighbors)
        return batch

    @ordinary_tensors()
    def batch_of(
        self,
        frames: Frames,
        neighbors: NeighborList,
        values: np.ndarray,
        derivatives: Derivatives | None = None,
    ) -> Batch:
        """Return the batch of `frames` with known fingerprints `values` (N, S), not scaled, and
        without what `with_base` adds; their derivatives are computed anew where none are given."""
        if derivatives is None:
            derivatives = RecomputedDerivatives(self.descriptor, frames, neighbors)
        last = self._last
        if last is None or not last.same(frames):
            rows = self.feature_scaler.rows_of(frames.numbers)
            scaled = self.feature_scaler.transform_with(values, frames.numbers, rows)
            fingerprint = torch.as_tensor(scaled, dtype=self.dtype)
            batch = self.batcher(fingerprint, frames.numbers, frames.counts, derivatives)
            kept = replace(batch, fingerprint=fingerprint[:0], derivatives=None)
            self._last = _LastFrames(frames.numbers, frames.offsets, rows, kept)
        else:
            scaled = self.feature_scaler.transform_with(values, frames.numbers, last.rows)
            fingerprint = torch.as_tensor(scaled, dtype=self.dtype)
            batch = replace(last.batch, fingerprint=fingerprint, derivatives=derivatives)
        batch.values = values
        return batch

    def extrapolation(self, batch: Batch) -> Extrapolation | None:
        """Return how far the atoms of a batch that `batch` made are from the training atoms; None
        where the checkpoint knows nothing of these."""
        if batch.values is None:
            raise ValueError("the batch holds no fingerprints as they are: make it by `batch`")
        return measure(self, batch.values, batch.atomic_numbers.cpu().numpy())

    def check_compositions(self, frames: Frames) -> None:
        """Warn where one of the `frames` has a composition for which energies are known to be off:
        see `TargetScaler`."""
        self.target_scaler.check_compositions(frames.numbers, frames.counts)

    @ordinary_tensors()
    def evaluate(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (F,), eV, and forces (n, 3), eV/Å, of a batch; forces (0, 3) where the
        model gives none."""
        self.model.eval()
        with torch.no_grad():
            energy, forces = self.model(batch.to(self.device))
        forces = forces.cpu().numpy() * self.std
        if batch.base is not None and len(forces):
            forces = forces + batch.base.forces
        return self._energies(energy, batch), forces

    @ordinary_tensors()
    def gradient(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (F,), eV, and ∂E/∂G (n, S), eV, of a batch; nothing is contracted with
        J."""
        energies, gradient = self._gradient(batch, lambda batch, _: self.model(batch)[0])
        return self._energies(energies, batch), gradient

    @ordinary_tensors()
    def atomic_gradient(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (n,) of the atoms, eV, and ∂E/∂G (n, S), eV, of a batch.

        The energy of an atom is the output of its network and the reference energy of its element;
        a mean energy of whole frames is shared out equally. They add up to the energies of the
        frames.
        """
        known = energies_and_gradient(self.model, batch)
        if known is None:
            outputs, gradient = self._gradient(batch, self.model.atomic_energies)
            energies = _as_float64(outputs) * self.std
        else:
            pulled = batch.pulled_back(torch.from_numpy(known[1]))
            energies, gradient = known[0] * self.std, pulled.numpy() * self.std
        if self.mean:
            frame = batch.image_idx.cpu().numpy()
            energies += self.mean / np.bincount(frame)[frame]
        if self.target_scaler.atomic is not None:
            each = np.ones(len(energies), dtype=np.int64)
            energies += self.target_scaler.references(batch.atomic_numbers.cpu().numpy(), each)
        if batch.base is not None:
            energies += batch.base.energies
        return energies, gradient

    def evaluate_atoms(self, batch: Batch) -> AtomicParts:
        """Return energies, forces and virials of the atoms of a batch that `batch` made."""
        energies, g = self.atomic_gradient(batch)
        if not self.has_forces or batch.derivatives is None:
            return AtomicParts(energies, np.zeros((0, 3)), np.zeros((0, 6)))
        made_of: Any = batch.derivatives
        gradient, virials = self.descriptor.vjp_and_virials(made_of.frames, g, made_of.neighbors)
        if batch.base is None:
            return AtomicParts(energies, -gradient, virials)
        return AtomicParts(energies, batch.base.forces - gradient, batch.base.virials + virials)

    def _gradient(
        self, batch: Batch, energies_of: Callable[[Batch, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Return scaled energies, as `energies_of` finds them from a batch and its fingerprints,
        and ∂E/∂G (n, S), eV, of their sum."""
        self.model.eval()
        batch = batch.to(self.device)
        x = batch.fingerprint.detach().requires_grad_()
        with torch.enable_grad():
            energy = energies_of(replace(batch, fingerprint=x, derivatives=None), x)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), _as_float64(batch.pulled_back(gradient)) * self.std

    def _energies(self, energy: torch.Tensor, batch: Batch) -> np.ndarray:
        """Return energies (F,), eV, out of scaled ones."""
        energies = _as_float64(energy) * self.std + self.mean
        frame = batch.image_idx.cpu().numpy()
        if batch.base is not None:
            energies = energies + np.bincount(frame, batch.base.energies, minlength=len(batch))
        if self.target_scaler.atomic is None:
            return energies
        counts = np.bincount(frame, minlength=len(batch))
        return energies + self.target_scaler.references(batch.atomic_numbers.cpu().numpy(), counts)

    @ordinary_tensors()
    def latent(self, batch: Batch, layer: int) -> np.ndarray:
        """Return the output (n, width) of `model_net[layer]` of each atom's network."""
        self.model.eval()
        with torch.no_grad():
            return self.model.latent(batch.to(self.device), layer).cpu().numpy()


def _as_float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float64)


def _without_frames(settings: Config | None) -> Config | None:
    """Return the settings without the frames of the training, which are not the potential's."""
    if settings is None or settings.dataset.raw_data is None:
        return settings
    return replace(settings, dataset=replace(settings.dataset, raw_data=None))
