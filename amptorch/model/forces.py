"""Forces out of ∂E/∂G, differentiable, through a derivative back end.

A back end (`descriptor.derivatives.Derivatives`) holds or recomputes J = ∂G/∂r of the frames of a
data set. Forces are F = −Jᵀ ∂E/∂G, and the gradient of a loss with respect to ∂E/∂G is −J ∂L/∂F.
What is kept as blocks (`KeptDerivatives`) can be contracted on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from amptorch.descriptor.blocks import KeptDerivatives
from amptorch.descriptor.derivatives import Derivatives
from amptorch.model.device import DeviceDerivatives


class Forces(torch.autograd.Function):
    """Compute, by `Forces.apply(g, derivatives, frame_ids, rows)`, forces (n, 3) = −Jᵀg for g =
    ∂E/∂G (n, S), or (len(rows), 3) of those atoms alone; rows None for all.

    The result has g's dtype and device, and units of energy/Å. Differentiable once, which is what
    training on forces needs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g: torch.Tensor,
        derivatives: Derivatives,
        frame_ids: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> torch.Tensor:
        ctx.there = None
        if _stays_on(g.device) and isinstance(derivatives, KeptDerivatives):
            ctx.there = DeviceDerivatives(derivatives, frame_ids, g.device, rows)
            return -ctx.there.vjp(g)
        ctx.derivatives = derivatives
        ctx.frame_ids = frame_ids
        ctx.rows = rows
        return _as_tensor(derivatives.vjp(frame_ids, _as_array(g), rows), g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        if ctx.there is not None:
            return -ctx.there.jvp(grad), None, None, None
        gradient = ctx.derivatives.jvp(ctx.frame_ids, _as_array(grad), ctx.rows)
        return _as_tensor(gradient, grad), None, None, None


class ForcesAndVirials(torch.autograd.Function):
    """Compute, by `ForcesAndVirials.apply(g, derivatives, frame_ids, rows)`, forces as `Forces`
    does, and the strain derivatives ∂E/∂ε (frames, 6) of the energies, in units of energy.

    Differentiable once. All is done on the CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g: torch.Tensor,
        derivatives: Derivatives,
        frame_ids: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.derivatives, ctx.frame_ids, ctx.rows = derivatives, frame_ids, rows
        gradient, virials = derivatives.vjp_and_virials(frame_ids, _as_array(g), rows)
        return _as_tensor(gradient, g), -_as_tensor(virials, g)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, forces: torch.Tensor, virials: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        gradient = ctx.derivatives.jvp(
            ctx.frame_ids, _as_array(forces), ctx.rows, -_as_array(virials)
        )
        return _as_tensor(gradient, forces), None, None, None


def _stays_on(device: torch.device) -> bool:
    """Tell whether stored derivatives are contracted on this device and not by the kernels."""
    return device.type != "cpu"


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    # Kernels sum in double precision whatever the precision of the model.
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(-array).to(device=like.device, dtype=like.dtype)
