"""Whole 512-bit registers: where they are asked for, and that the compiler is told."""

import llvmlite.binding
import numba
import numpy as np
import pytest

from amptorch.kernels import _jit
from amptorch.kernels._vectors import FULL_WIDTH, compiler_flags, full_width_compiler


def add(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.shape[0]):
        x[i] += y[i]


def test_a_function_carries_the_width_into_llvm() -> None:
    whole, usual = numba.njit(pipeline_class=full_width_compiler())(add), numba.njit(add)
    x, y = np.zeros(11), np.arange(11.0)
    whole(x, y)
    usual(x, y)

    np.testing.assert_array_equal(x, 2 * y)
    attribute = '"prefer-vector-width"="512"'
    assert attribute in whole.inspect_llvm(whole.signatures[0])
    assert attribute not in usual.inspect_llvm(usual.signatures[0])


@pytest.mark.parametrize("name", ["sapphirerapids", "skylake-avx512", "znver4", "generic"])
def test_only_processors_that_gain_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    assert bool(compiler_flags()) == (name in FULL_WIDTH)


def test_kernels_are_compiled_so_on_this_machine() -> None:
    name = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    assert ("pipeline_class" in _jit.FLAGS) == (name in FULL_WIDTH)


def test_a_numba_without_this_way_compiles_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CPU_NAME", "sapphirerapids")
    monkeypatch.delattr("numba.core.typed_passes.NativeLowering")
    assert compiler_flags() == {}
