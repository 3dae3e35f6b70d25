"""Networks that turn fingerprints into energies and forces."""

from collections.abc import Sequence

import torch

from amptorch.config import ModelConfig
from amptorch.model.atomic import AtomicModel
from amptorch.model.bpnn import BPNN, ElementMask
from amptorch.model.loss import CustomLoss
from amptorch.model.mlp import MLP
from amptorch.model.singlenn import SingleNN

__all__ = ["BPNN", "MLP", "AtomicModel", "CustomLoss", "ElementMask", "SingleNN", "make_model"]

MODELS = {"bpnn": BPNN, "singlenn": SingleNN}


def make_model(
    options: ModelConfig, elements: Sequence[str], n_inputs: int, dtype: torch.dtype
) -> AtomicModel:
    """Return the network that the section `model` of a configuration asks for, with parameters
    drawn from torch's random numbers; with `members`, one as many times as wide."""
    others = dict(vars(options)) | {"hidden_layers": options.widths}
    network = MODELS[others.pop("name")]
    # These stand beside the networks.
    for key in ("members", "repulsion"):
        others.pop(key)
    return network(elements=elements, input_dim=n_inputs, dtype=dtype, **others)
