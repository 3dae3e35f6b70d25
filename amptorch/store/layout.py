"""Name everything in a store; docs/store.md is the description for people."""

from pathlib import Path

FORMAT = "amptorch frame store"
VERSION = 1

STORE = "store.json"
LOCK = ".lock"
SHARD = "shard.json"
DERIVATIVES = "derivatives.json"
DERIVATIVE_DTYPES = ("float32", "float64")


def shard_folder(store: Path, number: int) -> Path:
    """Return the folder of a shard."""
    return Path(store) / "shards" / f"{number:06d}"


def setup_file(store: Path, setup_hash: str) -> Path:
    """Return the file that says what the hash of a set-up stands for."""
    return Path(store) / "setups" / f"{setup_hash}.json"


def fingerprint_file(shard: Path, setup_hash: str) -> Path:
    """Return the file of a shard's fingerprints."""
    return Path(shard) / "fingerprints" / f"{setup_hash}.npy"


def fingerprint_entry(shard: Path, setup_hash: str) -> Path:
    """Return the file that is written after the fingerprints, so that where it is they are."""
    return Path(shard) / "fingerprints" / f"{setup_hash}.json"


def derivative_folder(shard: Path, setup_hash: str, dtype: str) -> Path:
    """Return the folder of a shard's derivatives."""
    return Path(shard) / "derivatives" / f"{setup_hash}-{dtype}"


def strain_file(shard: Path, setup_hash: str, dtype: str) -> Path:
    """Return the file of a shard's derivatives along strains."""
    return Path(shard) / "strains" / f"{setup_hash}-{dtype}.npy"


def strain_entry(shard: Path, setup_hash: str, dtype: str) -> Path:
    """Return the file that is written after these, so that where it is they are."""
    return Path(shard) / "strains" / f"{setup_hash}-{dtype}.json"
