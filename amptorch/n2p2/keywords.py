"""The files of a potential as lines: keywords of input.nn, and columns of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """Hold the words of a line without its comment, and the place to name in errors."""

    path: Path
    number: int
    words: tuple[str, ...]

    def error(self, message: str) -> ValueError:
        """Return the error that names the file and the line."""
        return ValueError(f"{self.path}, line {self.number}: {message}")

    def numbers(self, start: int = 0) -> list[float]:
        """Return the words from `start` on as finite numbers; ValueError for another word."""
        return [self.as_number(word) for word in self.words[start:]]

    def as_number(self, word: str) -> float:
        """Return a word as a finite number; ValueError where it is none."""
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"expected a number, got {word!r}")
        return number

    def as_integer(self, word: str) -> int:
        """Return a word as an integer; ValueError where it is none."""
        try:
            return int(word)
        except ValueError:
            raise self.error(f"expected an integer, got {word!r}") from None


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file that hold more than a comment.

    Raises FileNotFoundError where there is no such file, ValueError where it is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the potential has no file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from error
    lines = (
        Line(path, number, tuple(line.split("#")[0].split()))
        for number, line in enumerate(text.split("\n"), 1)
    )
    return [line for line in lines if line.words]


class Keywords:
    """Find the keywords of an input.nn.

    path : of the file; errors as of `read_lines`
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, list[Line]] = {}
        for line in read_lines(path):
            self._lines.setdefault(line.words[0], []).append(line)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._lines

    def all(self, keyword: str) -> list[Line]:
        """Return every line of a keyword."""
        return self._lines.get(keyword, [])

    def one(self, keyword: str, least: int, most: int | None = None) -> Line:
        """Return the only line of a keyword with at least `least` values and at most `most`, or as
        many as there are.

        Raises ValueError where it is missing, is there twice, or has another number of values.
        """
        lines = self.all(keyword)
        if not lines:
            raise ValueError(f"{self.path} has no keyword {keyword!r}")
        if len(lines) > 1:
            raise lines[1].error(f"{keyword!r} is there twice, first in line {lines[0].number}")
        given = len(lines[0].words) - 1
        if given < least or (most is not None and given > most):
            wanted = f"{least}" if most == least else f"{least} to {most}" if most else f"≥ {least}"
            raise lines[0].error(f"{keyword!r} needs {wanted} values, got {given}")
        return lines[0]

    def number(self, keyword: str, default: float) -> float:
        """Return the number behind a keyword, or `default` where there is no such line."""
        if keyword not in self:
            return default
        return self.one(keyword, 1, 1).numbers(1)[0]
