"""Errors of energies and forces, and the callbacks that report them for each epoch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch.callbacks import Callback, Checkpoint, EpochScoring
from skorch.utils import to_device

# Where predictions and targets of a batch have each quantity.
QUANTITIES = {"energy": 0, "energy_per_atom": 0, "forces": 1, "stress": 2}
PLACES = {**QUANTITIES, "stress": 4}


def rms(values: ArrayLike) -> float:
    """Return the root of the mean square of values of any shape."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def error_statistics(errors: ArrayLike) -> dict[str, float]:
    """Return "rmse", "mae" and "median", of the absolute errors, for errors of any shape."""
    absolute = np.abs(errors)
    return {
        "rmse": rms(absolute),
        "mae": float(np.mean(absolute)),
        "median": float(np.median(absolute)),
    }


@dataclass(frozen=True)
class Score:
    """Return a mean error in physical units, absolute ("mae") or squared ("mse").

    That of "energy" is of the total energy of a frame (eV, eV²), that of "energy_per_atom" of this
    divided by its atoms, that of "forces" per component (eV/Å, eV²/Å²), that of "stress" per
    component of the frames that have one (eV/Å³).

    Called as skorch and scikit-learn call a scorer: `score(net, X, y)` is the error of `net` on
    the data set X; y is the list of targets of its batches, or None to take them from X.
    """

    quantity: str
    metric: str

    @property
    def __name__(self) -> str:
        # skorch calls a score without a name of its own by that of the function.
        return f"{self.metric}_{self.quantity}_score"

    def total(
        self, prediction: Any, target: Any, target_scaler: Any, counts: Any = None
    ) -> tuple[float, int]:
        """Return the sum of the errors of scaled (energy, forces), and the number of its values.

        counts : (frames,) atoms of each frame, for energies per atom
        """
        predicted = prediction[QUANTITIES[self.quantity]].detach()
        difference = predicted - target[PLACES[self.quantity]].to(predicted.device)
        if self.quantity == "stress":
            difference = difference[~torch.isnan(difference[:, 0])]
        if self.quantity == "energy_per_atom":
            difference = difference / counts.to(difference.device)
        error = difference.abs() if self.metric == "mae" else difference.square()
        # All targets are divided by the same standard deviation; the mean cancels.
        unit = float(target_scaler.target_std) ** (1 if self.metric == "mae" else 2)
        return unit * float(error.sum()), error.numel()

    def __call__(self, net: Any, X: Any, y: Any = None) -> float:
        """Return the error of `net` on the data set X."""
        batches = net.get_iterator(X) if y is None else ((None, target) for target in y)
        totals = [
            self.total(prediction, target, net.target_scaler, getattr(batch, "counts", None))
            for prediction, (batch, target) in zip(net.forward_iter(X), batches, strict=True)
        ]
        errors, counts = np.sum(totals, axis=0)
        return errors / counts


mae_energy_score = Score("energy", "mae")
mae_forces_score = Score("forces", "mae")
mse_energy_score = Score("energy", "mse")
mse_forces_score = Score("forces", "mse")


class MemEffEpochScoring(EpochScoring):
    """Record a score of the predictions that an epoch made anyway.

    No second pass over the data, and nothing kept but two sums: the training score is that of the
    parameters as they were at each batch, as in v1.0. Writes `name` and `name_best` to the history.

    scoring : a `Score`; lower_is_better, on_train, name : as of skorch's EpochScoring, as are
        target_extractor and use_caching, which have nothing to do here
    """

    def __init__(
        self,
        scoring: Score,
        lower_is_better: bool = True,
        on_train: bool = False,
        name: str | None = None,
        target_extractor: Any = None,
        use_caching: bool = True,
    ) -> None:
        super().__init__(scoring, lower_is_better, on_train, name, target_extractor, use_caching)

    def initialize(self) -> "MemEffEpochScoring":
        """Forget the best score; return the callback, as skorch asks for it."""
        self.name_ = self.name or f"{self.scoring.quantity}_{self.scoring.metric}"
        self.best_score_ = np.inf if self.lower_is_better else -np.inf
        return self

    def on_train_begin(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the best score: skorch would look for it in the history, which a run that goes on
        from a checkpoint has of the training before."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin new sums."""
        self.sum_, self.count_ = 0.0, 0

    def on_batch_end(
        self,
        net: Any,
        y: Any = None,
        y_pred: Any = None,
        training: bool = False,
        batch: Any = None,
        **kwargs: Any,
    ) -> None:
        """Add the errors of a batch."""
        if training == self.on_train:
            frames, target = (None, y) if batch is None else batch
            counts = getattr(frames, "counts", None)
            total, count = self.scoring.total(y_pred, target, net.target_scaler, counts)
            self.sum_ += total
            self.count_ += count

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Write the mean error to the history, and "best" where no epoch had a better one."""
        if self.count_ == 0:
            return
        score = self.sum_ / self.count_
        better = score < self.best_score_ if self.lower_is_better else score > self.best_score_
        if better:
            self.best_score_ = score
        net.history.record(self.name_, score)
        net.history.record(f"{self.name_}_best", bool(better))

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: no prediction was kept."""


class BothErrors(Callback):
    """Record one error of energies and forces: that per atom (eV) and `force_weight` times that of
    the forces (eV/Å), of root mean squares where `metric` is "mse"; stresses (eV/Å³) likewise.

    part : "train" or "val"; metric : "mae" or "mse"; force_weight : Å; stress_weight : Å³
    """

    def __init__(
        self, part: str, metric: str, force_weight: float, stress_weight: float = 0.0
    ) -> None:
        self.part = part
        self.metric = metric
        self.force_weight = force_weight
        self.stress_weight = stress_weight

    def initialize(self) -> "BothErrors":
        """Forget the best error; return the callback, as skorch asks for it."""
        self.best_score_ = np.inf
        return self

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Write the error to the history, and "best" where no epoch had a smaller one."""
        row, power = net.history[-1], 1 if self.metric == "mae" else 0.5
        weights = {
            "energy_per_atom": 1.0,
            "forces": self.force_weight,
            "stress": self.stress_weight,
        }
        names = {name: f"{self.part}_{name}_{self.metric}" for name in weights}
        error = sum(
            weights[name] * row[column] ** power for name, column in names.items() if column in row
        )
        better = bool(error < self.best_score_)
        self.best_score_ = min(self.best_score_, error)
        net.history.record(f"{self.part}_both_{self.metric}", error)
        net.history.record(f"{self.part}_both_{self.metric}_best", better)


def scoring_callbacks(
    val_split: float, metric: str, forcetraining: bool, stress: bool = False
) -> list[tuple[str, MemEffEpochScoring]]:
    """Return the scoring callbacks of a training as (name, callback) pairs.

    val_split: fraction kept for validation; metric: "mae" or "mse"; forcetraining: also forces;
    stress: also stresses. The columns are `train_energy_mae`, `train_energy_per_atom_mae`,
    `train_forces_mae`, `train_stress_mae`, and the same with `val`.
    """
    quantities = ("energy", "energy_per_atom", *(["forces"] if forcetraining else []))
    quantities += ("stress",) if stress else ()
    callbacks = []
    for part in ("train", "val") if val_split else ("train",):
        for quantity in quantities:
            name = f"{part}_{quantity}_{metric}"
            scoring = MemEffEpochScoring(
                Score(quantity, metric), on_train=part == "train", name=name
            )
            callbacks.append((name, scoring))
    return callbacks


def best_column(val_split: float, cp_metric: str, metric: str) -> str:
    """Return the column of the history that says whether an epoch is the best so far."""
    if cp_metric == "loss":
        # skorch's own column.
        return "valid_loss_best" if val_split else "train_loss_best"
    return f"{'val' if val_split else 'train'}_{cp_metric}_{metric}_best"


def evaluator(
    val_split: float, metric: str, identifier: str, forcetraining: bool, cp_metric: str
) -> list[tuple[str, Any]]:
    """Return the callbacks of a skorch net of one's own, as v1.0 does: `scoring_callbacks`, and
    skorch's Checkpoint, which writes the best parameters to `./checkpoints/<identifier>`.

    cp_metric: "energy" or "forces", whose error says which are the best. `AtomsTrainer` has
    checkpoints of its own, with all that a potential needs.
    """
    monitor = best_column(val_split, cp_metric, metric)
    folder = Path("checkpoints") / str(identifier)
    checkpoint = Checkpoint(monitor=monitor, dirname=str(folder))
    return [*scoring_callbacks(val_split, metric, forcetraining), ("checkpoint", checkpoint)]


def target_extractor(y: Any) -> Any:
    """Return targets as arrays: a tensor, or tensors in a tuple or list."""
    if isinstance(y, (tuple, list)):
        return type(y)(target_extractor(target) for target in y)
    return y.detach().cpu().numpy()


def to_cpu(X: Any) -> Any:
    """Return tensors (also in tuples and lists) detached and on the CPU."""
    if isinstance(X, (tuple, list)):
        return type(X)(to_cpu(x) for x in X)
    return to_device(X.detach(), "cpu")
