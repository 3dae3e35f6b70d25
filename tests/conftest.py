"""Settings that all tests share."""

import os
from collections import Counter
from typing import Any

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores() -> None:
    """Set the numbers of threads, before numpy and torch look.

    BLAS and torch get one: the matrices here are small, and on a busy machine threads wait for each
    other a hundred times longer than the work takes. Kernels get the share of the worker.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ.setdefault(f"{name}_NUM_THREADS", "1")
    if workers > 1:
        for name in ("AMPTORCH", "NUMBA"):
            os.environ.setdefault(f"{name}_NUM_THREADS", str(max(1, CORES // workers)))


share_cores()

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# The first example pays for compilation, so there is no deadline; the same examples every run.
settings.register_profile("amptorch", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("amptorch")

# Tests that take as long as one that is marked as slow.
AS_LONG_AS_A_SLOW_ONE = 100


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `-n auto`: each takes up to 0.9 GB of memory."""
    return min(CORES, 8)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one worker, where nothing else is asked for: what they share is
    made once. The files keep their order, that of `pytest_collection_modifyitems`."""
    if config.getoption("dist") not in ("load", "loadfile"):
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that all workers end at about the same time."""
    work: Counter[str] = Counter()
    for item in items:
        work[item.location[0]] += AS_LONG_AS_A_SLOW_ONE if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -work[item.location[0]])
