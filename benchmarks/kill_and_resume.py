"""Kill a training with SIGKILL at random moments, resume it each time, and compare with one that
nothing happened to: every number must be the same, bit for bit. Or do so with preprocessing: every
file of the store must be the same, byte for byte, and none be left over.

    python benchmarks/kill_and_resume.py --kills 20
    python benchmarks/kill_and_resume.py --kills 20 --preprocess

Some of the kills come during start-up, the others while the work is under way; one thread. The
moments are drawn anew each time, unless --seed is given. Exit status 1 where something differs.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from amptorch.dataset import construct_descriptor
from amptorch.datasets import iter_iron_water
from amptorch.store import preprocess
from amptorch.trainer import AtomsTrainer
from amptorch.training.restart import newest_run, newest_state, saved_epochs

FP_PARAMS = {"default": {"cutoff": 4.0, "G2": {"etas": [1.0, 20.0], "rs_s": [0.0]}}}
SHARD = 8


def settings(run_dir, arguments):
    """Dropout, a scheduler and validation, so that all there is to restore is in use."""
    return {
        "model": {"get_forces": True, "num_layers": 2, "num_nodes": 10, "dropout": True},
        "optim": {
            "force_coefficient": 0.3,
            "lr": 1e-2,
            "batch_size": 4,
            "epochs": arguments.epochs,
            "scheduler": {"policy": "ReduceLROnPlateau", "params": {"patience": 3}},
        },
        "dataset": {
            "raw_data": list(iter_iron_water(arguments.frames, seed=0, max_water=3)),
            "store": str(Path(run_dir) / "store") if arguments.store else None,
            "val_split": 0.2,
            "fp_scheme": "gaussian",
            "fp_params": FP_PARAMS,
            "save_fps": False,
            "derivatives": "stored",
        },
        "cmd": {"run_dir": str(run_dir), "seed": 1, "verbose": False, "threads": 1},
    }


def train(run_dir, arguments):
    """A training that goes on where there is one to go on with."""
    torch.set_num_threads(1)
    trainer = AtomsTrainer(settings(run_dir, arguments))
    trainer.train(resume=True)
    return newest_state(trainer.cp_dir)


def make_store(run_dir, arguments):
    """A store, or what is missing of it; gives its files, {path: bytes}."""
    frames = list(iter_iron_water(arguments.frames, seed=0, max_water=3))
    descriptor = construct_descriptor(("gaussian", FP_PARAMS, None, ["Fe", "H", "O"]))
    options = {"derivatives": "stored", "frames_per_shard": SHARD, "threads": 1}
    preprocess(frames, descriptor, run_dir, verbose=False, **options)
    files = [path for path in Path(run_dir).rglob("*") if path.name != ".lock"]
    return {
        str(path.relative_to(run_dir)): path.read_bytes() if path.is_file() else None
        for path in files
    }


def start(run_dir, arguments):
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--run", str(run_dir), "--epochs", str(arguments.epochs)]
    command += ["--frames", str(arguments.frames), *(["--store"] if arguments.store else [])]
    return subprocess.Popen([*command, *(["--preprocess"] if arguments.preprocess else [])])


def done(run_dir, arguments):
    """The last epoch that is complete, or the number of shards; -1 where there is nothing yet."""
    if arguments.preprocess:
        return len(list(run_dir.glob("shards/" + 6 * "[0-9]"))) or -1
    run = newest_run(run_dir)
    return -1 if run is None else max(saved_epochs(run), default=-1)


def kill_and_resume(run_dir, arguments, moments):
    """Kill `arguments.kills` times, at moments spread over the whole work."""
    what, whole = "epoch", arguments.epochs
    if arguments.preprocess:
        what, whole = "shard", arguments.frames // SHARD
    for kill in range(arguments.kills):
        process = start(run_dir, arguments)
        # Up to here it may go; the first kills come before the first epoch.
        goal = whole * kill // arguments.kills
        if arguments.preprocess and goal:
            # Starting takes longer than many shards; it is to be killed at work.
            goal = max(goal, done(run_dir, arguments) + 2)
        while process.poll() is None and done(run_dir, arguments) < goal - 1:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, arguments.spread if goal else 5.0))
        process.send_signal(signal.SIGKILL)
        status = process.wait()
        outcome = "killed" if status == -signal.SIGKILL else f"ended with {status}"
        sys.stdout.write(f"{kill + 1:3d}: {outcome} after {what} {done(run_dir, arguments)}\n")
        sys.stdout.flush()


def differences(one, two):
    """What of two `TrainingState`s, or of the files of two stores, is not the same."""
    if isinstance(one, dict):
        return sorted(name for name in {*one, *two} if one.get(name, 0) != two.get(name, 0))
    histories = [
        [{name: value for name, value in row.items() if name != "dur"} for row in state.history]
        for state in (one, two)
    ]
    pairs = {
        "history": map(json.dumps, histories),
        "parameters": (one.checkpoint.params, two.checkpoint.params),
        "optimizer": (one.optimizer, two.optimizer),
        "random numbers": (one.training["random"], two.training["random"]),
        "best parameters and scores": (
            {name: state for name, state in end.training["callbacks"].items() if "time" not in name}
            for end in (one, two)
        ),
    }
    return [name for name, (first, second) in pairs.items() if not equal(first, second)]


def equal(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--frames", type=int, help="default: 20, of a store 2000")
    parser.add_argument("--spread", type=float, help="s, in which a kill falls: 0.2, or 0.05")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--store", action="store_true", help="train from a packed store")
    parser.add_argument("--preprocess", action="store_true", help="do not train but make a store")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.frames = arguments.frames or (2000 if arguments.preprocess else 20)
    arguments.spread = arguments.spread or (0.05 if arguments.preprocess else 0.2)
    work = make_store if arguments.preprocess else train
    if arguments.run:
        work(arguments.run, arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = work(Path(folder) / "whole", arguments)
        killed = Path(folder) / "killed"
        kill_and_resume(killed, arguments, random.Random(arguments.seed))
        found = differences(whole, work(killed, arguments))
    if found:
        sys.exit(f"different after {arguments.kills} kills: {', '.join(found)}")
    many = f"{arguments.frames} frames" if arguments.preprocess else f"{arguments.epochs} epochs"
    sys.stdout.write(f"{arguments.kills} kills, {many}: the same, bit for bit\n")


if __name__ == "__main__":
    main()
