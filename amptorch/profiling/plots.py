"""The pictures of a report, as SVG that stands in its page."""

import io
import itertools
import re
from collections import Counter
from statistics import median

import matplotlib
from matplotlib.figure import Figure

from amptorch.profiling.tables import OTHER

WIDTH = 9.0  # inches
PHASE_COLORS = {
    "preprocessing": "#4477aa",
    "training": "#ee6677",
    "prediction": "#228833",
    "dynamics": "#ccbb44",
}
GRAY = "#999999"
# Stages below this share of all time are not drawn one by one.
DRAWN = 0.005
# Stages marked below the memory's curve: those that the main thread is in for longest.
STRIPES = 8


def shares(rows, phases):
    """Bars of the stages' shares of all time, in the colours of the phases."""
    total = sum(phases.values())
    taken = {}
    for row in rows:
        part = taken.setdefault(row.stage, dict.fromkeys(phases, 0.0))
        part[row.phase] += row.share * phases[row.phase] / total
    order = sorted(taken, key=lambda stage: (stage == OTHER, -sum(taken[stage].values())))
    order = [stage for stage in order if sum(taken[stage].values()) >= DRAWN]
    figure, axes = new_figure(0.28 * len(order) + 1.1)
    left = [0.0] * len(order)
    for phase in phases:
        widths = [100 * taken[stage][phase] for stage in order]
        axes.barh(order, widths, left=left, color=PHASE_COLORS.get(phase, GRAY), label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("share of wall time (%)")
    axes.legend(frameon=False, loc="lower right")
    return as_svg(figure)


def memory(curve, more=()):
    """Memory over time, the phases behind it, and below it the stages of the main thread.

    curve: [(seconds, bytes, phase, stage)]; more: [(resident bytes, bytes of USS or None)] of each
    point.
    """
    if not curve:
        return ""
    figure, (axes, strip) = new_figure(4.6, 2, sharex=True, height_ratios=[3, 2])
    times = [point[0] for point in curve]
    if more:
        axes.plot(times, [rss / 1e6 for rss, _ in more], color=GRAY, lw=1, label="RSS")
        unique = [(t, uss / 1e6) for t, (_, uss) in zip(times, more, strict=True) if uss]
        axes.plot(*zip(*unique, strict=True), "--", color="black", lw=1, label="USS")
    axes.plot(times, [point[1] / 1e6 for point in curve], color="black", lw=1.2, label="own")
    for phase in dict.fromkeys(point[2] for point in curve):
        inside = [point[0] for point in curve if point[2] == phase]
        axes.axvspan(inside[0], inside[-1], color=PHASE_COLORS.get(phase, GRAY), alpha=0.18, lw=0)
        axes.annotate(
            phase,
            (inside[0], 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -3),
            textcoords="offset points",
            rotation=90 if inside[-1] - inside[0] < 0.12 * (times[-1] - times[0]) else 0,
            va="top",
        )
    # Room for the names of the phases.
    axes.set(ylabel="memory (MB)", ylim=(0, 1.25 * axes.dataLim.y1))
    axes.legend(frameon=False, loc="lower right")
    most = Counter(point[3] for point in curve).most_common(STRIPES)
    for place, (stage, _) in enumerate(most):
        runs = itertools.groupby(itertools.pairwise(curve), lambda two: two[0][2:])
        spans = []
        for (_, at), points in runs:
            points = list(points)
            if at == stage:
                first, last = points[0][0][0], points[-1][1][0]
                spans.append((first, last - first))
        strip.broken_barh(spans, (place - 0.4, 0.8), color=GRAY, lw=0)
    strip.set_yticks(range(len(most)), [stage for stage, _ in most])
    strip.invert_yaxis()
    strip.set_xlabel("time (s)")
    return as_svg(figure)


def ratios(comparison):
    """Ratios of each turn, and their median, for each phase. comparison: [(phase, [ratio])]."""
    figure, axes = new_figure(0.45 * len(comparison) + 1.1)
    for place, (phase, values) in enumerate(comparison):
        color = PHASE_COLORS.get(phase, GRAY)
        axes.plot(values, [place] * len(values), "o", color=color, alpha=0.6)
        axes.plot([median(values)] * 2, [place - 0.3, place + 0.3], color=color, lw=2)
    axes.set_yticks(range(len(comparison)), [phase for phase, _ in comparison])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time of the other, in times of this one")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.axvline(1, color=GRAY, lw=0.8)
    return as_svg(figure)


def new_figure(height, rows=1, **options):
    """(Figure as wide as a page and `height` inches high, its axes)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, **options)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_svg(figure):
    """The figure as an element of a page."""
    target = io.StringIO()
    # Text stays text: it can be searched, and the file is a tenth as large.
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(target, format="svg")
    # Within a page there is no XML declaration.
    return re.sub(r"^.*?(?=<svg)", "", target.getvalue(), flags=re.DOTALL)
