"""The force contraction of stored derivatives on a device, by tensors alone.

The derivatives of a batch go to the device as they are kept, through pinned memory, together with
the few numbers a block that say where they belong; nothing is contracted on the CPU. Memory on the
device is that of one batch.
"""

from __future__ import annotations

import numpy as np
import torch

from amptorch.descriptor.blocks import DerivativeBlocks, KeptDerivatives
from amptorch.rows import rows_between


class DeviceDerivatives:
    """Hold J = ∂G/∂r of the frames `frame_ids` on `device`, with `vjp` and `jvp` of tensors there.

    derivatives : back end with `parts(frame_ids)`: DerivativeBlocks or that of a store
    rows : sorted positions of the atoms whose forces are wanted; None for all
    """

    def __init__(
        self,
        derivatives: KeptDerivatives,
        frame_ids: np.ndarray,
        device: torch.device,
        rows: np.ndarray | None = None,
    ) -> None:
        self.n_features = derivatives.n_features
        self.device = torch.device(device)
        self.parts = [
            _Part(blocks, ids, atoms, self.device)
            for blocks, ids, atoms in derivatives.parts(frame_ids)
        ]
        self.n_atoms = sum(part.n_atoms for part in self.parts)
        self.rows = None if rows is None else torch.as_tensor(rows).to(self.device)

    def vjp(self, g: torch.Tensor) -> torch.Tensor:
        """Return Jᵀg (n, 3), or (len(rows), 3), for g (n, S)."""
        out = g.new_zeros(3 * self.n_atoms)
        for part in self.parts:
            # One column of a part is the derivative with respect to one pair vector's component.
            along = g.new_zeros(3 * len(part.centre))
            terms = part.values.to(g.dtype) * g.reshape(-1)[self._features_of(part)]
            along.index_add_(0, part.column, terms)
            along = along.reshape(-1, 3)
            out = out.reshape(-1, 3).index_add_(0, part.atom, along)
            out = out.index_add_(0, part.centre, along, alpha=-1).reshape(-1)
        out = out.reshape(-1, 3)
        return out if self.rows is None else out[self.rows]

    def jvp(self, v: torch.Tensor) -> torch.Tensor:
        """Return J v (n, S) for v (n, 3), or (len(rows), 3)."""
        if self.rows is not None:
            v = v.new_zeros((self.n_atoms, 3)).index_copy_(0, self.rows, v)
        out = v.new_zeros(self.n_atoms * self.n_features)
        for part in self.parts:
            along = (v[part.atom] - v[part.centre]).reshape(-1)
            terms = part.values.to(v.dtype) * along[part.column]
            out.index_add_(0, self._features_of(part), terms)
        return out.reshape(self.n_atoms, self.n_features)

    def _features_of(self, part: _Part) -> torch.Tensor:
        return part.centre[part.column // 3] * self.n_features + part.feature


class _Part:
    """Hold derivatives out of one DerivativeBlocks: `values` with, for each, its `column` (3 · pair
    + axis) and `feature`; the `centre` and the `atom` of each pair, as rows of the batch."""

    def __init__(
        self,
        blocks: DerivativeBlocks,
        frame_ids: np.ndarray,
        atoms: np.ndarray,
        device: torch.device,
    ) -> None:
        arrays, n_elements = blocks.blocks, blocks.blocks.feature_row.shape[1]
        first = blocks.frame_offsets[frame_ids]
        last = blocks.frame_offsets[np.asarray(frame_ids) + 1]
        self.n_atoms = int((last - first).sum())
        own = rows_between(first, last)
        # Atoms of a frame keep their order, so one shift a frame leads to the rows of the batch.
        position = np.repeat(np.cumsum(last - first) - (last - first) - first, last - first)
        which = (own[:, None] * n_elements + np.arange(n_elements)).ravel()
        counts = arrays.atom_start[which + 1] - arrays.atom_start[which]
        pairs = rows_between(arrays.atom_start[which], arrays.atom_start[which + 1])
        shift = np.repeat(position, n_elements)
        features = blocks.features_of_blocks(own)
        widths = np.array([len(f) for f in features])
        starts = np.cumsum(widths) - widths
        entry = rows_between(arrays.value_start[which], arrays.value_start[which + 1])
        values = torch.from_numpy(np.ascontiguousarray(arrays.values[entry]))
        if device.type == "cuda":
            values = values.pin_memory()
        self.values = values.to(device, non_blocking=True)

        def there(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)

        self.centre = there(np.repeat(np.repeat(atoms, n_elements), counts))
        self.atom = there(atoms[arrays.atoms[pairs] + np.repeat(shift, counts)])
        # The rest is as long as the values, so it is worked out where they are.
        width = there(np.repeat(widths, counts))
        first_feature = there(np.repeat(starts, counts))
        names = there(np.concatenate(features))
        pair = torch.repeat_interleave(torch.arange(len(width), device=device), 3 * width)
        ends = torch.cumsum(3 * width, 0)
        within = torch.arange(len(pair), device=device) - (ends - 3 * width)[pair]
        self.column = 3 * pair + within // width[pair]
        self.feature = names[first_feature[pair] + within % width[pair]]
