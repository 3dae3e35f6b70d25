"""The report of a study: report.html, report.md with its figures, and results.zip."""

import io
import re

import jinja2
import yaml
from markupsafe import Markup, escape

from amptorch.files import write_atomically
from amptorch.profiling.plots import as_svg
from amptorch.tuning.picking import train_config
from amptorch.tuning.report import conduct, held_out, mattered, results, search
from amptorch.tuning.report.archive import trial_table, write_results
from amptorch.tuning.report.findings import Findings

TITLE = "Tuning of a neural network potential"
FIGURES = "figures"
DPI = 130


def write_report(out):
    """Write `report.html`, `report.md`, `figures/`, `configurations/`, `trials.csv` and
    `results.zip` into the folder of a study, finished or running.

    report.html holds everything and needs no other file. Nothing is computed but from what is in
    the folder. Returns the paths of both reports and of the archive. Raises FileNotFoundError where
    there is no study.
    """
    findings = Findings.read(out)
    sections = sections_of(findings)
    out = findings.out
    pictures = [b for section in sections for b in section.blocks if b.kind == "picture"]
    for picture in pictures:
        image = io.BytesIO()
        picture.figure.savefig(image, format="png", dpi=DPI)
        _replace(out / FIGURES / f"{picture.name}.png", image.getvalue())
    drawn = {f"{picture.name}.png" for picture in pictures}
    for path in (out / FIGURES).glob("*.png"):
        if path.name not in drawn:
            path.unlink()
    for name, config in configurations(findings).items():
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        _replace(out / conduct.CONFIGURATIONS / f"{name}.yaml", text.encode("utf8"))
    _replace(out / "trials.csv", trial_table(findings).encode("utf8"))
    for name in ("report.html", "report.md"):
        page = _template(name).render(title=TITLE, sections=sections, figures=FIGURES)
        _replace(out / name, page.encode("utf8"))
    archive = write_results(findings)
    return [out / "report.html", out / "report.md", archive]


def sections_of(findings):
    """The sections of a report, those that have something to say."""
    sections = [
        results.in_short(findings),
        results.errors(findings),
        *held_out.held_out(findings),
        results.learning_curve(findings),
        search.strategy(findings),
        mattered.mattered(findings),
        search.course(findings),
        search.cost(findings),
        search.lost(findings),
        conduct.validation(findings),
        conduct.again(findings),
        conduct.machines(findings),
    ]
    return [section for section in sections if section is not None]


def configurations(findings):
    """{name: configuration}: as the study was given it, of the baseline and the best trial, ready
    for `amptorch train`, and of every final training as it was."""
    found = {"tuning": findings.about["config"]}
    for name, record in (("baseline", findings.baseline), ("best", findings.best)):
        if record is not None:
            found[name] = train_config(record)
    if findings.plan is not None:
        for name, training in findings.plan["trainings"].items():
            found[f"final-{name}"] = training["config"]
    return found


def _template(name):
    page = name.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amptorch.tuning.report", "."),
        autoescape=page,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": _code,
        "svg": lambda figure: Markup(as_svg(figure)),
        "cell": _cell,
    }
    return environment.get_template(name)


def _code(text):
    """HTML of a text in which `names` stand in backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _cell(text):
    """A cell of a table in Markdown."""
    return text.replace("|", r"\|")


def _replace(path, data):
    with write_atomically(path) as file:
        file.write(data)
