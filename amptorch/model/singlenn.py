"""One network for the atoms of every element."""

import torch
from torch import nn

from amptorch.model.atomic import AtomicModel
from amptorch.model.mlp import MLP


class SingleNN(AtomicModel):
    """A single network for all elements; parameters as in `AtomicModel`."""

    def __init__(
        self,
        elements,
        input_dim,
        num_nodes=20,
        num_layers=5,
        hidden_layers=None,
        get_forces=True,
        batchnorm=False,
        dropout=False,
        dropout_rate=0.5,
        activation=nn.Tanh,
        name="singlenn",
        initialization="xavier",
        dtype=torch.float64,
    ):
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

    def groups(self, batch):
        return [(self.model, None, None)]
