"""Measure which distance from the training atoms finds the atoms with large force errors.

    python benchmarks/extrapolation.py water=cold.traj,hot.traj --seconds 180 --members 2

trains a potential on the frames of the first file with the recommended values, for so many
seconds, predicts those of the second, and gives for each score of an atom the area under the ROC
curve (AUC): the chance that an atom whose force error is above three times the median has a higher
score than one whose error is not. 0.5 is no better than chance. With `--members` there is an
ensemble too, the first member of which is asked for all other scores. `--keep FOLDER` keeps
potentials, or takes those there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import markdown, parser_of, write
from setups import machine

# Times the median: a force error that is large.
LARGE = 3.0
# Of a curve that is drawn.
POINTS = 150


def potentials(train: str, seconds: float, members: int, folder: Path | None) -> list[Any]:
    """Train, or load, the members."""
    import amptorch

    found = []
    for seed in range(members):
        place = None if folder is None else folder / f"member-{seed}"
        if place is not None and (place / "params.pt").is_file():
            found.append(amptorch.load(place))
            continue
        config = {"cmd": {"seed": seed}, "dataset": {"missing_forces": "ignore"}}
        found.append(amptorch.train(train, seconds, config=config, verbose=False))
        if place is not None:
            found[-1].save(place)
    return found


def scores(models: list[Any], train: str, test: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the force errors (n,) of the test atoms, eV/Å, and {name: (scores (n,), seconds)}."""
    import amptorch
    from amptorch.data.domain import Domain
    from amptorch.frames import Frames, read_images
    from amptorch.uncertainty.distances import NearestTraining
    from amptorch.uncertainty.points import LAST_HIDDEN, FeatureSpace, training_points

    potential, images = models[0], read_images(test)
    frames = Frames.from_atoms(images, potential.elements, energies=True, forces=True)
    found = potential.predict(images, extrapolation=True)
    predicted = np.concatenate(found["forces"])
    errors = np.linalg.norm(predicted - frames.forces, axis=1)
    batch = potential.batch(frames)
    of_training = potential.batch(Frames.from_atoms(read_images(train), potential.elements))
    start = time.process_time()
    known = potential.extrapolation(batch)
    took = time.process_time() - start
    result: dict[str, Any] = {
        "functions out of range": (known.outside, took),
        "excess over the range": (known.excess, took),
        "distance (Mahalanobis)": (known.distance, took),
        "leverage (D-optimality)": (leverages(of_training, batch), took),
    }
    numbers = of_training.atomic_numbers.numpy()
    latent = Domain.fitted(lambda: [(potential.latent(of_training, LAST_HIDDEN), numbers)])
    start = time.process_time()
    distance = latent.measure(potential.latent(batch, LAST_HIDDEN), frames.numbers).distance
    result["the same distance in the last layer"] = distance, time.process_time() - start
    space, nearest = FeatureSpace(), np.zeros(len(errors))
    _, atoms = training_points(potential, space, train)
    start = time.process_time()
    rows = space(potential, batch)
    for number, points in atoms.items():
        own = frames.numbers == number
        search = NearestTraining(points)
        # In units of its own, so that elements can be compared.
        nearest[own] = search.distances(rows[own]) / search.least
    result["10 nearest training atoms"] = nearest, time.process_time() - start
    result["length of the predicted force"] = np.linalg.norm(predicted, axis=1), 0.0
    if len(models) > 1:
        start = time.process_time()
        spread = amptorch.Ensemble(models).predict(images)["forces_uncertainty"]
        took = time.process_time() - start
        result["spread of the ensemble"] = np.linalg.norm(np.concatenate(spread), axis=1), took
    return errors, result


def leverages(of_training: Any, batch: Any) -> np.ndarray:
    """Return √(Gᵀ (Σ G Gᵀ)⁻¹ G) of each atom, over the training atoms of its element, regularised
    and scaled as the Mahalanobis distance is: the same without taking off the mean."""
    from amptorch.data.domain import QUANTILE, RIDGE, lengths

    numbers = of_training.atomic_numbers.numpy()
    found = np.zeros(len(batch.values))
    for number in np.unique(numbers):
        rows = of_training.values[numbers == number]
        scale = np.sqrt((rows**2).mean(axis=0))
        scale = np.maximum(scale, 1e-4 * scale.max())
        moments = rows.T @ rows / len(rows) / np.outer(scale, scale)
        variances, vectors = np.linalg.eigh(moments)
        whitening = vectors / np.sqrt(np.maximum(variances, 0) + RIDGE) / scale[:, None]
        own = np.flatnonzero(batch.atomic_numbers.numpy() == number)
        found[own] = lengths(batch.values[own] @ whitening)
        found[own] /= np.quantile(lengths(rows @ whitening), QUANTILE)
    return found


def draw(path: Path, curves: dict[str, dict[str, Any]]) -> None:
    """Draw the ROC curves of all sets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(curves), 3.6), layout="constrained")
    for axes, (name, found) in zip(
        np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True
    ):
        axes.axline((0, 0), slope=1, color="0.7", lw=0.8)
        for k, (score, (wrong, right, area)) in enumerate(found.items()):
            style = "-" if k < 4 else "--"
            some = np.unique(np.linspace(0, len(wrong) - 1, POINTS).astype(int))
            axes.plot(wrong[some], right[some], style, lw=1.2, label=f"{score}: {area:.2f}")
        axes.set(title=name, xlabel="of the other atoms", ylabel="of those with large errors")
        axes.legend(fontsize=5, loc="lower right", frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measure, and print a table."""
    from sklearn.metrics import roc_auc_score, roc_curve

    parser = parser_of(__doc__, seconds=180, members=1)
    parser.add_argument("sets", nargs="+", help="NAME=TRAIN,TEST: files of frames with forces")
    parser.add_argument("--keep", type=Path, help="folder for the potentials")
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    options = parser.parse_args()
    curves: dict[str, dict[str, Any]] = {}
    kept: dict[str, Any] = {}
    for text in options.sets:
        name, _, files = text.partition("=")
        train, test = files.split(",")
        place = None if options.keep is None else options.keep / name
        models = potentials(train, options.seconds, options.members, place)
        errors, found = scores(models, train, test)
        large = errors > LARGE * np.median(errors)
        kept[name] = {"atoms": len(errors), "median": float(np.median(errors))}
        kept[name] |= {"large": int(large.sum()), "rmse": float(np.sqrt((errors**2).mean() / 3))}
        curves[name] = {}
        for score, (values, _) in found.items():
            wrong, right, _ = roc_curve(large, values)
            curves[name][score] = wrong, right, float(roc_auc_score(large, values))
        kept[name]["auc"] = {score: curve[2] for score, curve in curves[name].items()}
        kept[name]["us_per_atom"] = {s: 1e6 * t / len(errors) for s, (_, t) in found.items()}
        print(name, kept[name], flush=True)
    names = list(curves[max(curves, key=lambda name: len(curves[name]))])
    rows = [[s, *(f"{c[s][2]:.2f}" if s in c else "" for c in curves.values())] for s in names]
    print(markdown("| score | " + " | ".join(curves) + " |", 1, rows))
    if options.plot is not None:
        draw(options.plot, curves)
    write(options.json, machine(), sets=kept)


if __name__ == "__main__":
    main()
