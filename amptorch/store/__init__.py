"""Keep data sets of any size on disk: structures, targets, neighbour lists, fingerprints."""

from amptorch.store.build import preprocess
from amptorch.store.sources import find_elements
from amptorch.store.store import FrameStore

__all__ = ["FrameStore", "find_elements", "preprocess"]
