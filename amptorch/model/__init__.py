"""Networks that turn fingerprints into energies and forces."""

from amptorch.model.bpnn import BPNN, ElementMask
from amptorch.model.loss import CustomLoss
from amptorch.model.mlp import MLP
from amptorch.model.singlenn import SingleNN

__all__ = ["BPNN", "MLP", "CustomLoss", "ElementMask", "SingleNN"]
