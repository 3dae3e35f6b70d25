"""Learning on the fly: dynamics with a guard, selection, labels, training, and again."""

from importlib import import_module
from typing import Any

__all__ = ["LearningConfig", "learn", "make_labeller"]

_PLACES = {
    "LearningConfig": "amptorch.learning.settings",
    "learn": "amptorch.learning.rounds",
    "make_labeller": "amptorch.learning.labelling",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package, and answers `--help` without torch.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
