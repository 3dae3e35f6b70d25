"""README and docs/performance.md show what the stored measurements give."""

import json
import re
import sys
from pathlib import Path
from statistics import median

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
README = (BENCHMARKS.parent / "README.md").read_text(encoding="utf8")
PAGE = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf8")


@pytest.fixture(scope="module")
def numbers():
    """`report_numbers`, with the folder of the scripts on the path meanwhile."""
    sys.path.insert(0, str(BENCHMARKS))
    import report_numbers

    yield report_numbers
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def results(numbers):
    return numbers.load()


def test_figures_of_the_readme(numbers, results):
    """Those beside v1.0 are of one run on one machine."""
    assert numbers.upstream_table(results["upstream"]) in README


def test_figures_of_the_page(results):
    from train_16k import seconds_an_epoch

    cells = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", PAGE, re.MULTILINE))
    measured = {
        row["row"]: row.get("value") or median(row["wall"])
        for row in results["standard"]["results"]
    }
    runs = [run for run in results["training"]["runs"] if run["frames"] == 16000]
    epochs = {run["derivatives"]: seconds_an_epoch(run) for run in runs}
    names = ["", ", vesin", ", matscipy", ", ASE"]
    own, *others = (1e3 * measured[f"neighbour search{name}"] for name in names)
    expected = {
        "fingerprints and their derivatives, ms a frame": [
            1e3 * measured["values and derivatives"]
        ],
        "fingerprints alone, ms a frame": [1e3 * measured["values"]],
        "energy and forces of a moved frame": [
            1e3 * measured["energy and forces of a moved frame"]
        ],
        "an epoch of training": [1e3 * measured["one epoch of training, derivatives float64"]],
        "kept derivatives": [measured[f"kept derivatives, float{bits}"] for bits in (64, 32)],
        "neighbour list, ms": [own],
        "first fingerprint": [measured["first fingerprint, cold cache"]],
        "neighbour lists and fingerprints, from a trajectory": [results["preprocess"]["seconds"]],
        "memory for that": [10 * round(2**20 * results["preprocess"]["anonymous"] / 1e7)],
        "an epoch on energies and forces, derivatives recomputed": [epochs["recompute"]],
        "an epoch on energies and forces, derivatives in the store": [epochs["stored"]],
    }
    for name, values in expected.items():
        (row,) = (key for key in cells if key.startswith(name))
        found = re.findall(r"[\d.]+", cells[row])
        assert [float(text) for text in found] == [
            rounded(v, t) for v, t in zip(values, found, strict=True)
        ], row
    (row,) = (key for key in cells if key.startswith("neighbour list, ms"))
    found = re.findall(r"[\d.]+", row)
    assert [float(text) for text in found] == [
        rounded(value, text) for value, text in zip(others, found, strict=True)
    ]


def rounded(value, text):
    """The value with as many decimals as a text has."""
    return round(value, len(text.partition(".")[2]))


def test_figures_beside_v1_are_labelled(results):
    upstream = results["upstream"]
    assert {"what", "machine", "cores", "date", "pairs", "note", "source"} <= upstream.keys()
    for row in upstream["rows"]:
        for key in ("v1.0", "here", "ratio"):
            low, high = row[key]
            assert 0 < low < high
        # Ratios are of pairs, so they lie within what the ranges allow.
        assert row["v1.0"][0] / row["here"][1] <= row["ratio"][1] + 0.5
        assert row["ratio"][0] - 0.5 <= row["v1.0"][1] / row["here"][0]


def test_the_tables_of_the_page_are_of_the_stored_results(numbers, results):
    for table in numbers.tables(results):
        assert table in PAGE, "run `python benchmarks/report_numbers.py` and copy its tables"


def test_a_result_that_changes_changes_its_table(numbers, results):
    changed = json.loads(json.dumps(results))
    for row in changed["ablation"]["rows"]:
        row["without"] = [2 * seconds for seconds in row["without"]]
    before, after = numbers.tables(results), numbers.tables(changed)
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True, True]


def test_every_result_carries_its_machine(numbers, results):
    for name in numbers.RESULTS:
        described = results[name]["machine"]
        assert {"date", "numba"} <= set(described), name
        assert results[name]["command"].startswith("python benchmarks/"), name


def test_figures_of_the_page_are_there():
    for name in re.findall(r"\((figures/[^)]+)\)", PAGE):
        assert (BENCHMARKS.parent / "docs" / name).is_file(), name


def test_scripts_that_pages_name_are_there():
    """Those that went are named with the commit that has them."""
    root = BENCHMARKS.parent
    pages = [root / "README.md", root / "CONTRIBUTING.md", *root.glob("docs/*.md")]
    pages.append(BENCHMARKS / "README.md")
    for page in pages:
        for line in page.read_text(encoding="utf8").splitlines():
            for name in re.findall(r"benchmarks/(\w+\.py)", line):
                there = (BENCHMARKS / name).is_file()
                assert there or "01325fe" in line, f"{page}: {name}"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0123, 2, "0.012"),
        (7.449, 2, "7.4"),
        (9.99, 2, "10"),
        (85936.2, 2, "86,000"),
        (1.0, 3, "1.00"),
        (0, 2, "0"),
    ],
)
def test_numbers_are_written_with_the_digits_that_mean_something(numbers, value, digits, text):
    assert numbers.significant(value, digits) == text


def test_calls_are_measured_in_turns(numbers):
    from measuring import in_turns

    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = in_turns(calls, repeats=3, per=2)
    assert order == ["a", "b"] * 4  # once before the clock starts
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
