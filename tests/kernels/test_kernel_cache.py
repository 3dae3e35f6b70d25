"""Where numba keeps machine code, which must not outlive the sources it was compiled from."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.slow]

CALLEE = "from kernels._jit import njit\n\n@njit\ndef callee():\n    return {}\n"
CALLER = """
from kernels._jit import njit
from kernels.callee import callee

@njit
def caller():
    return callee()

print(caller())
"""


@pytest.fixture
def package(tmp_path):
    """A package `kernels`: the real decorators, and two kernels of which one calls the other."""
    from amptorch.kernels import _jit

    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    with open(_jit.__file__, encoding="utf8") as source:
        (package / "_jit.py").write_text(source.read(), encoding="utf8")
    (package / "callee.py").write_text(CALLEE.format(1))
    (package / "caller.py").write_text(textwrap.dedent(CALLER))
    return package


def call(package, **environment):
    """What `kernels.caller` prints in a new process, and its warnings."""
    environment = {"PYTHONPATH": str(package.parent), "NUMBA_DISABLE_JIT": "0", **environment}
    run = subprocess.run(
        [sys.executable, "-c", "import kernels.caller"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout), run.stderr


def test_a_change_in_a_called_file_recompiles_its_callers(package):
    answers = []
    for answer in (1, 1, 22):
        (package / "callee.py").write_text(CALLEE.format(answer))
        answers.append(call(package)[0])
    assert answers == [1, 1, 22]


NAMED = """
from typing import NamedTuple
from kernels._jit import njit

class {name}(NamedTuple):
    number: int

@njit
def caller(given):
    return given.number

print(caller({name}({answer})))
"""


def test_an_argument_whose_class_is_gone_recompiles(package):
    answers = []
    for name, answer in (("First", 1), ("Other", 22)):
        # The kernel stays in its line, by which numba names its files.
        (package / "caller.py").write_text(NAMED.format(name=name, answer=answer))
        answers.append(call(package)[0])
    assert answers == [1, 22]


def test_each_kind_of_processor_has_kernels_of_its_own(package):
    counting = CALLER.replace("import njit", "import cached_signatures, njit")
    counting = counting.replace(
        "print(caller())", "print(len(cached_signatures(caller)))\ncaller()"
    )
    (package / "caller.py").write_text(counting)
    processors = ("generic", "core2", "generic", "core2")
    found = [call(package, NUMBA_CPU_NAME=name)[0] for name in processors]
    assert found == [0, 0, 1, 1]


@pytest.fixture
def read_only(package):
    """Environment in which neither the package's folder nor the home takes a file, for root too."""
    (package / "__pycache__").touch()
    (package.parent / "file").touch()
    home = str(package.parent / "file" / "home")
    variables = ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE")
    (package.parent / "temporary").mkdir()
    return {
        **dict.fromkeys(variables, home),
        "NUMBA_CACHE_DIR": "",
        "TMPDIR": str(package.parent / "temporary"),
        "TEMP": str(package.parent / "temporary"),
    }


def test_kernels_go_to_a_temporary_folder_where_nothing_else_can_be_written(package, read_only):
    for _ in range(2):
        answer, warned = call(package, **read_only)
        assert answer == 1
        assert warned.count("UserWarning: neither") == 1
        assert "NUMBA_CACHE_DIR" in warned
    (folder,) = (package.parent / "temporary").iterdir()
    assert f"are kept in {folder}" in warned
    assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert any(path.suffix == ".nbc" for path in folder.rglob("*"))
    # A folder that the user names needs no warning.
    assert call(package, **{**read_only, "NUMBA_CACHE_DIR": str(package.parent / "mine")}) == (
        1,
        "",
    )


def test_kernels_are_compiled_without_a_cache_where_there_is_no_safe_folder(package, read_only):
    call(package, **read_only)
    (folder,) = (package.parent / "temporary").iterdir()
    shutil.rmtree(folder)
    folder.touch()
    answer, warned = call(package, **read_only)
    assert answer == 1
    assert warned.count("UserWarning: neither") == 1
    assert "compiled anew in every process; set NUMBA_CACHE_DIR" in warned
    if os.name == "nt":
        return
    folder.unlink()
    # One that others may write to could hold their machine code.
    folder.mkdir()
    folder.chmod(0o777)
    assert "compiled anew" in call(package, **read_only)[1]
    assert list(folder.iterdir()) == []
