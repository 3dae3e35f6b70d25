"""Print the tables of README and docs/performance.md that follow from stored measurements.

    python benchmarks/report_numbers.py    # prints them

tests/project/test_performance.py fails where a page has another table, or README other numbers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measuring import markdown, significant
from train_16k import plan_table, training_table

HERE = Path(__file__).parent
RESULTS = ("standard", "ablation", "preprocess", "training")


def load() -> dict[str, Any]:
    """Read everything stored: {name: results}; FileNotFoundError where a file is missing."""
    files = [HERE / "upstream.json", *(HERE / "results" / f"{name}.json" for name in RESULTS)]
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in files}


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


def tables(results: Mapping[str, Any]) -> list[str]:
    """Return all tables."""
    return [
        upstream_table(results["upstream"]),
        ablation_table(results["ablation"]),
        training_table(results["training"]["runs"]),
        plan_table(results["training"]["runs"]),
    ]


def main() -> None:
    """Print the tables."""
    print("\n\n".join(tables(load())))


if __name__ == "__main__":
    main()
