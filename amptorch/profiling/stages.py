"""Name the functions that make up each stage, and wrap them from outside while a profile is
taken: they know nothing of it."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

WAITING = "waiting for threads"

# {stage: functions}, each "module:function" or "module:Class.method"; a method stands for what
# overrides it in subclasses too.
STAGES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("stages.json").read_text(encoding="utf8")
)
# Stages for which all that their functions call counts too.
WHOLE = {"memory plan", "checking frames"}


def find(function: str) -> list[tuple[Any, str, Any]]:
    """Return [(owner, attribute, value)] of all places where a function of STAGES stands.

    Raises AttributeError where there is no such function.
    """
    module_name, _, path = function.partition(":")
    module = importlib.import_module(module_name)
    class_name, _, name = path.rpartition(".")
    if class_name:
        first = getattr(module, class_name)
        found = [(first, name, vars(first).get(name, getattr(first, name)))]
        return found + [(cls, name, vars(cls)[name]) for cls in _below(first) if name in vars(cls)]
    value = getattr(module, name)
    # Other modules have imported it.
    modules = [m for key, m in list(sys.modules.items()) if key.split(".")[0] == "amptorch"]
    return [(m, key, value) for m in modules for key, there in vars(m).items() if there is value]


def _below(cls):
    return [below for sub in cls.__subclasses__() for below in (sub, *_below(sub))]


@contextmanager
def wrapped(wrap: Callable[[Callable, str, bool], Callable]) -> Iterator[None]:
    """Put `wrap(function, stage, whole)` in place of every function of the stages, in this context.

    Descriptors that are not imported yet are left as they are.
    """
    functions = [(stage, function) for stage, names in STAGES.items() for function in names]
    # Modules first: one that is imported later would come by what is wrapped already, and keep it.
    for _, function in functions:
        importlib.import_module(function.partition(":")[0])
    with ExitStack() as replaced:
        for stage, function in functions:
            for owner, name, value in find(function):
                bound = isinstance(value, (classmethod, staticmethod))
                timed = wrap(value.__func__ if bound else value, stage, stage in WHOLE)
                new = type(value)(timed) if bound else timed
                replaced.enter_context(patch.object(owner, name, new))
        yield
