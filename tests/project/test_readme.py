"""The examples of the README run."""

import re
from pathlib import Path

import numpy as np

from amptorch.config import Config
from amptorch.files import read_config

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf8")


def example(language):
    (code,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return code


def test_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = example("python").replace('"epochs": 20', '"epochs": 2').replace("(40)", "(10)")
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # our own file
    assert np.isfinite(names["atoms"].positions).all()
    frames, prediction = names["frames"], names["prediction"]
    assert names["again"].predict(frames[:5])["energy"] == prediction["energy"]


def test_yaml_example(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(example("yaml"))
    config = Config.from_dict(read_config(path))
    assert config.optim.lr == 0.01
    assert config.dataset.fp_scheme == "gaussian"
