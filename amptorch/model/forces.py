"""Forces out of ∂E/∂G, differentiable, through a derivative back end.

A back end holds (or recomputes) J = ∂G/∂r of the frames of a data set and offers the contraction
`vjp(frame_ids, g) -> Jᵀg` and its adjoint `jvp(frame_ids, v) -> J v`. Nothing else of J is needed:
forces are F = −Jᵀ ∂E/∂G, and the gradient of a loss with respect to ∂E/∂G is −J ∂L/∂F.
"""

import numpy as np
import torch
from torch.autograd.function import once_differentiable


class Forces(torch.autograd.Function):
    """`Forces.apply(g, derivatives, frame_ids)`: forces (n, 3) = −Jᵀg for g = ∂E/∂G (n, S).

    The result has g's dtype and device, and units of energy/Å. Differentiable once, which is what
    training on forces needs.
    """

    @staticmethod
    def forward(ctx, g, derivatives, frame_ids):
        ctx.derivatives = derivatives
        ctx.frame_ids = frame_ids
        return _as_tensor(derivatives.vjp(frame_ids, _as_array(g)), g)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return _as_tensor(ctx.derivatives.jvp(ctx.frame_ids, _as_array(grad)), grad), None, None


def _as_array(tensor):
    # Kernels sum in double precision whatever the precision of the model.
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _as_tensor(array, like):
    return torch.from_numpy(-array).to(device=like.device, dtype=like.dtype)
