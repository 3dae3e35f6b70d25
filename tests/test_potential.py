"""Energies and forces of the networks, through descriptor, scalers and contraction."""

import torch

from amptorch.model import BPNN, SingleNN
from tests.contracts.potential import PotentialContract


class TestBPNN(PotentialContract):
    def network(self, elements, input_dim):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return BPNN(elements, input_dim, num_nodes=8, num_layers=2)


class TestSingleNN(PotentialContract):
    def network(self, elements, input_dim):
        with torch.random.fork_rng():
            torch.manual_seed(2)
            return SingleNN(elements, input_dim, num_nodes=8, num_layers=2)
