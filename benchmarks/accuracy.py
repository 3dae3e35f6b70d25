"""Errors of a potential on frames that it has not seen.

Trains on the first frames of a trajectory, energies and forces, with one thread, and evaluates on
its last frames:

    python benchmarks/accuracy.py --data train.traj --minutes 10

Adam's learning rate falls from `--lr` to a hundredth of it along half a cosine, over the epochs or
over the minutes, whichever end first. The Kalman filter, with smaller networks:

    python benchmarks/accuracy.py --data train.traj --minutes 1 --optimizer ekf \\
        --hidden-layers 20 20 --batch-size 16
"""

import argparse
import os
import time

os.environ.setdefault("AMPTORCH_NUM_THREADS", "1")

import numpy as np
import torch
from ase.io import read

from amptorch import AtomsTrainer
from amptorch.frames import Frames
from amptorch.reports import error_table, prediction_errors


def standard_functions(elements, cutoff):
    """The 36 functions of `standard.py`, for every element."""
    return {
        "default": {
            "cutoff": cutoff,
            "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), 4), "rs_s": [0]},
            "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
        }
    }


def shell_functions(elements, cutoff, shells=8, angular_etas=(1.0, 6.0), zetas=(1.0, 4.0)):
    """Shells of G2 from 0.9 Å to the cutoff, whose width grows with the distance, and short- and
    long-sighted angles."""
    centres = np.geomspace(0.9, 0.8 * cutoff, shells)
    widths = 0.6 * np.gradient(centres)
    pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i:]]
    # In this form of fp_params every eta is in units of 1/Rc².
    rows = [
        {"type": "G2", "element": element, "eta": 0.5 * (cutoff / width) ** 2, "Rs": centre}
        for element in elements
        for centre, width in zip(centres, widths, strict=True)
    ] + [
        {"type": "G4", "elements": pair, "eta": eta, "zeta": zeta, "gamma": gamma}
        for pair in pairs
        for eta in angular_etas
        for zeta in zetas
        for gamma in (1.0, -1.0)
    ]
    return {"cutoff": cutoff, "default": rows}


FUNCTIONS = {"standard": standard_functions, "shells": shell_functions}


def adam(options):
    return {
        "lr": options.lr,
        "scheduler": {"policy": "cosine_time"},
        "optimizer_args": {"weight_decay": options.weight_decay},
    }


OPTIMIZERS = {"adam": adam, "ekf": lambda options: {"optimizer_args": {"precision": "float32"}}}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="trajectory with energies and forces")
    parser.add_argument("--n-train", type=int, default=300, help="first frames, for training")
    parser.add_argument("--n-test", type=int, default=60, help="last frames, for the errors")
    parser.add_argument("--functions", choices=FUNCTIONS, default="shells")
    parser.add_argument("--cutoff", type=float, default=6.0, help="Å")
    parser.add_argument("--hidden-layers", type=int, nargs="+", default=[50, 50])
    parser.add_argument("--activation", default="Tanh", help="class in torch.nn")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, at most")
    parser.add_argument("--epochs", type=int, default=10_000, help="at most")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--lr", type=float, default=4e-3, help="of Adam")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--force-coefficient", type=float, default=500.0)
    parser.add_argument(
        "--output-scale", type=float, default=0.005, help="factor on v1.0's first output weights"
    )
    parser.add_argument("--loss", choices=("mse", "mae"), default="mse")
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--single", action="store_true", help="networks in single precision")
    parser.add_argument("--scaling", choices=("standardize", "normalize"), default="standardize")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_trainer(options, images):
    elements = sorted({symbol for atoms in images for symbol in atoms.symbols})
    return AtomsTrainer(
        {
            "model": {
                "hidden_layers": options.hidden_layers,
                "activation": options.activation,
                "get_forces": True,
            },
            "optim": {
                "optimizer": options.optimizer,
                "max_seconds": 60 * options.minutes,
                "batch_size": options.batch_size,
                "epochs": options.epochs,
                "force_coefficient": options.force_coefficient,
                "loss": options.loss,
                **OPTIMIZERS[options.optimizer](options),
            },
            "dataset": {
                "raw_data": images,
                "elements": elements,
                "fp_scheme": "gaussian",
                "fp_params": FUNCTIONS[options.functions](elements, options.cutoff),
                "scaling": {"type": options.scaling, "range": (-1, 1)},
                "derivative_dtype": "float32",
            },
            "cmd": {
                "debug": True,
                "verbose": False,
                "seed": options.seed,
                "dtype": "float32" if options.single else "float64",
            },
        }
    )


def shrink_output(model, factor):
    """Multiply the weights of the output layers by `factor`.

    As v1.0 draws them, the untrained energies of 164 atoms are wrong by many times the spread of
    the targets, and training has to undo that first.
    """
    with torch.no_grad():
        for network in model.elementwise_models:
            network.model_net[-1].weight.mul_(factor)


def main():
    options = parse_arguments()
    torch.set_num_threads(1)
    images = read(options.data, ":")
    if len(images) < options.n_train + options.n_test:
        raise ValueError(
            f"{options.data} holds {len(images)} frames; {options.n_train} to train and "
            f"{options.n_test} to test are asked for"
        )
    train, test = images[: options.n_train], images[-options.n_test :]
    trainer = make_trainer(options, train)
    start = time.perf_counter()
    trainer.load()
    shrink_output(trainer.model, options.output_scale)
    loaded = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    errors = {
        name: prediction_errors(
            Frames.from_atoms(part, energies=True, forces=True), trainer.predict(part)
        )
        for name, part in {"trained on": train, "not seen": test}.items()
    }
    print(", ".join(f"{name} {value}" for name, value in vars(options).items()))
    epochs = trainer.net.history[:, "dur"]
    print(f"{trainer.descriptor.n_features} functions, fingerprints in {loaded - start:.1f} s")
    print(
        f"{len(epochs)} epochs in {trained - loaded:.0f} s, median of "
        f"{1000 * np.median(epochs) / len(train):.2f} ms a frame"
    )
    print(error_table(errors))


if __name__ == "__main__":
    main()
