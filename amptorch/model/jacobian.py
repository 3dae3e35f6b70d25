"""Derivatives of single predictions with respect to the parameters of the networks.

One row for the energy of each frame and for each projection v·F of its forces; what is said here of
forces holds for strain derivatives too. Forces are linear in ∂E/∂G, so that
v·F = −Σ_i (J v)_i · ∂E_i/∂G_i: one contraction J v, then the derivative of each
atomic energy in the direction t_i = −slope · (J v)_i. Through a layer z = W h + b, h' = φ(z) a
direction goes as ż = W ḣ, ḣ' = φ'(z) ż; the gradient of ė with respect to W is δz hᵀ + δż ḣᵀ with

    δż = φ'(z) Wᵀδż₊        δz = φ'(z) Wᵀδz₊ + φ''(z) ż Wᵀδż₊

from the layer above (₊), beginning with δż = 1, δz = 0. δż is what gives the energy its row, δż hᵀ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model.atomic import AtomicModel
from amptorch.model.mlp import MLP


class Direction(NamedTuple):
    """Hold a projection of the forces, v·F, and of the strain derivatives, u·(∂E/∂ε), of each frame
    of a batch.

    v (len(rows), 3): for these atoms of the batch, zero for the others; rows: sorted array; u
    (frames, 6), or None for zero
    """

    rows: np.ndarray
    v: np.ndarray
    u: np.ndarray | None = None


@torch.no_grad()
def jacobian(
    model: AtomicModel, batch: Batch, directions: Sequence[Direction] = ()
) -> dict[nn.Parameter, torch.Tensor]:
    """Return rows for each frame of a `Batch`: its energy, then v·F of its forces, or u·(∂E/∂ε), in
    each of D directions.

    Returns {parameter: (frames, 1 + D, *its shape)} of the parameters that are trained, in scaled
    units of energy and of forces. Raises ValueError where the networks are not made of linear
    layers and activations alone, or are mixed by a trained element mask.
    """
    x = batch.fingerprint
    tangents = x.new_zeros((len(directions), *x.shape))
    for tangent, along in zip(tangents, directions, strict=True):
        derivatives: Any = batch.derivatives
        strain = {} if along.u is None else {"strain": -along.u}
        moved = derivatives.jvp(batch.frame_ids, along.v, rows=along.rows, **strain)
        change = torch.from_numpy(moved)
        tangent.copy_(batch.pushed_forward(change.to(x))).neg_()
    result = {
        p: p.new_zeros((batch.num_images, 1 + len(directions), *p.shape))
        for p in model.parameters()
        if p.requires_grad
    }
    for network, network_rows, weights in model.groups(batch):
        if weights is not None:
            raise ValueError(
                "the derivatives of single predictions are not available for networks that a "
                "trained element mask mixes, as AMPTorch v1.0's checkpoints have it"
            )
        atoms = torch.arange(len(x), device=x.device) if network_rows is None else network_rows
        places = _places(batch.image_idx[atoms], batch.num_images)
        own, inside = x.new_zeros(places.shape + x.shape[1:]), places >= 0
        own_tangents = x.new_zeros((len(tangents), *own.shape))
        own[inside] = x[atoms]
        own_tangents[:, inside] = tangents[:, atoms]
        for parameter, of_parameter in _rows_of_network(network, own, own_tangents, inside):
            if parameter in result:
                result[parameter].copy_(of_parameter)
    return result


def _places(frames: torch.Tensor, n_frames: int) -> torch.Tensor:
    """Return a (n_frames, largest number) array of the places in `frames`, sorted, of each frame;
    -1 fills it, so that one call multiplies for all frames."""
    counts = torch.bincount(frames, minlength=n_frames)
    inside = torch.arange(int(counts.max()), device=frames.device) < counts[:, None]
    places = torch.full(inside.shape, -1, device=frames.device)
    places[inside] = torch.arange(len(frames), device=frames.device)
    return places


def _rows_of_network(
    network: MLP, x: torch.Tensor, tangents: torch.Tensor, inside: torch.Tensor
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield (parameter, rows (frames, 1 + D, *its shape)) of a network for x (frames, atoms,
    features) and tangents (D, *x.shape); atoms that are not `inside` (frames, atoms) only fill
    up."""
    passed = []
    h, moved = x, tangents
    for linear, activation in _layers(network):
        z, dz = linear(h), moved @ linear.weight.T
        slope: Any
        curvature: Any
        slope, curvature = _derivatives(activation, z)
        passed.append((linear, h, moved, dz, slope, curvature))
        h, moved = (z, dz) if activation is None else (activation(z), slope * dz)
    # Of the output with respect to its own direction, and to itself.
    along, across = inside[..., None].to(h.dtype), torch.zeros_like(moved)
    for linear, h, moved, dz, slope, curvature in reversed(passed):
        if slope is not None:
            across = slope * across + curvature * dz * along
            along = slope * along
        of_energy = along.mT @ h
        of_forces = across.mT @ h + along.mT @ moved
        yield linear.weight, torch.stack([of_energy, *of_forces], dim=1)
        yield linear.bias, torch.stack([along.sum(dim=1), *across.sum(dim=2)], dim=1)
        along, across = along @ linear.weight, across @ linear.weight


def _layers(network: MLP) -> list[tuple[nn.Linear, nn.Module | None]]:
    """Return [(linear layer, activation or None)] of an MLP."""
    layers: list[tuple[nn.Linear, nn.Module | None]] = []
    for layer in network.model_net:
        if isinstance(layer, nn.Linear):
            layers.append((layer, None))
        elif isinstance(layer, nn.Dropout) or next(layer.parameters(), None) is not None:
            raise ValueError(
                "the derivatives of single predictions are available for networks of linear layers "
                f"and activations, not with {type(layer).__name__}; "
                "set model.batchnorm and model.dropout to False"
            )
        else:
            layers[-1] = (layers[-1][0], layer)
    return layers


@torch.enable_grad()
def _derivatives(
    activation: nn.Module | None, z: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return first and second derivative of an elementwise function at z, or None without one."""
    if activation is None:
        return None, None
    z = z.detach().requires_grad_()
    (first,) = torch.autograd.grad(activation(z).sum(), z, create_graph=True)
    second = None
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True)
    return first.detach(), torch.zeros_like(z) if second is None else second
