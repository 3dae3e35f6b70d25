"""Checkpoint folders: ours, which are safe to load from strangers, and v1.0's.

| file | what it holds |
|---|---|
| `config.json` | the configuration, without `raw_data`, with the elements that were found |
| `normalizers.json` | the feature and target scalers, without loss |
| `domain.pt` | the `Domain` of the training atoms, likewise; older ones have none |
| `params.pt`, `optimizer.pt`, `criterion.pt` | state dicts, for `torch.load(weights_only=True)` |
| `history.json` | skorch's history |
| `checksums.json` | {name: [CRC-32]} of the other files, which are checked when they are read |

v1.0's folders have pickles instead of the first two, `config.pt` and `normalizers.pt`, which are
read through `preprocessing.unpickle`. `load_checkpoint(folder).feature_scaler` and
`.target_scaler` are what v1.0's scripts take out of `torch.load("normalizers.pt")`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from amptorch.checkpoints.config import config_from_json, config_from_v1, config_to_json
from amptorch.config import Config
from amptorch.data.domain import Domain
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.modes import ordinary_tensors
from amptorch.plain import to_json
from amptorch.v1.unpickle import load_torch_file

CHECKSUMS = "checksums.json"
DOMAIN = "domain.pt"
# What is not on the disk then; that a file system cannot tell is no such failure.
NOT_WRITTEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

Understood = TypeVar("Understood")


@dataclass
class Checkpoint:
    """Hold what prediction needs of a checkpoint folder; the rest is read when it is asked for.

    config : dictionary for `Config.from_dict`, with `dataset.elements`
    params : state dict of the model, on the CPU
    """

    folder: Path
    config: dict
    params: dict
    feature_scaler: FeatureScaler
    target_scaler: TargetScaler

    @property
    def elements(self) -> list[str]:
        """Return the symbols, in the order of the networks."""
        return list(self.config["dataset"]["elements"])

    @property
    def optimizer(self) -> dict[str, Any]:
        """Return the state dict of the optimizer."""
        return load_tensors(self.folder / "optimizer.pt")

    @property
    def criterion(self) -> dict[str, Any]:
        """Return the state dict of the criterion."""
        return load_tensors(self.folder / "criterion.pt")

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return a list of a dictionary for each epoch."""
        return load_json(self.folder / "history.json")

    def check_elements(self, elements: Sequence[str]) -> None:
        """Raise ValueError unless `elements` are those that the checkpoint was trained on, in
        order."""
        if list(elements) != self.elements:
            raise ValueError(
                f"the checkpoint {self.folder} was trained on elements {self.elements}, "
                f"not {list(elements)}; their order matters too"
            )

    def load_params(self, model: torch.nn.Module) -> None:
        """Copy the parameters into `model`; ValueError where they are not those of such a model."""
        try:
            model.load_state_dict(self.params)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{self.folder / 'params.pt'} does not fit the configured model: {error}"
            ) from error


def save_checkpoint(
    folder: str | os.PathLike[str],
    config: Config,
    feature_scaler: FeatureScaler,
    target_scaler: TargetScaler,
    params: dict[str, Any],
    optimizer: dict[str, Any] | None = None,
    criterion: dict[str, Any] | None = None,
    history: Sequence[dict[str, Any]] | None = None,
    history_text: HistoryText | None = None,
) -> None:
    """Write a checkpoint. Everything is written before the first file is replaced, so that a full
    disk leaves what was there before.

    folder : path of a folder
    config : Config, with `dataset.elements` set
    params, optimizer, criterion : state dicts
    history : skorch's history, or a list of a dictionary for each epoch
    history_text : the `HistoryText` of a training that saves often, or None

    Raises ValueError where `config` has no elements, and OSError that names the file which cannot
    be written.
    """
    if not config.dataset.elements:
        raise ValueError("a checkpoint needs dataset.elements: they number its networks")
    contents = {
        "config.json": _as_json(config_to_json(config)),
        "normalizers.json": _as_json(
            {"feature": feature_scaler.state(), "target": target_scaler.state()}
        ),
        "params.pt": as_bytes(params),
        "optimizer.pt": as_bytes(optimizer or {}),
        "criterion.pt": as_bytes(criterion or {}),
        "history.json": (history_text or HistoryText())(history or []),
    }
    if feature_scaler.domain is not None:
        contents[DOMAIN] = as_bytes(feature_scaler.domain.state())
    write_files(folder, contents)
    if feature_scaler.domain is None:
        (Path(folder) / DOMAIN).unlink(missing_ok=True)


@ordinary_tensors()
def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Return the `Checkpoint` in a folder, ours or v1.0's; nothing in it is executed.

    Raises FileNotFoundError that names the missing folder or file, and ValueError that names the
    file which is damaged or holds what does not belong there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint folder {str(folder)!r}")
    if (folder / "config.pt").is_file() and not (folder / "config.json").is_file():
        config = _read(folder / "config.pt", load_torch_file, config_from_v1)
        scalers = _read(folder / "normalizers.pt", load_torch_file, _scalers_of_v1)
    else:
        config = _read(folder / "config.json", load_json, config_from_json)
        scalers = _read(folder / "normalizers.json", load_json, _scalers_from_state)
    # Older checkpoints have none.
    if (folder / DOMAIN).is_file():
        scalers[0].domain = _read(folder / DOMAIN, load_tensors, Domain.from_state)
    return Checkpoint(folder, config, load_tensors(folder / "params.pt"), *scalers)


def _read(
    path: Path, load: Callable[[Path], Any], understand: Callable[[Any], Understood]
) -> Understood:
    """Return `understand(load(path))`, where what the file does not have is a ValueError that names
    it."""
    content = load(path)
    try:
        return understand(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what a checkpoint holds: {error}") from error


def _scalers_of_v1(content: dict[str, Any]) -> tuple[FeatureScaler, TargetScaler]:
    feature, target = content["feature"], content["target"]
    if not isinstance(feature, FeatureScaler) or not isinstance(target, TargetScaler):
        raise TypeError("'feature' and 'target' must be the two scalers")
    return feature, target


def _scalers_from_state(content: dict[str, Any]) -> tuple[FeatureScaler, TargetScaler]:
    feature = FeatureScaler.from_state(content["feature"])
    return feature, TargetScaler.from_state(content["target"])


def load_tensors(path: Path) -> Any:
    """Return what torch saved in a file, if it is nothing but tensors, numbers, text and lists and
    dictionaries of them; otherwise an error as `load_checkpoint` raises it."""
    check_file(path)
    return load_torch_file(path)


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; errors as `load_checkpoint` raises them."""
    check_file(path)
    return _parsed(path)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def check_file(path: Path) -> None:
    """Raise FileNotFoundError where there is no such file of a checkpoint, and ValueError where it
    is not as it was written; one without a checksum, as older checkpoints have them, is taken."""
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint has no file {str(path)!r}")
    known = _checksums(path.parent).get(path.name)
    if known is not None and zlib.crc32(path.read_bytes()) not in known:
        raise ValueError(
            f"{path} is damaged: it does not match its checksum in {CHECKSUMS} (if you changed it "
            f"yourself, delete {CHECKSUMS})"
        )


def _checksums(folder: Path) -> dict[str, list[int]]:
    """Return {name: [CRC-32, ...]}, those that the files in a folder may have."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    found = _parsed(path)
    if not isinstance(found, dict) or not all(isinstance(one, list) for one in found.values()):
        raise ValueError(f"{path} is damaged: it does not hold a list of checksums for each file")
    return found


def _as_json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode("utf8")


class HistoryText:
    """Make `history.json`, a line for each epoch, of a history that grows: epochs that are over
    are not put into words again, which would take longer and longer."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._lines: list[str] = []

    def __call__(self, history: Sequence[dict[str, Any]]) -> bytes:
        rows = list(history)
        # The last epoch may not be over.
        known = 0
        for row, kept in zip(rows[:-1], self._rows, strict=False):
            if row is not kept:
                break
            known += 1
        lines = self._lines[:known] + [json.dumps(row, default=to_json) for row in rows[known:]]
        self._rows, self._lines = rows[:-1], lines[: len(rows[:-1])]
        return "[\n{}\n]".format(",\n".join(lines)).encode("utf8")


def as_bytes(state: object) -> bytes:
    """Return `state` as the bytes that `load_tensors` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write files, {name: bytes}, and their checksums; where one cannot be written, OSError, and
    none is replaced."""
    folder = Path(folder)
    try:
        known = _checksums(folder)
    except ValueError:
        known = {}
    after = known | {name: [zlib.crc32(content)] for name, content in contents.items()}
    # A process that is killed between two files leaves old ones beside new ones, all of them sound.
    between = after | {name: known.get(name, []) + after[name] for name in contents}
    steps = [(CHECKSUMS, _as_json(between)), *contents.items(), (CHECKSUMS, _as_json(after))]
    finished = []
    try:
        for number, (name, content) in enumerate(steps):
            path = folder / name
            finished.append((folder / f".{number}-{name}.{os.getpid()}", path))
            finished[-1][0].write_bytes(content)
        for written, path in finished:
            os.replace(written, path)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"cannot write a checkpoint ({reason})", str(path)) from error
    finally:
        for written, _ in finished:
            written.unlink(missing_ok=True)


def remove_checkpoint(folder: str | os.PathLike[str]) -> None:
    """Remove the files of a checkpoint from a folder, where there is one; others stay."""
    for name in (*_checksums(Path(folder)), CHECKSUMS):
        (Path(folder) / name).unlink(missing_ok=True)


def to_disk(folder: str | os.PathLike[str]) -> None:
    """Return when the files of a checkpoint folder, and their names, are on the disk itself, where
    a power failure leaves them as they are; OSError that names the file where one cannot be.

    Each takes as long as the disk needs for a write, 4 ms on that of a virtual machine.
    """
    files = [path for path in Path(folder).glob("*.*") if path.suffix in (".json", ".pt")]
    for path in (*sorted(files), Path(folder)):
        try:
            # Windows does so for files that are open for writing alone, and not for folders.
            descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in NOT_WRITTEN:
                reason = f"cannot write a checkpoint ({os.strerror(error.errno)})"
                raise OSError(error.errno, reason, str(path)) from error
