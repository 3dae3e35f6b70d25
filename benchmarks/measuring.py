"""Measure calls and memory, and write results."""

import argparse
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, per: int = 1
) -> dict[str, list[float]]:
    """Call functions in turns, once before the clock starts; return seconds divided by `per`.

    So a change of the machine's load falls on all of them alike.
    """
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append((time.perf_counter() - start) / per)
    return found


@contextmanager
def memory_curve(interval: float = 0.05) -> Iterator[list[tuple[float, int]]]:
    """Sample the memory of this process meanwhile: seconds, and bytes that are its own.

    Pages of mapped files are not counted; they belong to the operating system's page cache.
    """
    from amptorch.profiling.memory import own_memory

    start, done = time.perf_counter(), threading.Event()
    samples = [(0.0, own_memory())]

    def watch() -> None:
        while not done.wait(interval):
            samples.append((time.perf_counter() - start, own_memory()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield samples
    done.set()
    watcher.join()


def coarse(samples: Sequence[tuple[float, int]], n: int = 100) -> list[list[float]]:
    """Return at most `n` of the samples, each the largest of those that it stands for."""
    parts = np.array_split(np.array(samples), min(n, len(samples)))
    return [part[np.argmax(part[:, 1])].tolist() for part in parts]


def significant(value: float, digits: int = 2) -> str:
    """Write a number with so many digits that mean something, thousands separated."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits}g}"))))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def milliseconds(seconds: float) -> str:
    """Write seconds as milliseconds, with three digits."""
    return significant(1e3 * seconds, 3)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown with its columns aligned, all but the first to the right."""
    lines = [header, *rows]
    widths = [max(len(cells[k]) for cells in lines) for k in range(len(header))]
    texts = [[cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])] for cells in lines]
    texts.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)


def markdown(header: str, columns: int, rows: Sequence[Sequence[str]]) -> str:
    """Return a table with `columns` columns of text, the others of numbers."""
    n = header.count("|") - 1
    rule = "|" + columns * "---|" + (n - columns) * "---:|"
    return "\n".join([header, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def parser_of(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of `--json` and of integers with these defaults."""
    formatter = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(description=description, formatter_class=formatter)
    found.add_argument("--json", type=Path, help="where to write everything measured")
    for name, default in defaults.items():
        found.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    return found


def write(path: Path | None, machine: Mapping[str, str], **results: Any) -> None:
    """Write results as JSON, with the machine and the command that measured them."""
    if path is None:
        return
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    kept = {"machine": machine, "command": command, **results}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf8")
