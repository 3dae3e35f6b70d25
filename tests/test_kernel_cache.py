"""Machine code that numba has cached must not outlive the sources it was compiled from."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.filterwarnings("default")

CALLEE = "from kernels._jit import njit\n\n@njit\ndef callee():\n    return {}\n"
CALLER = """
from kernels._jit import njit
from kernels.callee import callee

@njit
def caller():
    return callee()

print(caller())
"""


def test_a_change_in_a_called_file_recompiles_its_callers(tmp_path):
    from amptorch.kernels import _jit

    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    with open(_jit.__file__, encoding="utf8") as source:
        (package / "_jit.py").write_text(source.read(), encoding="utf8")
    (package / "caller.py").write_text(textwrap.dedent(CALLER))
    answers = []
    for answer in (1, 1, 22):
        (package / "callee.py").write_text(CALLEE.format(answer))
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
        run = subprocess.run(
            [sys.executable, "-c", "import kernels.caller"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(int(run.stdout))
    assert answers == [1, 1, 22]
