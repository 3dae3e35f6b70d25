"""The benchmark suite runs, compares and labels its columns; the statistic of the guard.

What runs in another interpreter is tried on a stand-in for v1.0 and on the fork.
"""

import ast
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from amptorch.datasets import iron_water
from tests.other_interpreters import ROOT, STAND_IN, interpreter

FOLDER = ROOT / "benchmarks"
(SHIPPED_RUN,) = FOLDER.glob("baseline/*/*.json")


@pytest.fixture
def load(monkeypatch):
    """Imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def run(*arguments):
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-p", "no:cacheprovider", *arguments]
    # Under pytest-xdist pytest-benchmark would be off there too.
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_runs_compare_with_the_shipped_run_and_then_with_the_users_own(tmp_path, load):
    arguments = (
        *("-k", "(test_neighbors or test_values) and (35-1 or 35-36-1)", "--benchmark-compare"),
        *("--benchmark-min-rounds=2", "--benchmark-max-time=0.001"),
        *(f"--benchmark-storage={tmp_path}", "--upstream-python", str(tmp_path / "no-python")),
    )
    first = run(*arguments, "--benchmark-save=mine")
    shipped = SHIPPED_RUN
    assert f"{shipped.parent.name}/{shipped.stem[:4]}" in first
    assert "| neighbors[35-1]" in first
    assert "v1.0: not measured" in first
    assert "| v1.0: " not in first
    assert "not measured: v1.0:" in first
    assert "no-python is no program" in first

    (saved,) = tmp_path.glob("*/0001_mine.json")
    rows = json.loads(saved.read_text())["benchmarks"]
    values = next(row for row in rows if "test_values[35" in row["name"])
    assert values["extra_info"]["frames"] > 1
    assert values["extra_info"]["beside"] == {}

    again = run(*arguments)
    assert "0001_mine" in again
    assert shipped.stem not in again


@pytest.mark.slow
def test_the_shipped_run_has_rows_of_the_suite(load):
    collected = set(run("--collect-only").splitlines())
    shipped = json.loads(SHIPPED_RUN.read_text())
    names = {bench["fullname"] for bench in shipped["benchmarks"]}
    assert names
    assert names <= collected, "make a new baseline, see benchmarks/README.md"


@pytest.mark.parametrize("name", ["v1.0", "peers"])
def test_baselines_are_labelled(load, name):
    baseline = json.loads((FOLDER / "baseline" / f"{name}.json").read_text(encoding="utf8"))
    assert {"what", "source", "date", "machine", "cases"} <= baseline.keys()
    assert baseline["machine"]["cpu"]
    for case in baseline["cases"]:
        assert case["stage"]
        assert min(case["seconds"]) > 0


ROWS_OF_ALL_STAGES = [
    "test_prepare_fingerprints[values-35]",
    "test_prepare_fingerprints[values_and_derivatives-35]",
    "test_epoch[35-stored-1]",
    "test_prediction[35-1]",
    "test_dynamics_step[35-1]",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "rows_run"),
    [(STAND_IN, ROWS_OF_ALL_STAGES), (ROOT, ROWS_OF_ALL_STAGES[1:2])],
    ids=["v1.0", "fork"],
)
def test_every_public_stage_in_another_interpreter(package, rows_run, tmp_path, monkeypatch):
    """The fork in this process is on PYTHONPATH, which must not decide what is measured there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    other = interpreter(tmp_path / "other", package)
    options = ("--benchmark-min-rounds=2", "--benchmark-max-time=0.001")
    said = run("-k", " or ".join(rows_run), *options, "--upstream-python", str(other))
    assert "not measured" not in said
    name = "v1.0" if package == STAND_IN else "other copy"
    assert said.count(f" {name}: ") > len(rows_run)  # and the label below the table
    lines = said.splitlines()
    rows = [line for line in lines if line.startswith(("| prep", "| epo", "| pred", "| dyn"))]
    assert len(rows) == len(rows_run)
    assert all(float(row.split("|")[-2]) > 0 for row in rows), said
    (label,) = (line for line in lines if line.startswith(f"- {name}: measured in turn"))
    assert str(package / "amptorch" / "__init__.py") in label
    assert ("the fork of AMPTorch" in label) == label.endswith("NOT v1.0") == (package == ROOT)


@pytest.mark.slow
def test_stages_in_another_interpreter(load):
    remote = load("remote")
    images = iron_water(2, max_water=1)
    with pytest.raises(remote.RemoteError, match="no program"):
        remote.Remote("no-such-python")
    other = remote.Remote(sys.executable)
    try:
        assert other.about["fork"]
        other.prepare("neighbors", images)
        assert len(other.seconds(3)) == 3
        with pytest.raises(remote.RemoteError, match="no attribute 'nothing'"):
            other.prepare("nothing", images)
        other.prepare("values", images)  # in a new process
        assert min(other.seconds()) > 0
    finally:
        other.close()


def test_frames_survive_json(load):
    remote = load("remote")
    (atoms,) = iron_water(1, max_water=2)
    again = remote.frame_of(json.loads(json.dumps(remote.frame_record(atoms))))
    assert again == atoms
    assert np.array_equal(again.get_forces(), atoms.get_forces())
    assert again.get_potential_energy() == atoms.get_potential_energy()


@pytest.mark.parametrize("name", ["remote", "setups", "stages"])
def test_what_runs_there_is_written_for_old_pythons(name):
    ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf8"), feature_version=(3, 7))


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
    for stage, *_ in load("guard").ROWS.values():
        assert callable(getattr(load("stages"), stage))


@pytest.mark.slow
def test_the_guard_compares_two_commits(tmp_path):
    path = tmp_path / "guard.json"
    command = [sys.executable, str(FOLDER / "guard.py"), "HEAD", "HEAD", "--json", str(path)]
    command += ["--rows", "neighbors", "--processes", "1", "--rounds", "2", "--margin", "0.99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| neighbors, 164 atoms" in done.stdout
    (pairs,) = json.loads(path.read_text())["rows"].values()
    assert np.shape(pairs) == (1, 2, 2)
    assert np.min(pairs) > 0
