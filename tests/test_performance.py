"""docs/performance.md is what the stored results give, and the operations are counted rightly."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The folder of the scripts on the path, and off it again."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def performance(scripts):
    import performance

    return performance


@pytest.fixture(scope="module")
def results(performance):
    return performance.load()


def test_figures_of_the_readme(results):
    """Those beside v1.0 are of one run on one machine, the others of the stored results."""
    from report_numbers import median_of, sixteen_thousand, upstream_table

    readme = (BENCHMARKS.parent / "README.md").read_text(encoding="utf8")
    speed = readme.split("## Speed")[1].split("\n## ")[0]
    table = upstream_table(results["upstream"])
    assert table in speed
    cells = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", speed, re.MULTILINE))
    standard = results["standard"]

    def ms(row):
        return 1e3 * median_of(standard, row)

    kept = [median_of(standard, f"kept derivatives, float{bits}") for bits in (64, 32)]
    searches = ["", ", vesin", ", matscipy", ", ASE"]
    own, *others = (ms(f"neighbour search{name}") for name in searches)
    big = sixteen_thousand(results)
    expected = {
        "fingerprints and their derivatives, ms a frame": [ms("values and derivatives")],
        "fingerprints alone, ms a frame": [ms("values")],
        "energy and forces of a moved frame": [ms("energy and forces of a moved frame")],
        "an epoch of training": [ms("one epoch of training, derivatives float64")],
        "kept derivatives": kept,
        "neighbour list, ms": [own],
        "first fingerprint": [1e-3 * ms("first fingerprint, cold cache")],
        "neighbour lists and fingerprints, from a trajectory": [big["seconds"]],
        "memory for that": [big["memory"] / 1e9],
        "an epoch on energies and forces, derivatives recomputed": [
            big["runs"]["recompute"]["epoch"]
        ],
        "an epoch on energies and forces, derivatives in the store": [
            big["runs"]["stored"]["epoch"]
        ],
        "memory of training": [big["runs"]["recompute"]["peak"] / 1e9],
    }
    for name, values in expected.items():
        (row,) = (key for key in cells if key.startswith(name))
        found = re.findall(r"[\d.]+", cells[row])
        assert [float(text) for text in found] == [
            rounded(v, t) for v, t in zip(values, found, strict=True)
        ], row
    (row,) = (key for key in cells if key.startswith("neighbour list, ms"))
    assert [float(text) for text in re.findall(r"[\d.]+", row)] == [
        rounded(value, text) for value, text in zip(others, re.findall(r"[\d.]+", row), strict=True)
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


def test_the_page_is_what_the_stored_results_give(performance, results):
    assert performance.page(results) == performance.PAGE.read_text(encoding="utf8"), (
        "run `python benchmarks/performance.py` after changing results or template"
    )


def test_a_result_that_changes_changes_the_page(performance, results):
    changed = json.loads(json.dumps(results))
    for row in changed["ablation"]["rows"]:
        row["without"] = [2 * seconds for seconds in row["without"]]
    assert performance.page(changed) != performance.page(results)


def test_every_result_carries_its_machine(results):
    for name in ("standard", "ablation", "limits", "scaling", "preprocess", "training"):
        described = results[name]["machine"]
        assert {"CPU", "date", "Python", "numba"} <= set(described), name
        assert results[name]["command"].startswith("python benchmarks/"), name


def test_the_figures_are_of_the_stored_results(performance, results):
    from figures import SOURCES, digest

    page = performance.PAGE.read_text(encoding="utf8")
    for name in SOURCES:
        text = (performance.FIGURES / f"{name}.svg").read_text(encoding="utf8")
        assert f"results {digest(results, name)}" in text, f"figures/{name}.svg is of other results"
        assert f"(figures/{name}.svg)" in page


@pytest.mark.slow
def test_figures_are_drawn(performance, results, tmp_path):
    from figures import SOURCES, draw

    draw(results, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.svg")} == set(SOURCES)


def test_nothing_stored_is_an_error_that_says_what_to_do(performance, monkeypatch, tmp_path):
    monkeypatch.setattr(performance, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"standard.json.*--measure"):
        performance.load()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0123, 2, "0.012"),
        (7.449, 2, "7.4"),
        (9.99, 2, "10"),
        (85936.2, 2, "86,000"),
        (1.0, 3, "1.00"),
        (0, 2, "0"),
        (None, 2, "–"),
    ],
)
def test_numbers_are_written_with_the_digits_that_mean_something(value, digits, text):
    from report_numbers import significant

    assert significant(value, digits) == text


def test_the_estimate_for_all_frames_interpolates():
    from report_numbers import N_FRAMES, estimate

    # Linear in the atoms: the mean over frames is the value at the mean number of atoms.
    rows = [{"atoms": n, "s": 2.0 * n + 1.0} for n in (35, 80, 164)] + [{"atoms": 300, "s": None}]
    assert estimate(rows, "s") == pytest.approx(N_FRAMES * (2.0 * 99.5 + 1.0), rel=2e-3)


def test_an_exponent_is_found():
    from scaling_fit import exponent

    x = np.array([1.0, 3.0, 10.0])
    assert exponent(x, 0.5 * x**1.7) == pytest.approx(1.7)


def test_numbers_that_count():
    from counting import STAGES, TALLY, Counted, inside, watched

    TALLY.clear()
    a = Counted(2.0)
    assert inside("here", lambda: (3.0 * a + 1.0 - a) / a)() == 2.5
    assert dict(TALLY["here"]) == {"flops": 3, "fused": 1, "special": 1}
    TALLY.clear()
    array = watched(np.arange(3.0))
    array[0] = array[1] * np.float64(2.0)
    array[2] += np.float64(1.0)
    assert dict(TALLY[STAGES[-1]]) == {"loads": 2, "stores": 2, "flops": 2}
    assert [float(x) for x in array] == [2.0, 1.0, 3.0]
    TALLY.clear()


@pytest.mark.slow
def test_what_is_counted_is_what_the_kernels_compute():
    program = (
        "import json, counting; from amptorch.datasets import iron_water;"
        "image = iron_water(1, max_water=2, min_water=2)[0][28:]; image.pbc = False;"
        "print(json.dumps([counting.count_derivatives(image, 3), "
        "counting.count_contraction(image)]))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    derivatives, contraction = json.loads(done.stdout)
    assert derivatives["largest_error"] < 1e-11
    assert contraction["largest_error"] < 1e-11
    pairs, stages = derivatives["pairs_counted"], derivatives["stages"]
    # By hand, from lanes.py: three products and four sums, r_jk² and cosθ; four functions a pair.
    assert stages["distances"]["flops"] == 10 * pairs
    assert stages["distances"]["stores"] == 2 * pairs
    assert stages["accumulate_gradient"]["loads"] == 4 * 11 * pairs
    assert stages["accumulate_gradient"]["stores"] == 4 * 5 * pairs
    # Jᵀg: a product and a sum for each stored number, and a few sums for each neighbour.
    assert 2 < contraction["flops"] / contraction["values"] < 2.5
