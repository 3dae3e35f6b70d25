"""Behler-Parrinello neural network potentials on numba kernels, with AMPTorch v1.0's interface."""

__version__ = "2.0.0.dev0"
__all__ = ["AmpTorch", "AtomsTrainer"]


def __getattr__(name):
    # torch takes a second to import, so it comes in only with what needs it.
    if name == "AtomsTrainer":
        from amptorch.trainer import AtomsTrainer

        return AtomsTrainer
    if name == "AmpTorch":
        from amptorch.calculator import AmpTorch

        return AmpTorch
    raise AttributeError(f"module 'amptorch' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
