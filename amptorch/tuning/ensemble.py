"""Where ensembles were first; they are in `amptorch.uncertainty`."""

from amptorch.uncertainty.ensemble import Ensemble, is_ensemble

__all__ = ["Ensemble", "is_ensemble"]
