"""Values in JSON types."""

import os
import sys
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> Any:
    """Return `value` in JSON types: arrays become lists, classes and dtypes their names.

    What has no such form becomes its `repr`, which a reader refuses by name where it matters.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    if callable(value) and hasattr(value, "__qualname__"):
        return _class_name(value)
    return repr(value)


# Classes of these go by their names alone.
MODULES = (
    *("torch.nn", "torch.optim", "torch.optim.lr_scheduler"),
    *("amptorch.optimizers", "amptorch.model.activations"),
)


def _class_name(value: Any) -> str:
    name = value.__qualname__
    for module in MODULES:
        if getattr(sys.modules.get(module), name, None) is value:
            return name
    return f"{value.__module__}.{name}"
