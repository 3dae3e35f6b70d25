"""The part of a study's report about its search: what was tried, what mattered, what was lost."""

import re
from collections import Counter

from amptorch.tuning.report import plots
from amptorch.tuning.report.importance import ENOUGH, shown
from amptorch.tuning.report.parts import (
    Picture,
    Section,
    Table,
    Text,
    budget_words,
    counted,
    duration,
    listed,
    number,
    percent,
)
from amptorch.tuning.space import BY_NAME, Choice
from amptorch.tuning.training import RUNGS

SAMPLERS = {
    "tpe": "the tree-structured Parzen estimator",
    "random": "chance alone",
    "qmc": "a quasi-random sequence",
    "gp": "a Gaussian process",
    "nsga2": "NSGA-II",
}
PRUNERS = {"hyperband": "Hyperband", "asha": "successive halving", "median": "the median of others"}
# So many trials are looked at for numbers at an end of their range, and so much of it is the end.
BEST, END = 5, 0.05
STATES = {"pruned": "ended early"}


def strategy(findings):
    """How the search went about it."""
    tuning, space = findings.tuning, findings.space
    each = budget_words(
        {"epochs": tuning.trial_epochs}
        if tuning.trial_epochs is not None
        else {"seconds": tuning.trial_seconds}
    )
    folds, timed = tuning.validation.folds, tuning.trial_epochs is None
    error = {"rmse": "RMSE", "mae": "MAE", "median": "median absolute error"}[tuning.metric]
    terms = f"the {error} of the energy in meV/atom"
    if findings.base_forces:
        terms += f" plus {tuning.force_weight:g} times the {error} of the forces in eV/Å"
    if folds > 1:
        each += f", shared by {folds} folds" if timed else f" in each of {folds} folds"
    others = len(space.starts()) - 1
    text = (
        f"Each trial trained for {each}, and its error is {terms}. The first trial is the "
        "baseline, set by hand"
        + (f", with {counted(others, 'other start')} after it. " if others else ". ")
        + _drawn(tuning, len(findings.records))
    )
    blocks = [Text(text)]
    if len(tuning.objectives) > 1:
        blocks.append(
            Text("Error and cost were minimised together, so that no trial was ended early.")
        )
    elif tuning.pruner == "none":
        blocks.append(Text("No trial was ended early."))
    else:
        blocks.append(
            Text(
                f"At up to {RUNGS - 1} points of its training a trial told its error, and was "
                f"ended where it was behind ({PRUNERS[tuning.pruner]})."
            )
        )
    lines = [["parameter", "searched", "baseline", "best trial"]]
    base = space.baseline()
    best = findings.best["params"] if findings.best else {}
    for name in space.reachable:
        domain = space.domains[name]
        cells = [shown(values[name]) if name in values else "–" for values in (base, best)]
        lines.append([f"`{name}`", _range(domain), *cells])
    note = "A dash: without meaning in that trial, because of another parameter."
    return Section("What was searched, and how", [*blocks, Table(lines, note)])


def _drawn(tuning, n_trials):
    name = f"{SAMPLERS[tuning.sampler]} (Optuna's `{tuning.sampler}`)"
    if tuning.sampler not in ("tpe", "gp"):
        return f"The others were drawn by {name}."
    start = counted(tuning.startup_trials, "trial")
    if n_trials <= tuning.startup_trials:
        return f"The others were drawn at random: {name} begins after {start}."
    return f"Others were drawn at random until {start} had ended, the rest by {name}."


def _range(domain):
    if isinstance(domain, Choice):
        values = [shown(value) for value in domain.values]
        return values[0] + " (fixed)" if len(values) == 1 else ", ".join(values)
    if domain.single:
        return f"{shown(domain.low)} (fixed)"
    text = f"{shown(domain.low)} to {shown(domain.high)}"
    if domain.step is not None:
        text += f" in steps of {shown(domain.step)}"
    return text + (" (logarithmic)" if domain.log else "")


def course(findings):
    """History of the search, and error against cost."""
    if not findings.records:
        return None
    blocks = []
    if findings.complete:
        best = findings.best["number"]
        n = len(findings.records)
        later = sum(record["number"] > best for record in findings.records)
        text = (
            f"The best trial was number {best}; {counted(later, 'trial')} after it did no better."
        )
        if n > 20 and best >= 0.8 * n:
            text += " The search was still finding better ones when it ended: more time may help."
        if ends := _at_an_end(findings):
            text += (
                f" In the {BEST} best trials {listed(ends)} {'is' if len(ends) == 1 else 'are'} at "
                "an end of what was searched: better ones may lie beyond it (`tuning.space`)."
            )
        caption = "Errors of the trials in their order."
        blocks += [Text(text), Picture("history", plots.history(findings), caption)]
    seconds = {}
    for record in findings.records:
        for name, value in record.get("seconds", {}).items():
            seconds[name] = seconds.get(name, 0.0) + value
    if total := sum(seconds.values()):
        parts = [f"{name} {percent(value / total)}" for name, value in seconds.items()]
        blocks.append(
            Text(f"Time of the trials, {duration(total)} of all processes: {', '.join(parts)}.")
        )
    return Section("Course of the search", blocks) if blocks else None


def _at_an_end(findings):
    """Numbers that are at the same end of their range in all of the best trials."""
    if len(findings.complete) < ENOUGH:
        return []
    best = findings.complete[:BEST]
    found = []
    for name, domain in findings.space.domains.items():
        if isinstance(domain, Choice) or domain.single:
            continue
        if not all(name in record["params"] for record in best):
            continue
        shares = [domain.share(record["params"][name]) for record in best]
        limits = BY_NAME[name].limits
        high = min(shares) > 1 - END and domain.high < limits[1]
        low = max(shares) < END and domain.low > limits[0]
        if high or low:
            found.append(f"`{name}` ({shown(best[0]['params'][name])})")
    return found


def cost(findings):
    """The Pareto front."""
    if not findings.complete:
        return None
    front = findings.front
    header = ["trial", "error", "µs/atom", "energy RMSE (meV/atom)", "functions", "weights"]
    header[4:4] = ["force RMSE (eV/Å)"] if findings.forces else []
    lines = [header]
    for record in front:
        quantities = ("energy", "forces") if findings.forces else ("energy",)
        cells = [number(record["errors"][q]["rmse"]) for q in quantities]
        sizes = [str(record.get(key, "–")) for key in ("n_functions", "n_parameters")]
        lines.append(
            [str(record["number"]), number(record["error"]), number(record["cost"]), *cells, *sizes]
        )
    cheap, good = front[0], front[-1]
    if len(front) == 1:
        text = f"Trial {good['number']} is both the most accurate and the cheapest."
    else:
        text = (
            f"{counted(len(front), 'trial')} of {len(findings.complete)} are such that none is "
            f"both more accurate and cheaper. From the cheapest ({cheap['number']}) to the most "
            f"accurate ({good['number']}) the cost is {number(good['cost'] / cheap['cost'], 2)} "
            f"times as high and the error {percent(1 - good['error'] / cheap['error'])} lower. "
            "`amptorch pick` takes one of them."
        )
    base = findings.baseline
    if base is not None:
        better = [r for r in front if r["error"] <= base["error"] and r["cost"] < base["cost"]]
        if better:
            cheapest = better[0]
            text += (
                f" Trial {cheapest['number']} is as accurate as the baseline, or more so, at "
                f"{number(cheapest['cost'] / base['cost'], 2)} of its cost."
            )
    caption = "Error against the time of energy and forces; numbers are those of trials."
    blocks = [Text(text), Table(lines), Picture("cost", plots.front(findings), caption)]
    return Section("Error against cost", blocks)


def lost(findings):
    """Trials without an error, grouped by the reason."""
    groups, examples = Counter(), {}
    for record in findings.records:
        if record["state"] == "complete":
            continue
        reason = _general(record)
        groups[record["state"], reason] += 1
        examples.setdefault((record["state"], reason), record["number"])
    if not groups:
        text = "Every trial gave an error." if findings.records else "There are no trials yet."
        return Section("Trials without a result", [Text(text)])
    lines = [["what happened", "reason", "trials", "such as"]]
    for (state, reason), n in groups.most_common():
        lines.append([STATES.get(state, state), reason, str(n), str(examples[state, reason])])
    blocks = [Table(lines)]
    ended = [
        r["reports"][-1][0] / RUNGS
        for r in findings.records
        if r["state"] == "pruned" and r.get("reports")
    ]
    if ended:
        blocks.append(
            Text(
                f"Trials that were ended early had used {percent(sum(ended) / len(ended))} of "
                "their budget on average."
            )
        )
    return Section("Trials without a result", blocks)


def _general(record):
    """A reason without what is special to one trial, and of one line."""
    if record["state"] == "pruned":
        return "its error was not among the best of those that got so far"
    first = record.get("reason", "").splitlines()[0] if record.get("reason") else "unknown"
    return re.sub(r"(?<![\w.])[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "…", first)
