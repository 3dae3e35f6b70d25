"""Several trained potentials as one: their mean, and their spread as its uncertainty."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amptorch.checkpoints.folder import load_json, write_files
from amptorch.data.batch import Batch
from amptorch.extrapolation import Extrapolation, farthest
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.potential import Potential
from amptorch.prediction import AtomicParts, Stress, forces_by_frame, predict_atoms

if TYPE_CHECKING:
    from amptorch.calculator import AmpTorch

FILE = "ensemble.json"
FORMAT = "amptorch ensemble"
VERSION = 1


@dataclass
class EnsembleBatch:
    """Hold frames, their neighbour list, and each member's batch of them."""

    frames: Frames
    neighbors: NeighborList
    members: list[Batch]


class Ensemble:
    """Predict with the weighted mean of k potentials, and give their spread.

    With weights w that sum to 1, a quantity x (an energy, a component of a force) has the mean
    Σ w_k x_k and the standard deviation √(Σ w_k (x_k − mean)² / (1 − Σ w_k²)), which for equal
    weights is the one with k − 1 in the denominator.

    Parameters
    ----------
    members : list of potentials, of trained trainers, or of checkpoint folders
    weights : k positive numbers; equal where None
    forces : False for energies alone, which is quicker

    Attributes
    ----------
    members : list of `Potential`
    elements, cutoff, has_forces, threads : as of `Potential`; settings : the first member's

    One neighbour list serves all, and members with the same symmetry functions share fingerprints.
    Forces of the mean, −Jᵀ Σ w_k ∂E_k/∂G, take one contraction for each set of symmetry functions;
    the spread of the forces takes one for each member.

    Raises ValueError where there are fewer than two members, the weights do not fit, or no element
    is known to all members.
    """

    def __init__(
        self, members: Sequence[Any], weights: Sequence[float] | None = None, forces: bool = True
    ):
        self.members = [_potential(member) for member in members]
        if len(self.members) < 2:
            raise ValueError(f"{len(self.members)} members have no spread; give two or more")
        self.weights = _weights(weights, len(self.members))
        self.settings = self.members[0].settings
        self.threads = self.members[0].threads
        self.has_forces = forces and all(member.has_forces for member in self.members)
        known = [set(member.elements) for member in self.members]
        self.elements = [s for s in self.members[0].elements if s in set.intersection(*known)]
        if not self.elements:
            sets = "; ".join(", ".join(member.elements) for member in self.members)
            raise ValueError(f"no element is known to all members of the ensemble: {sets}")
        self._groups = groups_of(self.members)

    @property
    def cutoff(self) -> float:
        """Return the cutoff of the member that reaches farthest, Å."""
        return max(member.cutoff for member in self.members)

    def predict(
        self,
        images: Any,
        disable_tqdm: bool = True,
        uncertainty: bool = True,
        stress: Stress = False,
        extrapolation: bool = False,
    ) -> dict[str, list]:
        """Return energies and forces of frames (list of Atoms, or what `read_images` reads), in
        order.

        Returns a dictionary of lists with an entry for each frame: `energy`, eV; `forces` (n, 3),
        eV/Å, empty arrays unless all members give forces; and with `uncertainty` their standard
        deviations `energy_uncertainty`, eV, `energy_uncertainty_per_atom`, eV, and
        `forces_uncertainty` (n, 3), eV/Å, of each component. `stress`, and what it adds: as of
        `Potential.predict`, the means of the members. `extrapolation`: likewise, for the member for
        which an atom is farthest.

        Raises ValueError that names the frame which cannot be used, and with `stress` what
        `Potential.predict` raises.
        """

        def with_spread(batch: EnsembleBatch, part: Frames) -> tuple[AtomicParts, dict[str, list]]:
            parts, energy_spread, forces_spread = self.spread_atoms(batch)
            return parts, {
                "energy_uncertainty": energy_spread.tolist(),
                "energy_uncertainty_per_atom": (energy_spread / part.counts).tolist(),
                "forces_uncertainty": forces_by_frame(forces_spread, part),
            }

        evaluate = with_spread if uncertainty else None
        return predict_atoms(self, images, stress, disable_tqdm, extrapolation, evaluate)

    def get_calc(self, skin: float = 0.3, uncertainty: bool = True, **options: Any) -> "AmpTorch":
        """Return the ASE calculator, with uncertainties in its results or without, which is
        quicker; other options: see `AmpTorch`."""
        from amptorch.calculator import AmpTorch, EnsembleCalculator

        kind = EnsembleCalculator if uncertainty else AmpTorch
        return kind(self, skin, **options)

    # --- files ---

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the ensemble: a checkpoint folder for each member, and `ensemble.json`.

        Raises FileExistsError where an ensemble is there already.
        """
        folder = Path(folder)
        if (folder / FILE).exists():
            raise FileExistsError(f"there is an ensemble in {str(folder)!r} already")
        names = [f"member-{k}" for k in range(len(self.members))]
        for name, member in zip(names, self.members, strict=True):
            member.save(folder / name)
        content = {"format": FORMAT, "version": VERSION, "members": names}
        content["weights"] = self.weights.tolist()
        # Last, so that where it is, the members are.
        write_files(folder, {FILE: json.dumps(content, indent=1).encode("utf8")})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> "Ensemble":
        """Return the ensemble in a folder; members may also be folders elsewhere, named by their
        paths.

        Raises FileNotFoundError or ValueError that names the missing or damaged file.
        """
        path = Path(folder) / FILE
        content = load_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} is not the file of an ensemble")
        if content.get("version") != VERSION:
            raise ValueError(f"{path} has version {content.get('version')}, known is {VERSION}")
        members = content.get("members")
        if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
            raise ValueError(f"{path}: members must be a list of folders")
        try:
            loaded = [Potential.load(path.parent / name, device) for name in members]
            return cls(loaded, content.get("weights"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    # --- batches ---

    def batch(self, frames: Frames, neighbors: NeighborList | None = None) -> EnsembleBatch:
        """Return the batches of `frames`; neighbors: their list, up to the longest cutoff or
        beyond."""
        if neighbors is None:
            neighbors = neighbor_list(frames, self.cutoff)
        batches = {}
        for group in self._groups:
            values = self.members[group[0]].descriptor.values(frames, neighbors)
            for k in group:
                member = self.members[k]
                batch = member.batch_of(frames, neighbors, values)
                batches[k] = member.with_base(batch, frames, neighbors)
        return EnsembleBatch(frames, neighbors, [batches[k] for k in range(len(self.members))])

    def extrapolation(self, batch: EnsembleBatch) -> Extrapolation | None:
        """Return how far the atoms are from the training atoms of the member that knows them least;
        None where a member does not know."""
        found = [m.extrapolation(b) for m, b in zip(self.members, batch.members, strict=True)]
        known = [one for one in found if one is not None]
        return farthest(known) if len(known) == len(found) else None

    def check_compositions(self, frames: Frames) -> None:
        """Warn where one of the `frames` has a composition for which energies are known to be off:
        see `TargetScaler`."""
        for member in self.members:
            member.check_compositions(frames)

    def evaluate(self, batch: EnsembleBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return mean energies (F,), eV, and forces (n, 3), eV/Å; forces (0, 3) unless all give
        some."""
        parts = self.evaluate_atoms(batch)
        return _sums(parts.energies, batch), parts.forces

    def evaluate_atoms(self, batch: EnsembleBatch) -> AtomicParts:
        """Return the mean energies, forces and virials of the atoms."""
        energies, gradients = self._of_members(batch)
        forces, virials = self._empty(batch)
        if self.has_forces:
            for group in self._groups:
                mean = sum(self.weights[k] * gradients[k] for k in group)
                gradient, virial = self._contracted(group[0], mean, batch)
                forces -= gradient
                virials += virial
            for weight, own in zip(self.weights, batch.members, strict=True):
                if own.base is not None:
                    forces += weight * own.base.forces
                    virials += weight * own.base.virials
        return AtomicParts(self.weights @ energies, forces, virials)

    def spread_atoms(self, batch: EnsembleBatch) -> tuple[AtomicParts, np.ndarray, np.ndarray]:
        """Return what `evaluate_atoms` does, and the standard deviations of the energies of the
        frames (F,) and of the forces, shapes as `evaluate` gives them."""
        energies, gradients = self._of_members(batch)
        mean_force, virials = self._empty(batch)
        forces = np.zeros((len(self.members), *mean_force.shape))
        if self.has_forces:
            for k, gradient in enumerate(gradients):
                pull, virial = self._contracted(k, gradient, batch)
                forces[k] = -pull
                base = batch.members[k].base
                if base is not None:
                    forces[k] += base.forces
                    virial = virial + base.virials
                virials += self.weights[k] * virial
        _, energy_spread = self._moments(np.array([_sums(own, batch) for own in energies]))
        mean_force, forces_spread = self._moments(forces)
        parts = AtomicParts(self.weights @ energies, mean_force, virials)
        return parts, energy_spread, forces_spread

    def _empty(self, batch: EnsembleBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return zeros for forces (n, 3) and virials (n, 6); n is 0 where there are none."""
        n = batch.frames.n_atoms if self.has_forces else 0
        return np.zeros((n, 3)), np.zeros((n, 6))

    def _of_members(self, batch: EnsembleBatch) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return energies (k, n) of the atoms, and ∂E/∂G (n, S), of each member."""
        pairs = [m.atomic_gradient(b) for m, b in zip(self.members, batch.members, strict=True)]
        return np.array([energies for energies, _ in pairs]), [gradient for _, gradient in pairs]

    def _contracted(
        self, k: int, gradient: np.ndarray, batch: EnsembleBatch
    ) -> tuple[np.ndarray, np.ndarray]:
        descriptor = self.members[k].descriptor
        return descriptor.vjp_and_virials(batch.frames, gradient, batch.neighbors)

    def _moments(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation over the members, the first axis."""
        mean = np.tensordot(self.weights, values, axes=1)
        variance = np.tensordot(self.weights, (values - mean) ** 2, axes=1)
        return mean, np.sqrt(variance / (1 - (self.weights**2).sum()))


def _sums(energies: np.ndarray, batch: EnsembleBatch) -> np.ndarray:
    """Return the energies (F,) of frames from those (n,) of their atoms."""
    return np.add.reduceat(energies, batch.frames.offsets[:-1])


def is_ensemble(folder: str | os.PathLike[str]) -> bool:
    """Return whether an ensemble was saved in `folder`."""
    return (Path(folder) / FILE).is_file()


def groups_of(members: Sequence[Potential]) -> list[list[int]]:
    """Return the places of the members in groups that have the same fingerprints."""
    groups: dict[tuple, list[int]] = {}
    for k, member in enumerate(members):
        of = member.descriptor
        key = (of.descriptor_setup_hash, tuple(of.elements), of.cutoff)
        groups.setdefault(key, []).append(k)
    return list(groups.values())


def _potential(member: Any) -> Potential:
    if isinstance(member, (str, os.PathLike)):
        return Potential.load(member)
    return getattr(member, "potential", member)


def _weights(weights: Sequence[float] | None, k: int) -> np.ndarray:
    if weights is None:
        return np.full(k, 1 / k)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (k,) or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"weights are {given.tolist()}; expected {k} positive numbers")
    return given / given.sum()
