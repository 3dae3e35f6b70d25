"""Make data objects of ase.Atoms."""

from typing import Any

import numpy as np
import torch
from ase import Atoms

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.descriptor_calculator import DescriptorCalculator
from amptorch.frames import Frames, read_images
from amptorch.v1.data import Data
from amptorch.v1.sparse import sparse_tensor

__all__ = ["AtomsToData", "DescriptorCalculator"]


class AtomsToData:
    """Make data objects of frames, for users who keep them in files of their own.

    Parameters
    ----------
    descriptor : e.g. `amptorch.descriptor.Gaussian.Gaussian`
    r_energy, r_forces : read energy (eV) and forces (eV/Å) from the frames
    save_fps : without `fprimes`, keep computed fingerprints on disk; see `prepare_fingerprints`
    fprimes : also compute d fingerprint / d position
    cores : threads for the fingerprints
    """

    def __init__(
        self,
        descriptor: BaseDescriptor,
        r_energy: bool = False,
        r_forces: bool = False,
        save_fps: Any = True,
        fprimes: Any = True,
        cores: int | None = 1,
    ):
        self.descriptor = descriptor
        self.r_energy = r_energy
        self.r_forces = r_forces
        self.save_fps = save_fps
        self.fprimes = fprimes
        self.cores = cores

    def convert(self, atoms: Atoms, idx: int = 0) -> Data:
        """Return the data object of one frame, number `idx` to errors and in `image_idx`."""
        return self._convert([atoms], idx)[0]

    def convert_all(self, atoms_collection: Any, disable_tqdm: bool = False) -> list[Data]:
        """Return data objects of a list of Atoms, an ASE database, a trajectory reader, or a file.

        Raises ValueError that names the frame that cannot be used.
        """
        return self._convert(read_images(atoms_collection), 0, verbose=not disable_tqdm)

    def _convert(self, images: Any, first_index: int, verbose: bool = False) -> list[Data]:
        # Everything that can be wrong with a frame is found before the first is described.
        frames = Frames.from_atoms(
            images,
            elements=self.descriptor.elements,
            energies=self.r_energy,
            forces=self.r_forces,
            first_index=first_index,
        )
        described = self.descriptor.described(
            images, self.fprimes, self.save_fps, verbose, self.cores
        )
        result: list[Data] = []
        for part, values, matrices in described:
            for k, rows in enumerate(np.split(values, part.offsets[1:-1])):
                matrix = None if matrices is None else matrices[k]
                result.append(self._data(frames, len(result), rows, matrix, first_index))
        return result

    def _data(
        self, frames: Any, position: int, rows: np.ndarray | None, matrix: Any, first_index: int
    ) -> Data:
        atoms = slice(*frames.offsets[position : position + 2])
        data = Data(
            fingerprint=torch.tensor(rows, dtype=torch.float64),
            image_idx=first_index + position,
            atomic_numbers=torch.from_numpy(frames.numbers[atoms].copy()),
            num_nodes=int(frames.counts[position]),
        )
        if self.r_energy:
            data.energy = torch.tensor(frames.energies[position])
        if self.r_forces:
            data.forces = torch.from_numpy(frames.forces[atoms].copy())
        if matrix is not None:
            # In order and in memory of its own: nothing is copied.
            data.fprimes = sparse_tensor(*matrix)
        return data
