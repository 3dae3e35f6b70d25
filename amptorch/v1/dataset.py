"""Hold the data set in memory, as AMPTorch v1.0 has it: a list of data objects too."""

from collections.abc import Sequence
from typing import Any

import torch

from amptorch.data.in_memory import MemoryDataset
from amptorch.v1.atoms_to_data import AtomsToData
from amptorch.v1.data import Data
from amptorch.v1.sparse import sparse_tensor


class AtomsDataset(MemoryDataset):
    """Frames ready for training; parameters and attributes as of `MemoryDataset`.

    `dataset[k]` is the data object of a frame, scaled, and `data_list` that of each.
    """

    def process(self) -> Any:
        """Check the frames, compute their fingerprints, and scale; return the data list."""
        super().process()
        return self.data_list

    @property
    def a2d(self) -> AtomsToData:
        """Return the `AtomsToData` that makes data objects of these fingerprints, not scaled."""
        forces = self.forcetraining
        return AtomsToData(self.descriptor, True, forces, False, forces, self.cores or 1)

    def __getitem__(self, index: Any) -> Any:
        """Return the data object of one frame, scaled: what v1.0's data list holds."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        index = index % len(self)
        rows = slice(*self.frames.offsets[index : index + 2])
        data = Data(
            fingerprint=self.fingerprint[rows],
            atomic_numbers=torch.from_numpy(self.frames.numbers[rows]),
            num_nodes=int(self.frames.counts[index]),
            image_idx=index,
            energy=self.energy[index],
        )
        if self.forces is not None:
            data.forces = self.forces[rows]
            data.fprimes = self._scaled_fprimes(index, self.frames.numbers[rows])
        return data

    def _scaled_fprimes(self, index: Any, numbers: Any) -> Any:
        blocks: Any = self.derivatives
        frame = index
        if self.derivative_kind == "recompute":
            _, blocks = self.descriptor.values_and_derivatives(self.frames[index])
            frame = 0
        indices, val, size = blocks.sparse(frame)
        scaler: Any = self.feature_scaler
        slope = scaler.slope_rows(numbers).numpy().ravel()
        scaled = sparse_tensor(indices, self._tensor(val * slope[indices[0]]), size)
        pca = scaler.pca
        return scaled if pca is None else pca.reduce_primes(scaled, numbers)

    @property
    def data_list(self) -> Sequence[Data]:
        """Return the data objects of all frames, each made when it is asked for."""
        return _DataList(self)


class _DataList(Sequence):
    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.dataset[k] for k in range(*index.indices(len(self)))]
        return self.dataset[index]
