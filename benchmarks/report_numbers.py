"""The tables of README and docs/performance.md that follow from stored measurements.

    python benchmarks/report_numbers.py    # prints them

tests/test_performance.py fails where a page has another table, or README other numbers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measuring import significant
from train_16k import plan_rows, seconds_an_epoch

HERE = Path(__file__).parent
RESULTS = ("standard", "ablation", "preprocess", "training")


def load() -> dict[str, Any]:
    """Read everything stored: {name: results}; FileNotFoundError where a file is missing."""
    files = [HERE / "upstream.json", *(HERE / "results" / f"{name}.json" for name in RESULTS)]
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in files}


def markdown(header: str, columns: int, rows: Sequence[Sequence[str]]) -> str:
    """Return a table with `columns` columns of text, the others of numbers."""
    n = header.count("|") - 1
    rule = "|" + columns * "---|" + (n - columns) * "---:|"
    return "\n".join([header, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def upstream_table(upstream: Mapping[str, Any]) -> str:
    """Return the table of v1.0 and this package in one run."""
    header = "| in turn, ms a frame | v1.0 | here | times as fast |"
    rows = [
        [row["name"], *(_range(row[key]) for key in ("v1.0", "here", "ratio"))]
        for row in upstream["rows"]
    ]
    return markdown(header, 1, rows)


def _range(numbers: Sequence[float]) -> str:
    digits = 0 if all(number == int(number) for number in numbers) else 1
    return "–".join(f"{number:.{digits}f}" for number in numbers)


def ablation_table(ablation: Mapping[str, Any]) -> str:
    """Return the table of what each change gained, in ms a frame."""
    header = "| change | measured on | when off | with | without | ratio | spread |"
    rows = []
    for row in ablation["rows"]:
        times = [significant(1e3 * median(row[key])) for key in ("with", "without")]
        spread = "–".join(map(significant, row["spread"]))
        texts = [row["change"], row["work"], row["off"]]
        rows.append([*texts, *times, significant(row["ratio"]), spread])
    return markdown(header, 3, rows)


def training_table(training: Mapping[str, Any]) -> str:
    """Return the table of epochs and memory against the number of frames."""
    header = "| derivatives | frames | an epoch, s | ms a frame | peak memory, MB |"
    rows = []
    for run in sorted(training["runs"], key=lambda run: (run["derivatives"], run["frames"])):
        kind = "stored" if run["derivatives"] == "stored" else "recomputed"
        epoch, n = seconds_an_epoch(run), run["frames"]
        numbers = [epoch, 1e3 * epoch / n, run["peak"] / 1e6]
        rows.append([kind, f"{n:,}", *map(significant, numbers)])
    return markdown(header, 1, rows)


def plan_table(training: Mapping[str, Any]) -> str:
    """Return the table of what the memory plan said, and what was measured."""
    header = "| frames | | planned | measured | planned / measured |"
    rows = [
        [f"{n:,}", what, significant(planned), significant(found), f"{planned / found:.2f}"]
        for n, what, planned, found in plan_rows(training["runs"])
    ]
    return markdown(header, 2, rows)


def tables(results: Mapping[str, Any]) -> list[str]:
    """Return all tables."""
    return [
        upstream_table(results["upstream"]),
        ablation_table(results["ablation"]),
        training_table(results["training"]),
        plan_table(results["training"]),
    ]


def main() -> None:
    """Print the tables."""
    print("\n\n".join(tables(load())))


if __name__ == "__main__":
    main()
