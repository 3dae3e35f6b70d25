"""LMDB files that are damaged, do not belong together, or hold what does not fit."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from amptorch.dataset_lmdb import get_lmdb_dataset
from amptorch.trainer import AtomsTrainer
from amptorch.v1.lmdb_file import LMDBFile, write_lmdb
from tests.small_frames import FP_PARAMS, config, mixed_frames
from tests.v1.test_lmdb import SETUP, settings, trained


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(6)


@pytest.fixture(scope="module")
def written(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("lmdb") / "frames.lmdb"
    write_lmdb(frames, path, config(None, "."), verbose=False)
    return path


def test_files_that_do_not_belong_together(frames, written, tmp_path):
    other = config(None, ".")
    other["dataset"]["fp_params"] = {"default": {**FP_PARAMS["default"], "cutoff": 4.0}}
    write_lmdb(frames, tmp_path / "other.lmdb", other, verbose=False)
    with pytest.raises(ValueError, match="hold different fingerprints"):
        get_lmdb_dataset([written, tmp_path / "other.lmdb"])
    turned = config(None, ".", dataset__elements=["O", "Cu"])
    write_lmdb(frames, tmp_path / "turned.lmdb", turned, verbose=False)
    with pytest.raises(ValueError, match=r"elements \['O', 'Cu'\]"):
        get_lmdb_dataset([written, tmp_path / "turned.lmdb"])
    options = settings([written], tmp_path)
    options["dataset"] |= other["dataset"]
    trainer = AtomsTrainer(options)
    with pytest.raises(ValueError, match="are not those of the files"):
        trainer.train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__pca": {"num_pc": 3}}, "dataset.pca is not for LMDB files"),
        ({"dataset__atomic_correction": True}, "dataset.atomic_correction is not for LMDB"),
        ({"dataset__weights": "weight"}, "LMDB files do not hold Atoms.info"),
        ({"dataset__elements": ["O", "Cu"]}, "the configuration has"),
    ],
)
def test_settings_that_do_not_fit(written, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        trained([written], tmp_path, **changes)


def test_damaged_files(written, tmp_path, monkeypatch):
    import lmdb

    with pytest.raises(FileNotFoundError, match="no LMDB file"):
        trained([tmp_path / "none.lmdb"], tmp_path)
    (tmp_path / "text.lmdb").write_text("text")
    with pytest.raises(ValueError, match="cannot be opened as an LMDB file"):
        LMDBFile(tmp_path / "text.lmdb")
    path = tmp_path / "damaged.lmdb"
    shutil.copy(written, path)
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"2", b"damaged")
        transaction.delete(b"5")
    with pytest.raises(ValueError, match="entry '2' cannot be read"):
        LMDBFile(path)[2]
    with pytest.raises(ValueError, match="has no entry '5'"):
        _ = LMDBFile(path).sizes
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.delete(b"feature_scaler")
    with pytest.raises(ValueError, match="has no entry 'feature_scaler'"):
        LMDBFile(path)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match="pip install lmdb"):
        get_lmdb_dataset(shutil.copy(written, tmp_path / "copy.lmdb"))
    with pytest.raises(ImportError, match="pip install lmdb"):
        write_lmdb("no frames are read", tmp_path / "new.lmdb", {})
    with pytest.raises(ValueError, match="cache must be one of"):
        get_lmdb_dataset(written, "half")


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        ("0", {"atomic_numbers": torch.tensor([26, 26, 8, 8])}, r"entry 0 has Fe, .*'Cu', 'O'"),
        ("0", {"atomic_numbers": torch.tensor([8, 8, 8])}, "entry 0: fingerprint has the shape"),
        (
            "0",
            {"forces": torch.zeros(3, 3)},
            r"entry 0: forces .* \(3, 3\), not \(4, 3\)",
        ),
        ("0", {"fprimes": torch.eye(12).to_sparse()}, "entry 0: fprimes has the shape"),
        ("0", {"energy": torch.tensor(np.nan)}, "entry 0: energy is not finite"),
        ("elements", ["Cu", "Ox"], "entry 'elements': 'Ox' is not a chemical symbol"),
        ("elements", 8, "entry 'elements' must be a list"),
        ("descriptor_setup", SETUP[:3], r"entry 'descriptor_setup' must be \(fp_scheme"),
        ("length", 0, "entry 'length' must be an integer at least 1, got 0"),
        ("length", None, "entry 'length' must be an integer"),
    ],
)
def test_entries_that_do_not_fit(written, tmp_path, entry, changes, message):
    """What would be left out, or read beyond its end, in silence."""
    import lmdb

    path = Path(shutil.copy(written, tmp_path / "wrong.lmdb"))
    value = changes
    if entry == "0":
        value = LMDBFile(written)[0]
        vars(value).update(changes)
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(entry.encode(), pickle.dumps(value))
    with pytest.raises((ValueError, TypeError), match=rf"wrong\.lmdb: {message}"):
        get_lmdb_dataset(path, "full")


CUTS = """
import sys
from pathlib import Path
from amptorch.v1.lmdb import AtomsLMDBDatasetCache

content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for kept in (0.1, 0.5, 0.9, 0.99):
    path.write_bytes(content[: int(kept * len(content))])
    try:
        AtomsLMDBDatasetCache([path])
    except ValueError as error:
        print(error)
    path.unlink()
"""


@pytest.mark.slow
def test_a_file_that_was_cut_short_is_named(written, tmp_path):
    """What is read beyond its end would kill the process."""
    command = [sys.executable, "-c", CUTS, str(written), str(tmp_path / "short.lmdb")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("short.lmdb is cut short") == 4


FLIPS = """
import random, sys, warnings
from pathlib import Path
from amptorch.v1.lmdb import AtomsLMDBDatasetCache

warnings.simplefilter("ignore")
content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for seed in range(60):
    flipped, rng = bytearray(content), random.Random(seed)
    for _ in range(3):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    path.write_bytes(flipped)
    try:
        AtomsLMDBDatasetCache([path])
    except (ValueError, TypeError) as error:
        assert path.name in str(error), repr(error)
        print("named")
    path.unlink()
"""


@pytest.mark.slow
def test_bits_that_flipped_give_errors_that_name_the_file(written, tmp_path):
    command = [sys.executable, "-c", FLIPS, str(written), str(tmp_path / "flipped.lmdb")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("named") > 12
