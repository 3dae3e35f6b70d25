"""The memory that is there: work that would take more is refused before it begins, since a process
that takes more is killed without a word."""

import os
from pathlib import Path

import psutil

GB = 1e9
# What takes less is not asked about: to ask takes 50 microseconds.
SMALL = 1e8
CGROUPS = Path("/sys/fs/cgroup")
# Files of a group's limit and of what it uses, and the entry of memory.stat for cached files.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def available_memory() -> float:
    """Return the bytes that this process can have without swapping.

    This is what the machine has left, or what is left to the process by a container or batch system
    (by Linux' cgroups, or a limit of the address space), at least 0.
    """
    left = [psutil.virtual_memory().available, _left_of_addresses(), *_left_by_cgroups()]
    return max(0, min(left))


def require_memory(n_bytes: float, what: str, advice: str) -> None:
    """Raise ValueError where `n_bytes` are not available.

    what : names the work that takes them; advice : says what would be right
    """
    if n_bytes < SMALL:
        return
    available = available_memory()
    if n_bytes > available:
        raise ValueError(
            f"{what} would take {n_bytes / GB:.3g} GB of memory, and {available / GB:.3g} GB are "
            f"available; {advice}"
        )


def _left_of_addresses() -> float:
    """Return the bytes of the address space left to this process (`ulimit -v`); infinity without a
    limit."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):
        return float("inf")
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return float("inf") if limit < 0 else limit - process.memory_info().vms


def _left_by_cgroups(
    file: str | os.PathLike[str] = "/proc/self/cgroup", root: Path = CGROUPS
) -> list[float]:
    """Return the bytes left in each of the groups with a limit that this process is in, and
    infinity."""
    left = [float("inf")]
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    for number, controllers, name in (line.split(":", 2) for line in lines):
        if number == "0":
            top, names = root, VERSION_2
        elif "memory" in controllers.split(","):
            top, names = root / "memory", VERSION_1
        else:
            continue
        group = top / name.strip("/")
        left += [_left_in(folder, *names) for folder in (group, *group.parents)]
    return left


def _left_in(folder: Path, limit: str, usage: str, cached: str) -> float:
    given = (folder / limit).read_text().strip() if (folder / limit).is_file() else "max"
    if given == "max":
        return float("inf")
    pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # Cached files, which the system takes back, count as used.
    free = {key: int(value) for key, value in pairs}.get(cached, 0)
    return int(given) - (int((folder / usage).read_text()) - free)
