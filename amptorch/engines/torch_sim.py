"""A potential as a model of torch-sim, which runs many systems at a time."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch_sim
from torch_sim.models.interface import ModelInterface

from amptorch.checks import number
from amptorch.ensemble import Ensemble
from amptorch.frames import Frames
from amptorch.loading import load, potential_of
from amptorch.neighbors import VerletList
from amptorch.potential import Potential
from amptorch.prediction import check_stress
from amptorch.rows import offsets_of
from amptorch.threads import use_threads


class TorchSimModel(ModelInterface):
    """Give torch-sim the energies, forces and stresses of a potential, for all systems at once.

    model : a `Potential`, an `Ensemble` (its mean), or the folder of what `amptorch.load` reads
    skin : Å beyond the cutoff up to which neighbours are listed
    compute_stress : whether there are stresses; all systems then need three cell vectors

    Units are eV, eV/Å and eV/Å³. The potential is evaluated on the CPU, in double precision.

    Raises ValueError where the model gives no forces, or skin is below 0.
    """

    def __init__(
        self,
        model: Potential | Ensemble | str | os.PathLike[str],
        skin: float = 0.5,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        loaded = load(model) if isinstance(model, (str, os.PathLike)) else model
        self.potential = potential_of(loaded)
        if not self.potential.has_forces:
            raise ValueError("the model gives no forces (model.get_forces: false)")
        self.neighbors = VerletList(self.potential.cutoff, number(minimum=0)("skin", skin))
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, compute_stress

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Return `energy` (F,), `forces` (n, 3), and with `compute_stress` `stress` (F, 3, 3)."""
        if isinstance(state, dict):
            state = torch_sim.SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        frames = _frames_of(state)
        potential = self.potential
        if self._compute_stress:
            check_stress(potential, frames)
        with use_threads(potential.threads):
            neighbors = self.neighbors.update(frames)
            parts = potential.evaluate_atoms(potential.batch(frames, neighbors))
        first = frames.offsets[:-1]
        found = {"energy": np.add.reduceat(parts.energies, first), "forces": parts.forces}
        if self._compute_stress:
            stress = np.add.reduceat(parts.virials, first) / frames.volumes[:, None]
            found["stress"] = stress[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)
        like = state.positions
        return {
            name: torch.from_numpy(np.ascontiguousarray(values)).to(like)
            for name, values in found.items()
        }


def _frames_of(state: Any) -> Frames:
    """Return the systems of a state of torch-sim as frames."""

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy().astype(np.float64)

    counts = np.bincount(state.system_idx.cpu().numpy(), minlength=state.n_systems)
    periodic = np.broadcast_to(np.asarray(state.pbc), (3,))
    return Frames(
        numbers=state.atomic_numbers.cpu().numpy().astype(np.int64),
        positions=array(state.positions),
        cells=array(state.row_vector_cell),
        pbc=np.tile(periodic, (len(counts), 1)),
        offsets=offsets_of(counts),
    )
