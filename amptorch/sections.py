"""Define what sections of the configuration are made of: options with default, check, meaning."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from amptorch.checks import Check, nearest, number

count = number(minimum=1, integer=True)


def option(default: Any, check: Check, meaning: str) -> Any:
    """Return the field of a dataclass with its default, its check and its meaning."""
    metadata = {"check": check, "meaning": meaning}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def or_word(word: str, check: Check) -> Check:
    """Return the check of a value that `check` takes, or of a word."""

    def checked(key: str, value: Any) -> Any:
        if value == word:
            return value
        try:
            return check(key, value)
        except (TypeError, ValueError) as error:
            message = str(error).replace(", got ", f" or {word!r}, got ", 1)
            raise type(error)(message) from None

    return checked


@dataclass
class Section:
    """Check the values of a section when it is made; None stays where None is the default."""

    name_in_config: ClassVar[str]
    aliases: ClassVar[dict] = {}

    def __post_init__(self) -> None:
        for key in fields(self):
            value = getattr(self, key.name)
            if not (value is None and key.default is None):
                check = key.metadata["check"]
                setattr(self, key.name, check(f"{self.name_in_config}.{key.name}", value))

    @classmethod
    def from_dict(cls, values: Any) -> Any:
        """Return the section with the values of a dictionary.

        Raises ValueError for an unknown key, TypeError where it is no dictionary.
        """
        section = cls.name_in_config
        if not isinstance(values, Mapping):
            raise TypeError(f"config section {section!r} must be a dictionary, got {values!r}")
        known = [key.name for key in fields(cls)]
        given: dict[str, Any] = {}
        for name, value in values.items():
            key = cls.aliases.get(name, name)
            if key not in known:
                raise ValueError(f"config has no key {section}.{name}{nearest(name, known)}")
            if key in given and given[key] != value:
                raise ValueError(f"config gives {section}.{key} twice, as {given[key]} and {value}")
            given[key] = value
        return cls(**given)
