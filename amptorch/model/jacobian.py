"""Derivatives of single predictions with respect to the parameters of the networks.

One row for the energy of each frame and for each projection v·F of its forces. Forces are linear in
∂E/∂G, so that v·F = −Σ_i (J v)_i · ∂E_i/∂G_i: one contraction J v, then the derivative of each
atomic energy in the direction t_i = −slope · (J v)_i. Through a layer z = W h + b, h' = φ(z) a
direction goes as ż = W ḣ, ḣ' = φ'(z) ż; the gradient of ė with respect to W is δz hᵀ + δż ḣᵀ with

    δż = φ'(z) Wᵀδż₊        δz = φ'(z) Wᵀδz₊ + φ''(z) ż Wᵀδż₊

from the layer above (₊), beginning with δż = 1, δz = 0. δż is what gives the energy its row, δż hᵀ.
"""

import torch
from torch import nn


@torch.no_grad()
def jacobian(model, batch, directions=()):
    """Rows for each frame of a `Batch`: its energy, then v·F of its forces in each of D directions.

    directions : of pairs (rows, v): v (len(rows), 3) for these atoms of the batch, zero for the
        others; sorted array `rows`

    Returns {parameter: (frames, 1 + D, *its shape)} of the parameters that are trained, in scaled
    units of energy and of forces. Raises ValueError where the networks are not made of linear
    layers and activations alone, or are mixed by a trained element mask.
    """
    x = batch.fingerprint
    tangents = x.new_zeros((len(directions), *x.shape))
    for tangent, (rows, v) in zip(tangents, directions, strict=True):
        tangent.copy_(torch.from_numpy(batch.derivatives.jvp(batch.frame_ids, v, rows=rows)))
        tangent.neg_()
        if batch.slope is not None:
            tangent.mul_(batch.slope)
    result = {
        p: p.new_zeros((batch.num_images, 1 + len(directions), *p.shape))
        for p in model.parameters()
        if p.requires_grad
    }
    for network, rows, weights in model.groups(batch):
        if weights is not None:
            raise ValueError(
                "the derivatives of single predictions are not available for networks that a "
                "trained element mask mixes, as AMPTorch v1.0's checkpoints have it"
            )
        everything = rows is None
        frames = batch.image_idx if everything else batch.image_idx[rows]
        own = x if everything else x[rows]
        own_tangents = tangents if everything else tangents[:, rows]
        counts = torch.bincount(frames, minlength=batch.num_images).tolist()
        for p, rows_of_p in _rows_of_network(network, own, own_tangents, counts):
            if p in result:
                result[p].copy_(rows_of_p)
    return result


def _rows_of_network(network, x, tangents, counts):
    """(parameter, rows (frames, 1 + D, *its shape)) of a network that sees the atoms x, of which
    `counts` belong to each frame, one after the other."""
    layers = _layers(network)
    passed = []
    h, moved = x, tangents
    for linear, activation in layers:
        z, dz = linear(h), moved @ linear.weight.T
        slope, curvature = _derivatives(activation, z)
        passed.append((linear, h, moved, dz, slope, curvature))
        h, moved = (z, dz) if activation is None else (activation(z), slope * dz)
    # Of the output with respect to its own direction, and to itself.
    along, across = torch.ones_like(h), torch.zeros_like(moved)
    for linear, h, moved, dz, slope, curvature in reversed(passed):
        if slope is not None:
            across = slope * across + curvature * dz * along
            along = slope * along
        weight = h.new_empty((len(counts), 1 + len(tangents), *linear.weight.shape))
        bias = h.new_empty((len(counts), 1 + len(tangents), *linear.bias.shape))
        first = 0
        for frame, count in enumerate(counts):
            atoms = slice(first, first + count)
            first += count
            weight[frame, 0] = along[atoms].T @ h[atoms]
            weight[frame, 1:] = across[:, atoms].transpose(1, 2) @ h[atoms]
            weight[frame, 1:] += along[atoms].T @ moved[:, atoms]
            bias[frame, 0] = along[atoms].sum(dim=0)
            bias[frame, 1:] = across[:, atoms].sum(dim=1)
        yield linear.weight, weight
        yield linear.bias, bias
        along, across = along @ linear.weight, across @ linear.weight


def _layers(network):
    """[(linear layer, activation or None)] of an MLP."""
    layers = []
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
def _derivatives(activation, z):
    """First and second derivative of an elementwise function at z, or None without one."""
    if activation is None:
        return None, None
    z = z.detach().requires_grad_()
    (first,) = torch.autograd.grad(activation(z).sum(), z, create_graph=True)
    second = None
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True)
    return first.detach(), torch.zeros_like(z) if second is None else second
