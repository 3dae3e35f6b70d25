"""Tuning of symmetry functions, network and training together."""

__all__ = ["TuningConfig", "tune"]


def __getattr__(name):
    # Recipes and ensembles need no Optuna.
    if name == "tune":
        from amptorch.tuning.run import tune

        return tune
    if name == "TuningConfig":
        from amptorch.tuning.settings import TuningConfig

        return TuningConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
