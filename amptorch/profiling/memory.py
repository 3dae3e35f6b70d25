"""Measure how much memory this process uses."""

import psutil

# To read what is the process's own alone takes a walk through its page tables: not every time.
USS_EVERY = 10


def own_memory(process: psutil.Process | None = None) -> int:
    """Return the bytes the process holds for itself: resident, without pages of mapped files, which
    the operating system may take back at any time."""
    process = process or psutil.Process()
    info = process.memory_info()
    if hasattr(info, "shared"):  # Linux
        return info.rss - info.shared
    return process.memory_full_info().uss


class MemoryCurve:
    """Return `own_memory` when called, and keep [(resident bytes, bytes of USS or None)] of each
    call in `samples`.

    USS, the unique set size, would become free if the process ended.
    """

    def __init__(self) -> None:
        self.samples: list[tuple[int, int | None]] = []
        self._process = psutil.Process()

    def __call__(self) -> int:
        wanted = len(self.samples) % USS_EVERY == 0
        uss = self._process.memory_full_info().uss if wanted else None
        self.samples.append((self._process.memory_info().rss, uss))
        return own_memory(self._process)
