"""One network for the atoms of every element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model.atomic import AtomicModel, Group
from amptorch.model.mlp import MLP


class SingleNN(AtomicModel):
    """Give all elements a single network; parameters as in `AtomicModel`."""

    def __init__(
        self,
        elements: Sequence[str | int],
        input_dim: int,
        num_nodes: int = 20,
        num_layers: int = 5,
        hidden_layers: Sequence[int] | None = None,
        get_forces: bool = True,
        batchnorm: bool = False,
        dropout: bool = False,
        dropout_rate: float = 0.5,
        activation: type[nn.Module] | Sequence[type[nn.Module]] = nn.Tanh,
        name: str = "singlenn",
        initialization: str = "xavier",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(get_forces, name)
        self.model = MLP(
            input_dim,
            num_layers,
            num_nodes,
            activation,
            batchnorm,
            dropout,
            dropout_rate,
            hidden_layers,
            initialization=initialization,
            dtype=dtype,
        )

    networks = ("model.*",)

    def start_at(self, energies: Sequence[float] | np.ndarray) -> None:
        """Set the mean energy (scaled) of an atom to begin with: one for all elements."""
        self.model.start_at(float(np.mean(energies)))

    def groups(self, batch: Batch) -> list[Group]:
        return [(self.model, None, None)]
