"""The training of a trial, on frames of the study's cache."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna import TrialPruned
from skorch.callbacks import Callback
from torch.utils.data import Subset

from amptorch.config import Config
from amptorch.data.from_store import StoreDataset
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import Frames
from amptorch.potential import Potential
from amptorch.threads import use_threads
from amptorch.training.fit import fit, fresh_model
from amptorch.training.prepare import TrainingData, with_elements
from amptorch.training.random_state import RandomState
from amptorch.tuning.errors import summary

# A trial reports its error so many times, at equal shares of its budget.
RUNGS = 9
# Frames, and repetitions of which the fastest counts, that the cost is measured on.
COST_FRAMES, COST_REPEATS = 4, 5
BATCH = 16


class Diverged(TrialPruned):
    """Tell that a training gave NaN or infinity."""


def fit_on_store(
    config: Mapping[str, Any],
    dataset: StoreDataset,
    train: np.ndarray,
    validate: np.ndarray,
    folder: Path | None = None,
    callbacks: Sequence[tuple[str, Callback]] = (),
) -> Potential:
    """Return a potential trained on the frames `train` of a data set, whose best epoch the frames
    `validate` choose; both int64 arrays.

    folder : of a run, which is gone on with where it was begun; None keeps nothing
    callbacks : further (name, callback) pairs
    """
    kept = len(validate) / (len(train) + len(validate))
    options = {**config["dataset"], "store": str(dataset.store.path), "val_split": kept}
    settings = Config.from_dict({**config, "dataset": options})
    if folder is not None:
        # What is kept knows where its training atoms were.
        dataset.feature_scaler = dataset.feature_scaler.with_domain(dataset.domain())

    def split(data: Any, y: Any = None, **kwargs: Any) -> tuple[Subset, Subset]:
        return Subset(data, train.tolist()), Subset(data, validate.tolist())

    data = TrainingData(with_elements(settings, dataset.elements), dataset)
    return fit(data, None, folder, split, callbacks, resume=True)


class Reports(Callback):
    """Tell `report(share of the budget, error)` how a training goes, and keep its `history`.

    budget: {"seconds": s} or {"epochs": n}. error(row of the history): a number. At most RUNGS
    reports a training, none at its end.
    """

    history: Sequence[dict[str, Any]] = ()

    def __init__(
        self,
        budget: dict[str, float],
        error: Callable[[dict[str, Any]], float],
        report: Callable[[float, float], None],
    ):
        self.budget = budget
        self.error = error
        self.report = report

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.begun, self.rung, self.history = time.monotonic(), 0, net.history

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Report the error where the next share of the budget is reached."""
        row = net.history[-1]
        if "epochs" in self.budget:
            share = len(net.history) / self.budget["epochs"]
        else:
            share = (time.monotonic() - self.begun) / self.budget["seconds"]
        rung = int(RUNGS * share)
        if self.rung < rung < RUNGS:
            self.rung = rung
            self.report(share, self.error(row))


def predicted(
    potential: Potential, dataset: StoreDataset, frame_ids: np.ndarray
) -> tuple[Frames, np.ndarray, np.ndarray | None]:
    """Return Frames with references, and predicted energies (F,), eV, and forces (N, 3), eV/Å, or
    None; fingerprints come from the cache."""
    batches = np.array_split(frame_ids, -(-len(frame_ids) // BATCH))
    parts = [potential.evaluate(dataset.batch(batch)) for batch in batches]
    energies, forces = zip(*parts, strict=True)
    joined = np.concatenate(forces) if potential.has_forces else None
    return dataset.store.frames(frame_ids), np.concatenate(energies), joined


def finite_summary(
    frames: Frames, energies: np.ndarray, forces: np.ndarray | None, above: float
) -> dict[str, Any]:
    """Return `errors.summary`; raises Diverged where a prediction is not finite."""
    if not np.isfinite(energies).all() or not (forces is None or np.isfinite(forces).all()):
        raise Diverged("the potential predicts NaN or infinity on the validation frames")
    return summary(frames, energies, forces, above)


def microseconds_per_atom(frames: Frames, *potentials: Any) -> list[float]:
    """Measure the wall time of energy and forces, neighbour search included, µs per atom, of each
    of the potentials.

    The fastest of a few repetitions on a few of the frames, one thread; potentials take turns, so
    that what else runs on the machine slows them alike.
    """
    chosen = frames.select(some_of(len(frames)))
    times = np.full((COST_REPEATS, len(potentials)), np.inf)
    with use_threads(1):
        for repeat, which in np.ndindex(times.shape):
            start = time.perf_counter()
            potentials[which].evaluate(potentials[which].batch(chosen))
            times[repeat, which] = time.perf_counter() - start
    return (1e6 * times.min(axis=0) / chosen.n_atoms).tolist()


def some_of(n_frames: int) -> np.ndarray:
    """Return the numbers of the frames, of so many, that the cost is measured on."""
    return np.linspace(0, n_frames - 1, min(n_frames, COST_FRAMES)).astype(np.int64)


def untrained(config: Mapping[str, Any], frames: Frames, elements: Sequence[str]) -> Potential:
    """Return a potential with the functions and the networks of a configuration, not trained, of
    which nothing but its cost means anything; its scalers are fitted to `frames`."""
    settings = with_elements(Config.from_dict(config), elements)
    options, forces = settings.dataset, settings.model.get_forces
    descriptor = construct_descriptor(options.descriptor_setup)
    values = descriptor.values(frames), frames.numbers
    scaler = FeatureScaler.from_chunks([values], options.scaling, forces)
    width = scaler.width(descriptor.n_features)
    model = fresh_model(settings, elements, width, RandomState(settings.cmd.seed, "cpu"))
    energies: Any = frames.energies
    targets = TargetScaler.from_arrays(energies, frames.forces if forces else None)
    return Potential(descriptor, model, scaler, targets, settings.cmd.dtype, "cpu", settings)


def epoch_columns(history: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """Return {column: values of every epoch} of the numbers in a skorch history."""
    columns: dict[str, list[float]] = {}
    for row in history:
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                columns.setdefault(name, []).append(float(value))
    return columns
