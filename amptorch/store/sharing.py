"""Functions that a shard has already, in other sets of functions: they are copied."""

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.blocks import DerivativeBlocks
from amptorch.descriptor.combine import Part, combine
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList
from amptorch.store import layout
from amptorch.store.arrays import read_checked_json
from amptorch.store.reader import ShardReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SomeFunctions:
    """Hold functions of every element as a table, which `Gaussian` takes as it is."""

    descriptor_setup: dict
    cutoff_params: dict


class SharedFunctions:
    """Describe the frames of a shard by a new set of functions.

    Functions that other sets in the shard have are copied from there, and only the others computed,
    by a descriptor of these alone: the last bits may differ from those of the set as a whole.
    Shared are sets of symmetry functions of one cutoff, the same cutoff function and elements.

    shard: ShardReader; settings: shard.Settings
    """

    def __init__(self, shard: ShardReader, settings: Any):
        self.shard = shard
        self.settings = settings
        descriptor = settings.descriptor
        self._kept: list[Any] = []
        self._rest: BaseDescriptor | None = descriptor
        self._columns: Any = None
        if not settings.share or not isinstance(descriptor, Gaussian):
            return
        if len(_cutoffs(descriptor.descriptor_setup)) > 1:
            return
        # Places (element, feature) of each function that is not found yet.
        missing: dict[tuple, list[tuple[int, int]]] = defaultdict(list)
        for element, (symbol, rows) in enumerate(descriptor.descriptor_setup.items()):
            for feature, row in enumerate(rows.tolist()):
                key = (symbol, *row)
                missing[key].append((element, feature))
        others = self._other_sets()
        while missing and others:
            # The one with most in common is next.
            name = max(others, key=lambda other: len(self._matching(others[other], missing)[1]))
            columns, found = self._matching(others.pop(name), missing)
            if not found:
                break
            if kept := self._open(name):
                self._kept.append((columns, *kept))
                missing = {key: places for key, places in missing.items() if key not in found}
        if self._kept and missing:
            self._rest = self._descriptor_of(missing)
            self._columns, _ = self._matching(self._rest.descriptor_setup, missing)
        elif self._kept:
            self._rest = None

    def describe(self, chunk: np.ndarray) -> tuple[np.ndarray, DerivativeBlocks | None]:
        """Return (fingerprints, DerivativeBlocks or None) of consecutive frames."""
        settings, shard = self.settings, self.shard
        frames = shard.frames(chunk)
        computed = None
        if self._rest is not None:
            neighbors = shard.neighbors(chunk, frames, settings.cutoff, settings.threads)
            computed = compute(self._rest, frames, neighbors, settings)
        if not self._kept and computed is not None:
            return computed
        first = int(shard.array("offsets")[chunk[0]])
        parts = [
            Part(columns, values[first : first + frames.n_atoms], blocks, first)
            for columns, values, blocks in self._kept
        ]
        if computed is not None:
            parts.append(Part(self._columns, *computed))
        numbers = [atomic_numbers[symbol] for symbol in settings.descriptor.elements]
        elements = np.argmax(frames.numbers[:, None] == numbers, axis=1)
        return combine(parts, elements, frames.offsets, settings.threads)

    def _other_sets(self) -> dict[str, Any]:
        """Return {name: tables} of sets in the shard that may have functions of the new one."""
        wanted, sets = self.settings.descriptor, {}
        for entry in sorted(self.shard.folder.glob("fingerprints/*.json")):
            path = layout.setup_file(self.settings.store, entry.stem)
            if entry.stem == wanted.descriptor_setup_hash or not path.exists():
                continue
            about = read_checked_json(path)
            tables = about["descriptor_setup"]
            if (
                about["elements"] == wanted.elements
                and about.get("cutoff_params") == wanted.cutoff_params
                and _cutoffs(tables) == _cutoffs(wanted.descriptor_setup)
            ):
                sets[entry.stem] = tables
        return sets

    def _matching(self, tables: Any, missing: Any) -> tuple[Any, Any]:
        """Return (columns of a `Part` with these tables, which of the missing functions it has)."""
        descriptor = self.settings.descriptor
        columns = np.full((len(descriptor.elements), descriptor.n_features), -1)
        found = set()
        for symbol, rows in tables.items():
            for column, row in enumerate(np.asarray(rows).tolist()):
                function = symbol, *row
                if function in missing:
                    found.add(function)
                    for place in missing[function]:
                        columns[place] = column
        return columns, found

    def _open(self, name: str) -> tuple[np.ndarray, DerivativeBlocks | None] | None:
        """Return (fingerprints, DerivativeBlocks or None) of a set in the shard, None if it is
        not (any more) complete there."""
        shard, dtype = self.shard, self.settings.derivatives
        try:
            values = shard.fingerprints(name)
            if dtype is None:
                return values, None
            return values, shard.derivatives(name, dtype, values.shape[1])
        except (ValueError, OSError) as error:
            logger.debug("functions of the set %s are not shared: %s", name, error)
            return None

    def _descriptor_of(self, missing: Any) -> BaseDescriptor:
        descriptor = self.settings.descriptor
        tables = {}
        for symbol, rows in descriptor.descriptor_setup.items():
            alone = [row for row in rows.tolist() if (symbol, *row) in missing]
            # An element must have one function at least: the first is the cheapest.
            tables[symbol] = np.array(alone or rows[:1])
        functions: Any = SomeFunctions(tables, descriptor.cutoff_params)
        return Gaussian(functions, descriptor.elements, dtype=descriptor.dtype)


def compute(
    descriptor: BaseDescriptor, frames: Frames, neighbors: NeighborList, settings: Any
) -> tuple[np.ndarray, DerivativeBlocks | None]:
    """Return (fingerprints, DerivativeBlocks or None) by a descriptor."""
    if settings.derivatives is None:
        return descriptor.values(frames, neighbors, settings.threads), None
    dtype = np.dtype(settings.derivatives)
    make = descriptor.with_strains if settings.stress else descriptor.values_and_derivatives
    return make(frames, neighbors, dtype, settings.threads)


def _cutoffs(tables: Any) -> Any:
    return {row[3] for rows in tables.values() for row in np.asarray(rows).tolist()}
