"""The report of a study: report.html, report.md with its figures, and results.zip."""

import html
import io
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt

from amptorch.profiling.environment import environment
from amptorch.profiling.plots import as_svg
from amptorch.tuning.objective import COST_LIMIT
from amptorch.tuning.picking import train_config
from amptorch.tuning.report import facts, plots, words
from amptorch.tuning.report.archive import trial_table, write_results
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.importance import shown
from amptorch.tuning.space import BY_NAME
from amptorch.tuning.training import RUNGS
from amptorch.writing import write_atomically

TITLE = "Tuning of a neural network potential"
FIGURES = "figures"
DPI = 130


def write_report(out: str | os.PathLike[str]) -> list[Path]:
    """Write `report.html`, `report.md`, `figures/`, `configurations/`, `trials.csv` and
    `results.zip` into the folder of a study, finished or running.

    report.html holds everything and needs no other file. Nothing is computed but from what is in
    the folder. Returns the paths of both reports and of the archive. Raises FileNotFoundError where
    there is no study.
    """
    findings = Findings(out)
    text, names = markdown(findings)
    drawn = {name: plots.FIGURES[name](findings) for name in names}
    files: dict[str, str | bytes] = {}
    for name, figure in drawn.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=DPI)
        files[f"{FIGURES}/{name}.png"] = image.getvalue()
    for name, config in configurations(findings).items():
        content = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        files[f"{facts.CONFIGURATIONS}/{name}.yaml"] = content
    page = as_page(text, {name: as_svg(figure) for name, figure in drawn.items()})
    files |= {"trials.csv": trial_table(findings), "report.md": text, "report.html": page}
    folder = findings.out
    for path in (folder / FIGURES).glob("*.png"):
        if path.stem not in drawn:
            path.unlink()
    for name, data in files.items():
        with write_atomically(folder / name) as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf8"))
    return [folder / "report.html", folder / "report.md", write_results(findings)]


def markdown(findings: Findings) -> tuple[str, list[str]]:
    """Return the report in Markdown, and the names of the figures that it shows."""
    names: list[str] = []

    def picture(name: str, caption: str) -> str:
        names.append(name)
        return f"![{caption}]({FIGURES}/{name}.png)"

    template = _environment()
    template.globals |= {name: found for name, found in vars(words).items() if callable(found)}
    template.globals |= {"environment": environment, "picture": picture, "shown": shown}
    template.globals |= {"facts": facts, "RUNGS": RUNGS, "BY_NAME": BY_NAME}
    template.globals["COST_LIMIT"] = COST_LIMIT
    source = resources.files(__package__).joinpath("report.md").read_text(encoding="utf8")
    # A block that ends before an empty line takes one line break away.
    text = template.from_string(source.replace("\n\n", "\n\n\n")).render(title=TITLE, f=findings)
    return _in_paragraphs(text), names


def as_page(text: str, pictures: dict[str, str]) -> str:
    """Return an HTML page of a report in Markdown; pictures: {name: SVG}."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="wide" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")

    def drawn(found: re.Match[str]) -> str:
        return f"<figure>{pictures[found[1]]}<figcaption>{found[2]}</figcaption></figure>"

    body = re.sub(rf'<p><img src="{FIGURES}/([\w-]+)\.png" alt="([^"]*)" /></p>', drawn, body)
    return _environment().get_template("report.html").render(title=html.escape(TITLE), body=body)


def configurations(findings: Findings) -> dict[str, dict[str, Any]]:
    """Return {name: configuration}: as the study was given it, of the baseline and the best trial,
    ready for `amptorch train`, and of every final training as it was."""
    found = {"tuning": findings.about["config"]}
    for name, record in (("baseline", findings.baseline), ("best", findings.best)):
        if record is not None:
            found[name] = train_config(record)
    trainings = findings.plan["trainings"] if findings.plan else {}
    return found | {f"final-{name}": training["config"] for name, training in trainings.items()}


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("amptorch.tuning.report", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _in_paragraphs(text: str) -> str:
    """Set each paragraph as one line; tables and code stay as they are."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        block = block.strip()
        if not block.startswith(("|", "```")):
            block = re.sub(r" ([.,;:])(?= |$)", r"\1", " ".join(block.split()))
        if block:
            blocks.append(block)
    return "\n\n".join(blocks) + "\n"
