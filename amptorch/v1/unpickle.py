"""Reading v1.0's pickles without running what a stranger put into them.

v1.0's checkpoints (`config.pt`, `normalizers.pt`) and LMDB entries are pickles, and a pickle can
call anything. Here each name that a pickle asks for is looked up in a short list. A name that only
says which class was configured (an activation, an optimizer) becomes a string; an object of one of
v1.0's own classes becomes an inert record, and is built anew from the attributes that belong to it.
So are arrays: numpy itself would take bytes for the addresses of objects; and tensors, whatever the
version of torch: `torch.load(weights_only=True)` ran code before 2.6 (CVE-2025-32434) and wrote
beyond its memory before 2.10 (CVE-2026-24747). Functions are wrapped, so that nothing in a pickle
reaches, or changes, the real ones.
"""

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.Gaussian import GaussianDescriptorSet
from amptorch.v1.data import Data

# What reading a damaged, or forged, file can end in.
FAILURES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_torch_file(path: Path) -> Any:
    """Return what v1.0 saved by `torch.save` at `path` (a Path), tensors on the CPU.

    Raises FileNotFoundError where there is no such file, and ValueError that names the file where
    it is damaged, or names the class in it that is not read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            return _rebuild(_TorchUnpickler(archive).load())
    except FAILURES as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def loads_restricted(data: Any, source: str = "pickle") -> Any:
    """Return the object in the bytes `data`, such as an entry of a v1.0 LMDB file.

    Raises ValueError that names `source` where the bytes are damaged, or the class in them that is
    not read.
    """
    try:
        return _rebuild(_Unpickler(io.BytesIO(data)).load())
    except FAILURES as error:
        raise ValueError(f"{source} cannot be read: {error}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: Any, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) in FUNCTIONS:
            function: Any = FUNCTIONS[module, name]
            return lambda *args: function(*args)
        if (module, name) in RECORDS:
            return type(name, (RECORDS[module, name],), {})
        if module.startswith("amptorch.descriptor.") and name == "GaussianDescriptorSet":
            return type(name, (_DescriptorSetRecord,), {})
        if (module, name) in TYPES:
            return TYPES[module, name]
        if module.split(".")[:2] in (["torch", "nn"], ["torch", "optim"]):
            return name
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in ("DoubleTensor", "FloatTensor", "float64", "float32"):
            return name
        if module.startswith("amptorch.") and name == "CustomLoss":
            return "amptorch.model.loss.CustomLoss"
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which AMPTorch does not store")


class _TorchUnpickler(_Unpickler):
    """Read the zip archives that torch.save writes: a pickle, and a file for each storage."""

    def __init__(self, archive: Any):
        self._archive = archive
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it was not written by torch.save")
        self._folder = PurePath(names[0]).parent
        super().__init__(io.BytesIO(archive.read(names[0])))

    def persistent_load(self, saved: Any) -> Any:
        _, dtype, key, _, _ = saved
        return _numbers(self._archive.read(f"{self._folder}/data/{key}"), dtype)


class _StorageUnpickler(_Unpickler):
    """Read a storage within the pickle of a tensor; gives type, key and number of its numbers."""

    def persistent_load(self, saved: Any) -> Any:
        _, dtype, key, _, count, *_ = saved
        return dtype, key, count


class _Record:
    """Stand for an object of a class known by name; keep its pickled state."""

    def __init__(self, *args: Any):
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rebuild(self) -> Any:
        return None


class _FeatureScalerRecord(_Record):
    def rebuild(self) -> Any:
        return FeatureScaler.from_state(_rebuild(self.state))


class _TargetScalerRecord(_Record):
    def rebuild(self) -> Any:
        return TargetScaler.from_state(_rebuild(self.state))


class _DescriptorSetRecord(_Record):
    def rebuild(self) -> Any:
        keys = ("elements", "cutoff", "cutoff_params", "descriptor_setup")
        return GaussianDescriptorSet.from_setup(**{key: _rebuild(self.state[key]) for key in keys})


class _DataRecord(_Record):
    def rebuild(self) -> Any:
        # torch-geometric 2 keeps the attributes in a storage object, version 1 in the object.
        store = self.state.get("_store")
        mapping = self.state if store is None else store.state["_mapping"]
        return Data(**{key: _rebuild(value) for key, value in mapping.items() if value is not None})


class _DtypeRecord(_Record):
    """Hold numpy's type of numbers, text or objects; it has no fields, which may overlap."""

    def __init__(self, name: str, *unused: Any):
        super().__init__()
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufcSUO":
            raise ValueError(f"it holds an array of {name}")

    def rebuild(self) -> Any:
        order: Any = self.state[1] if self.state else "="
        return self.dtype.newbyteorder(order)


class _ArrayRecord(_Record):
    def rebuild(self) -> Any:
        _, shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, "F" if fortran else "C")


def _rebuild(value: Any) -> Any:
    """Return `value` with its records built into the objects that they stand for."""
    if isinstance(value, _Record):
        return value.rebuild()
    if isinstance(value, dict):
        return {key: _rebuild(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_rebuild(item) for item in value)
    return value


def _storage(data: Any) -> Any:
    """Return a storage as torch wrote it before archives: pickles of a magic number, a version,
    the machine, what it is, and its key; its length again, 8 bytes; and the numbers."""
    file = io.BytesIO(data)
    for _ in range(3):
        _Unpickler(file).load()
    dtype, key, count = _StorageUnpickler(file).load()
    keys = _Unpickler(file).load()
    numbers = _numbers(file.read()[8:], dtype)
    if keys != [key] or len(numbers) != count:
        raise ValueError(f"the {len(numbers)} numbers in it are not the {count} of a tensor")
    return numbers


def _numbers(data: Any, dtype: Any) -> Any:
    if not data:
        return torch.empty(0, dtype=dtype)
    if len(data) % dtype.itemsize:
        raise ValueError(f"it holds {len(data)} bytes of a tensor's, of {dtype.itemsize} each")
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *unused: Any) -> torch.Tensor:
    # as_strided checks that the tensor stays within its storage.
    return storage.as_strided(size, stride, offset).clone()


def _sparse_tensor(layout: Any, content: Any) -> Any:
    if layout != "torch.sparse_coo":
        raise ValueError(f"it holds a tensor of layout {layout}")
    indices, values, size = content[:3]
    # Whether it is in order was not always written; where it was, the check is of that too.
    ordered = len(content) > 3 and bool(content[3])
    return torch.sparse_coo_tensor(
        indices, values, size, is_coalesced=ordered, check_invariants=True
    ).coalesce()


def _encoded(text: str, encoding: str) -> Any:
    return text.encode("latin1")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    dtype = dtype.rebuild()
    if dtype.hasobject:
        flat = np.empty(len(data), dtype=object)
        for place, item in enumerate(data):
            flat[place] = _rebuild(item)
    else:
        flat = np.frombuffer(data, dtype=dtype)
    return flat.reshape(shape, order=order).copy()


def _scalar(dtype: Any, data: Any) -> Any:
    return np.frombuffer(data, dtype=dtype.rebuild())[0]


# Names in the pickles, with what answers to them.
FUNCTIONS = {
    # Protocol 2 has bytes as text, and no bytes as their class.
    ("__builtin__", "bytes"): lambda: b"",
    ("_codecs", "encode"): _encoded,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("torch._utils", "_rebuild_parameter"): lambda data, *unused: data,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.serialization", "_get_layout"): str,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("pathlib", "PosixPath"): lambda *parts: str(PurePath(*parts)),
    ("pathlib", "WindowsPath"): lambda *parts: str(PurePath(*parts)),
}
TYPES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("torch", "Size"): torch.Size,
    ("builtins", "range"): range,
    ("__builtin__", "xrange"): range,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
RECORDS = {
    ("numpy", "dtype"): _DtypeRecord,
    ("amptorch.preprocessing.utils", "FeatureScaler"): _FeatureScalerRecord,
    ("amptorch.preprocessing.utils", "TargetScaler"): _TargetScalerRecord,
    ("amptorch.preprocessing.scalers", "FeatureScaler"): _FeatureScalerRecord,
    ("amptorch.preprocessing.scalers", "TargetScaler"): _TargetScalerRecord,
    ("amptorch.preprocessing.data", "Data"): _DataRecord,
    ("amptorch.data.scalers", "FeatureScaler"): _FeatureScalerRecord,
    ("amptorch.data.scalers", "TargetScaler"): _TargetScalerRecord,
    ("amptorch.data.target_scaler", "TargetScaler"): _TargetScalerRecord,
    ("amptorch.v1.data", "Data"): _DataRecord,
    ("torch_geometric.data.data", "Data"): _DataRecord,
    ("torch_geometric.data.data", "DataEdgeAttr"): _Record,
    ("torch_geometric.data.data", "DataTensorAttr"): _Record,
    ("torch_geometric.data.storage", "GlobalStorage"): _Record,
}
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}
