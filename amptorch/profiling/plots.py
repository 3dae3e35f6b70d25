"""Draw the pictures of a report, as SVG that stands in its page."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from amptorch.profiling.tables import Row

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


def shares(rows: Sequence[Row], together: Sequence[Row], phases: Mapping[str, float]) -> str:
    """Draw bars of the stages' shares of all time, in the colours of the phases.

    rows, together: of each phase and of all, see `amptorch.profiling.tables`; phases: {phase:
    seconds}
    """
    taken = {(row.phase, row.stage): row.taken for row in rows}
    stages = [row.stage for row in together if row.share >= DRAWN]
    figure, axes = new_figure(0.28 * len(stages) + 1.1)
    left = [0.0] * len(stages)
    for phase in phases:
        times = [taken.get((phase, stage), 0.0) for stage in stages]
        widths = [100 * time / sum(phases.values()) for time in times]
        axes.barh(stages, widths, left=left, color=PHASE_COLORS[phase], label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("share of wall time (%)")
    axes.legend(frameon=False, loc="lower right")
    return as_svg(figure)


def memory(
    curve: Sequence[tuple[float, int, str, str]], more: Sequence[tuple[int, int | None]] = ()
) -> str:
    """Draw memory over time, the phases behind it, and below it the stages of the main thread.

    curve: [(seconds, bytes, phase, stage)]; more: [(resident bytes, bytes of USS or None)] of each
    point.
    """
    figure, (axes, strip) = new_figure(4.6, 2, sharex=True, height_ratios=[3, 2])
    times = [point[0] for point in curve]
    if more:
        axes.plot(times, [rss / 1e6 for rss, _ in more], color=GRAY, lw=1, label="RSS")
        unique = [(t, uss / 1e6) for t, (_, uss) in zip(times, more, strict=True) if uss]
        axes.plot(*zip(*unique, strict=True), "--", color="black", lw=1, label="USS")
    axes.plot(times, [point[1] / 1e6 for point in curve], color="black", lw=1.2, label="own")
    for phase in dict.fromkeys(point[2] for point in curve):
        inside = [point[0] for point in curve if point[2] == phase]
        color = PHASE_COLORS[phase]
        axes.axvspan(inside[0], inside[-1], color=color, alpha=0.18, lw=0, label=phase)
    axes.set(ylabel="memory (MB)", ylim=(0, None))
    axes.legend(frameon=False, loc="lower right", ncols=2)
    most = [stage for stage, _ in Counter(point[3] for point in curve).most_common(STRIPES)]
    for place, stage in enumerate(most):
        inside = [point[0] for point in curve if point[3] == stage]
        strip.plot(inside, [place] * len(inside), "|", color=GRAY)
    strip.set_yticks(range(len(most)), most)
    strip.invert_yaxis()
    strip.set_xlabel("time (s)")
    return as_svg(figure)


def new_figure(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a Figure as wide as a page and `height` inches high, and its axes.

    options: of matplotlib's `Figure.subplots`
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, **options)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_svg(figure: Figure) -> str:
    """Return the figure as an element of a page."""
    target = io.StringIO()
    # Text stays text: it can be searched, and the file is a tenth as large.
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(target, format="svg")
    # Within a page there is no XML declaration.
    return re.sub(r"^.*?(?=<svg)", "", target.getvalue(), flags=re.DOTALL)
