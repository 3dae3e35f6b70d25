"""The examples of the README and of some pages run."""

import re
from pathlib import Path

import numpy as np
import pytest

from amptorch.config import Config
from amptorch.files import read_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf8")
MIGRATION = (ROOT / "docs" / "migration.md").read_text(encoding="utf8")
DEFAULTS = (ROOT / "docs" / "defaults.md").read_text(encoding="utf8")


def examples(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_potential_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = examples(README)
    code = code.replace("seconds=30", "seconds=3").replace("(40)", "(10)")
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # our own file
    assert np.isfinite(names["atoms"].positions).all()
    again = names["amptorch"].load("iron-water").predict(names["frames"][:5])
    assert again["energy"] == names["prediction"]["energy"]


def test_the_script_of_v1(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = examples(MIGRATION)
    code = code.replace('"epochs": 20', '"epochs": 2').replace("(40)", "(10)")
    names = {}
    exec(compile(code, "migration.md", "exec"), names)  # our own file
    assert len(names["trainer"].net.history) == 2


def test_the_configuration_with_a_recipe(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "defaults: recommended\n" + re.findall(r"```yaml\n(.*?)```", DEFAULTS, re.DOTALL)[0]
    )
    config = Config.from_dict(read_config(path))
    assert config.dataset.fp_params["n_radial"] == 10
