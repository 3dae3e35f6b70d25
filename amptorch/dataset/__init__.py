"""v1.0's import path of data sets and batches."""

from amptorch.data.batch import Batch, Batcher
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler, sparse_block_diag
from amptorch.v1.collate import DataCollater
from amptorch.v1.dataset import AtomsDataset

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
