"""Tables, and numbers that take some working out, for the template of the report."""

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from scipy.stats import spearmanr

from amptorch.profiling.environment import environment
from amptorch.tuning.final import BASELINE
from amptorch.tuning.prepare import FLATTERS
from amptorch.tuning.report.findings import Findings, HeldOut
from amptorch.tuning.report.importance import ENOUGH, SHUFFLES, Importance, Mattered, shown
from amptorch.tuning.report.words import budget, compared, listed, number, percent, signed
from amptorch.tuning.settings import TuningConfig
from amptorch.tuning.space import BY_NAME, Choice
from amptorch.tuning.training import RUNGS

__all__ = ["ENOUGH", "FLATTERS", "RUNGS", "SHUFFLES"]

Lines = list[list[str]]
UNITS = {"energy": "meV/atom", "forces": "eV/Å"}
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
STATISTICS = ("rmse", "mae", "median")
STATES = {
    "complete": "completed",
    "pruned": "ended early",
    "diverged": "diverged",
    "failed": "failed",
    "died": "died with their process",
    "interrupted": "interrupted and run again",
}
# Frames, or groups of frames, from which on a statement is made.
FEW = 8
BINS = 5
# Of `environment`, what is said of every machine; the rest is versions.
LEFT_OUT = ("date", "load at the start", "threads of torch")
CONFIGURATIONS = "configurations"


# --- errors ---


def states(findings: Findings) -> str:
    """Return how the trials ended, in brackets, or nothing where there are none."""
    counts = Counter(record["state"] for record in findings.records)
    parts = [f"{counts[state]} {words}" for state, words in STATES.items() if counts[state]]
    return f" ({', '.join(parts)})" if parts else ""


def errors_words(errors: dict[str, Any]) -> str:
    """Return such as "4.21 meV/atom and 0.467 eV/Å", the root mean squares."""
    return listed(f"{number(errors[q]['rmse'])} {unit}" for q, unit in UNITS.items() if q in errors)


def models(findings: Findings) -> dict[str, dict[str, Any]]:
    """Return {name: errors} of the models that are compared."""
    if findings.test is not None:
        return {name: findings.test[name] for name in ("chosen", BASELINE) if name in findings.test}
    best, base = findings.best, findings.baseline
    found = {f"trial {best['number']}": best["errors"]}
    if base is not None and base["number"] != best["number"]:
        found["baseline trial"] = base["errors"]
    return found


def error_lines(compared_models: dict[str, dict[str, Any]]) -> Lines:
    """Return the table of the errors of several models."""
    quantities = [q for q in UNITS if all(q in errors for errors in compared_models.values())]
    names = [s if s == "median" else s.upper() for s in STATISTICS]
    lines = [["", "frames", *(f"{q} {s} ({UNITS[q]})" for q in quantities for s in names)]]
    for name, errors in compared_models.items():
        usual = errors.get("without_outliers")
        for label, part in ((name, errors), (f"{name}, without outliers", usual)):
            if part is not None:
                cells = [number(part[q][s]) for q in quantities for s in STATISTICS]
                lines.append([label, str(part["frames"]), *cells])
    return lines


def outlier_share(errors: dict[str, Any]) -> float:
    """Return the share of the sum of squared energy errors that is the outliers'."""
    usual = errors["without_outliers"]
    total = errors["frames"] * errors["energy"]["rmse"] ** 2
    return 1 - usual["frames"] * usual["energy"]["rmse"] ** 2 / total if total else 0.0


# --- predictions on frames that were held out ---


def elements(findings: Findings) -> dict[str, Any] | None:
    """Return the table of force errors of each element, and these in parts of the forces."""
    held = findings.predictions
    if findings.test is not None:
        of_models = models(findings)
    else:
        of_models = {held.label("chosen"): findings.curve[-1]["errors"]}
    if not all("forces_by_element" in errors for errors in of_models.values()):
        return None
    names = [f"{name} {s}" for name in of_models for s in ("RMSE", "MAE", "median")]
    lines, relative = [["forces on", "RMS of the reference", *names]], {}
    for symbol in sorted(next(iter(of_models.values()))["forces_by_element"]):
        rows = held.arrays["numbers"] == atomic_numbers[symbol]
        reference = _rms(held.forces[rows])
        found = [errors["forces_by_element"][symbol] for errors in of_models.values()]
        cells = [number(errors[s]) for errors in found for s in STATISTICS]
        lines.append([symbol, number(reference), *cells])
        if reference > 0:
            relative[symbol] = found[0]["rmse"] / reference
    ends = {} if not relative else {"worst": max(relative, key=lambda s: relative[s])}
    ends |= {} if not relative else {"least": min(relative, key=lambda s: relative[s])}
    return {"lines": lines, "relative": relative, **ends}


def energy_lines(held: HeldOut, above: float) -> Lines:
    """Return the table of errors over the range of energies; `above`, eV/atom, are outliers."""
    usual = np.flatnonzero(held.energies <= above)
    order = usual[np.argsort(held.energies[usual])]
    groups = np.array_split(order, max(1, min(BINS, len(order) // 4))) if len(order) else []
    groups.append(np.flatnonzero(held.energies > above))
    forces = {} if held.forces is None else {n: held.frame_force_errors(n) for n in held.models}
    header = [f"{held.label(name)}, energy RMSE (meV/atom)" for name in held.models]
    header += [f"{held.label(name)}, force RMSE (eV/Å)" for name in forces]
    lines = [["energy (eV/atom)", "frames", *header]]
    for k, group in enumerate(groups):
        if not len(group):
            continue
        low, high = held.energies[group].min(), held.energies[group].max()
        label = f"{low:.4f} to {high:.4f}" if low < high else f"{low:.4f}"
        label += " (outliers)" if k == len(groups) - 1 else ""
        cells = [_rms(held.energy_errors(name)[group]) for name in held.models]
        weights = held.counts[group]
        cells += [np.sqrt(np.average(e[group] ** 2, weights=weights)) for e in forces.values()]
        lines.append([label, str(len(group)), *map(number, cells)])
    return lines


def trend(held: HeldOut) -> dict[str, float] | None:
    """Return the rank correlation of energy errors with energies, where there are enough."""
    errors = np.abs(held.energy_errors(held.models[0]))
    if len(errors) < FEW or np.ptp(held.energies) == 0 or np.ptp(errors) == 0:
        return None
    rho, p = spearmanr(held.energies, errors)
    return {"rho": rho, "p": p}


def spreads(held: HeldOut) -> list[dict[str, Any]]:
    """Return how errors agree with the spread of the ensemble, for each quantity."""
    found = held.spreads("chosen")
    if found is None:
        return []
    quantities = [("energy", found[0], held.energy_errors("chosen"))]
    if found[1] is not None:
        forces = held.force_errors("chosen").ravel()
        quantities.append(("force components", found[1].ravel(), forces))
    result = []
    for what, spread, error in quantities:
        rms = _rms(spread), _rms(error)
        varied = len(spread) >= FEW and np.ptp(spread) > 0
        result.append(
            {
                "what": what,
                "rms": rms,
                "inside": [float(np.mean(np.abs(error) < k * spread)) for k in (1, 2)],
                "ratio": rms[1] / rms[0] if rms[0] > 0 else None,
                "rho": float(spearmanr(spread, np.abs(error))[0]) if varied else None,
            }
        )
    return result


def spread_lines(found: list[dict[str, Any]]) -> Lines:
    """Return the table of `spreads`."""
    header = ["", "RMS spread", "RMS error", "error / spread", "|error| < spread", "< 2 spreads"]
    lines = [[*header, "rank correlation"]]
    for one in found:
        rho = "–" if one["rho"] is None else signed(one["rho"])
        cells = [*map(number, one["rms"]), number(one["ratio"]), *map(percent, one["inside"])]
        lines.append([one["what"], *cells, rho])
    return lines


# --- learning curve ---


def curve_lines(points: list[dict[str, Any]]) -> Lines:
    """Return the table of the learning curve."""
    pairs = [(q, s) for q in UNITS if q in points[0]["errors"] for s in ("rmse", "mae")]
    header = [f"{q} {s.upper()} ({UNITS[q]})" for q, s in pairs]
    rows = [
        [str(p["frames"]), str(p["epochs"]), *(number(p["errors"][q][s]) for q, s in pairs)]
        for p in points
    ]
    return [["training frames", "epochs", *header], *rows]


def growth(points: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the last step of the learning curve brought, where it is a large one."""
    if len(points) < 2 or points[-1]["frames"] < 1.5 * points[-2]["frames"]:
        return None
    last, before = points[-1]["errors"], points[-2]["errors"]
    pairs = {q: (last[q]["rmse"], before[q]["rmse"]) for q in UNITS if q in last}
    return {
        "times": number(points[-1]["frames"] / points[-2]["frames"], 2),
        "parts": [
            f"the RMSE of the {q} is {compared(new, old)} that before"
            for q, (new, old) in pairs.items()
        ],
        "falls": [new < 0.95 * old for new, old in pairs.values()],
    }


# --- search ---


def trial_budget(tuning: TuningConfig) -> str:
    """Return how long a trial trains."""
    if tuning.trial_epochs is not None:
        return budget({"epochs": tuning.trial_epochs})
    return budget({"seconds": tuning.trial_seconds})


def space_lines(findings: Findings) -> Lines:
    """Return the table of what was searched."""
    lines = [["parameter", "searched", "baseline", "best trial"]]
    base = findings.space.baseline()
    best = findings.best["params"] if findings.best else {}
    for name in findings.space.reachable:
        cells = [_value(params, name) for params in (base, best)]
        lines.append([f"`{name}`", _range(findings.space.domains[name]), *cells])
    return lines


def changed(findings: Findings) -> list[str]:
    """Return what differs between the baseline and the best trial."""
    old, new = findings.baseline["params"], findings.best["params"]
    found = []
    for name in findings.space.domains:
        if old.get(name) != new.get(name):
            pair = [_value(params, name) for params in (old, new)]
            if pair[0] == pair[1]:
                pair = [f"{params[name]:.5g}" for params in (old, new)]
            found.append(f"`{name}` {pair[0]} → {pair[1]}")
    return found


def at_an_end(findings: Findings) -> list[str]:
    """Return numbers that are at the same end of their range in all of the best trials."""
    if len(findings.complete) < ENOUGH:
        return []
    best, found = findings.complete[:BEST], []
    for name, domain in findings.space.domains.items():
        if isinstance(domain, Choice) or domain.single:
            continue
        if not all(name in record["params"] for record in best):
            continue
        shares_of_range = [domain.share(record["params"][name]) for record in best]
        limits = BY_NAME[name].limits
        high = min(shares_of_range) > 1 - END and domain.high < limits[1]
        low = max(shares_of_range) < END and domain.low > limits[0]
        if high or low:
            found.append(f"`{name}` ({shown(best[0]['params'][name])})")
    return found


def seconds(findings: Findings) -> dict[str, float]:
    """Return what the trials spent their time on."""
    total: Counter[str] = Counter()
    for record in findings.records:
        total.update(record.get("seconds", {}))
    return dict(total)


def front_lines(findings: Findings) -> Lines:
    """Return the table of the Pareto front of error and cost."""
    quantities = {"energy": "energy RMSE (meV/atom)"}
    quantities |= {"forces": "force RMSE (eV/Å)"} if findings.forces else {}
    lines = [["trial", "error", "µs/atom", *quantities.values(), "functions", "weights"]]
    for r in findings.front:
        errors = [number(r["errors"][q]["rmse"]) for q in quantities]
        sizes = [str(r.get(key, "–")) for key in ("n_functions", "n_parameters")]
        lines.append([str(r["number"]), number(r["error"]), number(r["cost"]), *errors, *sizes])
    return lines


def cheaper(findings: Findings) -> dict[str, Any] | None:
    """Return the cheapest trial that is as accurate as the baseline and cheaper, or None."""
    base = findings.baseline
    if base is None:
        return None
    better = (r for r in findings.front if r["error"] <= base["error"] and r["cost"] < base["cost"])
    return next(better, None)


def lost_lines(findings: Findings) -> Lines:
    """Return the table of trials without an error, grouped by the reason."""
    groups: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], int] = {}
    for record in findings.records:
        if record["state"] != "complete":
            group = record["state"], _general(record)
            groups[group] += 1
            examples.setdefault(group, record["number"])
    lines = [["what happened", "reason", "trials", "such as"]]
    for (state, reason), n in groups.most_common():
        words = STATES[state] if state == "pruned" else state
        lines.append([words, reason, str(n), str(examples[state, reason])])
    return lines


def used(findings: Findings) -> float | None:
    """Return the mean share of its budget that a trial had used which was ended early."""
    ended = [
        record["reports"][-1][0] / RUNGS
        for record in findings.records
        if record["state"] == "pruned" and record.get("reports")
    ]
    return sum(ended) / len(ended) if ended else None


# --- what mattered ---


def meaning(name: str) -> str:
    """Return what a parameter is."""
    return BY_NAME[name].meaning


def shares(found: list[Importance]) -> str:
    """Return parameters with their shares of importance."""
    return listed(f"`{i.name}` ({percent(i.share)})" for i in found)


def level_lines(mattered: Mattered) -> Lines:
    """Return the table of the values of parameters and what they gave."""
    header = ["parameter", "value", "trials", "completed", "median error", "best error"]
    lines = [[*header, "all else the same"] if mattered.trusted else header]
    for name in mattered.names:
        for k, level in enumerate(mattered.table[name]):
            cells = [f"`{name}`" if k == 0 else "", level.label]
            cells += [str(level.trials), str(level.complete)]
            cells += [number(level.median), number(level.best)]
            lines.append([*cells, number(level.predicted)] if mattered.trusted else cells)
    return lines


# --- how to do it again ---


def commands(findings: Findings) -> str:
    """Return the commands that repeat the study, and use what came out."""
    call = findings.calls[-1] if findings.calls else {}
    folder = findings.out.name
    frames = _file(call.get("train") or findings.about["data"])
    options = {
        "--train": frames,
        "--test": _file(call["test"]) if call.get("test") else None,
        "--out": folder,
        "--trials": call.get("trials") if call else len(findings.records),
        "--time": _time(call["seconds"]) if call.get("seconds") else None,
        "--config": f"{CONFIGURATIONS}/tuning.yaml" if findings.about["config"] else None,
        "--storage": _url(call["storage"]) if call.get("storage") else None,
        "--workers": call.get("workers"),
    }
    given = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    lines = [["amptorch", "tune", *given], ["amptorch", "report", folder]]
    if findings.complete:
        lines.append(["amptorch", "pick", folder])
        lines.append(["amptorch", "train", f"{CONFIGURATIONS}/best.yaml", "--data", frames])
    if findings.chosen is not None:
        model = f"{folder}/{findings.chosen}"
        lines.append(["amptorch", "predict", model, "frames.traj", "predicted.traj"])
    return "\n".join(map(shlex.join, lines))


def machine_lines(findings: Findings) -> Lines:
    """Return the table of machine and versions, a column for every call that differs."""
    found = [call["environment"] for call in findings.calls] or [environment()]
    seen: list[dict[str, Any]] = []
    for one in found:
        kept = {k: v for k, v in one.items() if k not in LEFT_OUT and v is not None}
        if kept not in seen:
            seen.append(kept)
    names = list(dict.fromkeys(name for one in seen for name in one))
    many = len(seen) > 1
    header = ["", *(f"machine or version {k}" if many else "" for k in range(1, len(seen) + 1))]
    return [header, *([name, *(str(one.get(name, "–")) for one in seen)] for name in names)]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _value(params: dict[str, Any], name: str) -> str:
    return shown(params[name]) if name in params else "–"


def _range(domain: Any) -> str:
    if isinstance(domain, Choice):
        values = [shown(value) for value in domain.values]
        return values[0] + " (fixed)" if len(values) == 1 else ", ".join(values)
    if domain.single:
        return f"{shown(domain.low)} (fixed)"
    text = f"{shown(domain.low)} to {shown(domain.high)}"
    if domain.step is not None:
        text += f" in steps of {shown(domain.step)}"
    return text + (" (logarithmic)" if domain.log else "")


def _general(record: dict[str, Any]) -> str:
    """Return a reason without what is special to one trial, and of one line."""
    if record["state"] == "pruned":
        return "its error was not among the best of those that got so far"
    first = record.get("reason", "").splitlines()[0] if record.get("reason") else "unknown"
    return re.sub(r"(?<![\w.])[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "…", first)


def _file(given: str) -> str:
    """Return a file by its name alone, for the folder it is in belongs to one machine; what was
    given from Python as a word to be replaced."""
    return "FRAMES" if given.endswith("from Python") else Path(given).name


def _url(storage: str) -> str:
    """Return a storage without the folder of its file."""
    kind, found, path = storage.partition(":///" if storage.startswith("sqlite") else "journal:")
    return f"{kind}{found}{Path(path).name}" if found else storage


def _time(seconds_given: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds_given % size == 0:
            return f"{seconds_given / size:.0f}{unit}"
    return f"{seconds_given:g}s"
