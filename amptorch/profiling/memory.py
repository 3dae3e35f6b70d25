"""How much memory this process uses."""

import psutil

# Reading what is the process's own alone means a walk through its page tables: not every time.
USS_EVERY = 10


def own_memory(process=None):
    """Bytes the process holds for itself: resident, without pages of mapped files, which the
    operating system may take back at any time."""
    process = process or psutil.Process()
    info = process.memory_info()
    if hasattr(info, "shared"):  # Linux
        return info.rss - info.shared
    return process.memory_full_info().uss


class MemoryCurve:
    """Call it for `own_memory`; it keeps [(bytes resident, bytes of USS or None)] of each call.

    USS, the unique set size, is what would become free if the process ended.
    """

    def __init__(self):
        self.samples = []
        self._process = psutil.Process()

    def __call__(self):
        uss = None
        if len(self.samples) % USS_EVERY == 0:
            uss = self._process.memory_full_info().uss
        self.samples.append((self._process.memory_info().rss, uss))
        return own_memory(self._process)
