"""Behler-Parrinello neural network potentials on numba kernels, with AMPTorch v1.0's interface."""

from importlib import import_module
from typing import Any

__version__ = "2.0.0.dev0"
__all__ = ["AmpTorch", "AtomsTrainer", "Ensemble", "Potential", "fit", "load", "prepare", "train"]


_PLACES = {
    "AMPtorch": "amptorch.ase_utils",
    "AmpTorch": "amptorch.calculator",
    "AtomsTrainer": "amptorch.v1.trainer",
    "Ensemble": "amptorch.ensemble",
    "Potential": "amptorch.potential",
    "fit": "amptorch.training.fit",
    "load": "amptorch.loading",
    "prepare": "amptorch.training.prepare",
    "train": "amptorch.training.quick",
}


def __getattr__(name: str) -> Any:
    # torch takes a second to import, so it comes in only with what needs it.
    if name not in _PLACES:
        raise AttributeError(f"module 'amptorch' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
