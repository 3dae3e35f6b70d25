"""Tuning of symmetry functions, network and training together."""

from typing import Any

__all__ = ["TuningConfig", "tune"]


def __getattr__(name: str) -> Any:
    # Recipes and ensembles need no Optuna.
    if name == "tune":
        from amptorch.tuning.run import tune

        return tune
    if name == "TuningConfig":
        from amptorch.tuning.settings import TuningConfig

        return TuningConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
