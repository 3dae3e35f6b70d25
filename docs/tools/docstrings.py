"""Make lists of the lines `name : meaning` of docstrings, which Markdown would run together."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

ENTRY = re.compile(r"(?P<names>[A-Za-z_][\w.]*(, [A-Za-z_][\w.]*)*) : (?P<meaning>.*)")
UNDERLINE = re.compile(r"-{3,}")


def markdown(text: str) -> str:
    """Return a docstring as Markdown: entries as a list, underlined titles in bold."""
    return "\n".join(_lines(text.splitlines()))


def _lines(lines: list[str]) -> Iterator[str]:
    in_list = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        entry = ENTRY.fullmatch(line)
        if UNDERLINE.fullmatch(line):
            continue
        if entry:
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            yield from [] if in_list else [""]
            yield f"- {names}: {entry['meaning']}"
        elif UNDERLINE.fullmatch(following):
            yield f"**{line}**"
        else:
            # A line that is not indented ends the list.
            yield from [""] if in_list and line and not line.startswith(" ") else []
            yield line
        in_list = bool(entry) or (in_list and (not line or line.startswith(" ")))


class DocstringLists(griffe.Extension):
    """Rewrite every docstring that mkdocstrings shows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
