"""How often errors are within the intervals that the uncertainty estimators give.

Trains a potential on some frames of a trajectory, drawn at random, and takes the errors on the
others. These are split into halves at random, many times: one half calibrates, on the other the
share of the errors within the intervals is counted, for energies (a frame each) and forces (an
atom each):

    python benchmarks/calibration.py --data frames.traj

One split has binomial noise in both halves: with n frames each, the standard deviation of the
coverage p is about √(2 p (1 − p) / n), 2.7 points at 90 % and n = 250. So the mean over the splits
is what shows a bias, and the spread is what a single calibration gives. With `--runs` all is
repeated with other training frames and weights, and the means over the runs are given. The last
column is of one split in the order of the trajectory: the first half of the frames held out
calibrates, the second is the test, and nothing makes them exchangeable.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace

os.environ.setdefault("AMPTORCH_NUM_THREADS", "1")

import numpy as np
import torch
from ase.io import read

from amptorch import AtomsTrainer
from amptorch.uncertainty import (
    ConformalPredictionFeatureSpace,
    ConformalPredictionLatentSpace,
    Ensemble,
    EnsembleSDEstimator,
    NegativeLeastLikelihoodFeatureSpace,
    NegativeLeastLikelihoodLatentSpace,
    calibration_plot,
)
from amptorch.uncertainty.calibrators import lengths_of

CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
QUANTITIES = ("energy", "forces")
# Of 1: at which the widths of the intervals are compared.
WIDTH_AT = 0.9


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="trajectory with energies and forces")
    parser.add_argument("--n-train", type=int, default=342, help="frames to train on")
    parser.add_argument("--epochs", type=int, default=30, help="of each training")
    parser.add_argument("--model", choices=("bpnn", "singlenn"), default="bpnn")
    parser.add_argument("--members", type=int, default=3, help="of the ensemble; 0 for none")
    parser.add_argument("--cutoff", type=float, default=6.0, help="Å")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", help="PNG of coverage against confidence, of the last run")
    return parser.parse_args()


def train(images, options, seed):
    trainer = AtomsTrainer(
        {
            "model": {
                "name": options.model,
                "hidden_layers": [20, 20],
                "initialization": "small",
                "get_forces": True,
            },
            "optim": {
                "optimizer": "adam",
                "lr": 1e-2,
                "scheduler": {"policy": "CosineAnnealingLR", "params": {"T_max": options.epochs}},
                "epochs": options.epochs,
                "batch_size": 8,
                "force_coefficient": 100.0,
            },
            "dataset": {
                "raw_data": images,
                "fp_scheme": "gaussian",
                "fp_params": {
                    "default": {
                        "cutoff": options.cutoff,
                        "G2": {"etas": np.geomspace(0.5, 80, 6), "rs_s": [0.0]},
                        "G4": {"etas": [0.5], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
                    }
                },
                "scaling": {"type": "standardize"},
            },
            "cmd": {"debug": True, "verbose": False, "seed": seed},
        }
    )
    trainer.train()
    return trainer


def estimators_of(trainer, members):
    """{name: estimator}, not calibrated yet."""
    estimators = {
        "conformal, latent": ConformalPredictionLatentSpace(trainer),
        "conformal, features": ConformalPredictionFeatureSpace(trainer),
    }
    for quantile in ("calibrated", "normal"):
        for space, estimator in (
            ("latent", NegativeLeastLikelihoodLatentSpace),
            ("features", NegativeLeastLikelihoodFeatureSpace),
        ):
            estimators[f"NLL, {space}, {quantile}"] = estimator(trainer, quantile=quantile)
    if members:
        estimators["ensemble"] = EnsembleSDEstimator(Ensemble([trainer, *members]))
    return estimators


def coverage(estimator, calibration, test):
    """{quantity: ((confidences,) shares within, mean half width at WIDTH_AT)}."""
    estimator.calibrate(calibration)
    found = {quantity: ([], []) for quantity in QUANTITIES}
    lengths = lengths_of(test.energy_errors)[0], lengths_of(test.forces_errors)[0]
    for confidence in CONFIDENCES:
        widths = estimator.half_widths(test, confidence)
        for quantity, length, width in zip(QUANTITIES, lengths, widths, strict=True):
            found[quantity][0].append(np.mean(length <= width))
            if confidence == WIDTH_AT:
                found[quantity][1].append(np.mean(width))
    return found


def constant(observed):
    """The same where nothing is known of the difficulty: intervals of one width."""
    return replace(
        observed,
        energy_difficulty=np.ones_like(observed.energy_difficulty),
        forces_difficulty=np.ones_like(observed.forces_difficulty),
    )


def measure(estimator, observed, splits, seed):
    """{quantity: (splits, confidences + 1)}: coverage, and half width, for random halves."""
    rng = np.random.default_rng(seed)
    rows = {quantity: [] for quantity in QUANTITIES}
    n_frames = len(observed.counts)
    for _ in range(splits):
        order = rng.permutation(n_frames)
        halves = (observed.select(half) for half in np.array_split(order, 2))
        for quantity, (shares, widths) in coverage(estimator, *halves).items():
            rows[quantity].append([*shares, *widths])
    return {quantity: np.array(values) for quantity, values in rows.items()}


def in_order(estimator, observed):
    """`coverage` where the first half of the trajectory calibrates and the second is the test."""
    halves = np.array_split(np.arange(len(observed.counts)), 2)
    return coverage(estimator, *(observed.select(half) for half in halves))


def run(images, options, seed):
    """({(estimator, quantity): (splits, confidences + 1)}, the same in order, {estimator: metrics
    of one split}) of one potential."""
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.sort(order[: options.n_train]), np.sort(order[options.n_train :])
    training, held_out = ([images[k] for k in part] for part in parts)
    start = time.perf_counter()
    trainer = train(training, options, seed)
    seconds = time.perf_counter() - start
    members = [train(training, options, 1000 * (seed + 1) + k) for k in range(1, options.members)]
    found, ordered, metrics = {}, {}, {}

    def add(name, estimator, observed):
        half = np.array_split(np.random.default_rng(seed).permutation(len(held_out)), 2)
        estimator.calibrate(observed.select(half[0]))
        metrics[name] = estimator.metrics_of(observed.select(half[1]))
        second = in_order(estimator, observed)
        for quantity, rows in measure(estimator, observed, options.splits, seed).items():
            found[name, quantity], ordered[name, quantity] = rows, second[quantity][0]

    for name, estimator in estimators_of(trainer, members).items():
        observed = estimator.observe(held_out)
        if not found:
            print(f"run {seed}: trained in {seconds:.0f} s; {errors_text(observed)}", flush=True)
            add("one width", estimator, constant(observed))
        add(name, estimator, observed)
    if options.plot:
        shown = {
            f"{name}, {quantity}": metrics[name][quantity]
            for name in metrics
            for quantity in QUANTITIES
            if "normal" not in name and name != "one width"
        }
        calibration_plot(options.plot, shown)
    return found, ordered, metrics


def errors_text(observed):
    energy = 1000 * np.sqrt(np.mean(observed.energy_errors**2))
    forces = np.sqrt(np.mean(observed.forces_errors**2))
    return (
        f"{len(observed.counts)} frames held out, RMSE {energy:.2f} meV/atom and {forces:.3f} eV/Å"
    )


def report(runs, quantity):
    """Text of a table: mean coverage over runs and splits ± the spread over the splits, in %."""
    names = [name for name, which in runs[0][0] if which == quantity]
    unit, scale = ("meV/atom", 1000) if quantity == "energy" else ("eV/Å", 1)
    heads = [f"{100 * c:g} %" for c in CONFIDENCES]
    lines = [[f"{quantity}: coverage", *heads, f"half width ({unit})", "ρ", "in order, 90 %"]]
    for name in names:
        rows = np.array([found[name, quantity] for found, _, _ in runs])
        means, spread = 100 * rows.mean(axis=(0, 1)), 100 * rows.std(axis=1).mean(axis=0)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(means[:-1], spread[:-1], strict=True)]
        ranks = [metrics[name][quantity]["rank_correlation"] for _, _, metrics in runs]
        ordered = [o[name, quantity][CONFIDENCES.index(WIDTH_AT)] for _, o, _ in runs]
        cells += [f"{scale * rows[..., -1].mean():.3g}", f"{np.mean(ranks):.2f}"]
        lines.append([name, *cells, f"{100 * np.mean(ordered):.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main():
    options = parse_arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*errors are too few.*")
    images = read(options.data, ":")
    runs = [run(images, options, options.seed + k) for k in range(options.runs)]
    for quantity in QUANTITIES:
        print(f"\n{report(runs, quantity)}")


if __name__ == "__main__":
    main()
