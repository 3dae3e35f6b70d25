"""The site is built without a warning, and its reference holds what the package has."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from amptorch.config import SECTIONS

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "docs" / "tools"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "profiling")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.fixture
def tool(monkeypatch):
    """Imports a module of docs/tools by name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_every_key_of_the_configuration_is_there(tool):
    page = tool("reference").configuration()
    keys = re.findall(r"^`(\w+\.\w+)`\n:   (.*)<br>(.*)$", page, re.MULTILINE)
    expected = [
        (f"{name}.{key.name}", key.metadata["meaning"])
        for name, section in SECTIONS.items()
        for key in fields(section)
    ]
    assert [(key, meaning) for key, meaning, _ in keys][: len(expected)] == expected
    facts = {key: facts for key, _, facts in keys}
    assert facts["optim.loss"] == ("'mse' or 'mae' or 'huber' · default `mse` · recommended `mse`")
    assert facts["optim.batch_size"] == (
        "an integer at least 1 or 'auto' · default `32` · recommended `auto`"
    )
    assert "tuning.search_share" in facts


def test_every_command_says_what_its_help_says(tool):
    page = tool("reference").command_line()
    for name in ("train", "init", "evaluate", "predict", "tune", "lammps", "convert", "demo"):
        assert f"## {name}\n" in page
    part = page.split("## evaluate")[1].split("\n## ")[0]
    assert "amptorch evaluate [OPTIONS]" in part
    assert "`--plot`\n:   Draw predictions over references." in part
    assert "default: parity.png" in part


def test_links_lead_to_pages_of_the_site(tool):
    replaced = tool("pages").with_links_of_the_site
    text = "[a](../CHANGELOG.md#added) [b](data.md) [c](https://x.org/README.md) `d[0](e)`"
    assert replaced(text, "docs/store.md", "store.md") == text.replace("../CHANGELOG", "changelog")
    text = "[a](docs/tutorials/copper.md) [b](CONTRIBUTING.md)"
    assert replaced(text, "CHANGELOG.md", "changelog.md") == (
        "[a](tutorials/copper.md) [b](contributing.md)"
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(path):
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf8")):
        if not re.match(r"\w+:", link):
            assert (path.parent / link).exists(), f"{path}: {link}"


def test_pictures_have_a_text_for_those_who_do_not_see_them():
    for path in PAGES:
        for text, link in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text(encoding="utf8")):
            assert len(text) > 10, f"{path}: {link}"


def test_lines_of_docstrings_become_lists(tool):
    pytest.importorskip("griffe")
    text = tool("docstrings").markdown(
        "Do this.\n\na : one\n    and more\nb, c : two\nThe end.\n\nAttributes\n----------\nd : x"
    )
    assert text == (
        "Do this.\n\n\n- `a`: one\n    and more\n- `b`, `c`: two\n\nThe end.\n\n**Attributes**\n"
        "\n- `d`: x"
    )


@pytest.mark.slow
def test_the_site_is_built_and_needs_no_network(tmp_path):
    pytest.importorskip("material", reason="needs pip install -e .[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "force_per_mev" in (tmp_path / "reference" / "configuration.html").read_text("utf8")
    names = (tmp_path / "reference" / "api.html").read_text("utf8")
    assert 'id="amptorch.training.quick.train"' in names
    assert "<li><code>seconds</code>: for everything" in names
    assert (tmp_path / "search" / "search_index.js").is_file()
    assert not (tmp_path / "tools").exists()
    for page in tmp_path.rglob("*.html"):
        loaded = r'<(?:script|img|link)\b[^>]*?(?:src|href)="(https?:)?//'
        assert not re.search(loaded, page.read_text("utf8")), page
