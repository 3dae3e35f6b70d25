"""Say in five lines what was found in the frames and what was chosen for them."""

from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from amptorch.config import Config
from amptorch.data.protocol import Dataset
from amptorch.model import AtomicModel
from amptorch.training.fit import fresh_model
from amptorch.training.prepare import TrainingData
from amptorch.training.random_state import RandomState
from amptorch.training.splits import validation_size

# Compositions that are written out.
SOME = 3


def summary(data: TrainingData) -> str:
    """Return the lines: frames, references, functions, network, training."""
    settings, dataset = data.settings, data.dataset
    n_inputs = data.feature_scaler.width(data.descriptor.n_features)
    random = RandomState(settings.cmd.seed, "cpu")
    model = fresh_model(settings, data.elements, n_inputs, random)
    rows = {
        "frames": _frames(settings, dataset),
        "energies": _energies(dataset),
        "functions": _functions(dataset),
        "networks": _networks(settings, dataset, model),
        "training": _training(settings, dataset),
    }
    return "\n".join(f"{name:<11}{text}" for name, text in rows.items())


def _frames(settings: Config, dataset: Dataset) -> str:
    # LMDB files do not say how large their frames are.
    counts = np.asarray(getattr(dataset, "counts", [0]))
    sizes = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts[0]}"
    kept = validation_size(len(dataset), settings.dataset.val_split)
    text = f"{len(dataset)}" + (f" of {sizes} atoms" if counts[0] else "") + f", {_kinds(dataset)}"
    text += f"; {kept} of them kept to validate" if kept else ""
    frames: Any = getattr(dataset, "frames", None)
    forces = None if frames is None else frames.forces
    if forces is None:
        return text
    if np.isnan(forces).all():
        return f"{text}; no forces"
    rms, largest = np.sqrt(np.nanmean(forces**2)), np.nanmax(np.abs(forces))
    text += f"; forces {rms:.2g} eV/Å (rms), the largest {largest:.3g}"
    text += _labelled("forces", forces[frames.offsets[:-1]])
    return text + _labelled("stresses", frames.stress)


def _labelled(name: str, labels: np.ndarray | None) -> str:
    """Return how many frames have labels, of which each has a row, where some have none."""
    if labels is None:
        return ""
    known = ~np.isnan(labels[:, 0])
    return "" if known.all() else f"; {name} of {known.sum()} of {len(known)} frames"


def _kinds(dataset: Dataset) -> str:
    frames = getattr(dataset, "frames", None)
    if frames is None or len(dataset.elements) > 10:
        return f"{len(dataset.elements)} elements"
    found: dict[str, int] = {}
    for numbers in np.split(frames.numbers, frames.offsets[1:-1]):
        kinds, counts = np.unique(numbers, return_counts=True)
        atoms = {chemical_symbols[z]: int(n) for z, n in zip(kinds, counts, strict=True)}
        name = Formula.from_dict(atoms).format("metal")
        found[name] = found.get(name, 0) + 1
    some = sorted(found, key=lambda name: -found[name])[:SOME]
    others = len(found) - SOME
    more = f" and {others} other composition{'s' * (others > 1)}" if others > 0 else ""
    return ", ".join(some) + more


def _energies(dataset: Dataset) -> str:
    scaler = dataset.target_scaler
    if scaler.atomic is None:
        return "less the mean of whole frames (v1.0's): good for one composition alone"
    energies = scaler.atomic.reference_energies
    known = [f"{chemical_symbols[z]} {energies[z]:.3f}" for z in sorted(energies)]
    text = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
    return f"less those of the elements, eV: {text}"


def _functions(dataset: Dataset) -> str:
    descriptor: Any = dataset.descriptor
    return f"{descriptor.n_features} for each atom, of neighbours within {descriptor.cutoff:g} Å"


def _networks(settings: Config, dataset: Dataset, model: AtomicModel) -> str:
    options = settings.model
    widths = options.hidden_layers or [options.num_nodes] * options.num_layers
    number = 1 if options.name == "singlenn" else len(dataset.elements)
    nodes = "-".join(map(str, widths))
    text = f"{number} of {nodes} nodes, {model.num_params} parameters in all"
    more = options.members > 1
    return text + (f"; the mean of up to {options.members} trainings" if more else "")


def _training(settings: Config, dataset: Dataset) -> str:
    optim = settings.optim
    name = getattr(optim.optimizer, "__name__", str(optim.optimizer))
    name = "Kalman filter" if name == "EKF" else name
    text = f"{name}, batches of {optim.batch_size} frames"
    if optim.force_per_mev is not None:
        text += f"; 1 meV/atom counts as much as {optim.force_per_mev:g} eV/Å"
    if optim.stress_per_mev is not None:
        text += f" and {optim.stress_per_mev:g} GPa"
    seconds = optim.total_seconds or optim.max_seconds
    return text + (f"; {optim.epochs} epochs" if seconds is None else f"; {seconds:.0f} s")
