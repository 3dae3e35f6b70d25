"""Data objects, scaling of fingerprints and targets, and what goes with them."""

from amptorch.data.corrections import AtomicCorrectionScaler
from amptorch.data.pca import PCAReducer
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.v1.atoms_to_data import AtomsToData
from amptorch.v1.data import Data
from amptorch.v1.sparse import SparseDerivatives, sparse_block_diag

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
