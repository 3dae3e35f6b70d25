"""Data sets: frames as packed arrays, and the batches taken from them."""

from amptorch.dataset.collate import Batch, Batcher, DataCollater
from amptorch.dataset.construct import construct_descriptor
from amptorch.dataset.dataset import AtomsDataset

__all__ = ["AtomsDataset", "Batch", "Batcher", "DataCollater", "construct_descriptor"]
