"""The pages that are followed from top to bottom run as they stand, in small forms."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import typer

from amptorch.cli import app, main
from tests import small_frames  # noqa: F401 (one thread for torch)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
AMPTORCH = (sys.executable, "-c", "from amptorch.cli import main; main()")


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Does what a page says, in an empty folder, with other words in the place of some; returns the
    names of its Python code, and what its commands printed."""

    def follow(page, smaller):
        monkeypatch.chdir(tmp_path)
        text = (DOCS / page).read_text(encoding="utf8")
        for large, small in smaller.items():
            assert large in text, f"{page} has no {large!r}"
            text = text.replace(large, small)
        names, printed = {"__name__": page}, ""
        for language, title, block in BLOCK.findall(text):
            if title:
                Path(title).write_text(block, encoding="utf8")
            elif language == "python":
                with mpl.rc_context({"backend": "agg"}):
                    exec(compile(block, page, "exec"), names)  # our own file
                    plt.close("all")
            elif language == "bash":
                printed += "".join(map(run, block.splitlines()))
        return names, printed

    return follow


def run(line):
    """Does a line of a shell, where it is one of ours; returns what it printed."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["amptorch"]:
        return ""
    if words[1] == "lammps":  # whose own output does not go through Python
        done = subprocess.run([*AMPTORCH, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert not ended.value.code, f"{line}\n{printed.getvalue()}"
    return printed.getvalue()


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "profiling" / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_have_the_options_that_they_are_given(page):
    commands = typer.main.get_command(app).commands
    for language, _, block in BLOCK.findall(page.read_text(encoding="utf8")):
        # What is in brackets may be left out; a line that ends with \ goes on in the next.
        for line in block.translate(dict.fromkeys(b"[]")).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if language == "bash" else []
            if words[:1] == ["amptorch"]:
                commands[words[1]].make_context(line, words[2:])  # an error for what is unknown


@pytest.mark.slow
def test_start(follow):
    smaller = {"iron_water(200,": "iron_water(12,", "iron_water(60,": "iron_water(3,"}
    smaller |= {"--time 5m": "--time 3s --size small", "run(200)": "run(3)"}
    names, printed = follow("start.md", smaller)
    assert "training   Kalman filter" in printed
    assert "test" in printed
    assert "3 frames with predictions: predicted.traj" in printed
    assert np.isfinite(names["atoms"].positions).all()


def test_from_amp(follow):
    names, _ = follow("amp.md", {"amptorch train --data": "true --data"})
    values = names["water"].values(names["Frames"].from_atoms([names["molecule"]("H2O")]))
    assert values.shape == (3, 3)
    assert (values > 0).any()


@pytest.mark.slow
def test_water_on_iron(follow):
    smaller = {"iron_water(200,": "iron_water(12,", "iron_water(60,": "iron_water(3,"}
    smaller |= {"--time 5m": "--time 3s --size small", "dynamics.run(400)": "dynamics.run(40)"}
    names, printed = follow("tutorials/iron_water.md", smaller)
    assert printed.count("training   Kalman filter") == 2
    assert len(names["steps"]) == 2
    assert len(names["read"]("more.xyz@:")) == 14
    assert len(names["read"]("better.traj@:")) == 2


@pytest.mark.slow
def test_copper(follow):
    smaller = {"labelled(200)": "labelled(16)", "labelled(40)": "labelled(4)"}
    smaller |= {"--time 4m": "--time 3s --size small", "(4, 4, 4)": "(2, 2, 2)"}
    smaller |= {"fmax=1e-4": "fmax=0.05", "run             400": "run 5"}
    names, printed = follow("tutorials/copper.md", smaller)
    a, c11, c12, c44 = names["elastic_constants"](names["EMT"]())
    assert 3.5 < a < 3.7
    assert c11 > c12 > c44 > 0
    assert "stress (GPa)" in printed
    assert "Loop time" in printed


@pytest.mark.slow
def test_active_learning(follow):
    smaller = {"iron_water(200, max_water=4)": "iron_water(30, max_water=2)", "[:20]": "[:8]"}
    smaller |= {"iron_water(40, seed=1, max_water=4)": "iron_water(4, seed=1, max_water=2)"}
    smaller |= {"rounds=3, at_a_time=20": "rounds=2, at_a_time=4", '"epochs": 30': '"epochs": 2'}
    names, _ = follow("tutorials/active_learning.md", smaller)
    for history in (names["by_spread"], names["at_random"]):
        assert history[:, 0].tolist() == [8, 12]
        assert (history[:, 1] > 0).all()
    assert Path("learning_curve.svg").stat().st_size > 10_000
