"""The training of a trial: `AtomsTrainer` on frames of the study's cache."""

import time

import numpy as np
from optuna import TrialPruned
from skorch.callbacks import Callback
from torch.utils.data import Subset

from amptorch.tuning.errors import summary
from amptorch.v1.trainer import AtomsTrainer

# A trial reports its error so many times, at equal shares of its budget.
RUNGS = 9
# Frames, and repetitions of which the fastest counts, that the cost is measured on.
COST_FRAMES, COST_REPEATS = 4, 3
BATCH = 16


class Diverged(TrialPruned):
    """The training gave NaN or infinity."""


class StoreTrainer(AtomsTrainer):
    """An AtomsTrainer on a StoreDataset that is there already.

    train, validate: frames of the data set, int64 arrays; without `train` all are trained on, and
    without `validate` nothing is validated.
    callbacks: further (name, callback) pairs.
    """

    def __init__(self, config, dataset, train=None, validate=None, callbacks=()):
        self.given = dataset, train, validate, list(callbacks)
        sections = {**config, "dataset": {**config["dataset"], "store": str(dataset.store.path)}}
        if validate is not None:
            # How many there are; which they are, `split` says.
            fraction = len(validate) / (len(train) + len(validate))
            sections["dataset"]["val_split"] = fraction
        super().__init__(sections)

    def load_dataset(self):
        dataset = self.given[0]
        self.train_dataset, self.elements = dataset, dataset.elements
        self.descriptor = dataset.descriptor
        self.feature_scaler, self.target_scaler = dataset.feature_scaler, dataset.target_scaler

    def load_extras(self):
        super().load_extras()
        _, train, validate, callbacks = self.given
        if train is not None:
            self.split = lambda data, y=None, **kwargs: (
                Subset(data, train),
                None if validate is None else Subset(data, validate),
            )
        self.callbacks += callbacks


class Reports(Callback):
    """Tells `report(share of the budget, error)` how a training goes.

    budget: {"seconds": s} or {"epochs": n}. error(row of the history): a number. At most RUNGS
    reports a training, none at its end.
    """

    def __init__(self, budget, error, report):
        self.budget = budget
        self.error = error
        self.report = report

    def on_train_begin(self, net, **kwargs):
        self.begun, self.rung = time.monotonic(), 0

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        if "epochs" in self.budget:
            share = len(net.history) / self.budget["epochs"]
        else:
            share = (time.monotonic() - self.begun) / self.budget["seconds"]
        rung = int(RUNGS * share)
        if self.rung < rung < RUNGS:
            self.rung = rung
            self.report(share, self.error(row))


def predicted(trainer, frame_ids):
    """(Frames with references, energies (F,), forces (n, 3) or None) of frames of the data set,
    with what the cache holds of them."""
    dataset, potential = trainer.train_dataset, trainer.potential
    energies, forces = [], []
    for first in range(0, len(frame_ids), BATCH):
        part = potential.evaluate(dataset.batch(frame_ids[first : first + BATCH]))
        energies.append(part[0])
        forces.append(part[1])
    forces = np.concatenate(forces) if trainer.forcetraining else None
    return dataset.store.frames(frame_ids), np.concatenate(energies), forces


def errors_of(trainer, frame_ids, above=np.inf):
    """`errors.summary` of these frames; Diverged where a prediction is not finite."""
    return finite_summary(*predicted(trainer, frame_ids), above)


def finite_summary(frames, energies, forces, above):
    """`errors.summary`; Diverged where a prediction is not finite."""
    if not np.isfinite(energies).all() or not (forces is None or np.isfinite(forces).all()):
        raise Diverged("the potential predicts NaN or infinity on the validation frames")
    return summary(frames, energies, forces, above)


def microseconds_per_atom(potential, frames):
    """Wall time of energy and forces from positions, neighbour search included, µs per atom.

    The fastest of a few repetitions on a few of the frames, one thread.
    """
    places = np.linspace(0, len(frames) - 1, min(len(frames), COST_FRAMES))
    chosen = frames.select(places.astype(np.int64))
    times = []
    for _ in range(COST_REPEATS):
        start = time.perf_counter()
        potential.evaluate(potential.batch(chosen))
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / chosen.n_atoms


def epoch_columns(history):
    """{column: values}: what skorch recorded of every epoch, as far as it is a number."""
    columns = {}
    for row in history:
        for name, value in row.items():
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float)):
                continue
            columns.setdefault(name, []).append(float(value))
    return columns
