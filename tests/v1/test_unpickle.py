"""Pickles of strangers run nothing, reach nothing, and are read where they are v1.0's."""

import os
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from amptorch.checkpoints.folder import load_checkpoint
from amptorch.v1.unpickle import load_torch_file, loads_restricted
from tests.checkpoints.test_checkpoints import GOLDEN, V1, scalers


@pytest.mark.parametrize("part", ["entry", "archive"])
def test_damage_of_any_kind_is_a_value_error(tmp_path, part):
    """Also where tensors have other keys, or where a place in the archive is before its start."""
    if part == "entry":
        entry = (GOLDEN / "lmdb_entries" / "feature_scaler.pkl").read_bytes()
        key = re.search(rb"\d{14}", entry)
        with pytest.raises(ValueError, match="the entry cannot be read"):
            loads_restricted(entry[: key.start()] + b"x" + entry[key.start() + 1 :], "the entry")
    else:
        content = bytearray((GOLDEN / "checkpoints" / V1[0] / "config.pt").read_bytes())
        end = content.rindex(b"PK\x05\x06")
        content[end - 24] = 255
        (tmp_path / "config.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.pt cannot be read"):
            load_torch_file(tmp_path / "config.pt")


# --- strangers' files ---


class Attack:
    """What a pickle can do to who loads it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickled_archive(path, content):
    """A file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


@pytest.mark.parametrize("name", ["config.pt", "normalizers.pt", "params.pt", "optimizer.pt"])
def test_code_in_a_checkpoint_of_v1_is_not_run(tmp_path, name):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    marker = tmp_path / "marker"
    pickled_archive(folder / name, pickle.dumps(Attack(marker)))
    with pytest.raises(ValueError, match=name):
        _ = load_checkpoint(folder).optimizer
    assert not marker.exists()


def test_code_in_an_lmdb_entry_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match=r"entry 3 .* holds \w+\.mkdir"):
        loads_restricted(pickle.dumps({"fingerprint": Attack(marker)}), "entry 3")
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, getattr, os.system, np.load, torch.load, pickle.loads])
def test_no_function_can_be_had(function):
    with pytest.raises(ValueError, match=function.__name__):
        loads_restricted(pickle.dumps(function))


def test_a_configured_class_is_only_a_name():
    assert loads_restricted(pickle.dumps([torch.nn.GELU, torch.optim.SGD])) == ["GELU", "SGD"]
    # BUILD with a pair sets attributes: of the class itself, if that were handed out.
    stream = b"ctorch.nn.modules.activation\nGELU\n(N}Vforward\nK\x01sto0b."
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(stream)
    assert callable(torch.nn.GELU.forward)


class Pickled:
    """Pickles as the call of a function, and the state of what it gives."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


# A field that takes bytes for an object.
OVERLAPPING = Pickled(
    np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
)


@pytest.mark.parametrize(
    ("shape", "dtype", "data"),
    [
        ((1,), OVERLAPPING, b"A" * 8),
        ((1,), np.dtype("O"), b"A" * 8),
        ((9,), np.dtype("O"), []),
        ((-2, -1), np.dtype("f8"), b"A" * 16),
        ((3,), np.dtype("f8"), b"A" * 16),
    ],
)
def test_an_array_cannot_call_bytes_addresses(shape, dtype, data):
    """Reading an item of such an array is reading, or calling, any place in memory."""
    reconstruct, *_ = np.arange(2).__reduce__()
    array = Pickled(reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, data))
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(pickle.dumps([array]))


@pytest.mark.parametrize("arguments", [((1,), "O", b"A" * 8), ((10**15,),)])
def test_an_array_is_not_made_by_its_class(arguments):
    with pytest.raises(ValueError, match="cannot be read"):
        loads_restricted(pickle.dumps(Pickled(np.ndarray, *arguments)))


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.arange(4.0)}, tmp_path / "tensor.pt")
    with zipfile.ZipFile(tmp_path / "tensor.pt") as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "tensor.pt", "w") as archive:
        for name, content in names.items():
            short = content[:8] if name.endswith("data/0") else content
            archive.writestr(name, short)
    with pytest.raises(ValueError, match=r"tensor\.pt cannot be read"):
        load_torch_file(tmp_path / "tensor.pt")


def test_a_user_class_in_a_checkpoint_of_v1_is_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "checkpoints" / V1[0], tmp_path / "checkpoint")
    torch.save({"model": {"activation": Attack}}, folder / "config.pt")
    with pytest.raises(ValueError, match=r"config\.pt .*test_unpickle\.Attack"):
        load_checkpoint(folder)


def test_what_v1_stores_is_read(tmp_path):
    stored = {
        "a": [np.arange(3), np.float64(2.5), np.array(["Cu", "O"], dtype=object), range(3)],
        "arrays": (
            np.array(["Cu", "O"]),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.zeros((0, 3)),
            np.arange(3, dtype=">i4"),
            np.dtype("float32"),
        ),
        "b": OrderedDict(c=torch.tensor([[1.5]])),
        "dtype": torch.DoubleTensor,
        "path": Path("a/b"),
    }
    torch.save(stored, tmp_path / "config.pt")
    read = load_torch_file(tmp_path / "config.pt")
    assert read["a"][0].tolist() == [0, 1, 2]
    assert read["a"][1] == 2.5
    assert read["a"][2].tolist() == ["Cu", "O"]
    for found, expected in zip(read["arrays"], stored["arrays"], strict=True):
        np.testing.assert_array_equal(found, expected)
        assert type(found) is type(expected)
    assert read["b"]["c"].tolist() == [[1.5]]
    assert read["dtype"] == "DoubleTensor"
    assert read["path"] == str(Path("a/b"))


def test_lmdb_entries_of_v1_are_read():
    entries = {
        path.stem: loads_restricted(path.read_bytes(), path.name)
        for path in (GOLDEN / "lmdb_entries").iterdir()
    }
    data = entries["16"]
    assert data.num_nodes == 3
    assert data.fprimes.shape == (3 * 36, 9)
    assert data.fprimes.coalesce().values().abs().max() > 0
    assert entries["feature_scaler"].unique == [6, 8, 29]
    assert float(entries["target_scaler"].target_std) > 0
    assert entries["descriptor_setup"][0] == "gaussian"


def test_no_pickle_of_a_stranger_reaches_torch(monkeypatch):
    """`torch.load(weights_only=True)` ran code before torch 2.6."""
    monkeypatch.setattr(torch, "load", None)
    load_checkpoint(GOLDEN / "checkpoints" / V1[0])
    assert loads_restricted((GOLDEN / "lmdb_entries" / "16.pkl").read_bytes()).num_nodes == 3


def test_what_the_fork_pickles_is_read():
    feature, target = scalers()
    again = loads_restricted(pickle.dumps({"feature": feature, "target": target}))
    assert again["feature"].state() == feature.state()
    assert again["target"].state() == target.state()
