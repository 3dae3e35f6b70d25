"""Potentials and structures in the files of n2p2 and RuNNer."""

from importlib import import_module
from typing import Any

_PLACES = {
    "read_data": "amptorch.n2p2.structures",
    "read_potential": "amptorch.n2p2.reading",
    "write_data": "amptorch.n2p2.structures",
    "write_potential": "amptorch.n2p2.writing",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # The command line asks for its options alone, which need no torch.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
