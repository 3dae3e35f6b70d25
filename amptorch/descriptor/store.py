"""Fingerprints kept on disk, in one file."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from amptorch.descriptor.util import get_hash
from amptorch.frames import Frames
from amptorch.neighbors import NeighborList

if TYPE_CHECKING:
    from amptorch.descriptor.base import BaseDescriptor

# SQLite gives up on a file that another process is writing after this many seconds.
TIMEOUT = 60.0
# Below SQLite's oldest limit on the number of values in one query (999).
QUERY_SIZE = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS fingerprints (
    setup_hash TEXT NOT NULL,
    image_hash TEXT NOT NULL,
    n_atoms INTEGER NOT NULL,
    n_features INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (setup_hash, image_hash)
) WITHOUT ROWID
"""
INSERT = "INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?, ?, ?, ?)"
SELECT = """
SELECT image_hash, n_atoms, n_features, checksum, data FROM fingerprints
WHERE setup_hash = ? AND image_hash IN ({})
"""


class FingerprintStore:
    """Keep the fingerprints of images in one SQLite file, by the hash of the set-up and of the
    image.

    Only values: derivatives are quicker to compute than to read. Several processes may use one file
    at a time. `path` and its folder are made where they do not exist; OSError that names the path
    where they cannot be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run(lambda connection: connection.execute(SCHEMA))

    def values(
        self,
        descriptor: BaseDescriptor,
        frames: Frames,
        images: Sequence[Atoms],
        neighbors: NeighborList | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """Return the fingerprints G (N, S) of `frames`, which are `images`: those that are here are
        taken, the others are computed and kept."""
        hashes = [get_hash(image) for image in images]
        known = self.get_many(descriptor.descriptor_setup_hash, hashes)
        missing = [k for k, name in enumerate(hashes) if name not in known]
        if missing:
            part = frames.select(missing)
            listed = None if neighbors is None else neighbors.select(frames, missing)
            values = np.split(descriptor.values(part, listed, threads), part.offsets[1:-1])
            new = dict(zip((hashes[k] for k in missing), values, strict=True))
            self.put_many(descriptor.descriptor_setup_hash, new)
            known.update(new)
        return np.concatenate([known[name] for name in hashes])

    def get_many(self, setup_hash: str, image_hashes: Iterable[str]) -> dict[str, np.ndarray]:
        """Return {image hash: fingerprints (n_atoms, n_features)} of those that are there.

        Raises ValueError that names the file where an entry is damaged.
        """
        hashes = list(dict.fromkeys(image_hashes))
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(hashes), QUERY_SIZE):
            part = hashes[start : start + QUERY_SIZE]
            query = SELECT.format(", ".join("?" * len(part)))
            action = partial(_fetch, query=query, values=(setup_hash, *part))
            found.update((row[0], self._decode(*row)) for row in self._run(action))
        return found

    def put_many(self, setup_hash: str, fingerprints: Mapping[str, np.ndarray]) -> None:
        """Keep {image hash: fingerprints (n_atoms, n_features)}: all of them, or on error none."""
        rows = []
        for image_hash, values in fingerprints.items():
            values = np.ascontiguousarray(values, dtype="<f8")
            data = values.tobytes()
            rows.append((setup_hash, image_hash, *values.shape, zlib.crc32(data), data))
        self._run(lambda connection: connection.executemany(INSERT, rows))

    def _run(self, action: Callable[[sqlite3.Connection], Any]) -> Any:
        """Call `action(connection)` in a transaction of its own.

        A connection per call, because one may not be shared between threads or survive a fork.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=TIMEOUT)) as connection, connection:
                return action(connection)
        except sqlite3.OperationalError as error:
            raise OSError(
                f"cannot use {self.path} to keep fingerprints: {error}; make it writable, choose "
                "another cmd.run_dir, or set dataset.save_fps to False"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(self._damaged(error)) from error

    def _decode(
        self, image_hash: str, n_atoms: int, n_features: int, checksum: int, data: bytes
    ) -> np.ndarray:
        if zlib.crc32(data) != checksum or len(data) != 8 * n_atoms * n_features:
            raise ValueError(self._damaged(f"the entry {image_hash} does not match its checksum"))
        return np.frombuffer(data, dtype="<f8").reshape(n_atoms, n_features).copy()

    def _damaged(self, reason: object) -> str:
        return f"{self.path} is damaged ({reason}); delete it, and it will be made again"


def _fetch(connection: sqlite3.Connection, query: str, values: tuple[str, ...]) -> list[Any]:
    return connection.execute(query, values).fetchall()
