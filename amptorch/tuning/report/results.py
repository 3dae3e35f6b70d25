"""The part of a study's report about its result: errors, and where they are."""

from amptorch.tuning.final import BASELINE
from amptorch.tuning.report import plots
from amptorch.tuning.report.parts import (
    Picture,
    Section,
    Table,
    Text,
    budget_words,
    compared,
    counted,
    duration,
    listed,
    number,
    percent,
)

STATISTICS = ("rmse", "mae", "median")
UNITS = {"energy": "meV/atom", "forces": "eV/Å"}


def in_short(findings):
    """The first section: what was asked, what came out."""
    about, records = findings.about, findings.records
    elements = listed(about["elements"])
    space = findings.space
    searched = len(set(space.searched) & set(space.reachable))
    lines = [
        f"{counted(about['frames'], 'training frame')} of {elements}; "
        f"{counted(searched, 'parameter')} of symmetry functions, network and training searched "
        f"together in {counted(len(records), 'trial')}{_states(findings)}, and "
        f"{duration(findings.seconds)} in all."
    ]
    if findings.best is None:
        lines.append(
            "No trial has given an error yet, so that there is nothing to compare."
            if not records or any(record["state"] == "interrupted" for record in records)
            else "No trial gave an error, so that there is no result; the reasons are below."
        )
        return Section("In short", [Text(line) for line in lines])
    lines.append(_best_line(findings))
    lines.append(_chosen_line(findings))
    if findings.test is not None:
        lines.append(_test_line(findings))
    return Section("In short", [Text(line) for line in lines if line])


def _states(findings):
    names = {
        "complete": "completed",
        "pruned": "ended early",
        "diverged": "diverged",
        "failed": "failed",
        "died": "died with their process",
        "interrupted": "interrupted and run again",
    }
    states = [record["state"] for record in findings.records]
    parts = [f"{states.count(s)} {words}" for s, words in names.items() if s in states]
    return f" ({', '.join(parts)})" if parts else ""


def errors_words(errors, statistic="rmse"):
    """ "4.21 meV/atom and 0.467 eV/Å"."""
    parts = [f"{number(errors[q][statistic])} {unit}" for q, unit in UNITS.items() if q in errors]
    return listed(parts)


def _best_line(findings):
    best, base = findings.best, findings.baseline
    text = (
        f"Best trial on the validation frames: number {best['number']}, RMSE "
        f"{errors_words(best['errors'])} at {number(best['cost'])} µs/atom. "
    )
    if base is None:
        return text + "There is no baseline to compare it with: its trial gave no error."
    if base["number"] == best["number"]:
        return text + "That is the baseline itself: the search found nothing better."
    return text + (
        f"The baseline, trained for the same time: {errors_words(base['errors'])} at "
        f"{number(base['cost'])} µs/atom; the error that was minimised is "
        f"{compared(best['error'], base['error'])} the baseline's."
    )


def _chosen_line(findings):
    if not findings.tuning.members:
        return "No trial was trained for longer (`members: 0`)."
    if findings.chosen is None:
        if findings.plan is not None and len(findings.results) == len(findings.plan["trainings"]):
            return "All trainings of the best trials failed, so that no model was chosen."
        return "The training of the best trials is not over: no model is chosen yet."
    trials = [str(findings.plan["trainings"][name]["trial"]) for name in findings.members]
    budget = budget_words(findings.plan["budget"])
    if len(trials) == 1:
        what = f"trial {trials[0]}, trained for {budget}"
    elif len(set(trials)) == 1:
        what = f"the mean of {len(trials)} trainings of trial {trials[0]}, which differ in their "
        what += f"seeds, for {budget} each,"
    else:
        what = f"the mean of trials {listed(trials)}, trained for {budget} each"
    return f"Chosen model: {what} on all training frames (`{findings.chosen}`)."


def _test_line(findings):
    chosen, base = findings.test["chosen"], findings.test.get(BASELINE)
    text = (
        f"On the {counted(chosen['frames'], 'test frame')}, which nothing was decided by: RMSE "
        f"{errors_words(chosen)}"
    )
    if base is None:
        return text + ". There is no baseline beside it: its training failed."
    return text + f"; the baseline, trained for as long on the same frames: {errors_words(base)}."


def errors(findings):
    """Tables of errors of the chosen model and the baseline, and what they come to."""
    if findings.test is not None:
        models = {
            name: findings.test[name] for name in ("chosen", BASELINE) if name in findings.test
        }
        title = "Errors on the test frames"
        first = "On frames that neither the search nor the training has seen."
    elif findings.best is not None:
        models = {f"trial {findings.best['number']}": findings.best["errors"]}
        base = findings.baseline
        if base is not None and base["number"] != findings.best["number"]:
            models["baseline trial"] = base["errors"]
        title = "Errors on the validation frames"
        first = (
            "Of trials, in their short training. The best was chosen by these very frames, so that "
            "its errors are too good by the luck of the draw; there are no errors on test frames."
        )
    else:
        return None
    blocks = [Text(first), Table(_error_lines(models))]
    if findings.test is not None:
        blocks += [Text(line) for line in _baseline_lines(findings)]
    blocks.append(Text(_outlier_words(findings, next(iter(models.values())))))
    return Section(title, blocks)


def _error_lines(models):
    quantities = [q for q in UNITS if all(q in result for result in models.values())]
    header = ["", "frames"]
    header += [
        f"{q} {s.upper() if s != 'median' else s} ({UNITS[q]})"
        for q in quantities
        for s in STATISTICS
    ]
    lines = [header]
    for name, result in models.items():
        parts = [(name, result), (f"{name}, without outliers", result.get("without_outliers"))]
        for label, part in parts:
            if part is not None:
                cells = [number(part[q][s]) for q in quantities for s in STATISTICS]
                lines.append([label, str(part["frames"]), *cells])
    return lines


def _baseline_lines(findings):
    chosen, base = findings.test["chosen"], findings.test.get(BASELINE)
    if base is None:
        return []
    lines = []
    trainings = findings.plan["trainings"]
    if [trainings[name]["params"] for name in findings.members] == [trainings[BASELINE]["params"]]:
        lines.append(
            "Both have the configuration of the baseline and differ in the seed alone: what is "
            "between them is chance."
        )
    for quantity, unit in UNITS.items():
        if quantity not in chosen:
            continue
        ours, theirs = chosen[quantity]["rmse"], base[quantity]["rmse"]
        text = (
            f"The RMSE of the {'energy' if quantity == 'energy' else 'forces'}, {number(ours)} "
            f"{unit}, is {compared(ours, theirs)} the baseline's {number(theirs)}. "
        )
        interval = findings.predictions and findings.predictions.ratio(quantity)
        if interval:
            low, high = interval
            text += (
                f"Over test frames drawn again and again from these, it is between {low:.2f} and "
                f"{high:.2f} times the baseline's in 95 of 100 draws"
            )
            text += (
                ": other test frames of the same kind could well turn the order round."
                if low <= 1 <= high
                else ", so that this is not the luck of these frames."
            )
        lines.append(text.strip())
    if "cost" in chosen and "cost" in base:
        lines.append(
            f"Cost: {number(chosen['cost'])} µs/atom for the chosen model, {number(base['cost'])} "
            "for the baseline"
            + (
                f"; the chosen one evaluates {len(findings.members)} networks."
                if len(findings.members) > 1
                else "."
            )
        )
    return lines


def _outlier_words(findings, errors):
    above = findings.about["outliers_above"]
    text = (
        f"Outliers are frames with more than {above:.4f} eV/atom, the 99th percentile of the "
        f"training frames. Nothing was left out: they were trained on {_like_others(findings)}. "
        + _in_the_search(findings.tuning)
    )
    usual = errors.get("without_outliers")
    if usual is None:
        return text + "None of these frames is beyond it, or all are."
    n = errors["frames"] - usual["frames"]
    total = errors["frames"] * errors["energy"]["rmse"] ** 2
    share = 1 - usual["frames"] * usual["energy"]["rmse"] ** 2 / total if total else 0.0
    return text + (
        f"{n} of {counted(errors['frames'], 'frame')} {'is' if n == 1 else 'are'} beyond it and "
        f"{'makes' if n == 1 else 'make'} up {percent(share)} of the sum of squared energy errors "
        "of the first row."
    )


def _in_the_search(tuning):
    if not tuning.validation.outliers:
        return (
            "In the search they were always among the frames trained on, never among those "
            "that validate: one of them can outweigh all others in an RMSE. "
        )
    return {
        "rmse": "The search minimised the RMSE over all frames, in which they weigh most. ",
        "mae": "The search minimised the MAE over all frames, in which they weigh less. ",
        "median": "The search minimised the median error, which hardly depends on them. ",
    }[tuning.metric]


def _like_others(findings):
    weights = (findings.about["config"].get("dataset") or {}).get("weights")
    return "like any other frame" if weights is None else "with the weights of `dataset.weights`"


def learning_curve(findings):
    """Errors against the number of training frames."""
    points = [point for point in findings.curve if "failed" not in point]
    lost = [point for point in findings.curve if "failed" in point]
    if not findings.curve:
        return None
    frames = len(findings.about["folds"][0]["validate"])
    budget = findings.plan["curve_budget"]
    each = (
        f"as many steps as {budget_words(budget)} with all frames take"
        if "epochs" in budget
        else f"{budget_words(budget)} each, however many frames there are"
    )
    blocks = [
        Text(
            "The configuration of the best trial, with its symmetry functions, trained anew on "
            f"fewer frames: {each}. Errors on the {counted(frames, 'validation frame')}"
            + (" of the first fold" if findings.tuning.validation.folds > 1 else "")
            + ", none of which is trained on."
        )
    ]
    if points:
        quantities = [q for q in UNITS if q in points[0]["errors"]]
        header = ["training frames", "epochs"]
        header += [f"{q} {s.upper()} ({UNITS[q]})" for q in quantities for s in ("rmse", "mae")]
        rows = [
            [
                str(p["frames"]),
                str(p["epochs"]),
                *(number(p["errors"][q][s]) for q in quantities for s in ("rmse", "mae")),
            ]
            for p in points
        ]
        blocks.append(Table([header, *rows]))
        blocks += [Text(text) for text in _growth(points, quantities)]
    if len(points) > 1:
        picture = plots.learning(points, "forces" in points[0]["errors"])
        blocks.append(
            Picture("learning-curve", picture, "Error against the number of training frames.")
        )
    for point in lost:
        blocks.append(
            Text(
                f"With {counted(point['frames'], 'frame')} the training failed: {point['failed']}."
            )
        )
    return Section("Learning curve", blocks)


def _growth(points, quantities):
    if len(points) < 2 or points[-1]["frames"] < 1.5 * points[-2]["frames"]:
        return []
    last, before = points[-1], points[-2]
    times = number(last["frames"] / before["frames"], 2)
    parts, falls = [], []
    for quantity in quantities:
        pair = last["errors"][quantity]["rmse"], before["errors"][quantity]["rmse"]
        name = "energy" if quantity == "energy" else "forces"
        parts.append(f"the RMSE of the {name} is {compared(*pair)} that before")
        falls.append(pair[0] < 0.95 * pair[1])
    text = f"With the last step, to {times} times the frames, {listed(parts)}. "
    if all(falls):
        text += "More frames of the same kind would likely help further."
    elif any(falls):
        text += "More frames of the same kind would likely help, though not with all of it."
    else:
        text += (
            "In this time of training more frames of the same kind do not help; longer training or "
            "another network may."
        )
    return [text]
