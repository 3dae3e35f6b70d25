"""Cut a LAMMPS input into pieces, between which Python attaches the potential."""

import re
from dataclasses import dataclass
from pathlib import Path

# Commands that make the simulation box, and those before which the forces must be there.
BOX = {"read_data", "read_restart", "create_box"}
RUNS = {"run", "minimize", "rerun", "label", "write_data", "write_restart"}


@dataclass
class Piece:
    """Some lines of an input, and what is attached behind them.

    elements : the words behind `pair_coeff * *`, which may hold LAMMPS variables; () where the
        input names none; None where nothing is attached
    """

    text: str
    elements: tuple[str, ...] | None = None


def pieces(path: Path, zero: str) -> list[Piece]:
    """Return the pieces of the input at `path`.

    zero : the words that stand for `amptorch` in `pair_style`

    `pair_style amptorch`, or `hybrid/overlay amptorch …`, becomes `pair_style zero`, and a piece
    ends behind its `pair_coeff * *` with the elements. Where the input has no such line, a piece
    ends before the first run that follows the making of the box.

    Raises ValueError that names file and line: `pair_style amptorch` without `pair_coeff`, with
    arguments, or in another hybrid style; `pair_coeff` that does not begin with `* *`.
    """
    commands = _commands(path)
    if any(words[:1] == ["pair_style"] and "amptorch" in words for _, words, _ in commands):
        return _at_pair_coeff(commands, zero)
    boxes = [k for k, (_, words, _) in enumerate(commands) if words and words[0] in BOX]
    if not boxes:
        raise ValueError(f"{path} makes no box: none of {', '.join(sorted(BOX))}")
    runs = [
        k
        for k, (_, words, _) in enumerate(commands)
        if k > boxes[-1] and words[:1] and words[0] in RUNS
    ]
    cut = runs[0] if runs else len(commands)
    texts = [text for _, _, text in commands]
    return [Piece("".join(texts[:cut]), ()), Piece("".join(texts[cut:]))]


def _at_pair_coeff(commands: list[tuple[str, list[str], str]], zero: str) -> list[Piece]:
    found: list[Piece] = []
    text = style = ""
    waiting = False
    for where, words, original in commands:
        line = original
        if words[:1] == ["pair_style"]:
            if waiting:
                raise ValueError(f"{where}: no `pair_coeff * *` before the next pair_style")
            style = words[1] if len(words) > 1 else ""
            waiting = "amptorch" in words
            if waiting:
                line = _zero_style(where, words, zero)
        elif words[:1] == ["pair_coeff"] and waiting:
            names = words[3:]
            ours = style == "amptorch" or names[:1] == ["amptorch"]
            if ours:
                names = names[1:] if style != "amptorch" else names
                if words[1:3] != ["*", "*"] or not names:
                    raise ValueError(
                        f"{where}: expected `pair_coeff * * …` with the element of each atom type, "
                        f"such as `pair_coeff * * H O`, got {' '.join(words)!r}"
                    )
                text += "pair_coeff * *\n" if style == "amptorch" else "pair_coeff * * zero\n"
                found.append(Piece(text, tuple(names)))
                text, waiting = "", False
                continue
        text += line
    if waiting:
        raise ValueError(
            "`pair_style amptorch` has no `pair_coeff * *` with the element of each atom type "
            "behind it, such as `pair_coeff * * H O`"
        )
    return [*found, Piece(text)]


def _zero_style(where: str, words: list[str], zero: str) -> str:
    if words == ["pair_style", "amptorch"]:
        return f"pair_style {zero}\n"
    if words[1] != "hybrid/overlay":
        raise ValueError(
            f"{where}: expected `pair_style amptorch` or `pair_style hybrid/overlay amptorch …`, "
            f"got {' '.join(words)!r}; the model is the argument of `amptorch lammps`"
        )
    return " ".join(zero if word == "amptorch" else word for word in words) + "\n"


def _commands(path: Path) -> list[tuple[str, list[str], str]]:
    """Return (file and line, words, text) of every command; lines that end in & are joined, and
    files that name `amptorch` stand in place of their `include`."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    found: list[tuple[str, list[str], str]] = []
    text, first = "", 1
    for number, line in enumerate(lines, 1):
        first = first if text else number
        text += line if line.endswith("\n") else line + "\n"
        if line.rstrip().endswith("&") or text.count('"""') % 2:
            continue
        words = re.sub(r"&\s*\n", " ", text).split("#")[0].split()
        included = path.parent / words[1] if words[:1] == ["include"] and words[1:] else None
        if included and included.is_file() and "amptorch" in included.read_text(encoding="utf8"):
            found += _commands(included)
        else:
            if words[:1] == ["jump"] and words[1:2] == [path.name]:
                text = text.replace(path.name, "SELF", 1)
            found.append((f"{path}, line {first}", words, text))
        text = ""
    return found
