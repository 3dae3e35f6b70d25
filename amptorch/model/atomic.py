"""Add up energies of frames over atoms, and take forces from them: the base of every model."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model.forces import Forces, ForcesAndVirials
from amptorch.model.mlp import MLP

# A network, the rows that go into it (None: all), and weights of its outputs (None: 1).
Group: TypeAlias = tuple[MLP, torch.Tensor | None, torch.Tensor | None]


class AtomicModel(nn.Module):
    """Give each atom an energy by one or several networks; the base of all models.

    Parameters, common to all models
    ----------
    elements : chemical symbols, or atomic numbers
    input_dim : features of an atom
    num_nodes, num_layers, hidden_layers : width and number of hidden layers, or their widths
    get_forces : whether `forward` gives forces
    batchnorm, dropout, dropout_rate, activation, initialization : see `MLP`
    name : v1.0's name of the model, kept as an attribute
    dtype : of the parameters

    A subclass defines `groups(batch)` and `networks`, a pattern for each network that the names of
    its parameters match.
    """

    networks: Any

    def __init__(self, get_forces: bool, name: str) -> None:
        super().__init__()
        self.get_forces = get_forces
        self.name = name

    def groups(self, batch: Batch) -> list[Group]:
        """Return which network sees which atoms: list of (network, rows, weights). `rows` of the
        batch (None: all) go into the network, its outputs are multiplied by `weights` (None: by
        1)."""
        raise TypeError(f"{type(self).__name__} does not say which network sees which atoms")

    def start_at(self, energies: Any) -> None:
        """Set the mean energy (scaled) of an atom of each element to begin with, (K,)."""
        raise TypeError(f"{type(self).__name__} does not say what its atoms begin with")

    def forward(self, batch: Batch | list[Batch]) -> tuple[torch.Tensor, ...]:
        """Return energies (n_frames,) and forces (n_atoms, 3) of a `Batch`, both scaled; of a list
        of one too, as v1.0's models took it.

        F = −Jᵀ (∂E/∂G), with ∂E/∂G as `Batch.pulled_back` finds it. Forces are those of the atoms
        `batch.force_rows` alone where it is there, and (0, 3) where `get_forces` is False or the
        batch has no derivatives. Where the batch has `volumes`, there is a third, the stresses
        (n_frames, 6), scaled as the forces are.
        """
        if isinstance(batch, list):
            (batch,) = batch
        x = batch.fingerprint
        if not self.get_forces or batch.derivatives is None:
            return self._energies(batch, x), x.new_empty((0, 3))
        keep_graph = torch.is_grad_enabled()
        # Forces are a derivative, with or without a graph for training.
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energies = self._energies(batch, x)
            (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=keep_graph)
            gradient = batch.pulled_back(gradient)
            inputs = (gradient, batch.derivatives, batch.frame_ids, batch.force_rows)
            found: tuple[torch.Tensor, ...]
            if batch.volumes is None:
                found = (energies, Forces.apply(*inputs))
            else:
                forces, virials = ForcesAndVirials.apply(*inputs)
                found = (energies, forces, virials / batch.volumes[:, None])
        return found if keep_graph else tuple(one.detach() for one in found)

    def _energies(self, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        energies = x.new_zeros(batch.num_images)
        for network, rows, weights in self.groups(batch):
            atomic = network(_pick(x, rows))
            if weights is not None:
                atomic = atomic * weights
            energies = energies.index_add(0, _pick(batch.image_idx, rows), atomic)
        return energies

    def atomic_energies(self, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        """Return the energy (n_atoms,), scaled, of each atom of a batch with the fingerprints
        x."""
        total = x.new_zeros(len(x))
        for network, rows, weights in self.groups(batch):
            atomic = network(_pick(x, rows))
            if weights is not None:
                atomic = atomic * weights
            total = total + atomic if rows is None else total.index_add(0, rows, atomic)
        return total

    def latent(self, batch: Batch, layer: int) -> torch.Tensor:
        """Return the output (n_atoms, width) of `model_net[layer]` of each atom's network.

        ValueError where the networks have no such layer.
        """
        latent: Any = 0
        for network, rows, weights in self.groups(batch):
            values = network.latent(_pick(batch.fingerprint, rows), layer)
            if weights is not None:
                values = values * weights[:, None]
            if rows is not None:
                total = values.new_zeros((len(batch.fingerprint), values.shape[1]))
                values = total.index_add(0, rows, values)
            latent = latent + values
        return latent

    @property
    def num_params(self) -> int:
        """Return the number of parameters that are trained."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def _pick(tensor: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return tensor if rows is None else tensor.index_select(0, rows)
