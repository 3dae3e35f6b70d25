"""What a report is made of, and the words for numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Text:
    """A paragraph; `names` in backticks are set as code."""

    text: str
    kind: str = "text"


@dataclass
class Table:
    """lines: lists of cells, text, the header first."""

    lines: list
    note: str = ""
    kind: str = "table"

    @property
    def of_words(self) -> list[bool]:
        """Tell for each column if a cell holds more than a number, its unit or a name."""
        columns = enumerate(zip(*self.lines, strict=True))
        return [
            k == 0 or any(len(cell.split()) > 2 for cell in column[1:]) for k, column in columns
        ]


@dataclass
class Picture:
    """name: of the file, without ending; figure: matplotlib's; caption: what is seen."""

    name: str
    figure: object
    caption: str
    kind: str = "picture"


@dataclass
class Code:
    text: str
    kind: str = "code"


@dataclass
class Section:
    title: str
    blocks: list[Any] = field(default_factory=list)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number of `digits` figures, without a power of ten between 1e-3 and 1e6."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        rounded = float(f"{value:.{digits}g}")
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def listed(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = list(words)
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def compared(value: float, other: float) -> str:
    """Say how `value` is next to `other`, both positive or 0: "12 % lower than", "the same as"."""
    if value == other:
        return "the same as"
    if other == 0 or not (math.isfinite(value) and math.isfinite(other)):
        return f"{number(value)} against {number(other)}, which is"
    ratio = value / other
    if abs(ratio - 1) < 0.005:
        return "within half a percent of"
    if ratio > 2:
        return f"{number(ratio)} times"
    return f"{percent(abs(ratio - 1))} {'lower' if ratio < 1 else 'higher'} than"


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "2.1 h"."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def budget_words(budget: dict) -> str:
    """ "180 s", "20 epochs"."""
    if "epochs" in budget:
        return counted(budget["epochs"], "epoch")
    return duration(budget["seconds"])


def percent(share: float, digits: int = 0) -> str:
    """ "12 %"."""
    return f"{100 * share:.{digits}f} %"


def signed(value: float) -> str:
    """ "0.25", "−0.11"."""
    return f"{value:.2f}".replace("-", "−")
