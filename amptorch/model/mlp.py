"""The multilayer perceptron that turns a scaled fingerprint into an atomic energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

INITIALIZATIONS = ("xavier", "zero", "small")


class MLP(nn.Module):
    """Apply hidden layers: linear, [batch norm], activation, [dropout]; then a linear layer, which
    has an activation only where one is listed for it.

    Parameters
    ----------
    n_input_nodes : features of an atom
    n_layers, n_hidden_size : number of hidden layers and their width
    activation : class of the activation, made without arguments; or a list of one for each hidden
        layer, and perhaps one more for the output
    batchnorm, dropout, dropout_rate : what follows a hidden linear layer
    hidden_layers : list of widths; overrides n_layers and n_hidden_size
    n_output_nodes : width of the last layer
    initialization : "xavier" (uniform weights, zero bias), "zero", or "small": xavier with output
        weights a hundredth as large
    dtype : of the parameters

    Raises ValueError for another `initialization`, or a list of activations of another length.
    """

    def __init__(
        self,
        n_input_nodes: int,
        n_layers: int = 5,
        n_hidden_size: int = 20,
        activation: type[nn.Module] | Sequence[type[nn.Module]] = nn.Tanh,
        batchnorm: bool = False,
        dropout: bool = False,
        dropout_rate: float = 0.5,
        hidden_layers: Sequence[int] | None = None,
        n_output_nodes: int = 1,
        initialization: str = "xavier",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        widths = [n_hidden_size] * n_layers if hidden_layers is None else list(hidden_layers)
        several = isinstance(activation, Sequence)
        activations: Any = activation if several else [activation] * len(widths)
        if len(activations) not in (len(widths), len(widths) + 1):
            raise ValueError(f"{len(activations)} activations for {len(widths)} hidden layers")
        layers: list[nn.Module] = []
        inputs = [n_input_nodes, *widths]
        for n_in, n_out, make in zip(inputs, widths, activations, strict=False):
            layers.append(nn.Linear(n_in, n_out, dtype=dtype))
            if batchnorm:
                layers.append(BatchNorm(n_out, dtype=dtype))
            layers.append(make())
            if dropout:
                layers.append(Dropout(dropout_rate))
        layers.append(nn.Linear(inputs[-1], n_output_nodes, dtype=dtype))
        layers += [make() for make in activations[len(widths) :]]
        self.model_net = nn.Sequential(*layers)
        self.reset_parameters(initialization)

    def reset_parameters(self, initialization: str = "xavier") -> None:
        """Set fresh weights: "xavier", "zero" or "small"."""
        if initialization not in INITIALIZATIONS:
            raise ValueError(
                f"initialization must be one of {INITIALIZATIONS}, got {initialization!r}"
            )
        for layer in self.model_net:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
                if initialization == "zero":
                    nn.init.zeros_(layer.weight)
                else:
                    nn.init.xavier_uniform_(layer.weight)
        if initialization == "small":
            # The energy of a frame is a sum over a hundred atoms: with Xavier's output weights it
            # starts a hundred times as far off as it varies, and training spends itself on that.
            with torch.no_grad():
                self.output.weight *= 0.01

    @property
    def output(self) -> nn.Linear:
        """Return the last linear layer."""
        return [layer for layer in self.model_net if isinstance(layer, nn.Linear)][-1]

    @torch.no_grad()
    def start_at(self, energy: float) -> None:
        """Set the bias of the output: the mean energy of an atom (scaled) to begin with."""
        self.output.bias.fill_(energy)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return energies (n,) of atoms with scaled fingerprints `inputs` (n, n_features); with
        more output nodes than one, (n, n_output_nodes)."""
        return self.model_net(inputs).squeeze(-1)

    def latent(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """Return the output (n, width) of `model_net[layer]`; ValueError where there is no such
        layer."""
        n_layers = len(self.model_net)
        if not -n_layers <= layer < n_layers:
            raise ValueError(f"get_latent must be a layer in 0..{n_layers - 1}, got {layer}")
        return self.model_net[: layer % n_layers + 1](x)


class BatchNorm(nn.BatchNorm1d):
    """Normalise a batch; a single atom, whose statistics are undefined, by the running ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) < 2:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class Dropout(nn.Dropout):
    """Drop out by the random numbers of `random`, which has `generator(device)`; by torch's own,
    which all threads share, where it is None."""

    random: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.random is None or not self.training:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.random.generator(x.device))
        return x * (kept / (1 - self.p))
