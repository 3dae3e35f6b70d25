"""The estimators, by what makes a structure hard: its distance to the training frames, or that the
members of an ensemble disagree."""

import numpy as np

from amptorch.uncertainty.base import Observed, UncertaintyEstimator, below, named
from amptorch.uncertainty.bootstrap import train_ensemble
from amptorch.uncertainty.calibrators import ConformalPrediction, NegativeLeastLikelihoodEstimator
from amptorch.uncertainty.distances import NearestTraining
from amptorch.uncertainty.ensemble import Ensemble
from amptorch.uncertainty.points import (
    LAST_HIDDEN,
    FeatureSpace,
    LatentSpace,
    frame_means,
    training_points,
)

# eV, or eV/Å: the distances of calibrators are positive.
SMALLEST_SPREAD = 1e-12


class _DistanceEstimator(UncertaintyEstimator):
    """Difficulty is the mean distance to the k nearest training points in a space: for energies,
    of frames (means over their atoms); for forces, of atoms of the same element."""

    def __init__(self, trainer, space, train_images=None, k=10, most=5000, seed=0):
        super().__init__(trainer)
        self.space = space
        forces = trainer.forcetraining
        self._place(*training_points(trainer, space, train_images, most, forces, seed), k)

    def _place(self, frames, atoms, k):
        self.k = k
        self._frames = NearestTraining(frames, k)
        self._atoms = {number: NearestTraining(rows, k) for number, rows in atoms.items()}

    def state(self):
        atoms = {str(number): nearest.points for number, nearest in self._atoms.items()}
        layer = getattr(self.space, "layer", None)
        return {
            **super().state(),
            **named("space", {"k": self.k, "frames": self._frames.points}),
            **named("space", {} if layer is None else {"layer": layer}),
            **named("space/atoms", atoms),
        }

    def restore(self, state):
        space = below("space", state)
        self.space = LatentSpace(int(space["layer"])) if "layer" in space else FeatureSpace()
        atoms = {int(number): rows for number, rows in below("space/atoms", state).items()}
        self._place(space["frames"], atoms, int(space["k"]))
        return super().restore(state)

    def evaluated(self, potential, batch):
        rows = self.space(potential, batch)
        energy, forces = potential.evaluate(batch)
        numbers = batch.atomic_numbers.cpu().numpy()
        counts = np.bincount(batch.image_idx.cpu().numpy(), minlength=batch.num_images)
        # An element that was not trained on is infinitely far from what was.
        distances = np.full(len(forces), np.inf)
        for number, nearest in self._atoms.items():
            same = numbers == number
            distances[same] = nearest(rows[same])
        return Observed(
            energy=energy,
            forces=forces,
            numbers=numbers,
            counts=counts,
            energy_difficulty=self._frames(frame_means(rows, counts)),
            forces_difficulty=distances,
        )


class _LatentSpaceEstimator(_DistanceEstimator):
    def __init__(self, trainer, train_images=None, k=10, get_latent=LAST_HIDDEN, most=5000, seed=0):
        super().__init__(trainer, LatentSpace(get_latent), train_images, k, most, seed)


class _FeatureSpaceEstimator(_DistanceEstimator):
    def __init__(self, trainer, train_images=None, k=10, most=5000, seed=0):
        super().__init__(trainer, FeatureSpace(), train_images, k, most, seed)


class ConformalPredictionLatentSpace(_LatentSpaceEstimator):
    """Conformal prediction with distances between the outputs of a layer of the networks.

    trainer : trained `AtomsTrainer`; train_images : the frames that it was trained on, None where
        it still has them; k : nearest training points; get_latent : index of the layer in
        `model_net`, the last hidden one by default; most : training frames, and atoms of each
        element, that distances are taken to, drawn at random with `seed` where there are more

    The intervals are those of `ConformalPrediction`.
    """

    def calibrator(self):
        return ConformalPrediction()


class ConformalPredictionFeatureSpace(_FeatureSpaceEstimator):
    """Conformal prediction with distances between scaled fingerprints.

    Parameters as of `ConformalPredictionLatentSpace`, without `get_latent`.
    """

    def calibrator(self):
        return ConformalPrediction()


class NegativeLeastLikelihoodLatentSpace(_LatentSpaceEstimator):
    """A standard deviation linear in the distance between the outputs of a layer of the networks.

    Parameters as of `ConformalPredictionLatentSpace`; quantile : "calibrated" or "normal", see
    `NegativeLeastLikelihoodEstimator`, whose fit and intervals these are.
    """

    def __init__(self, trainer, *args, quantile="calibrated", **kwargs):
        super().__init__(trainer, *args, **kwargs)
        self.quantile = quantile

    def calibrator(self):
        return NegativeLeastLikelihoodEstimator(self.quantile)


class NegativeLeastLikelihoodFeatureSpace(_FeatureSpaceEstimator):
    """A standard deviation linear in the distance between scaled fingerprints.

    Parameters as of `ConformalPredictionFeatureSpace`; quantile : "calibrated" or "normal", see
    `NegativeLeastLikelihoodEstimator`, whose fit and intervals these are.
    """

    def __init__(self, trainer, *args, quantile="calibrated", **kwargs):
        super().__init__(trainer, *args, **kwargs)
        self.quantile = quantile

    def calibrator(self):
        return NegativeLeastLikelihoodEstimator(self.quantile)


class EnsembleSDEstimator(UncertaintyEstimator):
    """The standard deviation of the members of an ensemble, brought to scale: they agree more with
    each other than with the truth, and now and then by chance.

    ensemble : `Ensemble`, or what makes one (trained trainers, or checkpoint folders). For the
        standard deviation s itself see `Ensemble.predict`; here σ = s1 + s2 s by maximum likelihood
        (G. Palmer et al., npj Comput. Mater. 8, 115, 2022), where s of a force is the root of the
        sum over its components; quantile : as of `NegativeLeastLikelihoodEstimator`
    """

    def __init__(self, ensemble, quantile="calibrated"):
        super().__init__(ensemble if isinstance(ensemble, Ensemble) else Ensemble(ensemble))
        self.quantile = quantile

    @classmethod
    def train(cls, config, n_members=5, bootstrap=True):
        """The estimator of an ensemble that is trained for it; see `train_ensemble`."""
        return cls(train_ensemble(config, n_members, bootstrap))

    def calibrator(self):
        return NegativeLeastLikelihoodEstimator(self.quantile)

    def evaluated(self, potential, batch):
        energy, forces, energy_spread, forces_spread = potential.spread(batch)
        counts = batch.frames.counts
        return Observed(
            energy=energy,
            forces=forces,
            numbers=batch.frames.numbers,
            counts=counts,
            energy_difficulty=np.maximum(energy_spread / counts, SMALLEST_SPREAD),
            forces_difficulty=np.maximum(np.linalg.norm(forces_spread, axis=1), SMALLEST_SPREAD),
        )
