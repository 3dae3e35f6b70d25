"""Settings that all tests share."""

import os

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = ("AMPTORCH", "OMP", "MKL", "OPENBLAS", "NUMBA")


def share_cores() -> None:
    """Give each worker of pytest-xdist its share of the cores, before numpy and torch look."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        for name in THREADS:
            os.environ.setdefault(f"{name}_NUM_THREADS", str(max(1, CORES // workers)))


share_cores()

from hypothesis import settings  # noqa: E402

# The first example pays for compilation, so there is no deadline; the same examples every run.
settings.register_profile("amptorch", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("amptorch")


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `-n auto`: each takes up to 0.9 GB of memory."""
    return min(CORES, 8)
