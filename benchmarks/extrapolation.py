"""Measure which distance from the training atoms finds the atoms with large force errors.

    python benchmarks/extrapolation.py water=cold.traj,hot.traj --seconds 180 --members 2

trains a potential on the frames of the first file with the recommended values, for so many
seconds, predicts those of the second, and gives for each score of an atom the area under the ROC
curve (AUC): the chance that an atom whose force error is above three times the median has a higher
score than one whose error is not. 0.5 is no better than chance. With `--members` there is an
ensemble too, the first member of which is asked for all other scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from setups import machine, parser_of, table, write
from sklearn.metrics import RocCurveDisplay

import amptorch
from amptorch.data.domain import Domain
from amptorch.frames import Frames, read_images
from amptorch.metrics import error_statistics
from amptorch.uncertainty.distances import NearestTraining
from amptorch.uncertainty.points import LAST_HIDDEN, FeatureSpace, training_points

# Times the median: a force error that is large.
LARGE = 3.0


def scores(models: list[Any], train: str, test: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the force errors (n,) of the test atoms, eV/Å, and {name: scores (n,)}."""
    potential, images = models[0], read_images(test)
    frames = Frames.from_atoms(images, potential.elements, energies=True, forces=True)
    predicted = np.concatenate(potential.predict(images)["forces"])
    errors = np.linalg.norm(predicted - frames.forces, axis=1)
    batch = potential.batch(frames)
    of_training = potential.batch(Frames.from_atoms(read_images(train), potential.elements))
    known, numbers = potential.extrapolation(batch), of_training.atomic_numbers.numpy()
    # The same distance without taking off the mean: that of each atom and its opposite is zero.
    values = of_training.values
    from_zero = Domain.fitted(lambda: [(values, numbers), (-values, numbers)])
    latent = Domain.fitted(lambda: [(potential.latent(of_training, LAST_HIDDEN), numbers)])
    last_layer = potential.latent(batch, LAST_HIDDEN)
    space, nearest = FeatureSpace(), np.zeros(len(errors))
    rows = space(potential, batch)
    for number, points in training_points(potential, space, train)[1].items():
        own = frames.numbers == number
        search = NearestTraining(points)
        # In units of its own, so that elements can be compared.
        nearest[own] = search.distances(rows[own]) / search.least
    result: dict[str, Any] = {
        "functions out of range": known.outside,
        "excess over the range": known.excess,
        "distance (Mahalanobis)": known.distance,
        "leverage (D-optimality)": from_zero.measure(batch.values, frames.numbers).distance,
        "the same distance in the last layer": latent.measure(last_layer, frames.numbers).distance,
        "10 nearest training atoms": nearest,
        "length of the predicted force": np.linalg.norm(predicted, axis=1),
    }
    if len(models) > 1:
        spread = amptorch.Ensemble(models).predict(images)["forces_uncertainty"]
        result["spread of the ensemble"] = np.linalg.norm(np.concatenate(spread), axis=1)
    return errors, result


def main() -> None:
    """Measure, print a table and draw."""
    parser = parser_of(__doc__, seconds=180, members=1)
    parser.add_argument("sets", nargs="+", help="NAME=TRAIN,TEST: files of frames with forces")
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    options = parser.parse_args()
    sets: dict[str, Any] = {}
    figure = Figure(figsize=(3.4 * len(options.sets), 3.6), layout="constrained")
    every_axes = figure.subplots(1, len(options.sets), squeeze=False)[0]
    for text, axes in zip(options.sets, every_axes, strict=True):
        name, _, files = text.partition("=")
        train, test = files.split(",")
        models = []
        for seed in range(options.members):
            config = {"cmd": {"seed": seed}, "dataset": {"missing_forces": "ignore"}}
            models.append(amptorch.train(train, options.seconds, config=config, verbose=False))
        errors, found = scores(models, train, test)
        large = errors > LARGE * np.median(errors)
        auc = {}
        for score, values in found.items():
            curve = RocCurveDisplay.from_predictions(large, values, ax=axes, name=score)
            auc[score] = float(curve.roc_auc)
        axes.set(title=name, xlabel="of the other atoms", ylabel="of those with large errors")
        axes.legend(fontsize=5, loc="lower right", frameon=False)
        sets[name] = {
            "atoms": len(errors),
            "large": int(large.sum()),
            **error_statistics(errors),
            "auc": auc,
        }
        print(name, sets[name], flush=True)
    names = next(iter(sets.values()))["auc"]
    rows = [[score, *(f"{one['auc'][score]:.2f}" for one in sets.values())] for score in names]
    print(table(("score", *sets), rows))
    if options.plot is not None:
        figure.savefig(options.plot)
    write(options.json, machine(), sets=sets)


if __name__ == "__main__":
    main()
