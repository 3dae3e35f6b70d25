"""The figures of docs/performance.md, as SVG.

Each carries a digest of the results that it shows, so that a test finds figures that are older than
their results; the drawing itself differs between versions of matplotlib.
"""

import hashlib
import json
import statistics

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from report_numbers import version_one
from scaling_fit import exponent

STYLE = {
    "svg.hashsalt": "amptorch",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
# The Okabe-Ito colours, which are told apart by everybody.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SOURCES = {
    "v1": ("v1.0",),
    "ablation": ("ablation",),
    "scaling": ("scaling", "v1.0"),
    "limits": ("limits",),
    "memory": ("training",),
}


def digest(results, figure):
    """What the figure is drawn from, as a short hash."""
    text = json.dumps([results[name] for name in SOURCES[figure]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(results, folder):
    """All figures into a folder."""
    with plt.rc_context(STYLE):
        for name, figure in (
            ("v1", draw_version_one(results["v1.0"])),
            ("ablation", draw_ablation(results["ablation"])),
            ("scaling", draw_scaling(results["scaling"], results["v1.0"])),
            ("limits", draw_limits(results["limits"])),
            ("memory", draw_memory(results["training"])),
        ):
            metadata = {"Date": None, "Description": f"results {digest(results, name)}"}
            figure.savefig(folder / f"{name}.svg", metadata=metadata, bbox_inches="tight")
            plt.close(figure)


def panel(axes, title, x, y):
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")


def draw_version_one(baseline):
    """Where v1.0's time and memory go, for frames of three sizes."""
    rows = [row for row in version_one(baseline)["rows"] if row["kept"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.4), layout="constrained")
    place, names = np.arange(len(rows)), [f"{row['atoms']} atoms" for row in rows]
    for k, (key, label) in enumerate(
        (
            ("values", "fingerprints alone"),
            ("values_and_derivatives", "with derivatives"),
            ("calculator_step", "step of dynamics"),
            ("epoch", "training, one epoch"),
        )
    ):
        left.bar(place + 0.2 * (k - 1.5), [row[key] for row in rows], 0.2, color=COLORS[k],
                 label=label)  # fmt: skip
    left.set(title="v1.0: seconds a frame", xticks=place, xticklabels=names)
    left.legend(fontsize=8)
    for k, (key, label) in enumerate((("dense", "dense array"), ("kept", "kept, sparse"))):
        sizes = [row[key] / 1e6 for row in rows]
        right.bar(place + 0.35 * (k - 0.5), sizes, 0.35, color=COLORS[k], label=label)
    right.set(title="v1.0: derivatives of a frame, MB", xticks=place, xticklabels=names)
    right.legend(fontsize=8)
    return figure


def draw_ablation(results):
    """Ratios without over with, in the order of their size."""
    rows = sorted(results["rows"], key=lambda row: row["ratio"])
    figure, axes = plt.subplots(figsize=(7.2, 0.27 * len(rows) + 0.7), layout="constrained")
    place = np.arange(len(rows))
    ratios = np.array([row["ratio"] for row in rows])
    low, high = np.array([row["spread"] for row in rows]).T
    # A quantile of the turns can lie on the other side of the ratio of the medians.
    errors = np.clip([ratios - low, high - ratios], 0, None)
    axes.barh(place, ratios - 1, left=1, color=COLORS[0], xerr=errors, error_kw={"lw": 1})
    axes.set_yticks(place, [f"{row['change']}: {row['off']}" for row in rows], fontsize=7)
    axes.set(xscale="log", xlabel="time without it over time with it")
    axes.axvline(1, color="black", lw=0.8)
    axes.grid(axis="y", visible=False)
    return figure


def draw_scaling(results, baseline):
    """Time and memory against atoms, functions, cutoff and frames."""
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.6), layout="constrained")
    by_study = {}
    for curve in results["curves"]:
        by_study.setdefault(curve["study"], []).append(curve)
    panels = (
        (axes[0, 0], "atoms", "seconds", "atoms in a frame"),
        (axes[0, 1], "atoms", "memory", "atoms in a frame"),
        (axes[0, 2], "frames", "seconds", "frames of 164 atoms"),
        (axes[1, 0], "functions", "seconds", "functions an atom"),
        (axes[1, 1], "cutoff", "seconds", "cutoff, Å"),
        (axes[1, 2], "threads", "seconds", "threads"),
    )
    for ax, study, what, label in panels:
        titles = {"seconds": f"time against {study}", "memory": f"memory against {study}"}
        panel(ax, titles[what], label, {"seconds": "s", "memory": "MB"}[what])
        for k, curve in enumerate(by_study.get(study, ())):
            plot_curve(ax, curve, what, COLORS[k])
        if study == "atoms":
            plot_version_one(ax, baseline, what)
        if study in ("cutoff", "threads"):
            ticks = sorted({x for curve in by_study.get(study, ()) for x in curve["x"]})
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
        ax.legend(fontsize=6.5, loc="lower right" if study == "atoms" else "best")
    return figure


def plot_curve(ax, curve, what, color):
    if what == "memory":
        if not curve["memory"] or None in curve["memory"]:
            return
        # Below a megabyte it is pages of the allocator that are counted.
        points = [(x, m / 1e6) for x, m in zip(curve["x"], curve["memory"], strict=True) if m > 1e6]
        ax.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, color=color, label=curve["what"])
        return
    medians = [statistics.median(samples) for samples in curve["seconds"]]
    label = f"{curve['what']}: {curve['exponent']:.2f}"
    ax.plot(curve["x"], medians, "o", ms=3, color=color, label=label)
    fitted = [k for k, x in enumerate(curve["x"]) if x >= curve["fit_from"]]
    x = np.array([curve["x"][k] for k in fitted])
    middle = np.exp(np.mean([np.log(medians[k]) for k in fitted]))
    ax.plot(x, middle * (x / np.exp(np.log(x).mean())) ** curve["exponent"], lw=1, color=color)


def plot_version_one(ax, baseline, what):
    rows = version_one(baseline)["rows"]
    atoms = [row["atoms"] for row in rows]
    if what == "memory":
        ax.plot(atoms, [row["dense"] / 1e6 for row in rows], "kx", ms=4, label="v1.0, dense array")
        return
    seconds = [row["values_and_derivatives"] for row in rows]
    growth = exponent(atoms, seconds)
    ax.plot(atoms, seconds, "kx", ms=4, label=f"v1.0 on another machine: {growth:.2f}")


def draw_limits(results):
    """The kernels under the roofs of arithmetic and of memory."""
    figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    limits, kernel = results["limits"], results["derivatives"]
    x = np.geomspace(0.1, 1000, 200)
    peak, bandwidth = limits["fused_gflops"], limits["memory"]["read"]
    ax.plot(x, np.minimum(peak, bandwidth * x), "k", lw=1)
    separate = limits["separate_gflops"]
    ax.plot(x[x * bandwidth > separate], np.full((x * bandwidth > separate).sum(), separate), "k:")
    ax.annotate("fused multiply-adds", (1000, peak), ha="right", va="bottom", fontsize=7)
    ax.annotate("separate operations", (1000, separate), ha="right", va="top", fontsize=7)
    ax.annotate("memory", (0.11, 0.15 * bandwidth), rotation=38, va="bottom", fontsize=7)
    points = [
        (f"{row['what']}, {row['dtype']}, from memory", row["flops"] / row["megabytes"] / 1e6,
         row["gflops"])
        for row in results["contraction"]
        if row["place"] == "memory"
    ]  # fmt: skip
    flops, size = kernel["per_frame"]["flops"], kernel["block_bytes"]
    points.append(("G4 derivative kernel", flops / size,
                   flops / kernel["seconds"]["kernel"] / 1e9))  # fmt: skip
    for k, (label, intensity, gflops) in enumerate(points):
        ax.plot(intensity, gflops, "o", ms=5, color=COLORS[k], label=label)
    panel(ax, "one core", "operations a byte of memory", "GFlop/s")
    ax.legend(fontsize=7, loc="lower right")
    return figure


def draw_memory(training):
    """Memory of trainings on different numbers of frames over time, in parts of the whole."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.4), sharey=True, layout="constrained")
    for ax, kind in zip(axes, ("stored", "recompute"), strict=True):
        runs = [run for run in training["runs"] if run["derivatives"] == kind]
        for color, run in zip(COLORS, runs, strict=False):
            seconds, sizes = np.array(run["curve"]).T
            ax.plot(
                seconds / seconds[-1], sizes / 1e9, color=color, label=f"{run['frames']:,} frames"
            )
        ax.set(title=f"derivatives: {kind}", xlabel="time, as a part of the training")
    axes[0].set(ylabel="memory, GB", ylim=(0, None))
    axes[0].legend(fontsize=8)
    return figure
