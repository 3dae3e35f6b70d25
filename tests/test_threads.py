"""Threads of the kernels."""

import numpy as np
import pytest

from amptorch.threads import num_threads, run_chunks, use_threads


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
