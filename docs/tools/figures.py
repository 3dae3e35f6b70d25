"""Draw the figures of the guides from stored measurements: `python docs/tools/figures.py`."""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
# docs/performance.md, section 1: the derivatives of 16,000 frames, interpolated between sizes.
V1_FRAMES, V1_GB = 16000, 76


def memory_against_frames() -> None:
    """Draw the peak memory of trainings over the number of frames, beside v1.0's derivatives."""
    results = (ROOT / "benchmarks" / "results" / "training.json").read_text(encoding="utf8")
    runs = json.loads(results)["runs"]
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    frames = [500, V1_FRAMES]
    axes.plot(frames, [V1_GB * n / V1_FRAMES for n in frames], "--", color="#b23b00")
    axes.annotate("v1.0: derivatives in memory", (2000, 12), (620, 25), color="#b23b00")
    names = {"recompute": ("recomputed", "#0072b2"), "stored": ("out of a store", "#00695c")}
    for kind, (name, colour) in names.items():
        points = sorted((r["frames"], r["peak"] / 1e9) for r in runs if r["derivatives"] == kind)
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=f"here, {name}")
    axes.set(xscale="log", yscale="log", xlabel="frames", ylabel="memory, GB", ylim=(0.1, 200))
    axes.set_xticks([500, 1000, 2000, 4000, 8000, 16000])
    axes.set_xticklabels(["500", "1,000", "2,000", "4,000", "8,000", "16,000"])
    axes.set_yticks([0.1, 1, 10, 100])
    axes.set_yticklabels(["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(FIGURES / "memory_frames.svg", metadata={"Date": None})


if __name__ == "__main__":
    mpl.rcParams |= {"svg.hashsalt": "amptorch", "font.size": 11}
    memory_against_frames()
