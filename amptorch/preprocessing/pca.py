"""v1.0's import path of the principal components."""

from amptorch.data.pca import PCAReducer

__all__ = ["PCAReducer"]
