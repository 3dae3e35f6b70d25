"""Behler-Parrinello networks: one for each element (Phys. Rev. Lett. 98, 146401 (2007))."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model.atomic import AtomicModel, Group
from amptorch.model.mlp import MLP

# Rows of v1.0's mask; more only where an element needs them.
MASK_ROWS = 100


class ElementMask(nn.Module):
    """Hold what each network contributes to an atom: mask[Z, k], (at least 100, n_elements).

    It is 1 for the network of the atom's own element, 0 for the others, and not trained. In v1.0 it
    was trained with the networks, so that every network contributes a little to every atom; such a
    mask, loaded from a checkpoint, is honoured, and trained on where training goes on.
    """

    def __init__(self, elements: Sequence[str | int], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.numbers = [
            atomic_numbers[element] if isinstance(element, str) else int(element)
            for element in elements
        ]
        one_hot = torch.zeros(max([MASK_ROWS, *(n + 1 for n in self.numbers)]), len(self.numbers))
        one_hot[self.numbers, range(len(self.numbers))] = 1
        self.mask = nn.Embedding(one_hot.shape[0], one_hot.shape[1], _weight=one_hot.to(dtype))
        self.mask.weight.requires_grad_(False)
        self.one_hot = True
        self.register_load_state_dict_post_hook(_look_at_loaded_mask)

    def forward(self, atomic_numbers: torch.Tensor) -> torch.Tensor:
        """Return rows (n_atoms, n_elements) of the mask for atomic numbers (n_atoms,)."""
        return self.mask(atomic_numbers)


def _look_at_loaded_mask(element_mask: ElementMask, _incompatible_keys: object) -> None:
    fresh = ElementMask(element_mask.numbers, element_mask.mask.weight.dtype).mask.weight
    element_mask.one_hot = torch.equal(element_mask.mask.weight.detach().cpu(), fresh)
    element_mask.mask.weight.requires_grad_(not element_mask.one_hot)


class BPNN(AtomicModel):
    """Give each element a network of its own; parameters as in `AtomicModel`.

    The networks are in the order of `elements`. Each is evaluated on the atoms of its own element
    only, and its batch norm sees only these.
    """

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
        name: str = "bpnn",
        initialization: str = "xavier",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(get_forces, name)
        self.elementwise_models = nn.ModuleList(
            MLP(
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
            for _ in elements
        )
        self.element_mask = ElementMask(elements, dtype)

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(f"elementwise_models.{k}.*" for k in range(len(self.elementwise_models)))

    def start_at(self, energies: Sequence[float] | np.ndarray) -> None:
        """Set the mean energy (scaled) of an atom of each element to begin with."""
        networks: Any = self.elementwise_models
        for network, energy in zip(networks, energies, strict=True):
            network.start_at(float(energy))

    def groups(self, batch: Batch) -> list[Group]:
        if self.element_mask.one_hot:
            rows = batch.element_rows
            if rows is None:
                rows = self._element_rows(batch.atomic_numbers)
            pairs: Any = zip(self.elementwise_models, rows, strict=True)
            return [(network, own, None) for network, own in pairs if len(own)]
        mask = self.element_mask(batch.atomic_numbers)
        groups: list[Any] = []
        for network, weights in zip(self.elementwise_models, mask.T, strict=True):
            rows = weights.detach().nonzero().squeeze(1)
            if len(rows):
                groups.append((network, rows, weights.index_select(0, rows)))
        return groups

    def _element_rows(self, numbers: torch.Tensor) -> list[torch.Tensor]:
        known = self.element_mask.numbers
        rows = [(numbers == number).nonzero().squeeze(1) for number in known]
        if sum(map(len, rows)) < len(numbers):
            unknown = next(number for number in numbers.tolist() if number not in known)
            symbols = ", ".join(chemical_symbols[number] for number in known)
            raise ValueError(f"no network for element {chemical_symbols[unknown]}, only {symbols}")
        return rows
