"""v1.0's import path of the data sets in LMDB files."""

from amptorch.dataset.lmdb import (
    AtomsLMDBDataset,
    AtomsLMDBDatasetCache,
    AtomsLMDBDatasetPartialCache,
    PartialCacheSampler,
    get_lmdb_dataset,
)

__all__ = [
    "AtomsLMDBDataset",
    "AtomsLMDBDatasetCache",
    "AtomsLMDBDatasetPartialCache",
    "PartialCacheSampler",
    "get_lmdb_dataset",
]
