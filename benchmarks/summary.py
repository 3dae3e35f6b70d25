"""What a run of the benchmarks says at its end: this machine now, and in turn with it v1.0 and
other programs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ase import Atoms
from measuring import milliseconds, table
from setups import workload


def shipped_run() -> Path:
    """Return the path of the newest saved run that comes with this project."""
    baselines = Path(__file__).with_name("baseline").glob("*/*.json")
    return max(baselines, key=lambda path: path.name)


class Results:
    """Hold the rows of a run, and what did not work.

    `upstream` is what `Remote.about` says of the v1.0 that was measured, `compared` what the saved
    run is.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.upstream: Mapping[str, Any] | None = None
        self.compared = "saved run: none"

    def add(
        self,
        benchmark: Any,
        images: Sequence[Atoms],
        n_frames: int,
        samples: Mapping[str, Sequence[float]],
        options: Mapping[str, Any],
    ) -> None:
        """Keep a row, and save with it what pytest-benchmark does not.

        samples : {name: [seconds a frame]} of what was measured in turn with it
        """
        benchmark.extra_info.update(
            frames=n_frames,
            atoms=len(images[0]) * math.prod(options.get("repeat", ())),
            functions=options.get("number", 36),
            beside={name: median(values) for name, values in samples.items() if values},
        )
        seconds = sorted(value / n_frames for value in benchmark.stats.stats.data)
        row = {
            "name": benchmark.name.removeprefix("test_"),
            "median": median(seconds),
            "range": [seconds[round(share * (len(seconds) - 1))] for share in (0.1, 0.9)],
        }
        self.rows.append({**row, **benchmark.extra_info["beside"]})

    def report(self) -> str:
        """Return tables in Markdown, and the labels of their columns."""
        other, label = "v1.0", "v1.0: not measured; --upstream-python does so"
        if self.upstream:
            # The fork itself may be there by mistake.
            other, mistaken = ("other copy", ", NOT v1.0") if self.upstream["fork"] else (other, "")
            found = workload.described(self.upstream)
            label = f"{other}: measured in turn with ours in this run: {found}{mistaken}"
        header = ["ms a frame", "now", "10-90 %"]
        header += [other, f"{other} / now"] if self.upstream else []
        lines, peers = [], []
        for row in self.rows:
            name, now, v1, ours = row["name"], row["median"], row.get("v1.0"), row.get("ours")
            beside = [_ms(v1), f"{v1 / now:.3g}"] if v1 else ["", ""]
            lines.append([name, _ms(now), "-".join(map(_ms, row["range"])), *beside][: len(header)])
            if ours:
                peers.append([name, _ms(now), _ms(ours), f"{now / ours:.2f}"])
        here = "now: this machine, one thread unless the row says more"
        parts = [table(header, lines), f"- {here}\n- {self.compared}\n- {label}"]
        if peers:
            parts.append(table(("ms a frame, in turn", "theirs", "ours", "theirs / ours"), peers))
        parts += [f"not measured: {problem}" for problem in dict.fromkeys(self.problems)]
        return "\n\n".join(parts)


def _ms(seconds: float) -> str:
    """Return milliseconds with three digits."""
    return milliseconds(seconds, 3)
