"""Training of potentials; the names that v1.0's `amptorch.trainer` has are all here."""

from amptorch.calculator import AmpTorch
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.dataset.lmdb import PartialCacheSampler, get_lmdb_dataset
from amptorch.descriptor.util import list_symbols_to_indices
from amptorch.metrics import evaluator
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.preprocessing import AtomsToData
from amptorch.trainer.atoms_trainer import AtomsTrainer
from amptorch.trainer.compat import check_memory, save_normalizers, train_end_load_best_loss
from amptorch.trainer.net import to_tensor
from amptorch.trainer.parallel import DataParallel, ParallelCollater
from amptorch.trainer.splits import InOrderSplit

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
