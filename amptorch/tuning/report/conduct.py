"""The part of a study's report about its conduct: validation, commands, machine, versions."""

import shlex
from pathlib import Path

from amptorch.profiling.environment import environment
from amptorch.tuning.prepare import FLATTERS
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.parts import (
    Code,
    Section,
    Table,
    Text,
    budget_words,
    counted,
    listed,
    signed,
)

# Of `environment`, what is said of every machine; the rest is versions.
LEFT_OUT = ("date", "load at the start", "threads of torch")
CONFIGURATIONS = "configurations"
FLATTERED = ": frames drawn at random, as here, flatter; `method: blocked` would not."
NOT_FLATTERED = ", so that frames drawn at random would have flattered."


def validation(findings: Findings) -> Section:
    """What was validated how, and when the test frames were opened."""
    about, tuning = findings.about, findings.tuning
    fold = about["folds"][0]
    trained, validated = len(fold["train"]), len(fold["validate"])
    sentence = tuning.validation.describe().replace("%", " %")
    in_each = "In each fold about " if tuning.validation.folds > 1 else ""
    correlated = about["correlation"] > FLATTERS
    random = tuning.validation.method == "random"
    lines = [
        f"{sentence[0].upper()}{sentence[1:]}. {in_each}{counted(trained, 'frame')} to train "
        f"on and {validated} to validate on. Energies of consecutive frames correlate with "
        f"{signed(about['correlation'])}"
        + ("." if not correlated else FLATTERED if random else NOT_FLATTERED),
        f"{_fitted(tuning)} Trials were compared by their errors on the validation frames; the "
        "smallest of many is too good by the luck of the draw.",
    ]
    if findings.plan is not None:
        names = list(findings.plan["trainings"])
        best = counted(len(names) - 1, "best trial")
        if tuning.ensemble == "seeds":
            best = f"best trial, with {counted(len(names) - 1, 'seed')},"
        lines.append(
            f"The {best} and the baseline were then trained on "
            f"all {about['frames']} training frames, for {budget_words(findings.plan['budget'])} "
            "each; these trainings were not validated, and nothing was chosen among them."
        )
        failed = [n for n, result in findings.results.items() if "failed" in result]
        if failed:
            reasons = [f"{name} ({findings.results[name]['failed']})" for name in failed]
            lines.append(f"Failed: {listed(reasons)}.")
        cut = [
            f"{name} after {counted(len(next(iter(result['epochs'].values()))), 'epoch')} "
            f"({result['cut_short']})"
            for name, result in findings.results.items()
            if "cut_short" in result
        ]
        if cut:
            lines.append(f"Cut short, so that the best epoch until then is taken: {listed(cut)}.")
    lines.append(_test_words(findings))
    return Section("How it was validated", [Text(line) for line in lines])


def _test_words(findings):
    if findings.test is not None:
        n = findings.test["chosen"]["frames"]
        when = f", on {_moment(findings.test['opened'])}," if "opened" in findings.test else ""
        return (
            f"The {counted(n, 'test frame')} were opened once{when} after every decision and "
            "every training, for the chosen model and the baseline. Before that they were only "
            "checked to be usable (elements; whether energies and forces are there). What came "
            "out is in `test.json`, from which it is read ever since; a study that was tested "
            "searches no more."
        )
    if any(call["test"] for call in findings.calls):
        return "The test frames were not opened yet."
    return (
        "No test frames were given. All errors here are on validation frames, by which the "
        "configuration was chosen; errors on frames of another run are likely larger."
    )


def _fitted(tuning):
    if tuning.validation.folds == 1:
        return (
            "Scalers and symmetry functions of the trials were fitted to the frames that are "
            "trained on, alone."
        )
    return (
        "Scalers were fitted to the frames that are trained on, alone, in each fold. Symmetry "
        "functions are the same in all folds: they were placed by the structures, not the energies "
        "or forces, that the first fold trains on, some of which validate in the others."
    )


def _moment(iso):
    return iso.replace("T", " at ").replace("+00:00", " UTC")


def again(findings: Findings) -> Section:
    """Commands to repeat it, and to use what came out."""
    call = findings.calls[-1] if findings.calls else {}
    folder = findings.out.name
    words = ["amptorch", "tune", "--train", _file(call.get("train") or findings.about["data"])]
    if call.get("test"):
        words += ["--test", _file(call["test"])]
    words += ["--out", folder]
    if call.get("trials"):
        words += ["--trials", str(call["trials"])]
    if call.get("seconds"):
        words += ["--time", _time(call["seconds"])]
    if not call:
        words += ["--trials", str(len(findings.records))]
    if findings.about["config"]:
        words += ["--config", f"{CONFIGURATIONS}/tuning.yaml"]
    if call.get("storage"):
        words += ["--storage", _url(call["storage"])]
    if call.get("workers") is not None:
        words += ["--workers", str(call["workers"])]
    lines = [shlex.join(words), shlex.join(["amptorch", "report", folder])]
    if findings.complete:
        lines.append(shlex.join(["amptorch", "pick", folder]))
        best = ["amptorch", "train", f"{CONFIGURATIONS}/best.yaml", "--data", words[3]]
        lines.append(shlex.join(best))
    if findings.chosen is not None:
        predict = [
            "amptorch",
            "predict",
            f"{folder}/{findings.chosen}",
            "frames.traj",
            "predicted.traj",
        ]
        lines.append(shlex.join(predict))
    note = (
        "The search, this report, the choice of another trial, the training of the best trial's "
        "configuration, and predictions. The same search on another machine, or with other "
        "workers, draws other trials: what a minute of training gives depends on the machine."
    )
    return Section("To do it again", [Text(note), Code("\n".join(lines))])


def _file(given):
    """A file by its name alone, for the folder it is in belongs to one machine; what was given
    from Python as a word to be replaced."""
    return "FRAMES" if given.endswith("from Python") else Path(given).name


def _url(storage):
    """A storage without the folder of its file."""
    kind, found, path = storage.partition(":///" if storage.startswith("sqlite") else "journal:")
    return f"{kind}{found}{Path(path).name}" if found else storage


def _time(seconds):
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def machines(findings: Findings) -> Section:
    """Machine and versions of every call that differs."""
    seen = []
    for call in findings.calls:
        kept = {k: v for k, v in call["environment"].items() if k not in LEFT_OUT and v is not None}
        if kept not in seen:
            seen.append(kept)
    blocks = []
    if not seen:
        blocks.append(
            Text("Of the machine that wrote this report; the study did not note its own.")
        )
        own = environment()
        seen = [{k: v for k, v in own.items() if k not in LEFT_OUT and v is not None}]
    names = list(dict.fromkeys(name for one in seen for name in one))
    header = ["", *(f"machine or version {k}" for k in range(1, len(seen) + 1))]
    lines = [header if len(seen) > 1 else ["", ""]]
    lines += [[name, *(str(one.get(name, "–")) for one in seen)] for name in names]
    if findings.calls:
        times = [_moment(call["begun"]) for call in findings.calls]
        begun = (
            times[0]
            if len(times) == 1
            else f"{times[0]}, gone on with {counted(len(times) - 1, 'time')}"
        )
        blocks.append(Text(f"Begun on {begun}."))
    return Section("Machine and versions", [*blocks, Table(lines)])
