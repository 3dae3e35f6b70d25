"""From the data that a configuration names to the packed store that training reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, TypeAlias, cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from amptorch.config import DatasetConfig
from amptorch.data.plan import GB, Plan, make_plan, sample_of
from amptorch.descriptor.base import BaseDescriptor
from amptorch.distances import check_cutoff, check_distances
from amptorch.frames import Frames
from amptorch.labels import Labels, stress_of
from amptorch.store import FrameStore, preprocess
from amptorch.store.reader import join_frames
from amptorch.store.sources import find_elements, open_sources

StrPath: TypeAlias = str | os.PathLike[str]
# Paths, or frames, as `preprocess` takes them.
RawData: TypeAlias = StrPath | Sequence[StrPath] | Sequence[Atoms]
# Frames that are looked at before there is a store, to know what sizes there are: sizes that
# differ by a third give a mean good to a hundredth.
CANDIDATES = 1024
# Frames in which a recipe places its functions.
LOOKED_AT = 200
# Frames of each file that are asked for a stress.
STRESS_LOOKED_AT = 16


def elements_of_store(
    folder: StrPath,
    raw_data: RawData | None = None,
    skip_bad: bool = False,
    forces: bool = True,
    labels: Labels | None = None,
) -> list[str]:
    """Return the symbols of the elements in a store, sorted; in `raw_data` where it is not complete
    yet."""
    if raw_data is None:
        return FrameStore(folder).elements
    store = _complete_store(folder)
    if store is not None:
        return store.elements
    return find_elements(raw_data, skip_bad, forces=forces, labels=labels)


def frames_to_look_at(
    folder: StrPath, raw_data: RawData | None, elements: Sequence[str], skip_bad: bool = False
) -> Frames:
    """Return frames spread over a store, or over what it is made of: the same for both, so that a
    recipe places the same functions."""
    store = FrameStore(folder) if raw_data is None else _complete_store(folder)
    if store is None:
        return join_frames(_spread(raw_data, elements, skip_bad, LOOKED_AT)[0])
    return store.frames(_evenly(store.n_frames, LOOKED_AT))


def labelled_to_look_at(
    folder: StrPath, raw_data: RawData | None, labels: Labels | None = None
) -> list[Atoms]:
    """Return Atoms with their labels, spread over a store, or over what it is made of; none where
    it holds no structures. Frames that cannot be read are left out: what fills the store names
    them."""
    store = FrameStore(folder) if raw_data is None else _complete_store(folder)
    if store is None:
        images = []
        for _, _, get in _places(raw_data, LOOKED_AT, labels)[0]:
            with suppress(ValueError):
                images.append(get())
        return images
    if not store.has_structures:
        return []
    frames = store.frames(_evenly(store.n_frames, LOOKED_AT))
    return [_as_atoms(frames[k]) for k in range(len(frames))]


def _as_atoms(frame: Frames) -> Atoms:
    """Return the one frame with its labels."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cells[0], pbc=frame.pbc[0])
    found: Any = {"energy": frame.energies, "stress": frame.stress}
    labels = {name: value[0] for name, value in found.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, forces=frame.forces, **labels)
    return atoms


def stress_in_store(
    folder: StrPath, raw_data: RawData | None, labels: Labels | None = None
) -> bool:
    """Return whether a store keeps stresses; where it is yet to be made, whether one of some frames
    of `raw_data` has one."""
    store = FrameStore(folder) if raw_data is None else _complete_store(folder)
    if store is not None:
        return bool(store.about.get("stress"))
    return any(
        stress_of(get()) is not None
        for source in open_sources(raw_data, labels)
        for place in _evenly(len(source), STRESS_LOOKED_AT).tolist()
        for _, get in source.part(place, place + 1).read()
    )


def fill_store(
    folder: StrPath,
    descriptor: BaseDescriptor,
    raw_data: RawData | None = None,
    options: DatasetConfig | None = None,
    forces: bool = True,
    threads: int | None = None,
    verbose: bool = True,
    show: Callable[[Plan], object] | None = None,
    stress: bool = False,
) -> tuple[FrameStore, Plan | None, str]:
    """Return the FrameStore in `folder`, the Plan of its derivatives (None without `forces`, or
    where the store has no structures), and the dtype that they are stored in.

    options: the section `dataset` of a configuration. raw_data: what `preprocess` takes, put into
    the store as far as it is not there, with stored derivatives where the plan says so; None to
    take what is there. show: called with the plan before long work starts. stress: whether
    stresses are trained on.
    """
    options = DatasetConfig() if options is None else options
    store = FrameStore(folder) if raw_data is None else _complete_store(folder)
    plan: Plan | None = None
    dtype = options.derivative_dtype
    if forces:
        there = False if raw_data is None else None
        if store is not None:
            found = _stored_dtype(store, descriptor, dtype, options.derivatives, stress)
            there, dtype = (there, dtype) if found is None else (True, found)
        if store is not None and not store.has_structures:
            # Nothing to choose between, and nothing to measure.
            return store, None, dtype
        if store is None and raw_data is not None:
            sample, n_frames = _sample_of_data(raw_data, descriptor.elements, options.skip_bad)
            check_distances(sample)
            check_cutoff(sample, descriptor.cutoff)
        elif store is not None:
            sample, n_frames = store.frames(sample_of(store.counts)), store.n_frames
        budget = GB * options.memory_budget
        plan = make_plan(
            descriptor,
            sample,
            n_frames,
            dtype,
            budget,
            options.derivatives,
            there,
            threads,
            strains=stress,
        )
        if show is not None:
            show(plan)
    if raw_data is not None:
        store = preprocess(
            raw_data,
            descriptor,
            folder,
            derivatives="stored" if plan is not None and plan.derivatives == "stored" else None,
            derivative_dtype=dtype,
            forces=forces,
            skip_bad=options.skip_bad,
            threads=threads,
            verbose=verbose,
            labels=options.labels,
            stress=stress,
        )
    return cast(FrameStore, store), plan, dtype


def _complete_store(folder: StrPath) -> FrameStore | None:
    """Return the store in `folder`, or None where `preprocess` has something to do or to say
    first."""
    try:
        return FrameStore(folder)
    except (FileNotFoundError, ValueError):
        return None


def _stored_dtype(
    store: FrameStore, descriptor: BaseDescriptor, dtype: str, wanted: str, strains: bool
) -> str | None:
    """Return the dtype in which a store has derivatives: `dtype`, or for "auto" another; or
    None."""
    others = [other for other in ("float64", "float32") if other != dtype]
    for name in [dtype, *(others if wanted == "auto" else [])]:
        if store.has_derivatives(descriptor.descriptor_setup_hash, name, strains):
            return name
    return None


def _sample_of_data(data: RawData, elements: Sequence[str], skip_bad: bool) -> tuple[Frames, int]:
    """Return (Frames of about every size in `data`, number of frames), from frames spread over
    it."""
    frames, n_frames = _spread(data, elements, skip_bad, CANDIDATES)
    chosen = sample_of([frame.n_atoms for frame in frames])
    return join_frames([frames[k] for k in chosen]), n_frames


def _spread(
    data: Any, elements: Sequence[str], skip_bad: bool, number: int
) -> tuple[list[Frames], int]:
    """Return (about `number` frames spread over `data`, each as Frames; how many there are)."""
    places, n_frames = _places(data, number)
    frames = []
    for source, where, get in places:
        try:
            frames.append(Frames.from_atoms([get()], elements, first_index=where))
        except (ValueError, TypeError) as error:
            if not skip_bad:
                raise type(error)(f"{source}: {error}") from error
    if not frames:
        raise ValueError(f"none of the frames looked at in {source} can be used")
    return frames, n_frames


def _places(
    data: Any, number: int, labels: Labels | None = None
) -> tuple[Iterator[tuple[str, int, Callable[[], Atoms]]], int]:
    """Return (of about `number` frames spread over `data`: name of the source, place there, and
    function that gives the Atoms; how many frames there are)."""
    sources = open_sources(data, labels)
    ends = list(accumulate(map(len, sources)))

    def found() -> Iterator[tuple[str, int, Callable[[], Atoms]]]:
        for place in _evenly(ends[-1], number).tolist():
            k = int(np.searchsorted(ends, place, side="right"))
            source = sources[k]
            index = place - (ends[k] - len(source))
            for where, get in source.part(index, index + 1).read():
                yield source.name, where, get

    return found(), ends[-1]


def _evenly(n_frames: int, number: int) -> np.ndarray:
    """Return the places of about `number` of so many frames, evenly spread."""
    return np.unique(np.linspace(0, n_frames - 1, min(n_frames, number)).astype(int))
