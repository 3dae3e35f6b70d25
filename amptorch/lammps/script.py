"""Cut a LAMMPS input into pieces, between which Python attaches the potential."""

import re
from dataclasses import dataclass
from pathlib import Path

# Commands that make the simulation box, and those before which the forces must be there.
BOX = {"read_data", "read_restart", "create_box"}
RUNS = {"run", "minimize", "rerun", "label", "write_data", "write_restart"}


@dataclass
class Piece:
    """Some lines of an input, and the command behind them that Python carries out.

    command : the words of a `pair_style` or `pair_coeff` that name `amptorch` or its elements; ()
        where the potential is attached without one; None where nothing is to be done
    """

    text: str
    command: tuple[str, ...] | None = None


def pieces(path: Path) -> list[Piece]:
    """Return the pieces of the input at `path`.

    They end at `pair_style amptorch` (or `hybrid/overlay amptorch …`) and at its `pair_coeff * *`
    with the elements; where the input has neither, before the first run (or label, which begins a
    loop) that follows the making of the box.

    Raises ValueError that names file and line: `pair_style amptorch` without `pair_coeff`, with
    arguments, or in another hybrid style; a `pair_coeff` that does not begin with `* *`; another
    pair style alone; an input that makes no box.
    """
    commands = _commands(path)
    styles = [(where, words) for where, words, _ in commands if words[:1] == ["pair_style"]]
    if any("amptorch" in words for _, words in styles):
        return _at_pair_coeff(commands)
    for where, words in styles:
        if words[1:2] not in (["zero"], ["none"]):
            raise ValueError(
                f"{where}: {' '.join(words)!r} would be added to the model; write `pair_style "
                "amptorch` in its place, or `pair_style hybrid/overlay amptorch …` for the sum"
            )
    names = [words[0] if words else "" for _, words, _ in commands]
    boxes = [k for k, name in enumerate(names) if name in BOX]
    if not boxes:
        raise ValueError(f"{path} makes no box: none of {', '.join(sorted(BOX))}")
    runs = [k for k, name in enumerate(names) if k > boxes[-1] and name in RUNS]
    cut = runs[0] if runs else len(commands)
    texts = [text for _, _, text in commands]
    return [Piece("".join(texts[:cut]), ()), Piece("".join(texts[cut:]))]


def _at_pair_coeff(commands: list[tuple[str, list[str], str]]) -> list[Piece]:
    found: list[Piece] = []
    text = waiting = ""
    prefix = ["pair_coeff"]
    for where, words, line in commands:
        if words[:1] == ["pair_style"] and "amptorch" in words:
            hybrid = words[1] == "hybrid/overlay"
            if words[1:] != ["amptorch"] and not hybrid:
                raise ValueError(
                    f"{where}: expected `pair_style amptorch` or `pair_style hybrid/overlay "
                    f"amptorch …`, got {' '.join(words)!r}; the model is an argument of `amptorch "
                    "lammps`"
                )
            prefix = ["pair_coeff", "*", "*"] + ["amptorch"] * hybrid
            found.append(Piece(text, tuple(words)))
            text, waiting = "", where
        elif waiting and words[:1] == ["pair_coeff"] and ("amptorch" in words or len(prefix) == 3):
            if words[: len(prefix)] != prefix or len(words) == len(prefix):
                raise ValueError(
                    f"{where}: expected `{' '.join(prefix)} …` with the element of each atom type, "
                    f"such as `{' '.join(prefix)} H O`, got {' '.join(words)!r}"
                )
            found.append(Piece(text, ("pair_coeff", *words[len(prefix) :])))
            text = waiting = ""
        else:
            text += line
    if waiting:
        raise ValueError(
            f"{waiting}: no `{' '.join(prefix)} …` with the element of each atom type behind it"
        )
    return [*found, Piece(text)]


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
