"""The report of a profile: a page for people, JSON for machines."""

import json
from dataclasses import dataclass, field

import jinja2

VERSION = 1


@dataclass
class Section:
    """A part of the page: any of a note, a picture (SVG), a table (lines of cells, header first),
    text as it is, and links to files beside the page."""

    title: str
    note: str = ""
    svg: str = ""
    lines: list = field(default_factory=list)
    text: str = ""
    links: list = field(default_factory=list)


@dataclass
class Report:
    """title, notes: text at the top; sections: of the page; data: {name: JSON types} for machines;
    summary: text for the terminal; environment: see `amptorch.profiling.environment`; error: why
    something is missing, or None."""

    title: str
    notes: list
    sections: list
    summary: str
    data: dict
    environment: dict
    error: str | None = None

    def write(self, folder):
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
