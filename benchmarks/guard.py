"""Compares the speed of two commits; fails where the second is slower by more than a margin.

    python benchmarks/guard.py main~5 main
    python benchmarks/guard.py main~5 main --margin 0.05 --rows derivatives epoch

Both commits are unpacked into a temporary folder and measured by the stages of this checkout, in
processes of their own with one thread, the same interpreter, and compiled kernels of their own. A
round is one measurement of each, in random order; rounds are repeated in several pairs of fresh
processes, because where things come to lie in memory differs from process to process.

The speed of B relative to A is exp(median of log(t_A / t_B)) over all rounds; no absolute time is
used. Its 99 % interval comes from a bootstrap: rounds are drawn with replacement within each pair
of processes, 2,000 times. A row fails if the whole interval lies below 1 - margin and the median of
every pair of processes does, so that neither a noisy machine nor one unlucky process fails it. The
exit status is 1 if a row fails, 2 if nothing can be measured.
"""

import argparse
import contextlib
import io
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from remote import Remote, RemoteError
from setups import iron_water_frames
from summary import number, table

ROOT = Path(__file__).parents[1]
SHORTEST = 0.02  # seconds; what is shorter is repeated within a measurement
RESAMPLED = 2000
INTERVAL = (0.5, 99.5)  # percentiles

# {row: (file of stages, stage, atoms of a frame, number of frames, options)}
ROWS = {
    "neighbors, 164 atoms": ("own_stages", "neighbors", 164, 8, {}),
    "fingerprints, 35 atoms": ("own_stages", "fingerprints", 35, 8, {}),
    "fingerprints, 164 atoms": ("own_stages", "fingerprints", 164, 4, {}),
    "derivatives, 35 atoms": ("own_stages", "derivatives", 35, 8, {}),
    "derivatives, 164 atoms": ("own_stages", "derivatives", 164, 4, {}),
    "prepare_fingerprints, 164 atoms": ("public_stages", "values_and_derivatives", 164, 2, {}),
    **{
        f"contraction {direction}, {backend}, 164 atoms": (
            "own_stages",
            "contraction",
            164,
            8,
            {"direction": direction, "backend": backend},
        )
        for backend in ("stored", "recompute")
        for direction in ("forward", "backward")
    },
    "scale, 164 atoms": ("own_stages", "scale", 164, 16, {}),
    "batch, 164 atoms": ("own_stages", "batch", 164, 16, {}),
    "epoch, 35 atoms": ("public_stages", "epoch", 35, 32, {}),
    "epoch, 164 atoms": ("public_stages", "epoch", 164, 16, {}),
    "prediction, 164 atoms": ("public_stages", "prediction", 164, 4, {}),
    "dynamics step, 164 atoms": ("public_stages", "calculator_step", 164, 2, {}),
    "reading derivatives, 164 atoms": ("own_stages", "reading", 164, 16, {"what": "derivatives"}),
}


def unpack(commit, folder):
    """The files of a commit, in `folder`; ValueError where there is no such commit."""
    done = subprocess.run(
        ["git", "archive", "--format=tar", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{commit!r} is no commit here: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def measure(row, remotes, rounds):
    """(2, rounds) seconds a frame of A and of B, in turn and in random order.

    RemoteError where one of them cannot do the stage.
    """
    module, stage, atoms, n_frames, options = ROWS[row]
    images = iron_water_frames(atoms, n_frames)
    longest = 0.0
    for remote in remotes:
        remote.prepare(module, stage, images, **options)
        longest = max(longest, min(remote.seconds(3)) * n_frames)
    repeats = max(1, round(SHORTEST / longest))
    seconds = np.empty((2, rounds))
    for k in range(rounds):
        for which in random.sample((0, 1), 2):
            seconds[which, k] = np.mean(remotes[which].seconds(repeats))
    return seconds


def speed(log_ratios):
    """(speed of B relative to A, lower and upper end of its interval, medians of the pairs).

    log_ratios : one array of log(t_A / t_B) for each pair of processes
    """
    rng = np.random.default_rng(0)
    drawn = np.concatenate(
        [rng.choice(ratios, (RESAMPLED, len(ratios))) for ratios in log_ratios], axis=1
    )
    low, high = np.percentile(np.median(drawn, axis=1), INTERVAL)
    pairs = [float(np.exp(np.median(ratios))) for ratios in log_ratios]
    middle = np.median(np.concatenate(log_ratios))
    return (*(float(np.exp(value)) for value in (middle, low, high)), pairs)


def slower(log_ratios, margin):
    """Whether B is slower than A by more than `margin`, beyond noise."""
    _, _, high, pairs = speed(log_ratios)
    return high < 1 - margin and max(pairs) < 1 - margin


def remote_of(commit, folder):
    """A process that measures the commit unpacked in `folder`; RemoteError where it does not."""
    environment = {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "compiled")}
    remote = Remote(sys.executable, environment)
    if not Path(remote.about["path"]).is_relative_to(folder):
        remote.close()
        raise RemoteError(f"{commit} is not what is imported, but {remote.about['path']}")
    return remote


def compare(commits, rows, processes, rounds):
    """({row: [(2, rounds) seconds of each pair of processes]}, {row: why it was not measured})."""
    results, missing = {row: [] for row in rows}, {}
    with contextlib.ExitStack() as stack:
        folders = []
        for commit in commits:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="amptorch-guard-"))
            folders.append(Path(folder).resolve())
            unpack(commit, folder)
        for _ in range(processes):
            with contextlib.ExitStack() as pair:
                remotes = []
                for commit, folder in zip(commits, folders, strict=True):
                    remotes.append(remote_of(commit, folder))
                    pair.callback(remotes[-1].close)
                for row in [row for row in rows if row not in missing]:
                    print(row, file=sys.stderr)
                    try:
                        results[row].append(measure(row, remotes, rounds))
                    except RemoteError as error:
                        missing[row] = str(error)
    return {row: found for row, found in results.items() if row not in missing}, missing


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs=2, metavar="COMMIT", help="A, and B which may be slower")
    parser.add_argument("--margin", type=float, default=0.1, help="of speed (default 0.1)")
    parser.add_argument(
        "--rows", nargs="+", metavar="TEXT", help="rows whose name has one of these"
    )
    parser.add_argument("--processes", type=int, default=3, help="pairs of them (default 3)")
    parser.add_argument("--rounds", type=int, default=10, help="in each pair (default 10)")
    options = parser.parse_args()
    if not 0 < options.margin < 1:
        parser.error(f"the margin must be between 0 and 1, got {options.margin}")
    if min(options.processes, options.rounds) < 1:
        parser.error("at least one pair of processes and one round are needed")
    options.rows = [
        row for row in ROWS if any(text in row for text in options.rows or [""])
    ] or parser.error("no row has such a name; the rows are: " + "; ".join(ROWS))
    return options


def main():
    options = parse_arguments()
    try:
        results, missing = compare(options.commits, options.rows, options.processes, options.rounds)
    except (RemoteError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    lines, failed = [], False
    for row, found in results.items():
        log_ratios = [np.log(a / b) for a, b in found]
        middle, low, high, pairs = speed(log_ratios)
        bad = slower(log_ratios, options.margin)
        failed |= bad
        a, b = np.median(np.concatenate(found, axis=1), axis=1)
        spread = " ".join(f"{value:.2f}" for value in pairs)
        cells = [number(a), number(b), f"{middle:.3f}", f"{low:.2f}-{high:.2f}", spread]
        lines.append([row, *cells, "SLOWER" if bad else ""])
    header = ("ms a frame", "A", "B", "speed B / A", "99 %", "pairs", "")
    print(table(header, lines))
    for row, why in missing.items():
        print(f"not measured: {row}: {why}")
    sys.exit(2 if not results else failed)


if __name__ == "__main__":
    main()
