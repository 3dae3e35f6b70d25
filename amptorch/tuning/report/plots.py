"""The figures of a study's report."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from amptorch.profiling.plots import GRAY, new_figure
from amptorch.tuning.final import BASELINE
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.importance import shown
from amptorch.tuning.space import Choice

COLORS = {"chosen": "#4477aa", BASELINE: "#ee6677"}
BLACK = "#222222"
# Points of a scatter plot, drawn at random from all.
MOST_POINTS = 20_000
SLICES = 6


def history(findings: Findings) -> Figure:
    """Draw the error of each trial in the order of their numbers, and the best so far."""
    figure, axes = new_figure(3.6)
    done = sorted(findings.complete, key=lambda record: record["number"])
    ended = [(r["number"], r["reports"][-1][1]) for r in findings.records if _ended(r)]
    lost = [r["number"] for r in findings.records if r["state"] in ("failed", "died", "diverged")]
    if ended:
        axes.plot(*zip(*ended, strict=True), "x", color=GRAY, ms=4, label="ended early: last error")
    numbers, errors = [r["number"] for r in done], [r["error"] for r in done]
    axes.plot(numbers, errors, "o", ms=4, color=COLORS["chosen"], alpha=0.8, label="completed")
    last = max(record["number"] for record in findings.records)
    best: Any = np.minimum.accumulate(errors) if errors else []
    axes.step([*numbers, last], [*best, *best[-1:]], where="post", color=BLACK, label="best so far")
    if findings.baseline is not None:
        axes.axhline(findings.baseline["error"], color=COLORS[BASELINE], lw=1, label="baseline")
    bottom = axes.get_ylim()[0]
    if lost:
        at = [bottom] * len(lost)
        axes.plot(lost, at, "v", color=COLORS[BASELINE], ms=5, clip_on=False, label="no error")
    axes.set(xlabel="trial", ylabel="error (meV/atom)", yscale="log")
    _plain(axes.yaxis)
    axes.legend(frameon=False, fontsize="small")
    return figure


def _ended(record: dict[str, Any]) -> bool:
    return record["state"] == "pruned" and bool(record.get("reports"))


def front(findings: Findings) -> Figure:
    """Draw error against cost, the front, the best trial and the baseline."""
    figure, axes = new_figure(4.0)
    done, best_for_cost = findings.complete, findings.front
    axes.plot([r["cost"] for r in done], [r["error"] for r in done], "o", ms=4, color=GRAY)
    xs, ys = [r["cost"] for r in best_for_cost], [r["error"] for r in best_for_cost]
    axes.step(xs, ys, where="post", color=COLORS["chosen"], lw=1)
    axes.plot(xs, ys, "o", color=COLORS["chosen"], label="none is both more accurate and cheaper")
    for record in best_for_cost:
        axes.annotate(
            str(record["number"]),
            (record["cost"], record["error"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="small",
        )
    base = findings.baseline
    if base is not None:
        axes.plot(base["cost"], base["error"], "D", color=COLORS[BASELINE], label="baseline")
    axes.set(xlabel="energy and forces (µs/atom)" if findings.forces else "energy (µs/atom)")
    axes.set(ylabel="error (meV/atom)", xscale="log", yscale="log")
    _plain(axes.xaxis, axes.yaxis)
    axes.legend(frameon=False, fontsize="small")
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
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def slices(findings: Findings) -> Figure:
    """Draw the error against the value of each of the parameters that are shown."""
    names = findings.mattered.names[:SLICES]
    rows = -(-len(names) // 3)
    figure, axes = new_figure(
        2.5 * rows, rows, ncols=min(3, len(names)), sharey=True, squeeze=False
    )
    rng = np.random.default_rng(0)
    for panel, name in zip(axes.flat, names, strict=False):
        had = [record for record in findings.complete if name in record["params"]]
        values = [record["params"][name] for record in had]
        errors = [record["error"] for record in had]
        domain = findings.space.domains[name]
        if isinstance(domain, Choice):
            known = [value for value in domain.values if value in values]
            places = np.array([known.index(value) for value in values], dtype=np.float64)
            panel.plot(places + rng.uniform(-0.15, 0.15, len(places)), errors, "o", ms=3, alpha=0.7)
            panel.set_xticks(range(len(known)), [shown(value) for value in known], fontsize="small")
            panel.set_xlim(-0.5, len(known) - 0.5)
            if sum(len(shown(value)) for value in known) > 20:
                panel.tick_params(axis="x", rotation=25)
        else:
            panel.plot(values, errors, "o", ms=3, alpha=0.7)
            if domain.log:
                panel.set_xscale("log")
        panel.set_xlabel(name)
        panel.set_yscale("log")
        _plain(panel.yaxis)
    for panel in axes[:, 0]:
        panel.set_ylabel("error (meV/atom)")
    for panel in axes.flat[len(names) :]:
        panel.remove()
    return figure


def parity(findings: Findings) -> Figure:
    """Draw predicted against reference energies and forces."""
    held = findings.predictions
    with_forces = held.forces is not None
    figure, axes = new_figure(4.4, ncols=1 + with_forces, squeeze=False)
    panels = axes[0]
    panels[0].set(xlabel="reference energy (eV/atom)", ylabel="predicted energy (eV/atom)")
    for name in reversed(held.models):
        predicted = held.arrays[f"{name}_energies"]
        error = np.sqrt(np.mean(held.energy_errors(name) ** 2))
        _scatter(
            panels[0],
            held.energies,
            predicted,
            f"{held.label(name)}: RMSE {error:.3g} meV/atom",
            name,
            4,
        )
    if with_forces:
        panels[1].set(xlabel="reference force (eV/Å)", ylabel="predicted force (eV/Å)")
        for name in reversed(held.models):
            error = np.sqrt(np.mean(held.force_errors(name) ** 2))
            predicted = held.arrays[f"{name}_forces"]
            label = f"{held.label(name)}: RMSE {error:.3g} eV/Å"
            _scatter(panels[1], held.forces, predicted, label, name, 2)
    for panel in panels:
        low, high = panel.dataLim.x0, panel.dataLim.x1
        panel.plot([low, high], [low, high], color=BLACK, lw=0.8, zorder=3)
        panel.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def energy_range(findings: Findings) -> Figure:
    """Draw the error of each frame against its reference energy."""
    held, above = findings.predictions, findings.about["outliers_above"]
    with_forces = held.forces is not None
    figure, axes = new_figure(3.6, ncols=1 + with_forces, squeeze=False)
    usual = held.energies <= above
    for name in reversed(held.models):
        values = [np.abs(held.energy_errors(name))]
        values += [held.frame_force_errors(name)] if with_forces else []
        for panel, errors in zip(axes[0], values, strict=True):
            color = COLORS[name]
            # What hardly differs from 0 stands at the bottom.
            errors = np.maximum(errors, 1e-3 * errors.max())
            panel.plot(
                held.energies[usual],
                errors[usual],
                "o",
                ms=3.5,
                color=color,
                label=held.label(name),
            )
            panel.plot(held.energies[~usual], errors[~usual], "^", ms=7, mfc="none", color=color)
    for panel, label in zip(
        axes[0], ("|energy error| (meV/atom)", "force RMSE (eV/Å)"), strict=False
    ):
        panel.axvline(above, color=GRAY, lw=0.8, ls="--", label="99th percentile of training")
        panel.set(xlabel="reference energy (eV/atom)", ylabel=label, yscale="log")
        _plain(panel.yaxis)
    axes[0, 0].legend(frameon=False, fontsize="small")
    return figure


def uncertainty(findings: Findings) -> Figure:
    """Draw errors of the ensemble against its spread, and their RMS in bins of spread."""
    held = findings.predictions
    energies, forces = held.spreads("chosen")
    pairs = [(energies, np.abs(held.energy_errors("chosen")), "meV/atom", "energy")]
    if forces is not None:
        errors = np.abs(held.force_errors("chosen"))
        pairs.append((forces.ravel(), errors.ravel(), "eV/Å", "force components"))
    figure, axes = new_figure(4.2, ncols=len(pairs), squeeze=False)
    for panel, (spread, errors, unit, what) in zip(axes[0], pairs, strict=True):
        few = len(spread) <= 1000
        kept = _some(len(spread))
        size = 4 if few else 1.5
        panel.plot(
            spread[kept],
            errors[kept],
            ".",
            ms=size,
            color=COLORS["chosen"],
            alpha=0.7 if few else 0.25,
            rasterized=True,
            label="one frame" if what == "energy" else "one component",
        )
        groups = np.array_split(np.argsort(spread), max(1, min(10, len(spread) // 5)))
        xs = [np.sqrt(np.mean(spread[group] ** 2)) for group in groups]
        ys = [np.sqrt(np.mean(errors[group] ** 2)) for group in groups]
        panel.plot(xs, ys, "o-", color=BLACK, ms=5, label="RMS of equal numbers")
        ends = [min(xs), max(xs)]
        panel.plot(ends, ends, "--", color=GRAY, label="error as large as the spread")
        panel.set(xscale="log", yscale="log", title=what)
        panel.set(xlabel=f"spread of the members ({unit})", ylabel=f"|error| ({unit})")
        floor = max(1e-3 * max(ys), 1e-12)
        panel.set_ylim(bottom=floor)
        panel.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def learning(findings: Findings) -> Figure:
    """Draw the RMSE on the validation frames against the number of training frames."""
    points = findings.points
    forces = "forces" in points[0]["errors"]
    quantities = [("energy", "energy RMSE (meV/atom)")]
    quantities += [("forces", "force RMSE (eV/Å)")] if forces else []
    figure, axes = new_figure(3.4, ncols=len(quantities), squeeze=False)
    frames = [point["frames"] for point in points]
    for panel, (quantity, label) in zip(axes[0], quantities, strict=True):
        for statistic, style in (("rmse", "o-"), ("mae", "s--")):
            values = [point["errors"][quantity][statistic] for point in points]
            panel.plot(frames, values, style, color=COLORS["chosen"], label=statistic.upper())
        panel.set(xscale="log", yscale="log", xlabel="training frames", ylabel=label)
        panel.set_ylabel(label.replace("RMSE ", "error "))
        panel.set_xticks(frames, [str(number) for number in frames])
        panel.xaxis.set_minor_locator(NullLocator())
        _plain(panel.yaxis)
        panel.legend(frameon=False, fontsize="small")
    return figure


def _scatter(panel: Axes, x: np.ndarray, y: np.ndarray, label: str, name: str, size: float) -> None:
    x, y = np.ravel(x), np.ravel(y)
    kept = _some(len(x))
    panel.plot(
        x[kept],
        y[kept],
        "o",
        ms=size,
        mew=0,
        alpha=0.5,
        color=COLORS[name],
        label=label,
        rasterized=True,
    )


def _some(n: int) -> np.ndarray:
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.random.default_rng(0).choice(n, MOST_POINTS, replace=False)


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
    "energy-range": energy_range,
    "uncertainty": uncertainty,
    "learning-curve": learning,
}
