"""Estimate uncertainties: a structure is hard where it is far from the training frames, or where
the members of an ensemble disagree.

Each serves in two ways. Made of a trainer, it is calibrated by `fit` and asked by `predict`, for
energies and forces. Made of its settings alone, as in v1.0, it takes all in one call of
`fit_predict`, for energies.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from amptorch.data.batch import Batch
from amptorch.ensemble import Ensemble, EnsembleBatch
from amptorch.frames import read_images
from amptorch.loading import potential_of
from amptorch.potential import Potential
from amptorch.uncertainty.base import Observed, UncertaintyEstimator, below, named
from amptorch.uncertainty.bootstrap import train_ensemble
from amptorch.uncertainty.calibrators import (
    ConformalPrediction,
    NegativeLeastLikelihoodEstimator,
    check_share,
)
from amptorch.uncertainty.distances import NearestTraining
from amptorch.uncertainty.points import (
    LAST_HIDDEN,
    FeatureSpace,
    LatentSpace,
    frame_means,
    training_points,
)
from amptorch.uncertainty.prepare import split_calibration

# eV, or eV/Å: the distances of calibrators are positive.
SMALLEST_SPREAD = 1e-12

DistanceEstimator = TypeVar("DistanceEstimator", bound="_DistanceEstimator")


def _or_trainer(init: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor take a trainer in the place of its first setting, for `trainer=`."""

    @wraps(init)
    def with_trainer(self: Any, *given: Any, **others: Any) -> None:
        settings = list(given)
        if settings and isinstance(potential_of(settings[0]), Potential):
            others["trainer"] = settings.pop(0)
        init(self, *settings, **others)

    return with_trainer


class _DistanceEstimator(UncertaintyEstimator):
    """Take for difficulty the mean distance to the nearest training points in a space.

    For energies these are frames (means over their atoms), for forces atoms of the same element.
    """

    def __init__(
        self,
        space: LatentSpace | FeatureSpace,
        per_calib: float,
        num_nearest_neighbors: int,
        seed: int,
        trainer: Any = None,
        train_images: Any = None,
        most: int = 5000,
    ) -> None:
        super().__init__()
        self.space = space
        self.per_calib = check_share("per_calib", per_calib)
        self.num_nearest_neighbors, self.seed, self.most = num_nearest_neighbors, seed, most
        self._frames: Any = None
        self._atoms: dict[int, NearestTraining] = {}
        if trainer is not None:
            self._train(trainer, train_images)

    def _train(self, trainer: Any, train_images: Any, forces: bool = True) -> None:
        """Take `trainer` for the model, and distances to the frames that it was trained on (its own
        where None), with `forces` also to their atoms."""
        potential = potential_of(trainer)
        if not isinstance(potential, Potential):
            raise TypeError(
                f"trainer is a {type(trainer).__name__}; expected an AtomsTrainer or a Potential"
            )
        forces = forces and potential.has_forces
        self.model = trainer
        self._place(
            *training_points(trainer, self.space, train_images, self.most, forces, self.seed)
        )

    def _place(self, frames: np.ndarray, atoms: Mapping[int, np.ndarray]) -> None:
        k = self.num_nearest_neighbors
        self._frames = NearestTraining(frames, k)
        self._atoms = {number: NearestTraining(rows, k) for number, rows in atoms.items()}

    def fit_predict(self, trainer: Any, train_list: Any, full_test_list: Any) -> dict:
        """Calibrate on some of the test frames, and say how uncertain the others' energies are.

        trainer : trained `AtomsTrainer`; train_list : the frames that it was trained on, None where
        it still has them; full_test_list : others, with energies, of which the share `per_calib`,
        drawn at random with `seed`, calibrates. Lists of Atoms, or what `read_images` reads.

        Returns a dictionary of arrays with an entry for each test frame that is left, in order:
        `residuals`, the absolute errors of the energies per atom, and `uncertainty`, their standard
        deviations, both eV.

        Raises ValueError that names the frame which cannot be used, or where there are too few.
        """
        images = read_images(full_test_list)
        frames = np.arange(len(images))
        left, calibration = split_calibration(frames, calib_fraction=self.per_calib, seed=self.seed)
        self._train(trainer, train_list, forces=False)
        observed = self.observe(images, forces=False)
        self.calibrate(observed.select(calibration))
        tested = observed.select(left)
        return {
            "residuals": np.abs(tested.known_energy_errors()),
            "uncertainty": self.energy_calibrator_.predict(tested.energy_difficulty),
        }

    def state(self) -> dict[str, np.ndarray]:
        """Return {name: array} of everything but the model."""
        atoms = {str(number): nearest.points for number, nearest in self._atoms.items()}
        layer = getattr(self.space, "layer", None)
        return {
            **super().state(),
            **named("space", {"k": self.num_nearest_neighbors, "frames": self._frames.points}),
            **named("space", {} if layer is None else {"layer": layer}),
            **named("space/atoms", atoms),
        }

    def restore(self: DistanceEstimator, state: Mapping[str, np.ndarray]) -> DistanceEstimator:
        """Take everything but the model from `state`; return the estimator."""
        space = below("space", state)
        self.space = LatentSpace(int(space["layer"])) if "layer" in space else FeatureSpace()
        atoms = {int(number): rows for number, rows in below("space/atoms", state).items()}
        self.num_nearest_neighbors = int(space["k"])
        self._place(space["frames"], atoms)
        return super().restore(state)

    def evaluated(self, potential: Potential, batch: Batch) -> Observed:
        """Return `Observed` of a batch, without errors."""
        rows = self.space(potential, batch)
        parts = potential.evaluate_atoms(batch)
        numbers = batch.atomic_numbers.cpu().numpy()
        counts = np.bincount(batch.image_idx.cpu().numpy(), minlength=batch.num_images)
        # An element that was not trained on is infinitely far from what was.
        distances = np.full(len(parts.forces), np.inf)
        for number, nearest in self._atoms.items() if len(parts.forces) else ():
            same = numbers == number
            distances[same] = nearest(rows[same])
        return Observed(
            energy=np.add.reduceat(parts.energies, np.cumsum(counts) - counts),
            forces=parts.forces,
            parts=parts,
            numbers=numbers,
            counts=counts,
            energy_difficulty=self._frames(frame_means(rows, counts)),
            forces_difficulty=distances,
        )


class _Conformal(_DistanceEstimator):
    def __init__(self, alpha: float, *settings: Any, **model: Any) -> None:
        super().__init__(*settings, **model)
        self.alpha = check_share("alpha", alpha)

    def calibrator(self) -> ConformalPrediction:
        """Return a new calibrator, not fitted."""
        return ConformalPrediction(self.alpha)

    def fit_predict(self, trainer: Any, train_list: Any, full_test_list: Any) -> dict:
        """Do as `_DistanceEstimator.fit_predict`; `uncertainty` holds the half widths of intervals
        that leave out the share `alpha` of the errors, which is in the dictionary too."""
        found = super().fit_predict(trainer, train_list, full_test_list)
        return {**found, "alpha": self.alpha}


class _Likelihood(_DistanceEstimator):
    @_or_trainer
    def __init__(
        self,
        per_calib: float = 0.1,
        num_nearest_neighbors: int = 10,
        seed: int = 1,
        get_latent: int = LAST_HIDDEN,
        *,
        quantile: str = "calibrated",
        **model: Any,
    ) -> None:
        space = self._space(get_latent)
        super().__init__(space, per_calib, num_nearest_neighbors, seed, **model)
        self.quantile = quantile

    @staticmethod
    def _space(layer: int) -> LatentSpace | FeatureSpace:
        return LatentSpace(layer)

    def calibrator(self) -> NegativeLeastLikelihoodEstimator:
        """Return a new calibrator, not fitted."""
        return NegativeLeastLikelihoodEstimator(self.quantile or "calibrated")


class ConformalPredictionLatentSpace(_Conformal):
    """Estimate by conformal prediction, with distances between outputs of a layer of the networks.

    alpha : the share of errors that intervals leave outside, unless a confidence is given; or, in
        its place, the trainer
    per_calib : the share of test frames that `fit_predict` calibrates on
    num_nearest_neighbors : training points that a distance is the mean over
    seed : of what is drawn at random
    get_latent : index of the layer in `model_net`, the last hidden one by default
    trainer : trained `AtomsTrainer`, for `fit` and `predict`
    train_images : the frames that it was trained on, None where it still has them
    most : training frames, and atoms of each element, that distances are taken to, drawn at random
        where there are more

    The intervals are those of `ConformalPrediction`.
    """

    @_or_trainer
    def __init__(
        self,
        alpha: float = 0.1,
        per_calib: float = 0.1,
        num_nearest_neighbors: int = 10,
        seed: int = 1,
        get_latent: int = LAST_HIDDEN,
        **model: Any,
    ) -> None:
        space = LatentSpace(get_latent)
        super().__init__(alpha, space, per_calib, num_nearest_neighbors, seed, **model)


class ConformalPredictionFeatureSpace(_Conformal):
    """Estimate by conformal prediction, with distances between scaled fingerprints.

    Parameters as of `ConformalPredictionLatentSpace`, without `get_latent`.
    """

    @_or_trainer
    def __init__(
        self,
        alpha: float = 0.1,
        per_calib: float = 0.1,
        num_nearest_neighbors: int = 10,
        seed: int = 1,
        **model: Any,
    ) -> None:
        super().__init__(alpha, FeatureSpace(), per_calib, num_nearest_neighbors, seed, **model)


class NegativeLeastLikelihoodLatentSpace(_Likelihood):
    """Estimate a standard deviation linear in the distance between the outputs of a layer of the
    networks.

    Parameters as of `ConformalPredictionLatentSpace`, without `alpha` (the trainer may be in
    the place of `per_calib`); quantile : "calibrated" or "normal", see
    `NegativeLeastLikelihoodEstimator`, whose fit and intervals these are.
    """


class NegativeLeastLikelihoodFeatureSpace(_Likelihood):
    """Estimate a standard deviation linear in the distance between scaled fingerprints.

    Parameters as of `NegativeLeastLikelihoodLatentSpace`; get_latent is there for v1.0's calls and
    has no effect.
    """

    @staticmethod
    def _space(layer: int) -> FeatureSpace:
        return FeatureSpace()


class EnsembleSDEstimator(UncertaintyEstimator):
    """Estimate by the standard deviation of the members of an ensemble, brought to scale: they
    agree more with each other than with the truth, and now and then by chance.

    ensemble : `Ensemble`, or what makes one (trained trainers, or checkpoint folders), for `fit`
        and `predict`: σ = s1 + s2 s by maximum likelihood (G. Palmer et al., npj Comput. Mater. 8,
        115, 2022), where s of a force is the root of the sum over its components. The standard
        deviation s itself is what `fit_predict` and `Ensemble.predict` give
    quantile : as of `NegativeLeastLikelihoodEstimator`
    """

    def __init__(self, ensemble: Any = None, quantile: str = "calibrated") -> None:
        given = ensemble is None or isinstance(ensemble, Ensemble)
        super().__init__(ensemble if given else Ensemble(ensemble))
        self.quantile = quantile

    @classmethod
    def train(
        cls, config: Mapping[str, Any], n_members: int = 5, bootstrap: bool = True
    ) -> "EnsembleSDEstimator":
        """Return the estimator of an ensemble that is trained for it; see `train_ensemble`."""
        return cls(train_ensemble(config, n_members, bootstrap))

    def calibrator(self) -> NegativeLeastLikelihoodEstimator:
        """Return a new calibrator, not fitted."""
        return NegativeLeastLikelihoodEstimator(self.quantile or "calibrated")

    def fit_predict(self, list_trainers: Any, train_list: Any, test_list: Any) -> dict:
        """Return how far the members' energies are apart on test frames, as they are.

        list_trainers : two or more, as of `Ensemble`; train_list : v1.0's, not looked at, since
        errors on frames that were trained on say nothing of others; test_list : frames with
        energies, list of Atoms or what `read_images` reads.

        Returns a dictionary of arrays with an entry for each test frame: `residuals`, the absolute
        errors of the mean of the energies per atom, and `uncertainty`, the standard deviation of
        the energies per atom (with k − 1 in the denominator), both eV.

        Raises ValueError that names the frame which cannot be used.
        """
        self.model = Ensemble(list_trainers, forces=False)
        observed = self.observe(test_list)
        return {
            "residuals": np.abs(observed.known_energy_errors()),
            "uncertainty": observed.energy_difficulty,
        }

    def evaluated(self, potential: Ensemble, batch: EnsembleBatch) -> Observed:
        """Return `Observed` of a batch, without errors."""
        parts, energy_spread, forces_spread = potential.spread_atoms(batch)
        counts = batch.frames.counts
        return Observed(
            energy=np.add.reduceat(parts.energies, batch.frames.offsets[:-1]),
            forces=parts.forces,
            parts=parts,
            numbers=batch.frames.numbers,
            counts=counts,
            energy_difficulty=np.maximum(energy_spread / counts, SMALLEST_SPREAD),
            forces_difficulty=np.maximum(np.linalg.norm(forces_spread, axis=1), SMALLEST_SPREAD),
        )
