"""The benchmark suite runs, compares and labels its columns; the statistic of the guard."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amptorch.datasets import iron_water

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SIZES = {35, 80, 164}


@pytest.fixture
def load(monkeypatch):
    """Imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def run(*arguments):
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_compare_with_the_shipped_run_and_then_with_the_users_own(tmp_path, load):
    arguments = (
        *("-k", "(test_neighbors or test_values) and (35-1 or 35-36-1)", "--benchmark-compare"),
        *("--benchmark-min-rounds=2", "--benchmark-max-time=0.001"),
        *(f"--benchmark-storage={tmp_path}", "--upstream-python", str(tmp_path / "no-python")),
    )
    first = run(*arguments, "--benchmark-save=mine")
    shipped = load("summary").shipped_run()
    assert f"{shipped.parent.name}/{shipped.stem[:4]}" in first
    assert "| neighbors[35-1]" in first
    assert "v1.0: stored baseline, not measured here: AMPTorch v1.0, Intel Xeon" in first
    assert "over that of a plain loop" in first
    assert "not measured: v1.0:" in first
    assert "no-python is no program" in first

    (saved,) = tmp_path.glob("*/0001_mine.json")
    rows = json.loads(saved.read_text())["benchmarks"]
    values = next(row for row in rows if "test_values[35" in row["name"])
    assert values["extra_info"]["frames"] > 1
    assert values["extra_info"]["beside"]["plain loop"] > 0

    assert "0001_mine" in run(*arguments)


def test_the_shipped_run_has_rows_of_the_suite(load):
    collected = set(run("--collect-only").splitlines())
    shipped = json.loads(load("summary").shipped_run().read_text())
    names = {bench["fullname"] for bench in shipped["benchmarks"]}
    assert names
    assert names <= collected, "make a new baseline, see benchmarks/README.md"


@pytest.mark.parametrize("name", ["v1.0", "peers"])
def test_baselines_are_labelled(load, name):
    baseline = load("summary").read_baseline(name)
    assert {"what", "source", "date", "machine", "cases"} <= baseline.keys()
    assert baseline["machine"]["cpu"]
    for case in baseline["cases"]:
        assert case["stage"]
        assert min(case["seconds"]) > 0


def test_v1_is_there_for_every_size(load):
    stored = load("summary").Baselines().stored
    for stage in ("values", "values_and_derivatives", "epoch", "calculator_step"):
        assert {atoms for name, atoms in stored if name == stage} >= SIZES


def test_v1_measured_now_takes_the_place_of_the_stored(load):
    summary = load("summary")
    row = {"v1": "values", "atoms": 164, "functions": 36, "beside": {}}
    stored = summary.Baselines()
    assert stored.v1_of(row) == pytest.approx(0.8, rel=0.1)
    assert stored.v1_of({**row, "functions": 12}) is None
    live = summary.Baselines(upstream={"file": "elsewhere/amptorch/__init__.py", "python": "3.9"})
    assert live.v1_of(row) is None
    assert live.v1_of({**row, "beside": {"v1.0": 0.5}}) == 0.5
    labels = "\n".join(live.labels({"CPU": "here", "Python": "3.12"}))
    assert "measured in turn with ours in this run: amptorch in elsewhere" in labels
    assert "stored baseline" not in labels


def test_stages_in_another_interpreter(load):
    remote = load("remote")
    images = iron_water(2, max_water=1)
    with pytest.raises(remote.RemoteError, match="no program"):
        remote.Remote("no-such-python")
    other = remote.Remote(sys.executable)
    try:
        assert Path(other.about["file"]).is_relative_to(ROOT)
        other.prepare("own_stages", "neighbors", images)
        assert len(other.seconds(3)) == 3
        with pytest.raises(remote.RemoteError, match="no attribute 'nothing'"):
            other.prepare("own_stages", "nothing", images)
        other.prepare("public_stages", "values", images)  # in a new process
        assert min(other.seconds()) > 0
    finally:
        other.close()


def log_ratios(speeds, noise=0.05, rounds=10):
    """As the guard measures: a log-ratio t_A / t_B each round, of pairs with these speeds of B."""
    rng = np.random.default_rng(1)
    return [np.log(speed) + rng.normal(scale=noise, size=rounds) for speed in speeds]


@pytest.mark.parametrize(
    ("speeds", "noise", "fails"),
    [
        ([1.0, 1.0, 1.0], 0.05, False),
        ([1.3, 1.3, 1.3], 0.05, False),
        ([0.7, 0.7, 0.7], 0.05, True),
        ([0.7, 0.7, 0.7], 0.8, False),  # too noisy to tell
        ([0.95, 0.95, 0.95], 0.02, False),  # within the margin
        ([0.6, 0.6, 1.0], 0.02, False),  # two unlucky processes
    ],
)
def test_the_guard_fails_beyond_margin_and_noise(load, speeds, noise, fails):
    assert load("guard").slower(log_ratios(speeds, noise), margin=0.1) is fails


def test_the_guards_speed(load):
    middle, low, high, pairs = load("guard").speed(log_ratios([0.5, 0.5], noise=0.02))
    assert low < middle < high
    assert middle == pytest.approx(0.5, rel=0.05)
    assert pairs == pytest.approx([0.5, 0.5], rel=0.05)


def test_the_guards_rows_are_stages(load):
    for module, stage, *_ in load("guard").ROWS.values():
        assert callable(getattr(load(module), stage))
