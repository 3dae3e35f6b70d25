"""The examples of the README run."""

import re
from pathlib import Path

import numpy as np

from amptorch.config import Config
from amptorch.files import read_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf8")
DEFAULTS = (ROOT / "docs" / "defaults.md").read_text(encoding="utf8")


def examples(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = examples("python")
    first = first.replace("seconds=30", "seconds=5").replace("(40)", "(10)")
    names = {}
    exec(compile(first, "README.md", "exec"), names)  # our own file
    assert np.isfinite(names["atoms"].positions).all()
    frames, prediction = names["frames"], names["prediction"]
    assert names["again"].predict(frames[:5])["energy"] == prediction["energy"]
    exec(compile(second.replace('"epochs": 20', '"epochs": 2'), "README.md", "exec"), names)
    assert len(names["trainer"].net.history) == 2


def test_the_configuration_with_a_recipe(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "defaults: recommended\n" + re.findall(r"```yaml\n(.*?)```", DEFAULTS, re.DOTALL)[0]
    )
    config = Config.from_dict(read_config(path))
    assert config.dataset.fp_params["n_radial"] == 10
