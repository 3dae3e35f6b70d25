"""Activations that torch lacks, most of them of n2p2; a configuration gives them by name."""

import torch
from torch import nn


class ExactSoftplus(nn.Module):
    """Compute ln(1 + eˣ); torch.nn.Softplus gives x above 20, which is 2e-9 less."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softplus(x, threshold=40.0)


class Gauss(nn.Module):
    """Compute exp(−x²/2)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * x * x)


class Cosine(nn.Module):
    """Compute cos(x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cos(x)


class ReverseLogistic(nn.Module):
    """Compute 1 − 1/(1 + e⁻ˣ)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(-x)


class Exponential(nn.Module):
    """Compute e⁻ˣ."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(-x)


class Harmonic(nn.Module):
    """Compute x²."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x
