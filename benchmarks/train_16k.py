"""Training from a packed store: time of an epoch and peak memory, against the number of frames.

    python benchmarks/train_16k.py                              # 2,000, 8,000 and 16,000 frames
    python benchmarks/train_16k.py --frames 2000 --epochs 3
    python benchmarks/train_16k.py --store DIR --derivatives stored   # of a store that is there
    python benchmarks/train_16k.py --frames 16000 --epochs 5 --out DIR   # with log and memory curve

Frames of `iron_water`, 35 to 164 atoms, with the standard set-up of 36 symmetry functions; networks
of 3 x 20 nodes, batches of 16 frames, energies and forces. Each row is a process of its own. Memory
is what the process holds for itself (RssAnon and RssShmem of /proc/self/status, sampled; pages of
mapped files belong to the page cache). Epochs are timed by skorch's clock; the first also compares
checksums. 16,000 frames take 13 GB in the temporary folder.

The second table compares the memory plan with what was measured: the size of stored derivatives,
and the time by which an epoch is longer where they are recomputed. `--out` also gets all numbers as
results.json, the log of each training, and their memory over time as memory.svg.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from setups import functions

ELEMENTS = ["Fe", "H", "O"]
BACK_ENDS = ("recompute", "stored")


def own_memory():
    """Bytes of memory that is this process's own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))


class MemoryCurve(threading.Thread):
    """Samples of `own_memory`, as [(seconds, bytes)]."""

    def __init__(self, interval=0.05):
        super().__init__(daemon=True)
        self.interval = interval
        self.samples = []
        self._done = threading.Event()

    def run(self):
        start = time.perf_counter()
        while not self._done.wait(self.interval):
            self.samples.append((time.perf_counter() - start, own_memory()))

    def stop(self):
        self._done.set()
        self.join()
        return max(size for _, size in self.samples)

    def coarse(self, n=100):
        """At most `n` of the samples, each the largest of those that it stands for."""
        parts = np.array_split(np.array(self.samples), min(n, len(self.samples)))
        return [part[np.argmax(part[:, 1])].tolist() for part in parts]


def make_store(n_frames, folder, derivatives):
    """A store of `n_frames` generated frames; returns its path."""
    from ase.io import Trajectory

    from amptorch.datasets import iter_iron_water
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.store import preprocess

    data, store = folder / f"{n_frames}.traj", folder / f"{n_frames}.store"
    with Trajectory(data, "w") as trajectory:
        for atoms in iter_iron_water(n_frames):
            trajectory.write(atoms)
    preprocess(
        data,
        Gaussian(functions(), ELEMENTS),
        store,
        derivatives="stored" if "stored" in derivatives else None,
        derivative_dtype="float32",
        verbose=sys.stderr.isatty(),
    )
    return store


def train(options):
    """Train from the store `options.store` and print what it took as JSON."""
    import torch

    from amptorch import AtomsTrainer

    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    (derivatives,) = options.derivatives
    trainer = AtomsTrainer(
        {
            "model": {"num_layers": 3, "num_nodes": 20, "get_forces": True},
            "optim": {
                "lr": 1e-3,
                "batch_size": 16,
                "force_coefficient": 10,
                "force_fraction": options.force_fraction,
                "epochs": options.epochs,
            },
            "dataset": {
                "store": str(options.store),
                "elements": ELEMENTS,
                "fp_scheme": "gaussian",
                "fp_params": functions(),
                "derivatives": derivatives,
                "derivative_dtype": "float32",
            },
            "cmd": {"debug": True},
        }
    )
    curve = MemoryCurve()
    curve.start()
    start = time.perf_counter()
    trainer.load()
    loaded = time.perf_counter()
    cpu = time.process_time()
    trainer.train()
    cpu = time.process_time() - cpu
    result = {
        "frames": len(trainer.train_dataset),
        "derivatives": derivatives,
        "load": loaded - start,
        "epochs": trainer.net.history[:, "dur"],
        "cpu": cpu / options.epochs,
        "loss": trainer.net.history[:, "train_loss"],
        "peak": curve.stop(),
        "curve": curve.coarse(),
        "plan": dataclasses.asdict(trainer.plan),
        "torch_threads": torch.get_num_threads(),
    }
    if derivatives == "stored":
        kept = trainer.train_dataset.store.derivatives(
            trainer.descriptor.descriptor_setup_hash, "float32"
        )
        result["stored_bytes"] = kept.nbytes
    print(json.dumps(result))


def measure(store, derivatives, options):
    """What `train` prints, in a process of its own; "log" is what the training printed before."""
    command = [sys.executable, __file__, "--one", "--store", str(store)]
    command += ["--derivatives", derivatives, "--epochs", str(options.epochs)]
    command += ["--force-fraction", str(options.force_fraction)]
    command += ["--torch-threads", str(options.torch_threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    *log, result = done.stdout.splitlines()
    return {**json.loads(result), "log": "\n".join(log)}


def table(results):
    header = ("frames", "derivatives", "load s", "epochs s", "ms a frame", "CPU ms", "peak GB")
    lines = [header, ["---:"] * len(header)]
    for result in results:
        n, epoch = result["frames"], seconds_an_epoch(result)
        lines.append(
            [
                str(n),
                result["derivatives"],
                f"{result['load']:.1f}",
                " ".join(f"{seconds:.1f}" for seconds in result["epochs"]),
                f"{1000 * epoch / n:.2f}",
                f"{1000 * result['cpu'] / n:.2f}",
                f"{result['peak'] / 1e9:.2f}",
            ]
        )
    return as_text(lines)


def as_text(lines):
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds_an_epoch(result):
    """Median, without the epoch that compares checksums where there are others."""
    return float(np.median(result["epochs"][1:] or result["epochs"]))


def plan_rows(results):
    """[(frames, what, planned, measured)] for data sets that were trained on in both ways."""
    found_rows = []
    for n in sorted({result["frames"] for result in results}):
        found = {r["derivatives"]: r for r in results if r["frames"] == n}
        if len(found) < 2:
            continue
        plans = [result["plan"] for result in found.values()]
        size = np.mean([plan["stored_bytes"] for plan in plans])
        longer = np.mean([plan["recomputing"] - plan["reading"] for plan in plans])
        kept = found["stored"]["stored_bytes"]
        extra = seconds_an_epoch(found["recompute"]) - seconds_an_epoch(found["stored"])
        found_rows += [
            (n, "stored derivatives, GB", size / 1e9, kept / 1e9),
            (n, "recomputing, s an epoch more", longer, extra),
        ]
    return found_rows


def plan_table(results):
    """The plan against what was measured."""
    header = ("frames", "", "planned", "measured", "planned/measured")
    lines = [header, ["---:"] * len(header)]
    for n, name, planned, measured in plan_rows(results):
        numbers = f"{planned:.2f}", f"{measured:.2f}", f"{planned / measured:.2f}"
        lines.append([str(n), name, *numbers])
    return as_text(lines)


def write(folder, results):
    """results.json, a log for each training, and memory.svg."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        name = f"{result['frames']} frames, {result['derivatives']}"
        log = f"{name}\n\n{result['log']}\n"
        (folder / f"{result['derivatives']}-{result['frames']}.log").write_text(log)
        seconds, sizes = np.array(result["curve"]).T
        axes.plot(seconds, sizes / 1e9, label=name)
    axes.set(xlabel="time (s)", ylabel="memory without page cache (GB)", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.savefig(folder / "memory.svg", metadata={"Date": None})
    (folder / "results.json").write_text(json.dumps(results, indent=1))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[2000, 8000, 16000])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--derivatives", nargs="+", choices=BACK_ENDS, default=BACK_ENDS)
    parser.add_argument("--force-fraction", type=float, default=1.0)
    parser.add_argument("--torch-threads", type=int, default=1, help="0: as torch chooses")
    parser.add_argument("--store", type=Path, help="a store, instead of generated frames")
    parser.add_argument("--keep", type=Path, help="folder where the stores are left")
    parser.add_argument("--json", type=Path, help="where to write everything measured")
    parser.add_argument("--out", type=Path, help="folder for numbers, logs and memory curves")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.one:
        train(options)
        return
    results = []
    if options.store:
        results += [measure(options.store, kind, options) for kind in options.derivatives]
    else:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="train-16k-"))
        folder.mkdir(exist_ok=True)
        try:
            for n_frames in options.frames:
                print(f"preprocessing {n_frames} frames", file=sys.stderr)
                store = make_store(n_frames, folder, options.derivatives)
                results += [measure(store, kind, options) for kind in options.derivatives]
                if not options.keep:
                    shutil.rmtree(store)
        finally:
            if not options.keep:
                shutil.rmtree(folder)
    print(table(results), plan_table(results), sep="\n\n")
    if options.out:
        write(options.out, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
