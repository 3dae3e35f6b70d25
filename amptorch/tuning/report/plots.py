"""The figures of a study's report."""

from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from amptorch.metrics import rms
from amptorch.profiling.plots import GRAY, WIDTH, new_figure
from amptorch.reports import MOST_POINTS, draw_parity
from amptorch.tuning.final import BASELINE
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.importance import shown
from amptorch.tuning.space import Choice

COLORS = {"chosen": "#4477aa", BASELINE: "#ee6677"}
BLACK = "#222222"
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": "small"}
SLICES = 6


def history(findings: Findings) -> Figure:
    """Draw the error of each trial in the order of their numbers, and the best so far."""
    figure, axes = new_figure(3.6)
    done = sorted(findings.complete, key=lambda record: record["number"])
    ended = [r for r in findings.records if r["state"] == "pruned" and r.get("reports")]
    last = [r["reports"][-1][1] for r in ended]
    axes.plot(_all("number", ended), last, "x", color=GRAY, ms=4, label="ended early: last error")
    numbers, errors = _all("number", done), _all("error", done)
    axes.plot(numbers, errors, "o", ms=4, color=COLORS["chosen"], alpha=0.8, label="completed")
    best: dict[str, Any] = {"where": "post", "color": BLACK, "label": "best so far"}
    axes.step(numbers, np.minimum.accumulate(errors), **best)
    if findings.baseline is not None:
        axes.axhline(findings.baseline["error"], color=COLORS[BASELINE], lw=1, label="baseline")
    axes.set(xlabel="trial", ylabel="error (meV/atom)", yscale="log")
    _plain(axes.yaxis)
    axes.legend(**LEGEND)
    return figure


def front(findings: Findings) -> Figure:
    """Draw error against cost, the front, the best trial and the baseline."""
    figure, axes = new_figure(4.0)
    done, best, base = findings.complete, findings.front, findings.baseline
    axes.plot(_all("cost", done), _all("error", done), "o", ms=4, color=GRAY)
    axes.step(_all("cost", best), _all("error", best), "o-", where="post", color=COLORS["chosen"])
    for one in best:
        place = one["cost"], one["error"]
        axes.annotate(one["number"], place, (4, 4), textcoords="offset points", fontsize="small")
    if base is not None:
        axes.plot(base["cost"], base["error"], "D", color=COLORS[BASELINE], label="baseline")
        axes.legend(**LEGEND)
    what = "energy and forces" if findings.forces else "energy"
    axes.set(xlabel=f"{what} (µs/atom)", ylabel="error (meV/atom)", xscale="log", yscale="log")
    _plain(axes.xaxis, axes.yaxis)
    return figure


def importance_bars(findings: Findings) -> Figure:
    """Draw shares of importance, and what chance gives."""
    found = findings.mattered.importances
    figure, axes = new_figure(0.26 * len(found) + 0.9)
    names = [importance.name for importance in found]
    colors = [COLORS["chosen"] if i.stands_out else "#bbccdd" for i in found]
    axes.barh(names, [100 * importance.share for importance in found], color=colors)
    chance = [100 * importance.chance for importance in found]
    axes.plot(chance, names, "|", color=BLACK, ms=11, label="what 1 in 20 shufflings exceeds")
    axes.invert_yaxis()
    axes.set_xlabel("share of importance (%)")
    axes.legend(loc="lower right", **LEGEND)
    return figure


def slices(findings: Findings) -> Figure:
    """Draw the error against the value of each of the parameters that are shown."""
    names = list(findings.mattered.table)[:SLICES]
    figure = Figure(figsize=(WIDTH, 2.5 * -(-len(names) // 3)), layout="constrained")
    for place, name in enumerate(names, 1):
        panel = figure.add_subplot(-(-len(names) // 3), 3, place)
        had = [record for record in findings.complete if name in record["params"]]
        values = [record["params"][name] for record in had]
        domain = findings.space.domains[name]
        if isinstance(domain, Choice):
            known = [value for value in domain.values if value in values]
            values = [known.index(value) for value in values]
            panel.set_xticks(
                range(len(known)), [shown(v) for v in known], fontsize="small", rotation=25
            )
        elif domain.log:
            panel.set_xscale("log")
        panel.plot(values, _all("error", had), "o", ms=3, alpha=0.5)
        panel.set(xlabel=name, yscale="log")
        _plain(panel.yaxis)
    figure.supylabel("error (meV/atom)", fontsize="medium")
    return figure


def parity(findings: Findings) -> Figure:
    """Draw predicted against reference energies and forces."""
    held, drawn = findings.predictions, [("energy", "eV/atom", "energies")]
    if held.forces is not None:
        drawn.append(("force", "eV/Å", "forces"))
    figure, axes = new_figure(4.4, ncols=len(drawn), squeeze=False)
    for panel, (quantity, unit, key) in zip(axes[0], drawn, strict=True):
        # The chosen model above the baseline.
        names = reversed(held.models)
        pairs = {name: (held.arrays[key], held.arrays[f"{name}_{key}"]) for name in names}
        draw_parity(panel, quantity, unit, pairs, COLORS)
    return figure


def uncertainty(findings: Findings) -> Figure:
    """Draw errors of the ensemble against its spread, and their RMS in bins of spread."""
    held = findings.predictions
    energies, forces = held.spreads("chosen")
    pairs = [(energies, held.energy_errors("chosen"), "energy, meV/atom")]
    if forces is not None:
        pairs.append((forces.ravel(), held.force_errors("chosen").ravel(), "forces, eV/Å"))
    figure, axes = new_figure(4.2, ncols=len(pairs), squeeze=False)
    for panel, (spread, errors, what) in zip(axes[0], pairs, strict=True):
        kept, errors = _some(len(spread)), np.abs(errors)
        panel.plot(spread[kept], errors[kept], ".", ms=2, alpha=0.4, rasterized=True)
        groups = np.array_split(np.argsort(spread), max(1, min(10, len(spread) // 5)))
        xs, ys = ([rms(values[group]) for group in groups] for values in (spread, errors))
        panel.plot(xs, ys, "o-", color=BLACK, ms=5, label="RMS of equal numbers")
        ends = [min(xs), max(xs)]
        panel.plot(ends, ends, "--", color=GRAY, label="error as large as the spread")
        panel.set(xscale="log", yscale="log", title=what, xlabel="spread", ylabel="|error|")
        panel.set_ylim(bottom=max(1e-3 * max(ys), 1e-12))
        panel.legend(loc="upper left", **LEGEND)
    return figure


def _all(key: str, records: list[dict[str, Any]]) -> list[Any]:
    return [record[key] for record in records]


def _some(n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(n, min(n, MOST_POINTS), replace=False)


def _plain(*axes: Axis) -> None:
    """Set few round numbers instead of powers of ten on logarithmic axes, drawn on already."""
    for axis in axes:
        low, high = axis.get_view_interval()
        if high < 4 * low:
            axis.set_major_locator(MaxNLocator(5))
        else:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")


FIGURES = {
    "history": history,
    "cost": front,
    "importance": importance_bars,
    "parameters": slices,
    "parity": parity,
    "uncertainty": uncertainty,
}
