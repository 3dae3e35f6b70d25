"""Make a store of trajectories: in parallel, in bounded memory, going on where it was stopped."""

import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from amptorch.descriptor.base import BaseDescriptor
from amptorch.labels import Labels
from amptorch.locks import locked
from amptorch.store import layout
from amptorch.store.arrays import disk_errors, remove_unfinished, write_checked_json
from amptorch.store.reader import ShardReader
from amptorch.store.shard import Settings, make_shard, missing_descriptions
from amptorch.store.sources import open_sources
from amptorch.store.store import FrameStore, read_store
from amptorch.threads import num_threads

# Shards made at one time: while one is read and written, the other has the cores.
AT_ONCE = 2
# Shards that a Dask cluster is given for each of its threads, so that none waits for the next.
AHEAD = 2
CONNECT_TIMEOUT = 30  # s

logger = logging.getLogger(__name__)
# What shard.json and store.json say of a shard's size.
SIZES = ("n_frames", "n_atoms", "n_pairs")
# What of an input's record says that it is the same.
SAME = ("sha256", "slice", "frames", "labels")


def preprocess(
    paths_or_images: Any,
    descriptor: BaseDescriptor,
    out: str | os.PathLike[str],
    derivatives: str | None = None,
    derivative_dtype: str = "float32",
    frames_per_shard: int = 512,
    forces: bool = True,
    skip_bad: bool = False,
    threads: int | None = None,
    verbose: bool = True,
    dask: Any = None,
    labels: Labels | None = None,
    stress: bool = False,
) -> FrameStore:
    """Make the store in the folder `out`, or what is missing of it, and return its FrameStore.

    Frames are read a few at a time. What was made by an earlier call for the same frames is used:
    a call that was stopped, even killed, is gone on with, and other symmetry functions reuse the
    structures and neighbour lists as far as these reach.

    Parameters
    ----------
    paths_or_images : path or list of paths of files that ASE reads, or images in memory
    descriptor : BaseDescriptor
    derivatives : "stored" keeps the derivatives of the fingerprints, too
    derivative_dtype : "float32" or "float64"
    frames_per_shard : frames of a new store's shards; an old one keeps its own
    forces : whether frames have forces that are kept
    skip_bad : leave out frames that cannot be used, and list them in the end
    threads : of the kernels, all cores where None
    verbose : show a progress bar
    dask : address of a Dask scheduler ("tcp://…") or a distributed.Client; its workers see the
        files and `out` under the same paths. This machine does the work where None.
    labels : the `Labels` of the frames, where a calculator does not hold energies and forces
    stress : whether stresses are kept where frames have them, to be trained on

    Raises FileNotFoundError where there is no such file; ValueError that names the file and index
    of an unusable frame, or says why an old store does not fit; OSError that names the folder where
    it cannot be written, is full, or is being written by another process.
    """
    labels = labels or Labels()
    settings = Settings(
        store=Path(out).absolute(),
        descriptor=descriptor,
        cutoff=descriptor.cutoff,
        forces=bool(forces),
        derivatives=_derivative_dtype(derivatives, derivative_dtype),
        skip_bad=skip_bad,
        threads=threads,
        missing_forces=labels.missing_forces,
        stress=bool(stress),
    )
    if np.dtype(getattr(descriptor, "dtype", np.float64)) != np.float64:
        raise ValueError("a store keeps fingerprints in float64; make the descriptor with that")
    sources = open_sources(paths_or_images, labels)
    inputs = [{**source.record(), "frames": len(source)} for source in sources]
    if not _is_full(settings, inputs):
        with locked_store(settings.store), disk_errors(settings.store):
            _fill(settings, sources, inputs, frames_per_shard, verbose, dask)
    store = FrameStore(settings.store)
    if store.skipped:
        logger.warning("left out %d frames that cannot be used", len(store.skipped))
    return store


def _derivative_dtype(derivatives: str | None, dtype: str) -> str | None:
    if derivatives is None:
        return None
    if derivatives != "stored":
        raise ValueError(f"derivatives must be 'stored' or None, got {derivatives!r}")
    if str(dtype) not in layout.DERIVATIVE_DTYPES:
        raise ValueError(f"derivative_dtype must be 'float32' or 'float64', got {dtype!r}")
    return str(dtype)


@contextmanager
def locked_store(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes out of it."""
    busy = f"another process is writing to the store {str(folder)!r}; wait until it is done"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; a store is a folder")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_other_files(folder)
            stack.enter_context(locked(folder / layout.LOCK, busy))
        except PermissionError as error:
            raise PermissionError(f"cannot write a store to {str(folder)!r} ({error})") from error
        yield


def _refuse_other_files(folder: Path) -> None:
    others = {path.name for path in folder.iterdir() if not path.name.startswith(layout.STORE)}
    if others - {layout.LOCK} and not (folder / layout.STORE).exists():
        raise FileExistsError(
            f"{str(folder)!r} has other files in it and is no store; give a new folder"
        )


def _is_full(settings: Settings, inputs: list[dict[str, Any]]) -> bool:
    """Return whether there is a store with all that is wanted.

    Several programs may find that at one time, also where they must not write.
    """
    if not (settings.store / layout.STORE).is_file():
        return False
    about = read_store(settings.store)
    _check_fit(settings, about, inputs)
    return about["complete"] and not _missing_shards(settings, about)


def _fill(
    settings: Settings,
    sources: list[Any],
    inputs: list[dict[str, Any]],
    frames_per_shard: int,
    verbose: bool,
    dask: Any,
) -> None:
    root = settings.store
    _remove_leftovers(root)
    about = _begin(settings, inputs, frames_per_shard)
    settings = replace(settings, cutoff=about["cutoff"], forces=about["forces"])
    write_setup(root, settings.descriptor)
    missing = _missing_shards(settings, about)
    n_frames = sum(n for _, n in missing)
    with tqdm(total=n_frames, desc="preprocessing", unit="frame", disable=not verbose) as bar:
        tasks = ((number, _parts(root, about, sources, number)) for number, _ in missing)
        if dask is None:
            _run_here(settings, tasks, bar)
        else:
            _run_on_dask(dask, settings, tasks, dict(missing), bar)
            # Of workers that were lost on the way.
            _remove_leftovers(root)
    folders = [layout.shard_folder(root, number) for number in range(_n_shards(about))]
    shards = [ShardReader(folder).about for folder in folders]
    write_checked_json(root / layout.STORE, {**about, **summary_of(shards)})


def _remove_leftovers(root: Path) -> None:
    remove_unfinished(root, ("*", "setups/*", "shards/*", "shards/*/fingerprints/*"))
    remove_unfinished(root, ("shards/*/*.json", "shards/*/derivatives/*", "shards/*/strains/*"))


def _begin(
    settings: Settings, inputs: list[dict[str, Any]], frames_per_shard: int
) -> dict[str, Any]:
    """Return what store.json says; it is written where there is none yet, else it must fit."""
    file = settings.store / layout.STORE
    if file.exists():
        about = read_store(settings.store)
        _check_fit(settings, about, inputs)
        return about
    if int(frames_per_shard) != frames_per_shard or frames_per_shard < 1:
        raise ValueError(f"frames_per_shard must be a positive integer, got {frames_per_shard!r}")
    about = {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "cutoff": settings.cutoff,
        "forces": settings.forces,
        "missing_forces": settings.missing_forces,
        "stress": settings.stress,
        "frames_per_shard": int(frames_per_shard),
        "inputs": inputs,
        "complete": False,
    }
    write_checked_json(file, about)
    return about


def _check_fit(settings: Settings, about: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    """Raise ValueError that says why the store that is there is not one for these frames."""
    refused = f"the store {str(settings.store)!r} is not used, because"
    advice = "give another folder, or delete this one"
    if len(inputs) != len(about["inputs"]):
        raise ValueError(
            f"{refused} it was made from {len(about['inputs'])} inputs, not {len(inputs)}; {advice}"
        )
    for given, kept in zip(inputs, about["inputs"], strict=True):
        if any(given.get(key) != kept.get(key) for key in SAME):
            raise ValueError(
                f"{refused} {given['path'] or 'the list of images'} is not what it was made from, "
                f"{kept['path'] or 'a list of images'} with {kept['frames']} frames and SHA-256 "
                f"{kept['sha256'][:12]}…; {advice}"
            )
    if settings.cutoff > about["cutoff"]:
        raise ValueError(
            f"{refused} its neighbour lists end at {about['cutoff']} Å and the symmetry functions "
            f"reach {settings.cutoff} Å; {advice}"
        )
    if settings.forces and not about["forces"]:
        raise ValueError(f"{refused} it was made without forces; {advice}")
    if settings.stress and not about.get("stress", False):
        raise ValueError(f"{refused} it was made without stresses; {advice}")
    # Frames that were left out may be usable now: those of elements that are new.
    for number in range(_n_shards(about)):
        folder = layout.shard_folder(settings.store, number)
        shard = ShardReader(folder).about if folder.is_dir() else {"skipped": []}
        if shard["skipped"] and not set(settings.descriptor.elements) <= set(shard["elements"]):
            _, _, reason = shard["skipped"][0]
            raise ValueError(
                f"{refused} frames were left out of it when elements were {shard['elements']}, not "
                f"{settings.descriptor.elements}: {reason}; {advice}"
            )


def write_setup(root: Path, descriptor: BaseDescriptor) -> None:
    """Say what a set-up's hash stands for."""
    setup = getattr(descriptor, "descriptor_setup", {})
    path = layout.setup_file(root, descriptor.descriptor_setup_hash)
    path.parent.mkdir(exist_ok=True)
    content = {
        "elements": descriptor.elements,
        "cutoff": descriptor.cutoff,
        "cutoff_params": getattr(descriptor, "cutoff_params", None),
        "n_features": descriptor.n_features,
        "num_descriptors": descriptor.num_descriptors,
        "descriptor_setup": {symbol: np.asarray(rows).tolist() for symbol, rows in setup.items()},
    }
    if not path.exists():
        write_checked_json(path, content)


def _ranges(about: dict[str, Any], number: int) -> list[tuple[int, int, int]]:
    """Return [(source, first, stop)]: the frames that shard `number` is made from."""
    size = about["frames_per_shard"]
    low, high = number * size, (number + 1) * size
    ranges, start = [], 0
    for source, entry in enumerate(about["inputs"]):
        first, stop = max(low - start, 0), min(high - start, entry["frames"])
        if first < stop:
            ranges.append((source, first, stop))
        start += entry["frames"]
    return ranges


def _parts(root: Path, about: dict[str, Any], sources: list[Any], number: int) -> list[Any]:
    """Return what shard `number` is made from; nothing where it only lacks descriptions."""
    if layout.shard_folder(root, number).is_dir():
        return []
    return [(k, sources[k].part(first, stop)) for k, first, stop in _ranges(about, number)]


def _n_shards(about: dict[str, Any]) -> int:
    return -(-sum(entry["frames"] for entry in about["inputs"]) // about["frames_per_shard"])


def _missing_shards(settings: Settings, about: dict[str, Any]) -> list[tuple[int, int]]:
    """Return [(number, frames read)] of the shards that are not there or lack something."""
    missing = []
    for number in range(_n_shards(about)):
        folder = layout.shard_folder(settings.store, number)
        if not folder.is_dir() or missing_descriptions(folder, settings):
            size = sum(stop - first for _, first, stop in _ranges(about, number))
            missing.append((number, size))
    return missing


def summary_of(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what store.json says of all its shards, given what shard.json says of each.

    Raises ValueError where no frame could be used.
    """
    skipped = [frame for shard in shards for frame in shard["skipped"]]
    numbers = {number for shard in shards for number in shard["numbers"]}
    if not numbers:
        raise ValueError(f"none of the {len(skipped)} frames can be used; {skipped[0][2]}")
    return {
        "complete": True,
        "elements": sorted(chemical_symbols[number] for number in numbers),
        "shards": [[shard[name] for name in SIZES] for shard in shards],
        "skipped": skipped,
    }


def _run_here(settings: Settings, tasks: Iterable[Any], bar: tqdm) -> None:
    stop, lock = Event(), Lock()
    settings = replace(settings, threads=num_threads(settings.threads))

    def progress(n_frames: int) -> None:
        with lock:
            bar.update(n_frames)

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="amptorch-shard")
    pending: deque[Any] = deque()
    try:
        for number, parts in tasks:
            pending.append(pool.submit(make_shard, settings, number, parts, progress, stop.is_set))
            if len(pending) > AT_ONCE:
                pending.popleft().result()
        while pending:
            pending.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _run_on_dask(
    cluster: Any, settings: Settings, tasks: Iterable[Any], sizes: dict[int, int], bar: tqdm
) -> None:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ImportError("dask= needs the package distributed: pip install distributed") from error
    client = cluster
    if isinstance(cluster, str):
        client = Client(cluster, timeout=CONNECT_TIMEOUT, set_as_default=False)
    tasks, number_of = iter(tasks), {}

    def submit(task: Any) -> Any:
        number, parts = task
        future = client.submit(make_shard, settings, number, parts, pure=False)
        number_of[future.key] = number
        return future

    futures = as_completed(loop=client.loop)
    try:
        ahead = AHEAD * max(1, sum(client.nthreads().values()))
        for task in itertools.islice(tasks, ahead):
            futures.add(submit(task))
        for future in futures:
            future.result()
            bar.update(sizes[number_of[future.key]])
            for task in itertools.islice(tasks, 1):
                futures.add(submit(task))
    finally:
        client.cancel(list(futures.futures))
        if client is not cluster:
            client.close()
