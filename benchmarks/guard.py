"""Compares the speed of two commits; fails where the second is slower by more than a margin.

    python benchmarks/guard.py main~5 main
    python benchmarks/guard.py main~5 main --margin 0.05 --rows derivatives epoch

Both are unpacked and measured by the stages of this checkout, with one thread, the same interpreter
and kernels compiled anew. A round is one measurement of each, in random order; there are `--rounds`
in each of `--processes` pairs of processes, as things lie in other places of memory in each.

The speed of B relative to A is exp(median of log(t_A / t_B)) over all rounds; no absolute time is
used. Its 99 % interval comes from a bootstrap: rounds are drawn with replacement within each pair
of processes, 2,000 times. A row fails if the whole interval lies below 1 - margin and the median of
every pair of processes does, so that neither a noisy machine nor one unlucky process fails it. The
exit status is 1 if a row fails, 2 if nothing can be measured.
"""

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from remote import Remote, RemoteError, remote_of
from setups import iron_water_frames, machine, milliseconds, parser_of, table, write

ROOT = Path(__file__).parents[1]
SHORTEST = 0.02  # seconds; what is shorter is repeated within a measurement
RESAMPLED = 2000

BACKWARD, RECOMPUTE = {"direction": "backward"}, {"backend": "recompute"}
# {row: (function of `stages`, atoms of a frame, number of frames, options)}
ROWS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "neighbors, 164 atoms": ("neighbors", 164, 8, {}),
    "fingerprints, 35 atoms": ("fingerprints", 35, 8, {}),
    "fingerprints, 164 atoms": ("fingerprints", 164, 4, {}),
    "derivatives, 35 atoms": ("derivatives", 35, 8, {}),
    "derivatives, 164 atoms": ("derivatives", 164, 4, {}),
    "prepare_fingerprints, 164 atoms": ("values_and_derivatives", 164, 2, {}),
    "contraction forward, stored, 164 atoms": ("contraction", 164, 8, {}),
    "contraction backward, stored, 164 atoms": ("contraction", 164, 8, BACKWARD),
    "contraction forward, recompute, 164 atoms": ("contraction", 164, 8, RECOMPUTE),
    "contraction backward, recompute, 164 atoms": ("contraction", 164, 8, BACKWARD | RECOMPUTE),
    "scale, 164 atoms": ("scale", 164, 16, {}),
    "batch, 164 atoms": ("batch", 164, 16, {}),
    "epoch, 35 atoms": ("epoch", 35, 32, {}),
    "epoch, 164 atoms": ("epoch", 164, 16, {}),
    "prediction, 164 atoms": ("prediction", 164, 4, {}),
    "dynamics step, 164 atoms": ("calculator_step", 164, 2, {}),
    "reading derivatives, 164 atoms": ("reading", 164, 16, {"what": "derivatives"}),
}


def unpack(commit: str, folder: Path) -> Path:
    """Write the files of a commit to a new folder, which is returned."""
    folder.mkdir()
    command = ["git", "archive", f"{commit}^{{commit}}"]
    files = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
    return folder


def measure(row: str, remotes: Sequence[Remote], rounds: int) -> np.ndarray:
    """Return (2, rounds) seconds a frame of A and of B, in turn and in random order.

    RemoteError where one of them cannot do the stage.
    """
    stage, atoms, n_frames, options = ROWS[row]
    images = iron_water_frames(atoms, n_frames)
    for remote in remotes:
        remote.prepare(stage, images, **options)
    longest = n_frames * max(min(remote.seconds(3)) for remote in remotes)
    repeats = max(1, round(SHORTEST / longest))
    seconds = np.empty((2, rounds))
    for k in range(rounds):
        for which in random.sample((0, 1), 2):
            seconds[which, k] = np.mean(remotes[which].seconds(repeats))
    return seconds


def speed(log_ratios: Sequence[np.ndarray]) -> tuple[float, float, float, list[float]]:
    """Return the speed of B relative to A, both ends of its interval, and medians of the pairs.

    log_ratios : one array of log(t_A / t_B) for each pair of processes
    """
    rng = np.random.default_rng(0)
    drawn = np.concatenate(
        [rng.choice(ratios, (RESAMPLED, len(ratios))) for ratios in log_ratios], axis=1
    )
    low, high = np.percentile(np.median(drawn, axis=1), (0.5, 99.5))
    pairs = [float(np.exp(np.median(ratios))) for ratios in log_ratios]
    middle = np.median(np.concatenate(log_ratios))
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high)), pairs


def slower(log_ratios: Sequence[np.ndarray], margin: float) -> bool:
    """Check if B is slower than A by more than `margin`, beyond noise."""
    _, _, high, pairs = speed(log_ratios)
    return high < 1 - margin and max(pairs) < 1 - margin


def compare(options: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Measure in pairs of processes; return {row: [(2, rounds) seconds of each pair]}, without rows
    that a commit cannot do."""
    results: dict[str, list[np.ndarray]] = {row: [] for row in options.rows}
    with tempfile.TemporaryDirectory(prefix="amptorch-guard-") as scratch:
        commits = enumerate(dict.fromkeys(options.commits))
        folders = {c: unpack(c, Path(scratch).resolve() / str(k)) for k, c in commits}
        for _ in range(options.processes):
            with contextlib.ExitStack() as pair:
                remotes: list[Remote] = []
                for folder in map(folders.__getitem__, options.commits):
                    remotes.append(remote_of(folder, {"NUMBA_CACHE_DIR": str(folder / "compiled")}))
                    pair.callback(remotes[-1].close)
                for row in list(results):
                    print(row, file=sys.stderr)
                    try:
                        results[row].append(measure(row, remotes, options.rounds))
                    except RemoteError as error:
                        print(f"not measured: {row}: {error}")
                        del results[row]
    return results


def parse_arguments() -> argparse.Namespace:
    """Read the command line; rows become names of ROWS."""
    parser = parser_of(__doc__, processes=3, rounds=10)
    parser.add_argument("commits", nargs=2, metavar="COMMIT", help="A, and B which may be slower")
    parser.add_argument("--margin", type=float, default=0.1, help="of speed (default 0.1)")
    parser.add_argument("--rows", nargs="+", metavar="TEXT", default=[""], help="with it in a name")
    options = parser.parse_args()
    if not 0 < options.margin < 1 or min(options.processes, options.rounds) < 1:
        parser.error("--margin must be between 0 and 1, --processes and --rounds at least 1")
    options.rows = [row for row in ROWS if any(text in row for text in options.rows)]
    if not options.rows:
        parser.error("no row has such a name; the rows are: " + "; ".join(ROWS))
    return options


def main() -> None:
    """Print a table; exit with 1 if a row fails, 2 if nothing can be measured."""
    options = parse_arguments()
    try:
        results = compare(options)
    except (RemoteError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    lines, failed = [], False
    for row, found in results.items():
        log_ratios = [np.log(a / b) for a, b in found]
        middle, low, high, pairs = speed(log_ratios)
        bad = slower(log_ratios, options.margin)
        failed |= bad
        times = map(milliseconds, np.median(np.concatenate(found, axis=1), axis=1))
        spread = " ".join(f"{value:.2f}" for value in pairs)
        speeds = f"{middle:.3f}", f"{low:.2f}-{high:.2f}", spread
        lines.append([row, *times, *speeds, "SLOWER" if bad else "ok"])
    print(table(("ms a frame", "A", "B", "speed B / A", "99 %", "pairs", "result"), lines))
    seconds = {row: [pair.tolist() for pair in found] for row, found in results.items()}
    write(options.json, machine(), rows=seconds)
    sys.exit(2 if not results else failed)


if __name__ == "__main__":
    main()
