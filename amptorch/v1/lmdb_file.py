"""Read and write LMDB files of data objects, as users of AMPTorch v1.0 make them.

Keys "0", "1", … hold pickled data objects whose fingerprints, derivatives and targets are scaled;
`feature_scaler`, `target_scaler`, `length`, `elements` and `descriptor_setup` hold pickles too.
They are read by `preprocessing.unpickle`: nothing in a file is run.
"""

import os
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from amptorch.checks import elements as checked_elements
from amptorch.checks import number
from amptorch.config import Config
from amptorch.data.corrections import composition
from amptorch.data.fingerprints import chunks_of_frames
from amptorch.data.scalers import FeatureScaler
from amptorch.data.target_scaler import TargetScaler
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.construct import construct_descriptor
from amptorch.distances import check_cutoff, check_distances
from amptorch.frames import Frames, read_images, symbol_numbers
from amptorch.v1.atoms_to_data import AtomsToData
from amptorch.v1.unpickle import loads_restricted

# Most that a file may hold; it takes the room of what it holds.
MAP_SIZE = 2**40
METADATA = ("feature_scaler", "target_scaler", "elements", "descriptor_setup")


def import_lmdb() -> Any:
    """Return the package lmdb; ImportError says how to get it."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("LMDB files need the package lmdb: pip install lmdb") from error
    return lmdb


def data_file(path: Path) -> Path:
    """Return the file that holds the entries, which LMDB may keep in a folder."""
    return path / "data.mdb" if path.is_dir() else path


class LMDBFile:
    """Read a file with pickled data objects; `file[k]` is the k-th, as it was put there.

    Attributes: `path`; `feature_scaler`, `target_scaler`; `elements`, list of symbols;
    `descriptor_setup`, (fp_scheme, fp_params, cutoff_params, elements).

    Raises FileNotFoundError where there is no such file, and ValueError (TypeError) that names file
    and entry where one is missing, damaged, or holds what is not read, or something else.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"there is no LMDB file {str(path)!r}")
        self._open_file: Any = None
        named = {name: self._load(name) for name in METADATA}
        self.feature_scaler = named["feature_scaler"]
        self.target_scaler = named["target_scaler"]
        for name, kind in (("feature_scaler", FeatureScaler), ("target_scaler", TargetScaler)):
            if not isinstance(named[name], kind):
                raise ValueError(f"{self.path}: entry {name!r} is no {kind.__name__}")
        self.elements = self._elements("elements", named["elements"])
        setup, entry = named["descriptor_setup"], f"{self.path}: entry 'descriptor_setup'"
        if not isinstance(setup, (tuple, list)) or len(setup) != 4:
            raise ValueError(
                f"{entry} must be (fp_scheme, fp_params, cutoff_params, elements), got {setup!r}"
            )
        scheme, fp_params, cutoff_params, elements = setup
        elements = self._elements("descriptor_setup", elements)
        self.descriptor_setup = (str(scheme), fp_params, cutoff_params, elements)
        length = number(minimum=1, integer=True)
        self.n_frames = length(f"{self.path}: entry 'length'", self._load("length"))

    def _elements(self, name: str, value: Any) -> Any:
        entry = f"{self.path}: entry {name!r}"
        try:
            return checked_elements(entry, value)
        except SystemError as error:  # text of numpy's that is no text
            raise ValueError(f"{entry} is damaged ({error})") from error

    def descriptor(self) -> BaseDescriptor:
        """Return the descriptor that the entries were made with."""
        try:
            return construct_descriptor(self.descriptor_setup)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: entry 'descriptor_setup': {error}") from error

    def __reduce__(self) -> Any:
        return LMDBFile, (self.path,)

    def __len__(self) -> int:
        return self.n_frames

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.n_frames:
            raise IndexError(f"frame {index} of {self.n_frames} in {self.path}")
        data = self._load(str(int(index)))
        for name in ("fingerprint", "atomic_numbers", "energy"):
            if getattr(data, name, None) is None:
                raise ValueError(f"{self.path}: entry {index} has no {name}")
        return data

    @cached_property
    def sizes(self) -> np.ndarray:
        """Return the (F,) bytes of each entry."""
        names = [str(index) for index in range(self.n_frames)]
        found = self._read_entries(names, lambda entry: -1 if entry is None else len(entry))
        if -1 in found:
            raise ValueError(f"{self.path} has no entry {names[found.index(-1)]!r}")
        return np.array(found, dtype=np.int64)

    def _read_entries(self, names: list[str], taken: Callable[..., Any]) -> Any:
        """Return `taken(buffer or None)` of the entries."""
        lmdb = import_lmdb()
        found = []
        try:
            with self.env.begin(buffers=True) as transaction:
                for name in names:
                    found.append(taken(transaction.get(name.encode())))
        except (lmdb.Error, SystemError, MemoryError) as error:
            entry = names[min(len(found), len(names) - 1)]
            raise ValueError(
                f"{self.path}: entry {entry!r} cannot be read, the file is damaged ({error})"
            ) from error
        return found

    def _load(self, name: str) -> Any:
        (content,) = self._read_entries([name], lambda entry: entry and bytes(entry))
        if content is None:
            raise ValueError(
                f"{self.path} has no entry {name!r}; a file needs those of every frame, 'length', "
                + ", ".join(map(repr, METADATA))
            )
        return loads_restricted(content, f"{self.path}, entry {name!r}")

    @property
    def env(self) -> Any:
        """Return the open environment of lmdb, in this process."""
        # A process that was forked must not use its parent's.
        if self._open_file is None or self._open_file.process != os.getpid():
            self._open_file = _open_file(self.path)
        return self._open_file.env


class _OpenFile:
    """Hold an open file; LMDB allows it to be opened once in a process."""

    def __init__(self, path: Path):
        lmdb = import_lmdb()
        self.process = os.getpid()
        try:
            self.env = lmdb.open(
                str(path),
                subdir=path.is_dir(),
                readonly=True,
                lock=False,
                readahead=False,
                max_readers=128,
            )
        except lmdb.Error as error:
            raise ValueError(f"{path} cannot be opened as an LMDB file: {error}") from error
        # What is read beyond the end of a file that is mapped kills the process.
        pages, size = self.env.info()["last_pgno"] + 1, data_file(path).stat().st_size
        expected = pages * self.env.stat()["psize"]
        if size < expected:
            self.env.close()
            raise ValueError(
                f"{path} is cut short: it has {size} bytes of the {expected} that it was written "
                "with; copy or make it again"
            )

    def __del__(self) -> None:
        if hasattr(self, "env") and self.process == os.getpid():
            self.env.close()


_OPEN_FILES: WeakValueDictionary[Any, _OpenFile] = WeakValueDictionary()


def _open_file(path: Path) -> Any:
    status = path.stat()
    key = (os.getpid(), status.st_dev, status.st_ino)
    opened = _OPEN_FILES.get(key)
    if opened is None:
        opened = _OPEN_FILES[key] = _OpenFile(path)
    return opened


def write_lmdb(
    images: Any,
    path: Path,
    config: Any,
    feature_scaler: Any = None,
    target_scaler: Any = None,
    verbose: bool = True,
) -> None:
    """Make an LMDB file of frames, or several: what a script for v1.0 does by hand.

    images : list of ase.Atoms with energies (and forces), or what `read_images` reads
    path : of the file, or list of paths, which share the frames in their order; a file that is
        there is replaced once all are written
    config : dictionary as for `AtomsTrainer`, of which `dataset` says what the fingerprints are and
        how they and the targets are scaled, and `model.get_forces` whether forces are there
    feature_scaler, target_scaler : those of a trained model; None to fit them to these frames

    Raises ValueError that names the frame or the key that cannot be used, and ImportError without
    the package lmdb, before any long work.
    """
    import_lmdb()
    settings = Config.from_dict(config)
    options, forces = settings.dataset, settings.model.get_forces
    if options.pca is not None:
        raise ValueError("dataset.pca: LMDB files hold fingerprints that are not reduced")
    if options.fp_params is None:
        raise ValueError(f"config needs dataset.fp_params for fp_scheme {options.fp_scheme!r}")
    images = read_images(images)
    frames = Frames.from_atoms(images, options.elements, energies=True, forces=forces)
    elements = options.elements
    if elements is None:
        elements = sorted(chemical_symbols[number] for number in np.unique(frames.numbers))
    setup = (options.fp_scheme, options.fp_params, options.cutoff_params, elements)
    descriptor = construct_descriptor(setup)
    check_distances(frames, settings.cmd.threads)
    check_cutoff(frames, descriptor.cutoff)
    if feature_scaler is None:
        parts = (frames.select(chunk) for chunk in chunks_of_frames(frames))
        feature_scaler = FeatureScaler.from_chunks(
            (
                (descriptor.values(part, threads=settings.cmd.threads), part.numbers)
                for part in parts
            ),
            options.scaling,
            forces,
        )
    if target_scaler is None:
        kinds = symbol_numbers(elements)
        energies: Any = frames.energies
        target_scaler = TargetScaler.fitted(
            energies,
            lambda: composition(frames.numbers, frames.counts, kinds),
            elements,
            forces,
            options.atomic_correction,
            options.target_scaling,
        )
    named = {
        "feature_scaler": feature_scaler,
        "target_scaler": target_scaler,
        "elements": elements,
        "descriptor_setup": setup,
    }
    converter = AtomsToData(descriptor, True, forces, save_fps=False, fprimes=forces)
    paths = [Path(p) for p in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    bar = tqdm(total=len(images), desc="writing LMDB", unit="frame", disable=not verbose)
    unfinished = {out: out.with_name(f".{out.name}.{os.getpid()}") for out in paths}
    try:
        with bar:
            for out, chosen in zip(
                paths, np.array_split(np.arange(len(images)), len(paths)), strict=True
            ):
                if len(chosen) == 0:
                    raise ValueError(f"{len(images)} frames do not fill {len(paths)} files")
                _write(unfinished[out], [images[k] for k in chosen], converter, named, bar)
        for out, written in unfinished.items():
            os.replace(written, out)
    finally:
        for written in unfinished.values():
            written.unlink(missing_ok=True)


def _write(path: Path, images: Any, converter: Any, named: dict[str, Any], bar: Any) -> None:
    lmdb = import_lmdb()
    feature_scaler, target_scaler = named["feature_scaler"], named["target_scaler"]
    with lmdb.open(str(path), map_size=MAP_SIZE, subdir=False, lock=False) as env:
        for index, atoms in enumerate(images):
            objects = [converter.convert(atoms, index)]
            feature_scaler.norm(objects, disable_tqdm=True)
            target_scaler.norm(objects, disable_tqdm=True)
            _write_entry(env, str(index), objects[0])
            bar.update(1)
        for name, value in named.items():
            _write_entry(env, name, value)
        _write_entry(env, "length", len(images))


def _write_entry(env: Any, name: str, value: Any) -> None:
    with env.begin(write=True) as transaction:
        transaction.put(name.encode(), pickle.dumps(value, protocol=-1))
