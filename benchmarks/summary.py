"""Write what a run of the benchmarks says at its end: this machine now, and in turn with it v1.0
and other programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import milliseconds, table
from remote import in_words

# The newest saved run that comes with this project.
SHIPPED_RUN = max(Path(__file__).parent.glob("baseline/*/*.json"), key=lambda path: path.name)


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

    def report(self) -> str:
        """Return tables in Markdown, and the labels of their columns."""
        other, label = "v1.0", "v1.0: not measured; --upstream-python does so"
        if self.upstream:
            # The fork itself may be there by mistake.
            other, mistaken = ("other copy", ", NOT v1.0") if self.upstream["fork"] else (other, "")
            found = in_words(self.upstream)
            label = f"{other}: measured in turn with ours in this run: {found}{mistaken}"
        header = ["ms a frame", "now", "10-90 %"]
        header += [other, f"{other} / now"] if self.upstream else []
        lines, peers = [], []
        for row in self.rows:
            name, now, v1, ours = row["name"], row["median"], row.get("v1.0"), row.get("ours")
            cells = [name, milliseconds(now), "-".join(map(milliseconds, row["range"]))]
            cells += [milliseconds(v1), f"{v1 / now:.3g}"] if v1 else ["", ""]
            lines.append(cells[: len(header)])
            if ours:
                peers.append([name, milliseconds(now), milliseconds(ours), f"{now / ours:.2f}"])
        here = "now: this machine, one thread unless the row says more"
        parts = [table(header, lines), f"- {here}\n- {self.compared}\n- {label}"]
        if peers:
            parts.append(table(("ms a frame, in turn", "theirs", "ours", "theirs / ours"), peers))
        parts += [f"not measured: {problem}" for problem in dict.fromkeys(self.problems)]
        return "\n\n".join(parts)
