"""Running a kernel over chunks of atoms on all cores."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_IN_USE: ContextVar[int | None] = ContextVar("amptorch_threads", default=None)
_BLAS_IN_USE: ContextVar[int | None] = ContextVar("amptorch_blas_threads", default=None)
# BLAS has one number for the whole process: while one thread of Python has set it, others leave it,
# or they would take that for what it was before, and set it for good.
_BLAS_LOCK = RLock()


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Let kernels in this context use `threads` threads where they are told nothing else; None
    changes nothing."""
    token = _IN_USE.set(_IN_USE.get() if threads is None else num_threads(threads))
    try:
        yield
    finally:
        _IN_USE.reset(token)


def num_threads(threads: int | str | None = None) -> int:
    """Return the number of threads to use.

    `threads` where given, else that of `use_threads`, else the environment variable
    AMPTORCH_NUM_THREADS, else the number of cores this process may run on. Raises ValueError where
    it is not a positive integer.
    """
    if threads is None:
        threads = _IN_USE.get()
    if threads is None:
        threads = os.environ.get("AMPTORCH_NUM_THREADS")
    if threads is None:
        return _available_cores()
    try:
        number = int(threads)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ValueError(f"number of threads must be a positive integer, got {threads!r}")
    return number


@contextmanager
def blas_threads(number: int) -> Iterator[None]:
    """Let the BLAS of numpy and SciPy use so many threads in this context.

    Beside kernels on several cores it has to be one: a thread of OpenBLAS spins for some 30 ms
    after its work, on the core that a kernel needs then.
    """
    # To ask each library takes 0.1 ms.
    if _BLAS_IN_USE.get() == number or not _BLAS_LOCK.acquire(blocking=False):
        yield
        return
    token = _BLAS_IN_USE.set(number)
    try:
        with _blas("scipy.linalg" in sys.modules).limit(limits=number):
            yield
    finally:
        _BLAS_IN_USE.reset(token)
        _BLAS_LOCK.release()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use so many threads in this context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_chunks(
    kernel: Callable[[int, int], object],
    costs: Sequence[float] | np.ndarray,
    threads: int | None = None,
    chunks_per_thread: int = 4,
) -> None:
    """Call `kernel(start, stop)` on ranges that cover `0..len(costs)` with about equal total cost.

    With one thread, or little to do, the kernel is called once on the whole range. Kernels must
    release the GIL and write only what belongs to their own range, so that the result does not
    depend on the number of threads.
    """
    n = len(costs)
    threads = num_threads(threads)
    if threads == 1 or n < 2:
        kernel(0, n)
        return
    cumulative = np.cumsum(np.asarray(costs, dtype=np.float64))
    n_chunks = min(n, threads * chunks_per_thread)
    targets = cumulative[-1] * np.arange(1, n_chunks) / n_chunks
    bounds = np.unique(np.concatenate(([0], np.searchsorted(cumulative, targets), [n])))
    # Whichever thread is free takes the next one; the calling thread is one of them.
    chunks = iter([(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)])

    def work() -> None:
        for start, stop in chunks:
            kernel(start, stop)

    futures = [_pool(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(futures)
    for future in futures:
        future.result()


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=2)
def _blas(with_scipy: bool) -> Any:
    return ThreadpoolController().select(user_api="blas")


@lru_cache(maxsize=4)
def _pool(threads: int, pid: int) -> ThreadPoolExecutor:
    # Keyed by process: threads do not survive a fork, so a child makes a pool of its own.
    return ThreadPoolExecutor(threads, thread_name_prefix=f"amptorch-{pid}")
