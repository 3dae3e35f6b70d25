"""Do what all estimators do: calibrate on some frames, then predict with uncertainties."""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from zipfile import BadZipFile

import numpy as np

from amptorch.frames import Frames
from amptorch.loading import potential_of
from amptorch.prediction import AtomicParts, batches_of
from amptorch.uncertainty.calculator import UncertaintyCalculator
from amptorch.uncertainty.calibrators import (
    ConformalPrediction,
    NegativeLeastLikelihoodEstimator,
    check_share,
)
from amptorch.uncertainty.metrics import LEVELS, calibration_metrics
from amptorch.uncertainty.points import frames_for, without_forces

# Fewer errors of an element are none.
FEWEST = 2

Calibrator: TypeAlias = ConformalPrediction | NegativeLeastLikelihoodEstimator
Estimator = TypeVar("Estimator", bound="UncertaintyEstimator")


@dataclass
class Observed:
    """Hold the predictions for F frames of n atoms in all, and how hard these are for the model.

    energy (F,), eV; forces (n, 3), eV/Å, or (0, 3); numbers (n,); counts (F,). energy_difficulty
    (F,) and forces_difficulty (n,) or (0,): positive, in any unit. energy_errors (F,) per atom, eV,
    and forces_errors (n, 3), eV/Å: predictions minus references, None without references. parts:
    what `evaluate_atoms` gives, of a single batch alone.
    """

    energy: np.ndarray
    forces: np.ndarray
    numbers: np.ndarray
    counts: np.ndarray
    energy_difficulty: np.ndarray
    forces_difficulty: np.ndarray
    energy_errors: np.ndarray | None = None
    forces_errors: np.ndarray | None = None
    parts: AtomicParts | None = None

    def with_errors(self, frames: Frames) -> "Observed":
        """Add the errors, for `frames` with energies, and forces where predicted; return itself."""
        self.energy_errors = (self.energy - frames.energies) / self.counts
        if len(self.forces):
            self.forces_errors = self.forces - frames.forces
        return self

    def select(self, indices: Sequence[int] | np.ndarray) -> "Observed":
        """Return the part of the frames at `indices`."""
        ends = np.cumsum(self.counts)
        atoms = [np.arange(ends[k] - self.counts[k], ends[k]) for k in indices]
        rows = np.concatenate(atoms) if len(self.forces) else slice(0)
        of_frames = {"energy", "counts", "energy_difficulty", "energy_errors"}
        selected: dict[str, Any] = {
            name: None if value is None else value[indices if name in of_frames else rows]
            for name, value in vars(self).items()
            if name != "parts"
        }
        return Observed(**selected)

    def known_energy_errors(self) -> np.ndarray:
        """Return `energy_errors`; ValueError where the frames were observed without labels."""
        if self.energy_errors is None:
            raise ValueError("the frames were observed without their energies; set labels to True")
        return self.energy_errors


def named(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return `state` with `prefix` put before the names."""
    return {f"{prefix}/{name}": value for name, value in state.items()}


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `state` whose names begin with `prefix`, without that."""
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def checksum(model: Any) -> int:
    """Return the CRC-32 of a potential's parameters, or of an ensemble's weights and members."""
    model = potential_of(model)
    found = zlib.crc32(np.asarray(getattr(model, "weights", ()), dtype=np.float64).tobytes())
    for member in getattr(model, "members", [model]):
        for tensor in member.model.state_dict().values():
            found = zlib.crc32(tensor.detach().cpu().numpy().tobytes(), found)
    return found


class UncertaintyEstimator:
    """Calibrate a model's uncertainties, and predict with them; the base of the estimators.

    A subclass says how hard frames and atoms are (`evaluated`), and how that becomes an interval
    (`calibrator`).

    Energies are calibrated by their errors per atom, forces by the lengths of their errors' vectors
    on the atoms of each element by themselves.

    model : a `Potential`, a trained `AtomsTrainer`, or an `Ensemble`
    alpha : the share of errors that intervals leave outside where no confidence is given
    energy_calibrator_ : fitted to the energies; forces_calibrators_ : {atomic number: the same}
    """

    # Of the estimators that take one for their calibrators.
    quantile: str | None = None

    def __init__(self, model: Any = None) -> None:
        self.model = model
        self.alpha = 0.1
        self.energy_calibrator_: Any = None
        self.forces_calibrators_: dict[int, Any] = {}

    def calibrator(self) -> Calibrator:
        """Return a new calibrator, not fitted."""
        raise TypeError(f"{type(self).__name__} does not say how it is calibrated")

    def evaluated(self, potential: Any, batch: Any) -> Observed:
        """Return `Observed` of a batch that `potential` made, without errors."""
        raise TypeError(f"{type(self).__name__} does not say what is hard")

    # --- calibration ---

    def fit(self: Estimator, images: Any) -> Estimator:
        """Calibrate on frames with energies (and forces where the model has them), which were not
        trained on; return the estimator. ValueError names the frame that cannot be used."""
        return self.calibrate(self.observe(images))

    def observe(
        self, images: Any, labels: bool = True, disable_tqdm: bool = True, forces: bool = True
    ) -> Observed:
        """Return `Observed` of frames, with their errors where `labels`; of energies alone without
        `forces`. ValueError where there is no model."""
        if self.model is None:
            name = type(self).__name__
            raise ValueError(f"the estimator has no model: make it as {name}(trainer)")
        potential = potential_of(self.model)
        frames = frames_for(potential, images, labels, forces)
        parts = [
            self.evaluated(potential, batch if forces else without_forces(batch))
            for batch, _, _ in batches_of(potential, frames, disable_tqdm)
        ]
        arrays = [(name, value) for name, value in vars(parts[0]).items() if name != "parts"]
        names = [name for name, value in arrays if value is not None]
        joined: Any = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in names
        }
        observed = Observed(**joined)
        return observed.with_errors(frames) if labels else observed

    def calibrate(self: Estimator, observed: Observed) -> Estimator:
        """Do as `fit`, for frames that have been observed already."""
        self.energy_calibrator_ = self.calibrator().fit(
            observed.known_energy_errors(), observed.energy_difficulty
        )
        self.forces_calibrators_ = {}
        if observed.forces_errors is not None:
            for number in np.unique(observed.numbers).tolist():
                rows = observed.numbers == number
                # An element that was not trained on is infinitely far.
                rows &= np.isfinite(observed.forces_difficulty)
                # Of lone atoms alone every force is zero, and so is every error.
                if rows.sum() >= FEWEST and observed.forces_errors[rows].any():
                    self.forces_calibrators_[number] = self.calibrator().fit(
                        observed.forces_errors[rows], observed.forces_difficulty[rows]
                    )
        return self

    # --- files ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibrated estimator to a file, .npz, of numbers and text alone, which is safe
        to read whoever wrote it. The model is not in it: save that too.

        Raises ValueError before `fit`.
        """
        self.check()
        arrays: dict[str, Any] = {**self.state()}
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls: type[Estimator], path: str | os.PathLike[str], model: Any) -> Estimator:
        """Return the estimator that `save` wrote, for the model that it was calibrated with.

        Raises FileNotFoundError where there is no such file, and ValueError where it holds
        something else, or an estimator of another class or for another model.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                state = dict(content)
            kind, parameters = str(state["kind"]), int(state["model"])
        except (ValueError, TypeError, LookupError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} is damaged, or no estimator: {error}") from error
        if kind != cls.__name__:
            raise ValueError(f"{path} holds a {kind}; load it with {kind}.load")
        estimator = cls()
        estimator.model = model
        if parameters != checksum(model):
            raise ValueError(
                f"{path} was calibrated for a model with other parameters; give that one, or "
                "calibrate anew with fit(images)"
            )
        try:
            return estimator.restore(state)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path} does not hold all of an estimator: {error}") from error

    def state(self) -> dict[str, np.ndarray]:
        """Return {name: array} of everything but the model."""
        state: dict[str, Any] = {
            "kind": type(self).__name__,
            "model": checksum(self.model),
            "alpha": self.alpha,
        }
        state |= {} if self.quantile is None else {"quantile": self.quantile}
        state |= named("energy", self.energy_calibrator_.state())
        for number, calibrator in self.forces_calibrators_.items():
            state |= named(f"forces/{number}", calibrator.state())
        return {name: np.asarray(value) for name, value in state.items()}

    def restore(self: Estimator, state: Mapping[str, np.ndarray]) -> Estimator:
        """Take everything but the model from `state`; return the estimator."""
        self.alpha = float(state["alpha"])
        if "quantile" in state:
            self.quantile = str(state["quantile"])
        self.energy_calibrator_ = self.calibrator().restore(below("energy", state))
        numbers = {int(name.split("/")[0]) for name in below("forces", state)}
        self.forces_calibrators_ = {
            number: self.calibrator().restore(below(f"forces/{number}", state))
            for number in sorted(numbers)
        }
        return self

    # --- prediction ---

    def half_widths(
        self, observed: Observed, confidence: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the half widths (F,) of the intervals of the energies per atom, eV, and the radii
        (n,) of the spheres of the forces, eV/Å, or (0,); infinite where nothing was there to
        calibrate on.

        Raises ValueError as `check` does.
        """
        confidence = self.check(confidence)
        energy = self.energy_calibrator_.predict(observed.energy_difficulty, confidence)
        forces = np.full(len(observed.forces), np.inf)
        for number, calibrator in self.forces_calibrators_.items() if len(forces) else ():
            rows = observed.numbers == number
            if rows.any():
                forces[rows] = calibrator.predict(observed.forces_difficulty[rows], confidence)
        return energy, forces

    def check(self, confidence: float | None = None) -> float:
        """Return the confidence that is meant, 1 − alpha by None.

        Raises ValueError before `fit`, and for one that is not between 0 and 1.
        """
        if self.energy_calibrator_ is None:
            raise ValueError("the estimator is not calibrated: call fit(images) first")
        return 1 - self.alpha if confidence is None else check_share("confidence", confidence)

    def predict(
        self, images: Any, confidence: float | None = None, disable_tqdm: bool = True
    ) -> dict[str, list]:
        """Predict energies and forces of frames (list of Atoms, or what `read_images` reads), in
        order, with intervals that hold the share `confidence` of the errors, 1 − alpha by default.

        Returns a dictionary of lists with an entry for each frame: `energy`, eV; `forces` (n, 3),
        eV/Å; `energy_uncertainty` u, eV, for |E − E_ref| ≤ u, and `energy_uncertainty_per_atom`;
        `forces_uncertainty` (n,), eV/Å, for the length |F_i − F_ref,i| ≤ u_i on each atom. Without
        forces in the model their entries are empty.

        Raises ValueError that names the frame which cannot be used.
        """
        observed = self.observe(images, labels=False, disable_tqdm=disable_tqdm)
        energy, forces = self.half_widths(observed, confidence)
        ends, n_frames = np.cumsum(observed.counts)[:-1], len(energy)
        force_lists = [np.empty((0, 3))] * n_frames, [np.empty(0)] * n_frames
        if len(forces):
            force_lists = np.split(observed.forces, ends), np.split(forces, ends)
        return {
            "energy": observed.energy.tolist(),
            "forces": force_lists[0],
            "energy_uncertainty": (energy * observed.counts).tolist(),
            "energy_uncertainty_per_atom": energy.tolist(),
            "forces_uncertainty": force_lists[1],
        }

    def metrics(self, images: Any, levels: Sequence[float] = LEVELS) -> dict[str, dict]:
        """Return how well uncertainties agree with errors on frames with energies (and forces): a
        dictionary of `calibration_metrics` for "energy" (per atom) and "forces"."""
        return self.metrics_of(self.observe(images), levels)

    def metrics_of(self, observed: Observed, levels: Sequence[float] = LEVELS) -> dict[str, dict]:
        """Do as `metrics`, for frames that have been observed already."""
        energy, forces = zip(*(self.half_widths(observed, level) for level in levels), strict=True)
        found = {"energy": calibration_metrics(observed.known_energy_errors(), energy, levels)}
        if observed.forces_errors is not None:
            found["forces"] = calibration_metrics(observed.forces_errors, forces, levels)
        return found

    def get_calc(self, confidence: float | None = None, skin: float = 0.3) -> UncertaintyCalculator:
        """Return the ASE calculator with these uncertainties in its results.

        confidence : of the intervals, 1 − alpha by default; skin : as of `AmpTorch`, Å
        """
        return UncertaintyCalculator(self, confidence, skin)
