"""Batches: what the model sees of some frames, and how they are made."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import atomic_numbers

from amptorch.preprocessing.sparse import SparseDerivatives, sparse_block_diag


@dataclass
class Batch:
    """Some frames as the model sees them: n atoms, frame after frame, with S features each.

    fingerprint (n, S): scaled. atomic_numbers (n,), image_idx (n,): int64, the element and the
    frame (counted within the batch) of each atom. num_images: number of frames. element_rows: for
    each element, in the order of the networks, the rows of its atoms; None: found by the model.
    slope (n, S): d scaled fingerprint / d fingerprint, or None where `derivatives` are those of the
    scaled fingerprint. derivatives: back end with `vjp(frame_ids, g)` and `jvp(frame_ids, v)`, or
    None where no forces are asked for. frame_ids: int64 array, what the frames are called there.
    energy (num_images,) and forces (n, 3): scaled targets, or None. force_rows: sorted int64 array
    of the atoms whose forces are computed and compared, one row of `forces` each; None for all.
    """

    fingerprint: torch.Tensor
    atomic_numbers: torch.Tensor
    image_idx: torch.Tensor
    num_images: int
    element_rows: list | None = None
    slope: torch.Tensor | None = None
    derivatives: object = None
    frame_ids: np.ndarray | None = None
    energy: torch.Tensor | None = None
    forces: torch.Tensor | None = None
    force_rows: np.ndarray | None = None

    def __len__(self):
        return self.num_images

    @property
    def targets(self):
        """[energy, forces], or [energy] where there are no forces."""
        return [self.energy] if self.forces is None else [self.energy, self.forces]

    def to(self, device):
        """The batch with its tensors on `device`; itself where they are there already."""
        device = torch.device(device)
        if self.fingerprint.device == device:
            return self
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        if self.element_rows is not None:
            moved["element_rows"] = [rows.to(device) for rows in self.element_rows]
        return replace(self, **moved)


@dataclass
class Share:
    """What one of several processes has of a batch of `num_images` frames.

    part: Batch, without targets, of the frames that it evaluates, or None where there are none.
    energy, forces: scaled targets of the whole batch, as of `Batch`. The parts of all processes,
    one after the other, are the batch.
    """

    part: Batch | None
    num_images: int
    energy: torch.Tensor
    forces: torch.Tensor | None = None

    def __len__(self):
        return self.num_images

    targets = Batch.targets


def rows_inside(rows, first, last):
    """Those of sorted `rows` (array, tensor or None) that are in first:last, counted from first."""
    return None if rows is None else rows[(rows >= first) & (rows < last)] - first


class Batcher:
    """Makes batches from flat arrays, for one list of elements and one feature scaler."""

    def __init__(self, elements, feature_scaler, dtype):
        numbers = np.array([atomic_numbers[symbol] for symbol in elements])
        self.n_elements = len(numbers)
        self._species = np.full(numbers.max() + 1, -1)
        self._species[numbers] = np.arange(len(numbers))
        self._scaled_as = feature_scaler.element_index
        self._slopes = feature_scaler.slope_and_offset()[0].to(dtype)

    def __call__(self, fingerprint, numbers, counts, derivatives=None, frame_ids=None):
        """Batch of atoms with scaled `fingerprint` (n, S) tensor and `numbers` (n,) array; frame k
        of the batch has `counts[k]` of them and is `frame_ids[k]` to the back end `derivatives`."""
        species = self._species[numbers]
        return Batch(
            fingerprint=fingerprint,
            atomic_numbers=torch.from_numpy(numbers),
            image_idx=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            num_images=len(counts),
            element_rows=[
                torch.from_numpy(np.flatnonzero(species == k)) for k in range(self.n_elements)
            ],
            slope=None if derivatives is None else self._slopes[self._scaled_as(numbers)],
            derivatives=derivatives,
            frame_ids=np.arange(len(counts)) if frame_ids is None else frame_ids,
        )


class DataCollater:
    """The `collate_fn` of a torch DataLoader: gives `(batch, targets)`, or the batch alone where
    `train` is False.

    Takes what `AtomsDataset.__getitems__` gives, a batch already, or a `Share` of one, or a list of
    data objects such as `AtomsToData.convert` makes, with their energies, forces and `fprimes`
    where `forcetraining`.

    Raises ValueError that names the data object in which one of these is missing.
    """

    def __init__(self, train=True, forcetraining=True):
        self.train = train
        self.forcetraining = forcetraining

    def __call__(self, data):
        batch = data if isinstance(data, (Batch, Share)) else self._collate(data)
        return (batch, batch.targets) if self.train else batch

    def _collate(self, objects):
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
            batch.derivatives = SparseDerivatives(sparse_block_diag([d.fprimes for d in objects]))
        if self.train:
            dtype = batch.fingerprint.dtype
            batch.energy = torch.tensor([float(data.energy) for data in objects], dtype=dtype)
            if self.forcetraining:
                batch.forces = torch.cat([data.forces for data in objects])
        return batch
