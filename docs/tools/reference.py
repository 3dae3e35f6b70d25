"""Write the reference of the configuration and of the command line, out of what the package says.

The texts are those of `amptorch/config.py`, `amptorch/tuning/settings.py` and the commands, so that
the pages cannot differ from them.
"""

from dataclasses import MISSING, Field, fields
from typing import Any

import typer

from amptorch.cli import app
from amptorch.config import SECTIONS, to_json
from amptorch.recommended import recommended
from amptorch.tuning.settings import TuningConfig

SEPARATOR = " · "


def configuration() -> str:
    """Return a list for each section: keys, meanings, values, defaults, recommended values."""
    parts = []
    for name, section in {**SECTIONS, "tuning": TuningConfig}.items():
        started = recommended().get(name, {})
        parts.append(f"## {name}")
        for key in fields(section):
            facts = [_values(key), f"default {_code(_default(key))}"]
            if key.name in started:
                facts.append(f"recommended {_code(started[key.name])}")
            text = f"{key.metadata['meaning']}<br>{SEPARATOR.join(filter(None, facts))}"
            parts.append(f"`{name}.{key.name}`\n:   {text}")
    return "\n\n".join(parts)


def command_line() -> str:
    """Return what `--help` says of each command: its use, its text, its options."""
    # Typer's commands are those of click, or of its own copy of click.
    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=f"amptorch {name}")
        use = command.get_usage(context).partition(" ")[2]
        parts += [f"## {name}", f"```text\n{use}\n```", command.help]
        for option in command.params:
            record = option.get_help_record(context)
            if record is not None:
                parts.append(f"`{record[0]}`\n:   {record[1]}")
    return "\n\n".join(parts)


def _values(key: Field) -> str:
    """Return what a key may be, which its check says of what it may not be."""
    try:
        key.metadata["check"]("", object())
    except (ValueError, TypeError) as error:
        _, found, said = str(error).partition("must be ")
        return said.split(", got ")[0] if found else ""
    return ""


def _default(key: Field) -> Any:
    return key.default if key.default_factory is MISSING else key.default_factory()


def _code(value: Any) -> str:
    return f"`{to_json(value)}`"
