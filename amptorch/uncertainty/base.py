"""What all estimators do: calibrate on some frames, then predict with uncertainties."""

import zlib
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from amptorch.loading import potential_of
from amptorch.prediction import batches_of
from amptorch.uncertainty.calculator import UncertaintyCalculator
from amptorch.uncertainty.calibrators import check_share
from amptorch.uncertainty.metrics import LEVELS, calibration_metrics
from amptorch.uncertainty.points import frames_for, without_forces

# Fewer errors of an element are none.
FEWEST = 2


@dataclass
class Observed:
    """What a model predicts for F frames of n atoms in all, and how hard it finds them.

    energy (F,), eV; forces (n, 3), eV/Å, or (0, 3); numbers (n,); counts (F,). energy_difficulty
    (F,) and forces_difficulty (n,) or (0,): positive, in any unit. energy_errors (F,) per atom, eV,
    and forces_errors (n, 3), eV/Å: predictions minus references, None without references.
    """

    energy: np.ndarray
    forces: np.ndarray
    numbers: np.ndarray
    counts: np.ndarray
    energy_difficulty: np.ndarray
    forces_difficulty: np.ndarray
    energy_errors: np.ndarray | None = None
    forces_errors: np.ndarray | None = None

    def with_errors(self, frames):
        """The same with the errors, for `frames` with energies, and forces where predicted."""
        self.energy_errors = (self.energy - frames.energies) / self.counts
        if len(self.forces):
            self.forces_errors = self.forces - frames.forces
        return self

    def select(self, indices):
        """That of the frames at `indices`."""
        ends = np.cumsum(self.counts)
        rows = [np.arange(ends[k] - self.counts[k], ends[k]) for k in indices]
        rows = np.concatenate(rows) if len(self.forces) else slice(0)
        of_frames = {"energy", "counts", "energy_difficulty", "energy_errors"}
        return Observed(
            **{
                name: None if value is None else value[indices if name in of_frames else rows]
                for name, value in vars(self).items()
            }
        )


def named(prefix, state):
    """`state` with names that begin with `prefix`."""
    return {f"{prefix}/{name}": value for name, value in state.items()}


def below(prefix, state):
    """The part of `state` whose names begin with `prefix`, without that."""
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def checksum(model):
    """Return the CRC-32 of a potential's parameters, or of an ensemble's weights and members."""
    model = potential_of(model)
    found = zlib.crc32(np.asarray(getattr(model, "weights", ()), dtype=np.float64).tobytes())
    for member in getattr(model, "members", [model]):
        for tensor in member.model.state_dict().values():
            found = zlib.crc32(tensor.detach().cpu().numpy().tobytes(), found)
    return found


class UncertaintyEstimator:
    """Base of the estimators; a subclass says how hard frames and atoms are, and `calibrator()`
    how that becomes an interval.

    Energies are calibrated by their errors per atom, forces by the lengths of their errors' vectors
    on the atoms of each element by themselves.

    model : a `Potential`, a trained `AtomsTrainer`, or an `Ensemble`
    alpha : the share of errors that intervals leave outside where no confidence is given
    energy_calibrator_ : fitted to the energies; forces_calibrators_ : {atomic number: the same}
    """

    # Of the estimators that take one for their calibrators.
    quantile = None

    def __init__(self, model=None):
        self.model = model
        self.alpha = 0.1
        self.energy_calibrator_ = None
        self.forces_calibrators_ = {}

    def calibrator(self):
        """A calibrator that nothing was fitted to: `fit(errors, d)`, `predict(d, confidence)`."""
        raise TypeError(f"{type(self).__name__} does not say how it is calibrated")

    def evaluated(self, potential, batch):
        """`Observed` of a batch that `potential` made; without errors."""
        raise TypeError(f"{type(self).__name__} does not say what is hard")

    # --- calibration ---

    def fit(self, images):
        """Calibrate on frames with energies (and forces where the model has them), which were not
        trained on; returns the estimator. ValueError names the frame that cannot be used."""
        return self.calibrate(self.observe(images))

    def observe(self, images, labels=True, disable_tqdm=True, forces=True):
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
        names = [name for name, value in vars(parts[0]).items() if value is not None]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        observed = Observed(**joined)
        return observed.with_errors(frames) if labels else observed

    def calibrate(self, observed):
        """`fit` where the frames have been observed already."""
        self.energy_calibrator_ = self.calibrator().fit(
            observed.energy_errors, observed.energy_difficulty
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

    def save(self, path):
        """Write the calibrated estimator to a file, .npz, of numbers and text alone, which is safe
        to read whoever wrote it. The model is not in it: save that too.

        Raises ValueError before `fit`.
        """
        self.check()
        with open(path, "wb") as file:
            np.savez(file, **self.state())

    @classmethod
    def load(cls, path, model):
        """The estimator that `save` wrote, for the model that it was calibrated with.

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

    def state(self):
        """{name: array} of everything but the model."""
        state = {"kind": type(self).__name__, "model": checksum(self.model), "alpha": self.alpha}
        state |= {} if self.quantile is None else {"quantile": self.quantile}
        state |= named("energy", self.energy_calibrator_.state())
        for number, calibrator in self.forces_calibrators_.items():
            state |= named(f"forces/{number}", calibrator.state())
        return {name: np.asarray(value) for name, value in state.items()}

    def restore(self, state):
        """Be as `state` says; returns the estimator."""
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

    def half_widths(self, observed, confidence=None):
        """((F,) half widths of the intervals of the energies per atom, eV; (n,) radii of the
        spheres of the forces, eV/Å, or (0,)), infinite where nothing was there to calibrate on.

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

    def check(self, confidence=None):
        """Return the confidence that is meant, 1 − alpha by None.

        Raises ValueError before `fit`, and for one that is not between 0 and 1.
        """
        if self.energy_calibrator_ is None:
            raise ValueError("the estimator is not calibrated: call fit(images) first")
        return 1 - self.alpha if confidence is None else check_share("confidence", confidence)

    def predict(self, images, confidence=None, disable_tqdm=True):
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

    def metrics(self, images, levels=LEVELS):
        """How well uncertainties agree with errors on frames with energies (and forces): a
        dictionary of `calibration_metrics` for "energy" (per atom) and "forces"."""
        return self.metrics_of(self.observe(images), levels)

    def metrics_of(self, observed, levels=LEVELS):
        """`metrics` where the frames have been observed already."""
        energy, forces = zip(*(self.half_widths(observed, level) for level in levels), strict=True)
        found = {"energy": calibration_metrics(observed.energy_errors, energy, levels)}
        if observed.forces_errors is not None:
            found["forces"] = calibration_metrics(observed.forces_errors, forces, levels)
        return found

    def get_calc(self, confidence=None, skin=0.3):
        """The ASE calculator with these uncertainties in its results."""
        return UncertaintyCalculator(self, confidence, skin)
