"""Names of everything in a store; docs/store.md is the description for people."""

from pathlib import Path

FORMAT = "amptorch frame store"
VERSION = 1

STORE = "store.json"
LOCK = ".lock"
SHARD = "shard.json"
STRUCTURES = ("numbers", "positions", "cells", "pbc", "offsets", "indices", "energies")
FORCES = "forces"
NEIGHBORS = ("neighbors/offsets", "neighbors/neighbors", "neighbors/shifts")
BLOCKS = ("atom_start", "atoms", "value_start", "values", "kind", "feature_row")
DERIVATIVE_DTYPES = ("float32", "float64")


def shard_folder(store, number):
    return Path(store) / "shards" / f"{number:06d}"


def setup_file(store, setup_hash):
    return Path(store) / "setups" / f"{setup_hash}.json"


def fingerprint_file(shard, setup_hash):
    return Path(shard) / "fingerprints" / f"{setup_hash}.npy"


def fingerprint_entry(shard, setup_hash):
    """Written after the array: it is there when the fingerprints are complete."""
    return Path(shard) / "fingerprints" / f"{setup_hash}.json"


def derivative_folder(shard, setup_hash, dtype):
    return Path(shard) / "derivatives" / f"{setup_hash}-{dtype}"


DERIVATIVES = "derivatives.json"
