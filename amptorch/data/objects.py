"""The data object of one frame, as the scalers take it."""

from typing import Protocol

import numpy as np
import torch


class DataObject(Protocol):
    """Hold one frame of n atoms, as v1.0's data objects do; what is not used may be missing.

    fingerprint (n, S); atomic_numbers (n,); energy, eV; forces (n, 3), eV/Å; fprimes, sparse
    (n·S, 3n): d fingerprint / d position.
    """

    fingerprint: torch.Tensor
    atomic_numbers: np.ndarray | torch.Tensor
    energy: float | torch.Tensor
    forces: torch.Tensor
    fprimes: torch.Tensor
