"""Several networks of one shape as one network that gives their mean.

The hidden layers of the members stand beside each other in layers as many times as wide, without
weights from one member to another, and the last layer takes the mean. So the mean of four small
networks is one network, which costs hardly more than one of them: what takes the time is their
common fingerprint. The mean of networks from different starts has a smaller error than each: L. K.
Hansen and P. Salamon, IEEE Trans. Pattern Anal. Mach. Intell. 12, 993 (1990).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from amptorch.model.atomic import AtomicModel
from amptorch.model.mlp import MLP


@torch.no_grad()
def join(members: Sequence[AtomicModel], model: AtomicModel) -> None:
    """Give `model`, whose hidden layers are as many times as wide, the mean of `members`."""
    model.load_state_dict(members[0].state_dict() | _own(model))
    for network, *others in zip(_networks(model), *map(_networks, members), strict=True):
        layers = list(zip(_layers(network), *map(_layers, others), strict=True))
        for place, (into, *parts) in enumerate(layers):
            weights, biases = [one.weight for one in parts], [one.bias for one in parts]
            if place == len(layers) - 1:
                # Without a hidden layer all members have the same inputs.
                mean = (
                    torch.cat(weights, dim=1) / len(parts) if place else sum(weights) / len(parts)
                )
                into.weight.copy_(mean)
                into.bias.copy_(torch.stack(biases).mean(dim=0))
            else:
                into.weight.copy_(torch.block_diag(*weights) if place else torch.cat(weights))
                into.bias.copy_(torch.cat(biases))


@torch.no_grad()
def part(model: AtomicModel, number: int, members: int, into: AtomicModel) -> None:
    """Give `into` the parameters of member `number` of the `members` that were joined to `model`;
    the constant of the output is that of the mean."""
    into.load_state_dict(model.state_dict() | _own(into))
    for joined, network in zip(_networks(model), _networks(into), strict=True):
        layers = list(zip(_layers(joined), _layers(network), strict=True))
        for place, (whole, own) in enumerate(layers):
            n_out, n_in = own.weight.shape
            last = place == len(layers) - 1
            rows = slice(None) if last else slice(number * n_out, (number + 1) * n_out)
            columns = slice(None) if place == 0 else slice(number * n_in, (number + 1) * n_in)
            own.weight.copy_(whole.weight[rows, columns] * (members if last and place else 1))
            own.bias.copy_(whole.bias[rows])


def _own(model: AtomicModel) -> dict[str, torch.Tensor]:
    """Return the parameters of the networks, which differ in shape between a member and the
    mean."""
    inside = {id(p) for network in _networks(model) for p in network.parameters()}
    state = model.state_dict(keep_vars=True)
    return {name: p.detach() for name, p in state.items() if id(p) in inside}


def _networks(model: AtomicModel) -> list[MLP]:
    return [module for module in model.modules() if isinstance(module, MLP)]


def _layers(network: MLP) -> list[nn.Linear]:
    return [layer for layer in network.model_net if isinstance(layer, nn.Linear)]
