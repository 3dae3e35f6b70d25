"""Train on frames in LMDB files: read anew each time, kept as a whole, or kept in part."""

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from amptorch.data.batch import Batch, Batcher
from amptorch.data.domain import Domain
from amptorch.data.pca import Chunks
from amptorch.data.samplers import GROUPS
from amptorch.data.weights import checked_weights, set_weights
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import symbol_numbers
from amptorch.rows import offsets_of
from amptorch.store.backends import ShardedDerivatives
from amptorch.v1.lmdb_file import LMDBFile
from amptorch.v1.sparse import (
    SparseDerivatives,
    blocks_from_coo,
    sparse_block_diag,
    sparse_tensor,
)

# Shards that are kept by "partial": those that batches are drawn from, and those that come next.
KEPT_SHARDS = 2 * GROUPS


@dataclass
class Pack:
    """Hold some frames in memory: lists of a scaled fingerprint (n, S), of atomic numbers (n,), and
    of forces (n, 3), eV/Å, or None; energies (k,), eV; `derivatives` of fingerprints that are not
    scaled, as DerivativeBlocks or as a list of sparse matrices; or None."""

    fingerprints: list
    numbers: list
    energies: np.ndarray
    forces: list | None
    derivatives: Any

    def matrix(self, frame: int) -> torch.Tensor:
        """Return the derivatives of a frame as a sparse matrix."""
        if isinstance(self.derivatives, list):
            return self.derivatives[frame]
        return sparse_tensor(*self.derivatives.sparse(frame))


class PackedDerivatives(ShardedDerivatives):
    """Derivatives of the frames of one batch: frame k is `local[k]` of `packs[shards[k]]`."""

    def __init__(
        self, packs: Any, shards: Any, local: np.ndarray, counts: np.ndarray, n_features: int
    ):
        self.packs = packs
        self.n_features = n_features
        self._places = shards, local, counts

    def locate(self, frame_ids: np.ndarray) -> Any:
        return tuple(array[frame_ids] for array in self._places)

    def blocks(self, number: int) -> Any:
        return self.packs[number].derivatives


class AtomsLMDBDataset(torch.utils.data.Dataset):
    """Frames in LMDB files, whose entries are read whenever they are asked for (`cache: "no"`).

    Parameters
    ----------
    db_paths : path or list of paths; all with the same fingerprints and elements
    forcetraining : whether forces are trained on; None: where the entries hold them
    dtype : torch dtype of what the model sees
    derivative_dtype : "float64" or "float32", precision of derivatives that are kept
    feature_scaler, target_scaler : those of a trained model; None for those of the first file.
        Entries that were scaled by others are scaled anew.
    memory_budget : bytes that may be kept by "partial"
    weights : (F,) positive numbers, of the frames' errors in the loss; None for equal ones

    `dataset[k]` is the data object as it is in its file; batches come from `batch`.

    Attributes: `elements`, `descriptor_setup`, `descriptor`, `input_dim`, `feature_scaler`,
    `target_scaler`, `lengths` (frames of each file), `sizes` ((F,) bytes of each entry).

    Raises ImportError without the package lmdb, and what `LMDBFile` raises; ValueError where files
    do not belong together, and where an entry is read that has no forces or does not fit.
    """

    cache = "no"
    # Dense blocks are contracted several times as fast as sparse matrices, but take as long to make
    # as ten contractions: they are for derivatives that are kept.
    keeps_derivatives = False
    # Of consecutive frames, those that are kept together; None: all are as near as any other.
    shards: Any = None

    def __init__(
        self,
        db_paths: Any,
        forcetraining: Any = None,
        dtype: Any = torch.float64,
        derivative_dtype: str = "float64",
        feature_scaler: Any = None,
        target_scaler: Any = None,
        memory_budget: float = 2e9,
        weights: Any = None,
    ):
        paths = db_paths if isinstance(db_paths, (list, tuple)) else [db_paths]
        self.files = [LMDBFile(path) for path in paths]
        first = self.files[0]
        self.elements = first.elements
        self.descriptor_setup = first.descriptor_setup
        self.descriptor = first.descriptor()
        self._check_files()
        self.lengths = [len(file) for file in self.files]
        self.starts = offsets_of(self.lengths)
        self.forcetraining = forcetraining
        if forcetraining is None:
            self.forcetraining = all(hasattr(first[0], name) for name in ("forces", "fprimes"))
        self.dtype = dtype
        self.derivative_dtype = np.dtype(derivative_dtype)
        self.feature_scaler = feature_scaler or first.feature_scaler
        self.target_scaler = target_scaler or first.target_scaler
        self.memory_budget = memory_budget
        self.weights = checked_weights(weights, len(self))
        self.batcher = Batcher(self.elements, self.feature_scaler, dtype)
        state = self.feature_scaler.state()
        self._same_scaling = [
            _scaling_of(file.feature_scaler) == _scaling_of(state) for file in self.files
        ]
        self._atomic_numbers = symbol_numbers(self.elements)
        self._prepare()

    def _prepare(self) -> None:
        """Read what is to be read once."""

    def _check_files(self) -> None:
        first = self.files[0]
        for file in self.files:
            descriptor = file.descriptor()
            if file.elements != first.elements:
                raise ValueError(
                    f"{file.path} has elements {file.elements}, {first.path} {first.elements}; "
                    "files that are used together need the same, in the same order"
                )
            if descriptor.descriptor_setup_hash != self.descriptor.descriptor_setup_hash:
                raise ValueError(
                    f"{file.path} and {first.path} hold different fingerprints (descriptor_setup)"
                )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, idx: int) -> Any:
        if not -len(self) <= idx < len(self):
            raise IndexError(f"frame {idx} of {len(self)}")
        file, local = self._locate(idx % len(self))
        return self.files[file][local]

    @property
    def input_dim(self) -> int | None:
        """Features of an atom, as the network sees them."""
        return self.feature_scaler.width(self.descriptor.n_features)

    def get_descriptor(self, descriptor_setup: Any) -> BaseDescriptor:
        """Return the descriptor of (fp_scheme, fp_params, cutoff_params, elements)."""
        return construct_descriptor(descriptor_setup)

    def connect_db(self, lmdb_path: str | os.PathLike[str]) -> Any:
        """Return the open environment of lmdb of a file, for reading."""
        return LMDBFile(lmdb_path).env

    def get_length_list(self) -> list[int]:
        """Return the number of frames of each file."""
        return list(self.lengths)

    def batch(self, indices: Any) -> Batch:
        """Return the batch of the frames at `indices`."""
        frame_ids = np.asarray(indices, dtype=np.int64)
        packs, shards, local = self._packs(frame_ids)
        places = list(zip(shards.tolist(), local.tolist(), strict=True))
        of_frames = [packs[shard].numbers[k] for shard, k in places]
        counts = np.array([len(part) for part in of_frames])
        numbers = np.concatenate(of_frames)
        fingerprint = np.concatenate([packs[shard].fingerprints[k] for shard, k in places])
        derivatives, called = None, None
        if self.forcetraining:
            derivatives, called = self._derivatives(packs, shards, local, counts)
        batch = self.batcher(self._tensor(fingerprint), numbers, counts, derivatives, called)
        energies = np.array([packs[shard].energies[k] for shard, k in places])
        references = self.target_scaler.references(numbers, counts)
        batch.energy = self._tensor(self.target_scaler.norm_energies(energies, references))
        if self.forcetraining:
            forces = np.concatenate([packs[shard].forces[k] for shard, k in places])
            batch.forces = self._tensor(self.target_scaler.norm_forces(forces))
        if self.weights is not None:
            set_weights(batch, self.weights[frame_ids], counts)
        return batch

    def __getitems__(self, indices: Any) -> Batch:
        # torch's DataLoader asks for batches by this name.
        return self.batch(indices)

    def domain(self) -> Domain:
        """Return the domain of all frames, without distances of atoms, which the files do not hold.

        Where they are not kept as a whole, the files are read twice for it.
        """
        return Domain.fitted(self._chunks)

    def _chunks(self) -> Chunks:
        """Yield the fingerprints (n, S) of each frame, not scaled, and its atomic numbers (n,)."""
        for index in range(len(self)):
            file, local = self._locate(index)
            source = self.files[file]
            data = source[local]
            numbers = np.asarray(data.atomic_numbers, dtype=np.int64)
            self._check_entry(data, numbers, f"{source.path}: entry {local}")
            scaled = torch.as_tensor(data.fingerprint).double()
            yield source.feature_scaler.raw_rows(scaled, numbers).numpy(), numbers

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.concatenate([file.sizes for file in self.files])

    @cached_property
    def checksum(self) -> int:
        """Return what the data are known again by: sizes of entries, scalers, and how batches are
        drawn."""
        content = [self.sizes.tobytes()]
        content += [repr(file.target_scaler.state()).encode() for file in self.files]
        content += [] if self.shards is None else [self.shards.tobytes()]
        return zlib.crc32(b"".join(content))

    def _packs(self, frame_ids: np.ndarray) -> Any:
        """Return ({number: Pack}, numbers (k,), places in them (k,)) of the frames."""
        here = np.zeros(len(frame_ids), dtype=np.int64)
        return {0: self.pack(frame_ids)}, here, np.arange(len(frame_ids))

    def _locate(self, index: Any) -> Any:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return file, int(index - self.starts[file])

    def pack(self, frame_ids: np.ndarray) -> Pack:
        """Return the `Pack` of frames, each read once."""
        parts = [self._read_frame(int(index)) for index in frame_ids]
        fingerprints, numbers, energies, forces, matrices = zip(*parts, strict=True)
        derivatives = None
        if self.forcetraining:
            derivatives = self._convert_derivatives(matrices, numbers)
        kept = list(forces) if self.forcetraining else None
        return Pack(list(fingerprints), list(numbers), np.array(energies), kept, derivatives)

    def _convert_derivatives(self, matrices: Any, numbers: Any) -> Any:
        if not self.keeps_derivatives:
            return list(matrices)
        blocks = []
        for matrix, of_frame in zip(matrices, numbers, strict=True):
            part = blocks_from_coo(matrix, of_frame, self._atomic_numbers)
            if part is None:
                return list(matrices)
            blocks.append(part.astype(self.derivative_dtype))
        return DerivativeBlocks.concatenate(blocks)

    def _read_frame(self, index: Any) -> Any:
        """Return (scaled fingerprint, numbers, energy, forces, derivatives not scaled)."""
        file, local = self._locate(index)
        data, source = self.files[file][local], self.files[file]
        numbers = np.asarray(data.atomic_numbers, dtype=np.int64)
        self._check_entry(data, numbers, f"{source.path}: entry {local}")
        fingerprint = torch.as_tensor(data.fingerprint).double()
        if not self._same_scaling[file]:
            raw = source.feature_scaler.raw_rows(fingerprint, numbers)
            fingerprint = self.feature_scaler.transform_rows(raw, numbers)
        references = source.target_scaler.references(numbers, [len(numbers)])[0]
        energy = float(source.target_scaler.denorm(float(data.energy))) + references
        forces = matrix = None
        if self.forcetraining:
            forces = source.target_scaler.denorm(np.asarray(data.forces), "forces")
            matrix = _without_scaling(data.fprimes, source.feature_scaler.slope_rows(numbers))
        return fingerprint.numpy(), numbers, energy, forces, matrix

    def _check_entry(self, data: Any, numbers: Any, where: str) -> None:
        """Raise ValueError for elements without a network, and what is missing or unfit."""
        unknown = np.setdiff1d(numbers, self._atomic_numbers)
        if len(unknown):
            number = int(unknown[0])
            known = 0 < number < len(chemical_symbols)
            raise ValueError(
                f"{where} has {chemical_symbols[number] if known else f'atomic number {number}'}, "
                f"which is not among the elements {self.elements}"
            )
        n, n_features = len(numbers), self.descriptor.n_features
        shapes = {"energy": None, "fingerprint": (n, n_features)}
        if self.forcetraining:
            shapes |= {"forces": (n, 3), "fprimes": (n * n_features, 3 * n)}
        for name, shape in shapes.items():
            value = getattr(data, name, None)
            if value is None:
                raise ValueError(
                    f"{where} has no {name}; "
                    "set model.get_forces to False, or make the file with forces"
                )
            found = tuple(np.shape(value))
            if shape is not None and found != shape:
                raise ValueError(f"{where}: {name} has the shape {found}, not {shape}")
            if name != "fprimes" and not np.isfinite(np.asarray(value)).all():
                raise ValueError(f"{where}: {name} is not finite")

    def _derivatives(self, packs: Any, shards: Any, local: np.ndarray, counts: np.ndarray) -> Any:
        """Return (back end, what the frames are called there)."""
        if any(isinstance(pack.derivatives, list) for pack in packs.values()):
            matrices = [
                packs[shard].matrix(k)
                for shard, k in zip(shards.tolist(), local.tolist(), strict=True)
            ]
            return SparseDerivatives(sparse_block_diag(matrices)), np.arange(len(local))
        if len(packs) == 1:
            return next(iter(packs.values())).derivatives, local
        n_features = self.descriptor.n_features
        back_end = PackedDerivatives(packs, shards, local, counts, n_features)
        return back_end, np.arange(len(local))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype)


class AtomsLMDBDatasetCache(AtomsLMDBDataset):
    """Frames in LMDB files, all read once and kept in memory (`cache: "full"`): fingerprints and
    targets as arrays, derivatives as dense blocks of what can be nonzero.

    See `AtomsLMDBDataset`.
    """

    cache = "full"
    keeps_derivatives = True

    def _prepare(self) -> None:
        self._pack = self.pack(np.arange(len(self)))

    def _packs(self, frame_ids: np.ndarray) -> Any:
        return {0: self._pack}, np.zeros(len(frame_ids), dtype=np.int64), frame_ids

    def _chunks(self) -> Chunks:
        if self.feature_scaler.pca is not None:
            yield from super()._chunks()
            return
        for scaled, numbers in zip(self._pack.fingerprints, self._pack.numbers, strict=True):
            raw = self.feature_scaler.raw_rows(torch.from_numpy(scaled), numbers)
            yield raw.numpy(), numbers


class AtomsLMDBDatasetPartialCache(AtomsLMDBDataset):
    """Frames in LMDB files, of which as many shards are kept as `memory_budget` allows (`cache:
    "partial"`). Shards are consecutive frames; batches are drawn from a few of them at a time, by
    `BlockSampler` or `PartialCacheSampler`. See `AtomsLMDBDataset`.

    Attribute: `shards`, (F,) the number of each frame's shard.
    """

    cache = "partial"
    keeps_derivatives = True

    def _prepare(self) -> None:
        of_shard = self.memory_budget / KEPT_SHARDS
        frames = max(1, int(of_shard / self.sizes.mean()))
        numbers, first = [], 0
        for length in self.lengths:
            numbers.append(first + np.arange(length) // frames)
            first = numbers[-1][-1] + 1
        self.shards = np.concatenate(numbers)
        self._shard_starts = np.searchsorted(self.shards, np.arange(first + 1))
        self._recent_packs: OrderedDict[int, Pack] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> Any:
        return {k: v for k, v in vars(self).items() if k not in ("_recent_packs", "_lock")}

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state, _recent_packs=OrderedDict(), _lock=Lock())

    def _packs(self, frame_ids: np.ndarray) -> Any:
        shards = self.shards[frame_ids]
        packs = {number: self._shard(number) for number in np.unique(shards).tolist()}
        return packs, shards, frame_ids - self._shard_starts[shards]

    def _shard(self, number: int) -> Pack:
        with self._lock:
            if number not in self._recent_packs:
                first, last = self._shard_starts[number : number + 2]
                self._recent_packs[number] = self.pack(np.arange(first, last))
            self._recent_packs.move_to_end(number)
            if len(self._recent_packs) > KEPT_SHARDS:
                self._recent_packs.popitem(last=False)
            return self._recent_packs[number]


class PartialCacheSampler(torch.utils.data.Sampler):
    """Frames of an `AtomsLMDBDatasetPartialCache` in an order in which little is read twice: shard
    by shard, shards and the frames of each in random order.

    length_list : the lengths of its shards or files, or the data set itself
    val_frac : the last share of each shard is left out, for validation
    seed : of the order, which is another one each time
    """

    def __init__(self, length_list: Any, val_frac: float = 0.0, seed: int = 0):
        shards = getattr(length_list, "shards", None)
        if shards is not None:
            length_list = np.bincount(shards)
        lengths = np.asarray(length_list, dtype=np.int64)
        starts = offsets_of(lengths)
        kept = lengths - np.ceil(val_frac * lengths).astype(np.int64)
        self.parts = [
            np.arange(start, start + n) for start, n in zip(starts[:-1], kept, strict=True) if n
        ]
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Any]:
        for number in self._rng.permutation(len(self.parts)):
            yield from self._rng.permutation(self.parts[number]).tolist()


CACHES = {
    dataset.cache: dataset
    for dataset in (AtomsLMDBDataset, AtomsLMDBDatasetCache, AtomsLMDBDatasetPartialCache)
}


def get_lmdb_dataset(lmdb_paths: Any, cache_type: str = "no", **options: Any) -> AtomsLMDBDataset:
    """Return the data set of LMDB files that keeps "no", "full" or "partial" of them in memory.

    options : as of `AtomsLMDBDataset`. Raises ValueError for another cache.
    """
    if cache_type not in CACHES:
        raise ValueError(f"cache must be one of {list(CACHES)}, got {cache_type!r}")
    return CACHES[cache_type](lmdb_paths, **options)


def _scaling_of(scaler: Any) -> Any:
    """Return what decides how a scaler, or its state, scales fingerprints."""
    state = scaler if isinstance(scaler, dict) else scaler.state()
    return {name: value for name, value in state.items() if name not in ("forcetraining", "ranges")}


def _without_scaling(matrix: Any, slope: torch.Tensor) -> Any:
    """Divide a sparse J (n·S, 3n) of scaled fingerprints by the slopes (n, S)."""
    matrix = matrix.coalesce()
    slopes = slope.to(matrix.dtype).reshape(-1)[matrix.indices()[0]]
    return sparse_tensor(matrix.indices(), matrix.values() / slopes, matrix.size())
