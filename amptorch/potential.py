"""A trained model with all it needs to go from frames to energies and forces."""

from dataclasses import replace

import numpy as np
import torch
from ase.data import atomic_numbers

from amptorch.data.batch import Batcher
from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.neighbors import neighbor_list


class Potential:
    """Energies and forces of frames by descriptor, scalers and model; J is never formed.

    model: a BPNN or SingleNN on `device`, whose parameters have the type `dtype`. elements: those
    that may occur.
    """

    def __init__(self, descriptor, model, feature_scaler, target_scaler, dtype, device="cpu"):
        self.descriptor = descriptor
        self.model = model
        self.feature_scaler = feature_scaler
        self.target_scaler = target_scaler
        self.mean = float(target_scaler.target_mean)
        self.std = float(target_scaler.target_std)
        self.dtype = dtype
        self.device = device
        self.elements = _scaled_elements(descriptor.elements, feature_scaler)
        self.batcher = Batcher(descriptor.elements, feature_scaler, dtype)

    def batch(self, frames, neighbors=None, images=None, store=None):
        """The batch of `frames`. neighbors: their list, if there is one; it may go beyond the
        cutoff. images, store: where fingerprints may be kept, see the descriptor's
        `stored_values`."""
        if neighbors is None:
            neighbors = neighbor_list(frames, self.descriptor.cutoff)
        if store is None:
            values = self.descriptor.values(frames, neighbors)
        else:
            values = self.descriptor.stored_values(store, frames, images, neighbors)
        return self.batch_of(frames, neighbors, values)

    def batch_of(self, frames, neighbors, values):
        """The batch of `frames` whose fingerprints `values` (N, S), not scaled, are known."""
        scaled = self.feature_scaler.transform_rows(values, frames.numbers)
        return self.batcher(
            torch.as_tensor(scaled, dtype=self.dtype),
            frames.numbers,
            frames.counts,
            RecomputedDerivatives(self.descriptor, frames, neighbors),
        )

    def check_compositions(self, frames):
        """Warn where one of the `frames` has a composition for which energies are known to be off:
        see `TargetScaler`."""
        self.target_scaler.check_compositions(frames.numbers, frames.counts)

    def evaluate(self, batch):
        """Energies (F,), eV, and forces (n, 3), eV/Å, of a batch; forces (0, 3) where the model
        gives none."""
        self.model.eval()
        with torch.no_grad():
            energy, forces = self.model(batch.to(self.device))
        return self._energies(energy, batch), forces.cpu().numpy() * self.std

    def gradient(self, batch):
        """Energies (F,), eV, and ∂E/∂G (n, S), eV, of a batch; nothing is contracted with J."""
        self.model.eval()
        batch = batch.to(self.device)
        x = batch.fingerprint.detach().requires_grad_()
        with torch.enable_grad():
            energy, _ = self.model(replace(batch, fingerprint=x, derivatives=None))
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        gradient = batch.pulled_back(gradient).cpu().numpy().astype(np.float64)
        return self._energies(energy.detach(), batch), gradient * self.std

    def _energies(self, energy, batch):
        """Energies (F,), eV, out of scaled ones."""
        energies = energy.cpu().numpy().astype(np.float64) * self.std + self.mean
        if self.target_scaler.atomic is None:
            return energies
        counts = torch.bincount(batch.image_idx, minlength=len(batch)).cpu().numpy()
        return energies + self.target_scaler.references(batch.atomic_numbers.cpu(), counts)

    def latent(self, batch, layer):
        """Output (n, width) of `model_net[layer]` of each atom's network."""
        self.model.eval()
        with torch.no_grad():
            return self.model.latent(batch.to(self.device), layer).cpu().numpy()


def _scaled_elements(elements, feature_scaler):
    """Those of the descriptor's elements that the training frames held: for the others there is no
    scale, and their networks were never trained."""
    return [symbol for symbol in elements if feature_scaler.knows(atomic_numbers[symbol])]
