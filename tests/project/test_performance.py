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


RESULTS = ("standard", "ablation", "preprocess", "training")


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The folder of the scripts is on the path meanwhile."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def results():
    files = [
        BENCHMARKS / "upstream.json",
        *(BENCHMARKS / f"results/{name}.json" for name in RESULTS),
    ]
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in files}


def cells(text):
    """Of each line of a table, without rules."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if "---" not in line]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("page", [README, PAGE], ids=["README", "page"])
def test_figures_beside_v1(page, results):
    """They are of one run on one machine."""
    found = cells(page)
    for row in results["upstream"]["rows"]:
        ranges = ["–".join(map(str, row[key])) for key in ("v1.0", "here", "ratio")]
        assert [row["name"], *ranges] in found


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


def tables(results):
    """As the scripts print them at their end."""
    from ablation import ablation_table
    from train_16k import plan_table, training_table

    runs = results["training"]["runs"]
    return [ablation_table(results["ablation"]["rows"]), training_table(runs), plan_table(runs)]


def test_the_tables_of_the_page_are_of_the_stored_results(results):
    found = cells(PAGE)
    for table in tables(results):
        for row in cells(table):
            assert row in found, "copy the table that the script prints"


def test_a_result_that_changes_changes_its_table(results):
    changed = json.loads(json.dumps(results))
    for row in changed["ablation"]["rows"]:
        row["without"] = [2 * seconds for seconds in row["without"]]
    before, after = tables(results), tables(changed)
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, True, True]


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_carries_its_machine(results, name):
    assert {"date", "numba"} <= set(results[name]["machine"])
    assert results[name]["command"].startswith("python benchmarks/")


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
                assert there or re.search(r"\b(01325fe|c06c89d)\b", line), f"{page}: {name}"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0123, 2, "0.012"),
        (7.449, 2, "7.4"),
        (9.99, 2, "10"),
        (85936.2, 2, "86000"),
        (1.0, 3, "1.00"),
    ],
)
def test_numbers_are_written_with_the_digits_that_mean_something(value, digits, text):
    from setups import significant

    assert significant(value, digits) == text


def test_calls_are_measured_in_turns():
    from ablation import Pair, in_turns

    order = []
    on, off = in_turns(Pair(lambda: order.append("a"), lambda: order.append("b"), 2), repeats=3)
    assert order == ["a", "b"] * 4  # once before the clock starts
    assert len(on) == len(off) == 3
