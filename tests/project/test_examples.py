"""The scripts of docs/examples run, in their small form."""

import json
import re
import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests import small_frames  # noqa: F401 (one thread for torch)

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a script in an empty folder; its names and what it printed."""

    def run(name):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--small"])
        with mpl.rc_context({"backend": "agg"}):
            names = runpy.run_path(str(EXAMPLES / f"{name}.py"))
            plt.close("all")
        return names, capsys.readouterr().out

    return run


@pytest.mark.slow
def test_energy(run):
    names, printed = run("energy")
    assert "mean absolute error" in printed
    assert names["trainer"].forcetraining is False
    assert len(names["predictions"]["energy"]) == 6


def test_energy_and_forces(run):
    names, printed = run("energy_forces")
    assert "forces on Fe (eV/Å)" in printed
    assert re.search(r"after the relaxation: -\d+\.\d+ eV, reference -\d+\.\d+ eV", printed)
    moved = names["atoms"].positions - names["test_images"][0].positions
    assert 0 < np.abs(moved).max() < 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*errors are too few")
def test_uncertainty(run, tmp_path):
    names, printed = run("uncertainty")
    assert "intervals for 80 %" in printed
    assert np.isfinite(names["found"]["energy_uncertainty"]).all()
    assert (tmp_path / "calibration.png").stat().st_size > 10_000


@pytest.mark.slow
def test_lmdb(run, tmp_path):
    _, printed = run("lmdb_data")
    assert re.findall(r"cache (\w+)", printed) == ["no", "partial", "full"]
    runs = sorted(path.name[20:] for path in (tmp_path / "runs" / "checkpoints").iterdir())
    assert runs == ["lmdb-full", "lmdb-no", "lmdb-partial"]


@pytest.mark.slow
def test_descriptor_set(run):
    names, printed = run("descriptor_set")
    assert "O: 16 symmetry functions" in printed
    folder = Path(names["trainer"].cp_dir)
    assert json.loads((folder / "config.json").read_text())["dataset"]["elements"] == [
        "Fe",
        "H",
        "O",
    ]


def test_fingerprints(run, tmp_path):
    run("fingerprints")
    for name, width in (("Gaussian", 42), ("GMPOrderNorm", 12)):
        with np.load(tmp_path / f"{name}.npz") as saved:
            assert list(saved) == ["frame0", "frame1"]
            assert saved["frame0"].shape[1] == width
            assert np.abs(saved["frame0"]).max() > 0


@pytest.mark.slow
def test_water_surface(run, tmp_path):
    names, printed = run("water_surface")
    assert "25 points learnt, 49 drawn" in printed
    assert names["learnt"].shape == (7, 7)
    assert (tmp_path / "water_surface.png").stat().st_size > 10_000


@pytest.mark.slow
def test_crystal(run):
    names, printed = run("crystal")
    assert printed.startswith("a    3.58")
    found = names["constants"]
    assert found["C11"] == pytest.approx(172.6, abs=1)
    assert found["C12"] == pytest.approx(115.5, abs=1)
    assert found["C44"] == pytest.approx(89.9, abs=1)
    assert (found["C11"] + 2 * found["C12"]) / 3 == pytest.approx(names["modulus"], abs=2)
    assert names["frequencies"]["X"][-1] == pytest.approx(8.14, abs=0.05)


@pytest.mark.slow
def test_constant_pressure(run):
    names, printed = run("constant_pressure")
    assert "relaxed in" in printed
    for slope, spread, _ in names["found"].values():
        assert abs(slope) < 0.2
        assert 0 < spread < 0.1


def test_all_are_tested_and_listed():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    listed = re.findall(r"\(([\w]+\.py)\)", (EXAMPLES / "README.md").read_text(encoding="utf8"))
    assert scripts == set(listed)
    tested = set(re.findall(r'run\("(\w+)"\)', Path(__file__).read_text(encoding="utf8")))
    assert scripts == {f"{name}.py" for name in tested}
