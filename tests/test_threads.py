"""Threads of the kernels."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from amptorch.threads import blas_threads, num_threads, run_chunks, torch_threads, use_threads


def test_the_number_of_threads_is_the_nearest_that_was_said(monkeypatch):
    monkeypatch.setenv("AMPTORCH_NUM_THREADS", "3")
    assert num_threads() == 3
    with use_threads(2):
        assert num_threads() == 2
        with use_threads(None):
            assert num_threads() == 2
        assert num_threads(5) == 5
    assert num_threads() == 3


@pytest.mark.parametrize("wrong", [0, -1, "many", 1.5j])
def test_a_wrong_number_of_threads_is_named(wrong):
    with pytest.raises(ValueError, match="number of threads"):
        num_threads(wrong)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_cover_everything_once(n, threads):
    visits = np.zeros(n, dtype=int)

    def visit(start, stop):
        visits[start:stop] += 1

    run_chunks(visit, np.arange(n) ** 2, threads)
    assert (visits == 1).all()


def test_what_a_chunk_raises_is_raised():
    def fail(start, stop):
        raise RuntimeError(f"chunk {start}:{stop}")

    with pytest.raises(RuntimeError, match="chunk"):
        run_chunks(fail, np.ones(10), threads=2)


def test_what_a_chunk_of_another_thread_raises_is_raised():
    calling = threading.get_ident()
    others = threading.Event()

    def fail(start, stop):
        if threading.get_ident() != calling:
            others.set()
            raise RuntimeError("another thread")
        others.wait(10)

    with pytest.raises(RuntimeError, match="another thread"):
        run_chunks(fail, np.ones(10), threads=2)


def blas():
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


@pytest.mark.parametrize(("limited", "counted"), [(blas_threads, blas), (torch_threads, None)])
def test_threads_of_libraries_are_as_before_after_a_limit(limited, counted):
    counted = counted or (lambda: [torch.get_num_threads()])
    before = counted()
    with limited(2):
        with limited(1):
            assert counted() == [1] * len(before)
        assert counted() == [2] * len(before)
    assert counted() == before


def test_threads_of_blas_are_as_before_where_limits_of_two_threads_overlap():
    def limit_in_a_thread(number):
        # threadpoolctl lets no other thread set limits while one that has lives.
        one = threading.Thread(target=threadpool_limits, args=(number, "blas"))
        one.start()
        one.join()

    inside, go = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def work(k):
        with blas_threads(1):
            inside[k].set()
            go[k].wait(10)

    before = blas()
    limit_in_a_thread(2)
    try:
        threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
        for k in range(2):
            threads[k].start()
            inside[k].wait(10)
        assert blas() == [1] * len(before)
        for k in range(2):
            go[k].set()
            threads[k].join()
        assert blas() == [2] * len(before)
    finally:
        limit_in_a_thread(before[0])
