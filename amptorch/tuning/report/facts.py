"""Numbers and names that take some working out, for the template of the report."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from scipy.stats import spearmanr

from amptorch.metrics import rms
from amptorch.tuning.prepare import FLATTERS
from amptorch.tuning.report.findings import Findings, HeldOut
from amptorch.tuning.report.importance import ENOUGH, SHUFFLES, shown
from amptorch.tuning.space import BY_NAME, Choice, Range, SeenSpace

__all__ = ["FLATTERS", "SHUFFLES"]

UNITS = {"energy": "meV/atom", "forces": "eV/Å"}
STATISTICS = {"rmse": "RMSE", "mae": "MAE", "median": "median"}
SAMPLERS = {
    "tpe": "the tree-structured Parzen estimator",
    "random": "chance alone",
    "qmc": "a quasi-random sequence",
    "gp": "a Gaussian process",
    "nsga2": "NSGA-II",
}
PRUNERS = {"hyperband": "Hyperband", "asha": "successive halving", "median": "the median of others"}
STATES = {
    "complete": "completed",
    "pruned": "ended early",
    "diverged": "diverged",
    "failed": "failed",
    "died": "died with their process",
    "interrupted": "interrupted and run again",
}
# So many trials are looked at for numbers at an end of their range, and so much of it is the end.
BEST, END = 5, 0.05
# Frames from which on a rank correlation is said, and groups of frames by their energy.
FEW, BINS = 8, 5
# Of `environment`, what is not said; the rest is the machine and versions.
LEFT_OUT = ("date", "load at the start", "threads of torch")
CONFIGURATIONS = "configurations"


def elements(findings: Findings) -> list[tuple[str, float, list[dict[str, float]]]]:
    """Return (symbol, RMS of the reference forces, errors of each model) of each element."""
    held, models = findings.predictions, findings.models
    if findings.test is None:
        models = {"chosen": next(r["errors"] for r in findings.results.values() if "errors" in r)}
    found = [errors.get("forces_by_element", {}) for errors in models.values()]
    if not all(found):
        return []
    numbers = held.arrays["numbers"]
    return [
        (s, rms(held.forces[numbers == atomic_numbers[s]]), [errors[s] for errors in found])
        for s in sorted(found[0])
    ]


def energy_rows(held: HeldOut, above: float) -> Iterator[list[Any]]:
    """Yield rows of errors over the range of energies; `above`, eV/atom, are outliers."""
    usual = np.flatnonzero(held.energies <= above)
    order = usual[np.argsort(held.energies[usual])]
    groups = np.array_split(order, max(1, min(BINS, len(order) // 4)))
    for group in (*groups, np.flatnonzero(held.energies > above)):
        if not len(group):
            continue
        low, high = held.energies[group].min(), held.energies[group].max()
        label = f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
        label += " (outliers)" if low > above else ""
        cells = [rms(held.energy_errors(name)[group]) for name in held.models]
        for name in held.models if held.forces is not None else ():
            squares = held.frame_force_errors(name)[group] ** 2
            cells.append(float(np.sqrt(np.average(squares, weights=held.counts[group]))))
        yield [label, len(group), *cells]


def spreads(held: HeldOut) -> list[dict[str, Any]]:
    """Return how errors agree with the spread of the ensemble, for each quantity."""
    found = held.spreads("chosen")
    if found is None:
        return []
    quantities = [("energy", found[0], np.abs(held.energy_errors("chosen")))]
    if found[1] is not None:
        forces = np.abs(held.force_errors("chosen")).ravel()
        quantities.append(("force components", found[1].ravel(), forces))
    result = []
    for what, spread, error in quantities:
        spread_rms, error_rms = rms(spread), rms(error)
        one = {"what": what, "spread": spread_rms, "error": error_rms}
        one["inside"] = [float(np.mean(error < k * spread)) for k in (1, 2)]
        one["ratio"] = error_rms / spread_rms if spread_rms > 0 else None
        varied = len(spread) >= FEW and np.ptp(spread) > 0
        result.append(one | {"rho": float(spearmanr(spread, error)[0]) if varied else None})
    return result


def changed(findings: Findings) -> list[str]:
    """Return what differs between the baseline and the best trial."""
    pair = findings.baseline["params"], findings.best["params"]
    found = []
    for name in findings.space.domains:
        old, new = (params.get(name, "–") for params in pair)
        if old != new:
            texts = [shown(old), shown(new)]
            if texts[0] == texts[1]:
                texts = [f"{old:.5g}", f"{new:.5g}"]
            found.append(f"`{name}` {texts[0]} → {texts[1]}")
    return found


def at_an_end(findings: Findings) -> list[str]:
    """Return numbers that are at the same end of their range in all of the best trials."""
    if len(findings.complete) < ENOUGH or isinstance(findings.space, SeenSpace):
        return []
    best, found = [record["params"] for record in findings.complete[:BEST]], []
    for name, domain in findings.space.domains.items():
        if isinstance(domain, Choice) or domain.single or not all(name in p for p in best):
            continue
        places = [domain.share(params[name]) for params in best]
        lowest, highest = BY_NAME[name].limits
        high = min(places) > 1 - END and domain.high < highest
        if high or (max(places) < END and domain.low > lowest):
            found.append(f"`{name}` ({shown(best[0][name])})")
    return found


def lost(findings: Findings) -> list[tuple[str, str, list[int]]]:
    """Return (state, reason, numbers of trials) of trials without an error, the most first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record in findings.records:
        if record["state"] == "complete":
            continue
        reason = (record.get("reason") or "unknown").splitlines()[0]
        # Without what is special to one trial.
        reason = re.sub(r"(?<![\w.])[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "…", reason)
        if record["state"] == "pruned" and "error" in reason:
            reason = "its error was not among the best of those that got so far"
        groups.setdefault((record["state"], reason), []).append(record["number"])
    return sorted(((*key, found) for key, found in groups.items()), key=lambda one: -len(one[2]))


def range_words(domain: Range | Choice) -> str:
    """Return what is searched of a parameter."""
    if domain.single:
        return f"{shown(domain.highest())} (fixed)"
    if isinstance(domain, Choice):
        return ", ".join(map(shown, domain.values))
    steps = "" if domain.step is None else f" in steps of {shown(domain.step)}"
    text = f"{shown(domain.low)} to {shown(domain.high)}{steps}"
    return f"{text} (logarithmic)" if domain.log else text


def commands(findings: Findings) -> str:
    """Return the commands that repeat the study, and use what came out.

    Files have their names alone, for folders belong to one machine.
    """
    call: dict[str, Any] = {"trials": len(findings.records)}
    call = findings.calls[-1] if findings.calls else call
    folder = findings.out.name
    frames = _file(call.get("train") or findings.about["data"])
    seconds, storage = call.get("seconds"), call.get("storage")
    options = {
        "--train": frames,
        "--test": _file(call["test"]) if call.get("test") else None,
        "--out": folder,
        "--trials": call.get("trials"),
        "--time": seconds and (f"{seconds / 60:.0f}min" if seconds % 60 == 0 else f"{seconds:g}s"),
        "--config": f"{CONFIGURATIONS}/tuning.yaml" if findings.about["config"] else None,
        "--storage": storage and re.sub(r"^(sqlite:///|journal:).*/", r"\1", storage),
        "--workers": call.get("workers"),
    }
    given = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    lines = [["amptorch", "tune", *given], ["amptorch", "report", folder]]
    if findings.complete:
        best = f"{CONFIGURATIONS}/best.yaml"
        lines += [["amptorch", "pick", folder], ["amptorch", "train", best, "--data", frames]]
    if findings.chosen is not None:
        model = f"{folder}/{findings.chosen}"
        lines.append(["amptorch", "predict", model, "frames.traj", "predicted.traj"])
    return "\n".join(map(shlex.join, lines))


def _file(given: str) -> str:
    return "FRAMES" if given.endswith("from Python") else Path(given).name
