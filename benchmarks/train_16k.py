"""Training from a packed store: time of an epoch and peak memory, against the number of frames.

    python benchmarks/train_16k.py                              # 2,000, 8,000 and 16,000 frames
    python benchmarks/train_16k.py --frames 2000 --epochs 3
    python benchmarks/train_16k.py --store DIR --derivatives stored   # of a store that is there
    python benchmarks/train_16k.py --frames 16000 --epochs 5 --out DIR   # with logs

Frames of `iron_water`, the standard 36 symmetry functions, networks of 3 x 20 nodes, batches of 16
frames, energies and forces; each row in a process of its own. Memory is without pages of
mapped files. Epochs are timed by skorch's clock; the first also compares checksums. 16,000 frames
take 13 GB in the temporary folder.

The second table compares the memory plan with what was measured: the size of stored derivatives,
and the time by which an epoch is longer where they are recomputed. `--out` gets all numbers as
results.json, memory over time among them, and the log of each training.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import coarse, markdown, memory_curve, parser_of, significant, write
from preprocess_16k import make_store
from setups import ELEMENTS, machine, new_trainer, write_frames

BACK_ENDS = ("recompute", "stored")
Run = Mapping[str, Any]  # what `train` returns


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train from the store `options.store`; return seconds, bytes, losses and the memory plan."""
    import torch

    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    (derivatives,) = options.derivatives
    trainer = new_trainer(
        None,
        dataset__store=str(options.store),
        dataset__elements=ELEMENTS,
        dataset__derivatives=derivatives,
        dataset__derivative_dtype="float32",
        optim__epochs=options.epochs,
        optim__force_fraction=options.force_fraction,
        cmd__verbose=True,
    )
    with memory_curve() as curve:
        start = time.perf_counter()
        trainer.load()
        loaded, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        cpu = time.process_time() - cpu
    result = {
        "frames": len(trainer.train_dataset),
        "derivatives": derivatives,
        "load": loaded - start,
        "epochs": trainer.net.history[:, "dur"],
        "cpu": cpu / options.epochs,
        "loss": trainer.net.history[:, "train_loss"],
        "peak": max(size for _, size in curve),
        "curve": coarse(curve),
        "plan": dataclasses.asdict(trainer.plan),
        "torch_threads": torch.get_num_threads(),
    }
    if derivatives == "stored":
        name = trainer.descriptor.descriptor_setup_hash
        result["stored_bytes"] = trainer.train_dataset.store.derivatives(name, "float32").nbytes
    return result


def measure(store: Path, derivatives: str) -> tuple[Run, str]:
    """Return what `train` returns, in a process of its own, and the log of that training."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one"]
    command += ["--store", str(store), "--derivatives", derivatives]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    *log, result = done.stdout.splitlines()
    return json.loads(result), "\n".join(log)


def seconds_an_epoch(run: Run) -> float:
    """Return the median, without the epoch that compares checksums where there are others."""
    return float(np.median(run["epochs"][1:] or run["epochs"]))


def training_table(runs: Sequence[Run]) -> str:
    """Return epochs and memory against the number of frames."""
    header = "| derivatives | frames | an epoch, s | ms a frame | peak memory, MB |"
    rows = []
    for run in sorted(runs, key=lambda run: (run["derivatives"], run["frames"])):
        kind = "stored" if run["derivatives"] == "stored" else "recomputed"
        epoch, n = seconds_an_epoch(run), run["frames"]
        numbers = [epoch, 1e3 * epoch / n, run["peak"] / 1e6]
        rows.append([kind, f"{n:,}", *map(significant, numbers)])
    return markdown(header, 1, rows)


def plan_table(runs: Sequence[Run]) -> str:
    """Return what the memory plan said and what was measured, where both kinds were trained."""
    rows = []
    for n in sorted({run["frames"] for run in runs}):
        found = {run["derivatives"]: run for run in runs if run["frames"] == n}
        if len(found) < 2:
            continue
        plans = [run["plan"] for run in found.values()]
        size = float(np.mean([plan["stored_bytes"] for plan in plans]))
        timed = [plan for plan in plans if plan["recomputing"] is not None]
        longer = float(np.mean([plan["recomputing"] - plan["reading"] for plan in timed]))
        extra = seconds_an_epoch(found["recompute"]) - seconds_an_epoch(found["stored"])
        for what, planned, measured in (
            ("stored derivatives, GB", size / 1e9, found["stored"]["stored_bytes"] / 1e9),
            ("recomputing, s an epoch more", longer, extra),
        ):
            numbers = significant(planned), significant(measured), f"{planned / measured:.2f}"
            rows.append([f"{n:,}", what, *numbers])
    return markdown("| frames | | planned | measured | planned / measured |", 2, rows)


def main() -> None:
    """Make the stores, train from each, and print the tables."""
    arguments = parser_of(__doc__)
    arguments.add_argument("--frames", type=int, nargs="+", default=[2000, 8000, 16000])
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--derivatives", nargs="+", choices=BACK_ENDS, default=BACK_ENDS)
    arguments.add_argument("--force-fraction", type=float, default=1.0)
    arguments.add_argument("--torch-threads", type=int, default=1, help="0: as torch chooses")
    arguments.add_argument("--store", type=Path, help="a store, instead of generated frames")
    arguments.add_argument("--keep", type=Path, help="folder where the stores are left")
    arguments.add_argument("--out", type=Path, help="folder for numbers and logs")
    arguments.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(train(options)))
        return
    described = machine()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="train-16k-") as scratch:
        folder = options.keep or Path(scratch)
        for n_frames in [None] if options.store else options.frames:
            store = options.store or folder / f"{n_frames}.store"
            if n_frames is not None:
                print(f"preprocessing {n_frames} frames", file=sys.stderr)
                folder.mkdir(exist_ok=True)
                data = folder / f"{n_frames}.traj"
                write_frames(data, n_frames)
                make_store(data, store, "stored" in options.derivatives)
            for kind in options.derivatives:
                run, log = measure(store, kind)
                runs.append(run)
                if options.out:
                    options.out.mkdir(parents=True, exist_ok=True)
                    path = options.out / f"{kind}-{run['frames']}.log"
                    path.write_text(f"{run['frames']} frames, {kind}\n\n{log}\n")
            if n_frames is not None and not options.keep:
                shutil.rmtree(store)
    print(training_table(runs), plan_table(runs), sep="\n\n")
    write(options.json, described, runs=runs)
    if options.out:
        write(options.out / "results.json", described, runs=runs)


if __name__ == "__main__":
    main()
