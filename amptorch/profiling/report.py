"""Write the report of a profile: a page for people, JSON for machines."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

VERSION = 1


@dataclass
class Report:
    """Hold what a tool has found.

    tool: which part of report.html shows it; data: {name: JSON types} for machines; page: {name:
    tables, pictures (SVG), texts} that this part asks for; summary: text for the terminal;
    environment: see `amptorch.profiling.environment`; error: why something is missing, or None.
    """

    tool: str
    title: str
    data: dict[str, Any]
    summary: str
    environment: dict[str, Any]
    page: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def write(self, folder: Path) -> None:
        """Write report.html and report.json to `folder`; the page needs no other file."""
        content = {"version": VERSION, "title": self.title, "environment": self.environment}
        content |= {"error": self.error} if self.error else {}
        text = json.dumps({**content, **self.data}, indent=1)
        (folder / "report.json").write_text(text, encoding="utf8")
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("amptorch.profiling", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = environment.get_template("report.html").render(vars(self))
        (folder / "report.html").write_text(page, encoding="utf8")
