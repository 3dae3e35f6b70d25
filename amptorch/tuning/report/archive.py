"""results.zip: all that came out of a study in one file, and the table of its trials."""

import csv
import io
import json
import sqlite3
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path

from amptorch.checkpoints.folder import CHECKSUMS
from amptorch.tuning.final import PREDICTIONS
from amptorch.tuning.report.findings import Findings
from amptorch.writing import write_atomically

ERRORS = ("rmse", "mae", "median")
# Beside the log of the trials, what makes up the study.

STUDY = ("settings.json", "calls.json", "summary.json", "best.json", "test.json", PREDICTIONS)


def trial_table(findings: Findings) -> str:
    """Return CSV of all trials: state and reason, errors, cost, times, and every parameter."""
    names = list(findings.space.domains)
    rows = []
    for record in findings.records:
        row = {"number": record["number"], "state": record["state"]}
        row["reason"] = (record.get("reason") or "").strip().partition("\n")[0]
        row["error"] = record.get("error")
        errors = record.get("errors", {})
        usual = errors.get("without_outliers", {})
        for prefix, part in (("", errors), ("usual_", usual)):
            for quantity, unit in (("energy", "meV_per_atom"), ("forces", "eV_per_A")):
                for statistic in ERRORS:
                    column = f"{prefix}{quantity}_{statistic}_{unit}"
                    row[column] = part.get(quantity, {}).get(statistic)
        row["last_reported_error"] = record["reports"][-1][1] if record.get("reports") else None
        row["cost_us_per_atom"] = record.get("cost")
        row["functions"], row["weights"] = record.get("n_functions"), record.get("n_parameters")
        epochs = [len(next(iter(fold.values()), ())) for fold in record.get("epochs", ())]
        row["epochs"] = sum(epochs) if epochs else None
        for name in ("fingerprints", "training", "evaluation"):
            row[f"seconds_{name}"] = record.get("seconds", {}).get(name)
        row |= {name: record.get("params", {}).get(name) for name in names}
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
    out = findings.out
    archive = out / "results.zip"
    with (
        write_atomically(archive) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in ("report.html", "report.md", "trials.csv"):
            target.write(out / name, f"results/{name}")
        for folder in ("figures", "configurations"):
            for path in sorted((out / folder).glob("*.*")):
                target.write(path, f"results/{folder}/{path.name}")
        models = {"checkpoint": findings.chosen}
        if findings.summary is not None:
            models["baseline"] = findings.summary["baseline"]
        for name, model in models.items():
            if model is not None:
                _add_folder(target, out / model, f"results/{name}", findings)
        for name in STUDY:
            if (out / name).exists():
                _add(target, out / name, f"results/study/{name}", findings)
        for folder in ("trials", "final"):
            pattern = "*.json" if folder == "trials" else "*/result.json"
            for path in sorted((out / folder).glob(pattern)):
                _add(target, path, f"results/study/{path.relative_to(out)}", findings)
        if (out / "final" / "plan.json").exists():
            _add(target, out / "final" / "plan.json", "results/study/final/plan.json", findings)
        if (out / "study.db").exists():
            target.writestr("results/study/study.db", _database(out / "study.db"))
        for journal in _journals(findings):
            target.write(journal, f"results/study/{journal.name}")
    return archive


def _add_folder(target: zipfile.ZipFile, folder: Path, name: str, findings: Findings) -> None:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        # What only an interrupted training would need is left out, and checksums of files whose
        # text is not the same here; the archive has its own.
        if path.is_file() and "epochs" not in inside.parts and path.name != CHECKSUMS:
            _add(target, path, f"{name}/{inside.as_posix()}", findings)


def _add(target: zipfile.ZipFile, path: Path, name: str, findings: Findings) -> None:
    if path.suffix != ".json":
        target.write(path, name)
        return
    text = path.read_text(encoding="utf8")
    for folder in _folders(findings):
        text = text.replace(json.dumps(f"{folder}/")[1:-1], "").replace(
            json.dumps(folder)[1:-1], "."
        )
    target.writestr(name, text)


def _folders(findings: Findings) -> list[str]:
    """Return the folders that this study's texts may name, those inside others first."""
    files = [findings.about["data"]]
    for call in findings.calls:
        files += [call[key] for key in ("train", "test") if call[key]]
        files.append((call["storage"] or "").removeprefix("journal:").removeprefix("sqlite:///"))
    parents = {str(Path(file).parent) for file in files if Path(file).is_absolute()}
    return sorted({str(findings.out), *parents} - {"/"}, key=len, reverse=True)


def _journals(findings: Findings) -> list[Path]:
    storages = {call["storage"] or "" for call in findings.calls}
    files = [Path(url.removeprefix("journal:")) for url in storages if url.startswith("journal:")]
    return [path for path in files if path.is_file()]


def _database(path: Path) -> bytes:
    """Return the bytes of an SQLite file as of one moment, though others may write to it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy.read_bytes()
