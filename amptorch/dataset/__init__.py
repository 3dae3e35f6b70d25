"""Data sets: frames as packed arrays, and the batches taken from them.

The names that v1.0's `amptorch.dataset` has are all here.
"""

from amptorch.dataset.collate import Batch, Batcher, DataCollater
from amptorch.dataset.construct import construct_descriptor
from amptorch.dataset.dataset import AtomsDataset
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler, sparse_block_diag

__all__ = [
    "GMP",
    "AtomsDataset",
    "AtomsToData",
    "Batch",
    "Batcher",
    "DataCollater",
    "FeatureScaler",
    "GMPOrderNorm",
    "Gaussian",
    "TargetScaler",
    "construct_descriptor",
    "sparse_block_diag",
]
