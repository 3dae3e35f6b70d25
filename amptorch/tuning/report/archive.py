"""results.zip: all that came out of a study in one file, and the table of its trials."""

import csv
import io
import json
import sqlite3
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

from amptorch.checkpoints.folder import CHECKSUMS
from amptorch.tuning.report.findings import Findings
from amptorch.writing import write_atomically

# What goes into the archive as it is, and what makes up the study.
PAGES = ("report.html", "report.md", "trials.csv", "figures/*.*", "configurations/*.*")
STUDY = (
    *("settings.json", "calls.json", "summary.json", "best.json", "test.json", "test.npz"),
    *("trials/*.json", "final/plan.json", "final/*/result.json"),
)


def trial_table(findings: Findings) -> str:
    """Return CSV of all trials: state and reason, errors, cost, times, and every parameter."""
    rows = []
    for record in findings.records:
        row: dict[str, Any] = {"number": record["number"], "state": record["state"]}
        row["reason"] = (record.get("reason") or "").strip().partition("\n")[0]
        row["error"] = record.get("error")
        errors = record.get("errors", {})
        for prefix, part in (("", errors), ("usual_", errors.get("without_outliers", {}))):
            for quantity, unit in (("energy", "meV_per_atom"), ("forces", "eV_per_A")):
                for statistic in ("rmse", "mae", "median"):
                    column = f"{prefix}{quantity}_{statistic}_{unit}"
                    row[column] = part.get(quantity, {}).get(statistic)
        row["last_reported_error"] = record["reports"][-1][1] if record.get("reports") else None
        row["cost_us_per_atom"] = record.get("cost")
        row["functions"], row["weights"] = record.get("n_functions"), record.get("n_parameters")
        epochs = [len(next(iter(fold.values()), ())) for fold in record.get("epochs", ())]
        row["epochs"] = sum(epochs) if epochs else None
        for name in ("fingerprints", "training", "evaluation"):
            row[f"seconds_{name}"] = record.get("seconds", {}).get(name)
        row |= {name: record.get("params", {}).get(name) for name in findings.space.domains}
        rows.append(row)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def write_results(findings: Findings) -> Path:
    """Write `results.zip`, as a whole; return its path.

    Report and figures, trials.csv, configurations, the chosen model and the baseline as checkpoints
    that load from wherever they are, and in `study/` the records of the trials and the Optuna study
    where it is in the folder or in a journal (a database of its own stays where it is). Names of
    this machine's folders are taken out of the texts.
    """
    out, summary = findings.out, findings.summary or {}
    files = {f"study/{p.relative_to(out)}": p for glob in STUDY for p in sorted(out.glob(glob))}
    models = {summary.get("baseline"): "baseline", summary.get("chosen"): "checkpoint"}
    for folder, name in models.items():
        model = out / (folder or ".")
        for path in sorted(model.rglob("*")) if model != out else ():
            inside = path.relative_to(model)
            # What only an interrupted training would need is left out, and checksums of files
            # whose text is not the same here; the archive has its own.
            if path.is_file() and "epochs" not in inside.parts and path.name != CHECKSUMS:
                files[f"{name}/{inside.as_posix()}"] = path
    folders = _folders(findings)
    archive = out / "results.zip"
    with (
        write_atomically(archive) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for path in (path for glob in PAGES for path in sorted(out.glob(glob))):
            target.write(path, f"results/{path.relative_to(out)}")
        for name, path in files.items():
            if path.suffix != ".json":
                target.write(path, f"results/{name}")
                continue
            text = path.read_text(encoding="utf8")
            for folder in folders:
                text = text.replace(json.dumps(f"{folder}/")[1:-1], "")
                text = text.replace(json.dumps(folder)[1:-1], ".")
            target.writestr(f"results/{name}", text)
        if (out / "study.db").exists():
            target.writestr("results/study/study.db", _database(out / "study.db"))
        for url in {call["storage"] or "" for call in findings.calls}:
            journal = Path(url.removeprefix("journal:"))
            if url.startswith("journal:") and journal.is_file():
                target.write(journal, f"results/study/{journal.name}")
    return archive


def _folders(findings: Findings) -> list[str]:
    """Return the folders that this study's texts may name, those inside others first."""
    files = [findings.about["data"]]
    for call in findings.calls:
        files += [call[key] for key in ("train", "test") if call[key]]
        files.append((call["storage"] or "").removeprefix("journal:").removeprefix("sqlite:///"))
    parents = {str(Path(file).parent) for file in files if Path(file).is_absolute()}
    return sorted({str(findings.out), *parents} - {"/"}, key=len, reverse=True)


def _database(path: Path) -> bytes:
    """Return the bytes of an SQLite file as of one moment, though others may write to it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy.read_bytes()
