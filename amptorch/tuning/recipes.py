"""Import what stood here before: `amptorch.descriptor.Gaussian.recipes`."""

from amptorch.descriptor.Gaussian.recipes import pair_distances, pool, symmetry_functions

__all__ = ["pair_distances", "pool", "symmetry_functions"]
