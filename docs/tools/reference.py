"""Write the reference of the configuration and of the command line, out of what the package says.

The texts are those of `amptorch/config.py`, `amptorch/tuning/settings.py` and the commands, so that
the pages cannot differ from them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

import typer

from amptorch.cli import app
from amptorch.config import SECTIONS, to_json
from amptorch.recommended import recommended
from amptorch.tuning.settings import TuningConfig


def configuration() -> str:
    """Return a table for each section: keys, values, defaults, recommended values, meanings."""
    parts = []
    for name, section in {**SECTIONS, "tuning": TuningConfig}.items():
        started = recommended().get(name, {})
        header = ["key", "value", "default", *(["recommended"] if started else []), "meaning"]
        rows = []
        for key in fields(section):
            row = [f"`{key.name}`", _values(key), _code(_default(key))]
            if started:
                row.append(_code(started[key.name]) if key.name in started else "")
            rows.append([*row, key.metadata["meaning"]])
        parts.append(f"## `{name}`\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def command_line() -> str:
    """Return what `--help` says of each command: its use, its text, its options."""
    # Typer's commands are those of click, or of its own copy of click.
    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=f"amptorch {name}")
        records = [option.get_help_record(context) for option in command.params]
        rows = [[f"`{_escaped(option)}`", _escaped(text)] for option, text in filter(None, records)]
        use = command.get_usage(context).partition(" ")[2]
        parts.append(
            f"## `{name}`\n\n```text\n{use}\n```\n\n{command.help}\n\n"
            + _table(["option", "meaning"], rows)
        )
    return "\n\n".join(parts)


def _values(key: Field) -> str:
    """Return what a key may be, which its check says of what it may not be."""
    try:
        key.metadata["check"]("", object())
    except (ValueError, TypeError) as error:
        _, found, said = str(error).partition("must be ")
        return _escaped(said.split(", got ")[0]) if found else ""
    return ""


def _default(key: Field) -> Any:
    return key.default if key.default_factory is MISSING else key.default_factory()


def _code(value: Any) -> str:
    """Return a value as YAML and Python both know it, nothing for None."""
    value = to_json(value)
    return "" if value is None else f"`{_escaped(str(value))}`"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines(header, rows))


def _lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield f"| {' | '.join(row)} |"
