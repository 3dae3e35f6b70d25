"""What is published says the same everywhere: dependencies, version, licence, title."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import amptorch

ROOT = Path(__file__).parents[2]
# Packages that have another name on conda-forge.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def project():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf8"))


def test_the_recipe_has_the_dependencies_of_the_package(project, recipe):
    wanted = {f"python {project['requires-python']}"}
    for dependency in project["dependencies"]:
        name, limits = re.fullmatch(r"([\w-]+)(.*)", dependency).groups()
        wanted.add(f"{CONDA.get(name, name)} {limits}")
    assert set(recipe["requirements"]["run"]) == wanted


def test_the_version_and_the_licence_are_the_same_everywhere(project, recipe):
    version = amptorch.__version__
    assert recipe["context"]["version"] == version.partition(".dev")[0]
    assert f"## [{version.partition('.dev')[0]}]" in (ROOT / "CHANGELOG.md").read_text("utf8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf8"))
    assert zenodo["title"] == citation["title"]
    assert {author["name"] for author in zenodo["creators"]} == {
        author["name"] for author in citation["authors"]
    }
    licences = {item["license"] for item in (project, recipe["about"], citation, zenodo)}
    assert licences == {"GPL-3.0-or-later"}


def test_the_recipe_has_the_command(project, recipe):
    ((name, function),) = project["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {function}"]
