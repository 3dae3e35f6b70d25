"""Words for numbers, in the template of the report."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from amptorch.reports import duration


def number(value: float | None, digits: int = 3) -> str:
    """Return `digits` figures, without a power of ten between 1e-3 and 1e6."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        rounded = float(f"{value:.{digits}g}")
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def counted(n: int, noun: str) -> str:
    """Return such as "1 trial" or "2 trials"."""
    return f"{n} {noun if n == 1 else noun + 's'}"


def listed(words: Iterable[str]) -> str:
    """Return such as "a", "a and b" or "a, b and c"."""
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


def budget(of_training: dict[str, Any]) -> str:
    """Return such as "180 s" or "20 epochs"."""
    if "epochs" in of_training:
        return counted(of_training["epochs"], "epoch")
    return duration(of_training["seconds"])


def percent(share: float) -> str:
    """Return such as "12 %"."""
    return f"{100 * share:.0f} %"


def signed(value: float | None) -> str:
    """Return such as "0.25" or "−0.11"."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def row(*cells: Any) -> str:
    """Return the row of a table in Markdown; numbers that are no counts have three figures."""
    texts = (number(c) if isinstance(c, float) or c is None else str(c) for c in cells)
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"


def head(names: Sequence[str], words: int = 1) -> str:
    """Return the head of a table; columns after the first `words` are set to the right."""
    rule = ["---" if column < words else "---:" for column in range(len(names))]
    return f"{row(*names)}\n{row(*rule)}"
