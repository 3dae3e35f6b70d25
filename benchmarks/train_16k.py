"""Measure training from a store: time of an epoch and peak memory, against the number of frames.

    python benchmarks/train_16k.py                              # 2,000, 8,000 and 16,000 frames
    python benchmarks/train_16k.py --frames 2000 --epochs 3

Frames of `iron_water`, the standard 36 symmetry functions, networks of 3 x 20 nodes, batches of 16
frames, energies and forces; each row in a process of its own. Memory is without pages of
mapped files. Epochs are timed by skorch's clock; the first also compares checksums. 16,000 frames
take 13 GB in the temporary folder.

The second table compares the memory plan with what was measured: the size of stored derivatives,
and the time by which an epoch is longer where they are recomputed.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from preprocess_16k import alone, make_store
from setups import ELEMENTS, machine, new_trainer, parser_of, significant, table, write

from amptorch.datasets import iron_water
from amptorch.profiling.memory import own_memory
from amptorch.profiling.recorder import Recorder
from amptorch.threads import torch_threads

Run = Mapping[str, Any]  # what `train` returns


def train(store: Path, derivatives: str, epochs: int) -> dict[str, Any]:
    """Train from a store; return seconds, bytes and the memory plan."""
    trainer = new_trainer(
        None,
        dataset__store=str(store),
        dataset__elements=ELEMENTS,
        dataset__derivatives=derivatives,
        dataset__derivative_dtype="float32",
        optim__epochs=epochs,
    )
    recorder = Recorder(own_memory)
    with torch_threads(1), recorder("training"):
        trainer.train()
    result = {
        "frames": len(trainer.train_dataset),
        "derivatives": derivatives,
        "epochs": trainer.net.history[:, "dur"],
        "peak": max(size for _, size, *_ in recorder.curve),
        "plan": dataclasses.asdict(trainer.plan),
    }
    if derivatives == "stored":
        name = trainer.descriptor.descriptor_setup_hash
        result["stored_bytes"] = trainer.train_dataset.store.derivatives(name, "float32").nbytes
    return result


def seconds_an_epoch(run: Run) -> float:
    """Return the median, without the epoch that compares checksums where there are others."""
    return float(np.median(run["epochs"][1:] or run["epochs"]))


def training_table(runs: Sequence[Run]) -> str:
    """Return epochs and memory against the number of frames."""
    rows = []
    for run in sorted(runs, key=lambda run: (run["derivatives"], run["frames"])):
        kind = "stored" if run["derivatives"] == "stored" else "recomputed"
        epoch, n = seconds_an_epoch(run), run["frames"]
        numbers = [epoch, 1e3 * epoch / n, run["peak"] / 1e6]
        rows.append([kind, f"{n:,}", *map(significant, numbers)])
    return table(("derivatives", "frames", "an epoch, s", "ms a frame", "peak memory, MB"), rows)


def plan_table(runs: Sequence[Run]) -> str:
    """Return what the memory plan said and what was measured."""
    rows = []
    for n in sorted({run["frames"] for run in runs}):
        found = {run["derivatives"]: run for run in runs if run["frames"] == n}
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
    return table(("frames", "", "planned", "measured", "planned / measured"), rows)


def main() -> None:
    """Make the stores, train from each, and print the tables."""
    parser = parser_of(__doc__, epochs=2)
    parser.add_argument("--frames", type=int, nargs="+", default=[2000, 8000, 16000])
    options = parser.parse_args()
    described = machine()
    runs: list[Run] = []
    for n_frames in options.frames:
        with tempfile.TemporaryDirectory(prefix="train-16k-") as folder:
            print(f"{n_frames} frames", file=sys.stderr)
            data, store = Path(folder) / "frames.traj", Path(folder) / "store"
            ase.io.write(data, iron_water(n_frames))
            alone(make_store, data, store, True)
            runs += [alone(train, store, kind, options.epochs) for kind in ("recompute", "stored")]
    print(training_table(runs), plan_table(runs), sep="\n\n")
    write(options.json, described, runs=runs)


if __name__ == "__main__":
    main()
