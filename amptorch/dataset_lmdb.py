"""v1.0's import path of the data sets in LMDB files."""

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.v1.lmdb import (
    AtomsLMDBDataset,
    AtomsLMDBDatasetCache,
    AtomsLMDBDatasetPartialCache,
    PartialCacheSampler,
    get_lmdb_dataset,
)

__all__ = [
    "GMP",
    "AtomsLMDBDataset",
    "AtomsLMDBDatasetCache",
    "AtomsLMDBDatasetPartialCache",
    "GMPOrderNorm",
    "Gaussian",
    "PartialCacheSampler",
    "get_lmdb_dataset",
]
