"""What a run of the benchmarks says at its end: this machine now, a saved run, and v1.0 where it
was measured in the same run."""

import json
from pathlib import Path
from statistics import median

from setups import workload

BASELINE = Path(__file__).with_name("baseline")
STANDARD_FUNCTIONS = 36
HEADER = ("ms a frame", "now", "10-90 %", "saved run", "now / saved")


def shipped_run():
    """Path of the saved run that comes with this project, the newest; None without one."""
    return max(BASELINE.glob("*/*.json"), key=lambda path: path.name, default=None)


class Baselines:
    """What the numbers are compared with; all are seconds a frame.

    compared : a saved run in pytest-benchmark's format; None for the one that is shipped
    upstream : what `Remote.about` says of the v1.0 that was measured in this run
    """

    def __init__(self, compared=None, upstream=None):
        if compared is None and (path := shipped_run()):
            compared = json.loads(path.read_text(encoding="utf8"))
        self.compared = compared
        self.saved = {
            bench["fullname"]: bench["stats"]["median"] / bench["extra_info"].get("frames", 1)
            for bench in (compared or {"benchmarks": []})["benchmarks"]
        }
        self.machine = (compared or {}).get("machine_info", {}).get("CPU", "unknown machine")
        self.upstream = upstream

    @property
    def other(self):
        """Name of the column of --upstream-python; the fork itself may be there by mistake."""
        return "other copy" if self.upstream["fork"] else "v1.0"

    def labels(self, machine):
        """A line for each column: which software, machine and date it is."""
        here = machine["CPU"]
        yield f"now: {here}, Python {machine['Python']}, one thread unless the row says more"
        if self.compared:
            commit = self.compared["commit_info"].get("id", "unknown")[:7]
            other = "" if self.machine == here else "; another machine, so there are no ratios"
            date = self.compared["datetime"][:10]
            yield f"saved run: commit {commit}, {self.machine}, {date}{other}"
        if self.upstream:
            mistaken = ", NOT v1.0" if self.upstream["fork"] else ""
            yield (
                f"{self.other}: measured in turn with ours in this run: "
                f"{workload.described(self.upstream)}{mistaken}"
            )
        else:
            yield "v1.0: not measured; --upstream-python does so (docs/performance.md: once)"


class Results:
    """The rows of a run, and what did not work."""

    def __init__(self):
        self.rows = []
        self.problems = []
        self.upstream = None

    def add(self, benchmark, images, n_frames, samples, options):
        """Keep a row; returns what is saved of it beside pytest-benchmark's statistics.

        samples : {name: [seconds a frame]} of what was measured in turn with it
        """
        seconds = sorted(value / n_frames for value in benchmark.stats.stats.data)
        row = {
            "fullname": benchmark.fullname,
            "name": benchmark.name.removeprefix("test_"),
            "frames": n_frames,
            "atoms": len(images[0]),
            "functions": options.get("number", STANDARD_FUNCTIONS),
            "median": median(seconds),
            "range": [seconds[round(share * (len(seconds) - 1))] for share in (0.1, 0.9)],
            "beside": {name: median(values) for name, values in samples.items() if values},
        }
        self.rows.append(row)
        return {name: row[name] for name in ("frames", "atoms", "functions", "beside")}

    def report(self, baselines, machine):
        """Tables in Markdown, and the labels of their columns."""
        header = HEADER
        if baselines.upstream:
            header += (baselines.other, f"{baselines.other} / now")
        same = baselines.machine == machine["CPU"]
        cells = [self._cells(row, baselines, same)[: len(header)] for row in self.rows]
        parts = [table(header, cells)]
        parts.append("\n".join(f"- {label}" for label in baselines.labels(machine)))
        peers = [
            [row["name"], number(row["median"]), number(ours), f"{row['median'] / ours:.2f}"]
            for row in self.rows
            if (ours := row["beside"].get("ours"))
        ]
        if peers:
            header = ("ms a frame, in turn", "theirs", "ours", "theirs / ours")
            parts.append(table(header, peers))
        ratios = sorted(row["median"] / row["beside"]["plain loop"] for row in self.rows)
        parts.append(
            f"pytest-benchmark's median over that of a plain loop, in turn: {median(ratios):.3f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rows)"
        )
        parts += [f"not measured: {problem}" for problem in dict.fromkeys(self.problems)]
        return "\n\n".join(parts)

    def _cells(self, row, baselines, same_machine):
        now, saved = row["median"], baselines.saved.get(row["fullname"])
        v1 = row["beside"].get("v1.0")
        low, high = row["range"]
        return [
            row["name"],
            number(now),
            f"{number(low)}-{number(high)}",
            number(saved) if saved else "",
            f"{now / saved:.2f}" if saved and same_machine else "",
            number(v1) if v1 else "",
            f"{v1 / now:.3g}" if v1 else "",
        ]


def number(seconds):
    """Milliseconds with three significant digits."""
    milliseconds = 1000 * seconds
    digits = 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:.{digits}f}"


def table(header, rows):
    """A table in Markdown, with its columns aligned."""
    widths = [max(len(cells[k]) for cells in [header, *rows]) for k in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]
        for cells in [header, *rows]
    ]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
