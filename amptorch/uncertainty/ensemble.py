"""Several trained potentials as one: their mean, and their spread as its uncertainty."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from amptorch.calculator import AmpTorch
from amptorch.checkpoints.folder import load_json, save_checkpoint, write_files
from amptorch.data.fingerprints import chunks_of_frames
from amptorch.distances import check_distances, warn_of_lonely
from amptorch.frames import Frames, read_images
from amptorch.neighbors import NeighborList, neighbor_list
from amptorch.prediction import BATCH_ATOMS
from amptorch.threads import use_threads
from amptorch.v1.trainer import AtomsTrainer

FILE = "ensemble.json"
FORMAT = "amptorch ensemble"
VERSION = 1


class Ensemble:
    """The weighted mean of k potentials, and their spread.

    With weights w that sum to 1, a quantity x (an energy, a component of a force) has the mean
    Σ w_k x_k and the standard deviation √(Σ w_k (x_k − mean)² / (1 − Σ w_k²)), which for equal
    weights is the one with k − 1 in the denominator.

    Parameters
    ----------
    members : list of AtomsTrainer, trained or with a loaded checkpoint, or of checkpoint folders
    weights : k positive numbers; equal where None
    forces : False for energies alone, which is quicker

    It takes a trainer's place in `AmpTorch` (mean energy and forces alone) and in the command line.

    Raises ValueError where there are fewer than two members, the weights do not fit, or no element
    is known to all members.
    """

    def __init__(self, members, weights=None, forces=True):
        self.members = [_trainer(member) for member in members]
        if len(self.members) < 2:
            raise ValueError(f"{len(self.members)} members have no spread; give two or more")
        self.weights = _weights(weights, len(self.members))
        self.settings = self.members[0].settings
        self.forcetraining = forces and all(member.forcetraining for member in self.members)
        self.elements = self.potential.elements

    @property
    def potential(self):
        """The `EnsemblePotential` of the members as they are now."""
        return EnsemblePotential(
            [member.potential for member in self.members], self.weights, self.forcetraining
        )

    def predict(self, images, disable_tqdm=True, uncertainty=True):
        """Energies and forces of frames (list of Atoms, or what `read_images` reads), in order.

        Returns a dictionary of lists with an entry for each frame: `energy`, eV; `forces` (n, 3),
        eV/Å, empty arrays unless all members give forces; and with `uncertainty` their standard
        deviations `energy_uncertainty`, eV, `energy_uncertainty_per_atom`, eV, and
        `forces_uncertainty` (n, 3), eV/Å, of each component.

        Raises ValueError that names the frame which cannot be used.
        """
        potential = self.potential
        frames = Frames.from_atoms(read_images(images), potential.elements)
        check_distances(frames, training=False)
        warned = False
        potential.check_compositions(frames)
        names = ["energy", "forces"]
        names += ["energy_uncertainty", "forces_uncertainty"] if uncertainty else []
        result = {name: [] for name in names}
        bar = tqdm(total=len(frames), desc="predictions", unit="frame", disable=disable_tqdm)
        with use_threads(self.settings.cmd.threads), bar:
            for chunk in chunks_of_frames(frames, BATCH_ATOMS):
                part = frames.select(chunk)
                batch = potential.batch(part)
                cutoff = potential.descriptor.cutoff
                warned = warned or warn_of_lonely(part, batch.neighbors, cutoff)
                found = (potential.spread if uncertainty else potential.evaluate)(batch)
                for name, values in zip(names, found, strict=True):
                    result[name] += self._frame_by_frame(name, values, part)
                bar.update(len(chunk))
        if uncertainty:
            pairs = zip(result["energy_uncertainty"], frames.counts.tolist(), strict=True)
            result["energy_uncertainty_per_atom"] = [value / n for value, n in pairs]
        return result

    def get_calc(self, skin=0.3, uncertainty=True):
        """The ASE calculator, with uncertainties in its results or without, which is quicker."""
        return EnsembleCalculator(self, skin) if uncertainty else AmpTorch(self, skin)

    def save(self, folder):
        """Write the ensemble: a checkpoint folder for each member, and `ensemble.json`.

        Raises FileExistsError where an ensemble is there already.
        """
        folder = Path(folder)
        if (folder / FILE).exists():
            raise FileExistsError(f"there is an ensemble in {str(folder)!r} already")
        names = [f"member-{k}" for k in range(len(self.members))]
        for name, member in zip(names, self.members, strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            dataset = replace(member.settings.dataset, elements=member.elements)
            save_checkpoint(
                folder / name,
                replace(member.settings, dataset=dataset),
                member.feature_scaler,
                member.target_scaler,
                member.net.module.state_dict(),
                history=member.net.history,
            )
        content = {"format": FORMAT, "version": VERSION, "members": names}
        content["weights"] = self.weights.tolist()
        # Last, so that where it is, the members are.
        write_files(folder, {FILE: json.dumps(content, indent=1).encode("utf8")})

    @classmethod
    def load(cls, folder):
        """The ensemble in a folder; members may also be folders elsewhere, named by their paths.

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
            return cls([path.parent / name for name in members], content.get("weights"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _frame_by_frame(self, name, values, frames):
        if not name.startswith("forces"):
            return values.tolist()
        if not self.forcetraining:
            return [np.empty((0, 3)) for _ in range(len(frames))]
        return np.split(values, frames.offsets[1:-1])


def is_ensemble(folder):
    """Whether an ensemble was saved in `folder`."""
    return (Path(folder) / FILE).is_file()


@dataclass
class EnsembleBatch:
    """Frames, their neighbour list, and each member's batch of them."""

    frames: Frames
    neighbors: NeighborList
    members: list


class EnsemblePotential:
    """Mean and spread of several `Potential`s with `weights` that sum to 1.

    One neighbour list serves all, and members with the same symmetry functions share fingerprints.
    Forces of the mean, −Jᵀ Σ w_k ∂E_k/∂G, take one contraction for each set of symmetry functions;
    the spread of the forces takes one for each member.
    """

    def __init__(self, potentials, weights, forces):
        self.potentials = potentials
        self.weights = weights
        self.forces = forces
        # The one that reaches farthest says how far neighbours are listed.
        self.descriptor = max((p.descriptor for p in potentials), key=lambda d: d.cutoff)
        known = [set(potential.elements) for potential in potentials]
        self.elements = [s for s in potentials[0].elements if s in set.intersection(*known)]
        if not self.elements:
            sets = "; ".join(", ".join(potential.elements) for potential in potentials)
            raise ValueError(f"no element is known to all members of the ensemble: {sets}")
        self.groups = {}
        for k, potential in enumerate(potentials):
            self.groups.setdefault(_same(potential.descriptor), []).append(k)

    def batch(self, frames, neighbors=None):
        """The batches of `frames`; neighbors: their list, up to the longest cutoff or beyond."""
        if neighbors is None:
            neighbors = neighbor_list(frames, self.descriptor.cutoff)
        batches = [None] * len(self.potentials)
        for members in self.groups.values():
            values = self.potentials[members[0]].descriptor.values(frames, neighbors)
            for k in members:
                batches[k] = self.potentials[k].batch_of(frames, neighbors, values)
        return EnsembleBatch(frames, neighbors, batches)

    def check_compositions(self, frames):
        """Warn where one of the `frames` has a composition for which energies are known to be off:
        see `TargetScaler`."""
        for potential in self.potentials:
            potential.check_compositions(frames)

    def evaluate(self, batch):
        """Mean energies (F,), eV, and forces (n, 3), eV/Å; forces (0, 3) unless all give some."""
        energies, gradients = self._members(batch)
        forces = np.zeros((batch.frames.n_atoms if self.forces else 0, 3))
        if self.forces:
            for members in self.groups.values():
                mean = sum(self.weights[k] * gradients[k] for k in members)
                forces -= self._contracted(members[0], mean, batch)
        return self.weights @ energies, forces

    def spread(self, batch):
        """(energies, forces, their standard deviations), shapes as `evaluate` gives them."""
        energies, gradients = self._members(batch)
        forces = np.zeros((len(self.potentials), batch.frames.n_atoms if self.forces else 0, 3))
        if self.forces:
            for k, gradient in enumerate(gradients):
                forces[k] = -self._contracted(k, gradient, batch)
        (energy, energy_spread), (force, force_spread) = (
            self._moments(energies),
            self._moments(forces),
        )
        return energy, force, energy_spread, force_spread

    def _members(self, batch):
        pairs = [p.gradient(b) for p, b in zip(self.potentials, batch.members, strict=True)]
        return np.array([energies for energies, _ in pairs]), [gradient for _, gradient in pairs]

    def _contracted(self, k, gradient, batch):
        return self.potentials[k].descriptor.vjp(batch.frames, gradient, batch.neighbors)

    def _moments(self, values):
        """Mean and standard deviation over the members, the first axis."""
        mean = np.tensordot(self.weights, values, axes=1)
        variance = np.tensordot(self.weights, (values - mean) ** 2, axes=1)
        return mean, np.sqrt(variance / (1 - (self.weights**2).sum()))


class EnsembleCalculator(AmpTorch):
    """ASE calculator of an `Ensemble`: mean energy and forces, and in `results` too
    `energy_uncertainty` (eV) and `forces_uncertainty` (n, 3), eV/Å, the standard deviations."""

    def __init__(self, ensemble, skin=0.3, **kwargs):
        super().__init__(ensemble, skin, **kwargs)
        extra = ["energy_uncertainty"] + ["forces_uncertainty"] * ensemble.forcetraining
        self.implemented_properties = [*self.implemented_properties, *extra]

    def evaluated(self, potential, batch):
        energy, forces, energy_spread, forces_spread = potential.spread(batch)
        results = {
            "energy": float(energy[0]),
            "free_energy": float(energy[0]),
            "energy_uncertainty": float(energy_spread[0]),
        }
        if not self.trainer.forcetraining:
            return results
        return {**results, "forces": forces, "forces_uncertainty": forces_spread}


def _same(descriptor):
    """What descriptors with the same fingerprints have in common."""
    return (descriptor.descriptor_setup_hash, tuple(descriptor.elements), descriptor.cutoff)


def _trainer(member):
    if not isinstance(member, (str, Path)):
        return member
    trainer = AtomsTrainer()
    trainer.load_pretrained(member)
    return trainer


def _weights(weights, k):
    if weights is None:
        return np.full(k, 1 / k)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (k,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"weights are {weights.tolist()}; expected {k} positive numbers")
    return weights / weights.sum()
