"""Write the report of a profile: a page for people, JSON for machines."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from amptorch.profiling.estimate import Estimate
from amptorch.profiling.job import Job


@dataclass
class Findings:
    """Hold what a tool has found.

    data: {name: JSON types} for machines; page: {name: tables, pictures (SVG), texts} that the part
    of report.html for this tool asks for; summary: text for the terminal.
    """

    data: dict[str, Any]
    page: dict[str, Any]
    summary: str


def write_report(
    folder: Path,
    tool: str,
    job: Job,
    estimate: Estimate,
    environment: dict[str, Any],
    found: Findings,
) -> None:
    """Write report.html and report.json to `folder`; the page needs no other file.

    environment: see `amptorch.profiling.environment`
    """
    content = {"tool": tool, "environment": environment, "estimated": estimate.seconds}
    text = json.dumps({**content, **found.data}, indent=1)
    (folder / "report.json").write_text(text, encoding="utf8")
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("amptorch.profiling", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html").render(
        tool=tool,
        job=job,
        estimate=estimate.text(),
        environment=environment,
        data=found.data,
        page=found.page,
    )
    (folder / "report.html").write_text(page, encoding="utf8")
