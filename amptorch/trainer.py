"""Training of potentials; the names that v1.0's `amptorch.trainer` has are all here."""

from amptorch.calculator import AmpTorch
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.descriptor.util import list_symbols_to_indices
from amptorch.metrics import evaluator
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.preprocessing import AtomsToData
from amptorch.training.net import to_tensor
from amptorch.training.splits import InOrderSplit
from amptorch.v1.compat import check_memory, save_normalizers, train_end_load_best_loss
from amptorch.v1.lmdb import PartialCacheSampler, get_lmdb_dataset
from amptorch.v1.parallel import DataParallel, ParallelCollater
from amptorch.v1.trainer import AtomsTrainer

__all__ = [
    "BPNN",
    "AmpTorch",
    "AtomsDataset",
    "AtomsToData",
    "AtomsTrainer",
    "CustomLoss",
    "DataCollater",
    "DataParallel",
    "InOrderSplit",
    "ParallelCollater",
    "PartialCacheSampler",
    "SingleNN",
    "check_memory",
    "construct_descriptor",
    "evaluator",
    "get_lmdb_dataset",
    "list_symbols_to_indices",
    "save_normalizers",
    "to_tensor",
    "train_end_load_best_loss",
]
