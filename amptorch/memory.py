"""Whether there is the memory that some work takes: said before it begins, since a process that
takes more is killed without a word."""

from pathlib import Path

import psutil

GB = 1e9
# What takes less is not asked about: to ask takes 50 microseconds.
SMALL = 1e8
CGROUPS = Path("/sys/fs/cgroup")


def available_memory():
    """Bytes that this process can have without swapping: what the machine has left, or a container
    or batch system (by Linux' cgroups, version 2, or a limit of the address space) leaves to it."""
    return min(psutil.virtual_memory().available, _left_of_addresses(), *_left_by_cgroups())


def require_memory(n_bytes, what, advice):
    """ValueError where `n_bytes` are not available; `what` takes them, `advice` says what would be
    right."""
    if n_bytes < SMALL:
        return
    available = available_memory()
    if n_bytes > available:
        raise ValueError(
            f"{what} would take {n_bytes / GB:.3g} GB of memory, and {available / GB:.3g} GB are "
            f"available; {advice}"
        )


def _left_of_addresses():
    """Bytes of the address space left to this process (`ulimit -v`); infinity without a limit."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):
        return float("inf")
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return float("inf") if limit < 0 else limit - process.memory_info().vms


def _left_by_cgroups(file=Path("/proc/self/cgroup"), root=CGROUPS):
    """Bytes left in each of the groups with a limit that this process is in; infinity at least."""
    left = [float("inf")]
    lines = file.read_text().splitlines() if file.is_file() else []
    for name in (line[3:].strip("/") for line in lines if line.startswith("0::")):
        for folder in (root / name, *(root / name).parents):
            limit = folder / "memory.max"
            if limit.is_file() and (given := limit.read_text().strip()) != "max":
                # Cached files, which the system takes back, count as used.
                pairs = (row.split() for row in (folder / "memory.stat").read_text().splitlines())
                cached = {key: int(value) for key, value in pairs}.get("inactive_file", 0)
                used = int((folder / "memory.current").read_text()) - cached
                left.append(int(given) - used)
    return left
