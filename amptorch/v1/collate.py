"""Make batches of data objects."""

from typing import Any

import numpy as np
import torch

from amptorch.data.batch import Batch, Share
from amptorch.data.samplers import with_known_forces
from amptorch.v1.sparse import SparseDerivatives, sparse_block_diag


class DataCollater:
    """Serve as the `collate_fn` of a torch DataLoader: gives `(batch, targets)`, or the batch alone
    where `train` is False.

    Takes what `AtomsDataset.batch` gives, a batch already, or a `Share` of one, or a list of
    data objects such as `AtomsToData.convert` makes, with their energies, forces and `fprimes`
    where `forcetraining`.

    Raises ValueError that names the data object in which one of these is missing.
    """

    def __init__(self, train: bool = True, forcetraining: Any = True):
        self.train = train
        self.forcetraining = forcetraining

    def __call__(self, data_list: Any) -> Any:
        whole = isinstance(data_list, (Batch, Share))
        batch = data_list if whole else self._collate(data_list)
        return (batch, batch.targets) if self.train else batch

    def _collate(self, objects: Any) -> Batch:
        objects = list(objects)
        wanted = ["fingerprint", "atomic_numbers"]
        wanted += ["energy"] if self.train else []
        wanted += ["fprimes"] if self.forcetraining else []
        wanted += ["forces"] if self.train and self.forcetraining else []
        for name in wanted:
            for index, data in enumerate(objects):
                if getattr(data, name, None) is None:
                    raise ValueError(f"data object {index} of the batch has no {name}")
        counts = torch.tensor([len(data.fingerprint) for data in objects])
        batch = Batch(
            fingerprint=torch.cat([data.fingerprint for data in objects]),
            atomic_numbers=torch.cat([data.atomic_numbers.long() for data in objects]),
            image_idx=torch.repeat_interleave(torch.arange(len(objects)), counts),
            num_images=len(objects),
            frame_ids=np.arange(len(objects)),
        )
        if self.forcetraining:
            derivatives: Any = SparseDerivatives(sparse_block_diag([d.fprimes for d in objects]))
            batch.derivatives = derivatives
        if self.train:
            dtype = batch.fingerprint.dtype
            batch.energy = torch.tensor([float(data.energy) for data in objects], dtype=dtype)
            if self.forcetraining:
                batch.forces = torch.cat([data.forces for data in objects])
                batch = with_known_forces(batch)
        return batch
