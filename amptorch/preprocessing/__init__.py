"""Data objects, scaling of fingerprints and targets, and what goes with them."""

from amptorch.preprocessing.atoms_to_data import AtomsToData
from amptorch.preprocessing.corrections import AtomicCorrectionScaler
from amptorch.preprocessing.data import Data
from amptorch.preprocessing.pca import PCAReducer
from amptorch.preprocessing.scalers import FeatureScaler, TargetScaler
from amptorch.preprocessing.sparse import SparseDerivatives, sparse_block_diag

__all__ = [
    "AtomicCorrectionScaler",
    "AtomsToData",
    "Data",
    "FeatureScaler",
    "PCAReducer",
    "SparseDerivatives",
    "TargetScaler",
    "sparse_block_diag",
]
