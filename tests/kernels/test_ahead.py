"""Kernels that are compiled before their first use, in processes of their own."""

import os
import subprocess
import sys

import pytest

CODE = """
from amptorch.descriptor.ahead import KERNELS, Ahead
from amptorch.kernels._jit import is_cached

before = is_cached(KERNELS["neighbors"])
Ahead(["neighbors"]).wait()
print(before, is_cached(KERNELS["neighbors"]), is_cached(KERNELS["values"]))
"""


def answer(folder, threads):
    settings = {"NUMBA_CACHE_DIR": str(folder), "NUMBA_DISABLE_JIT": "0"}
    settings["AMPTORCH_NUM_THREADS"] = str(threads)
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split(), run.stderr


@pytest.mark.slow
def test_kernels_that_are_not_in_the_cache_are_compiled_once(tmp_path):
    found, shown = answer(tmp_path, threads=1)
    assert found == ["False", "False", "False"]
    assert shown == ""
    found, shown = answer(tmp_path, threads=2)
    assert found == ["False", "True", "False"]
    assert "compiling kernels, once" in shown
    found, shown = answer(tmp_path, threads=2)
    assert found == ["True", "True", "False"]
    assert shown == ""
