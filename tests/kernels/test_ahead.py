"""How kernels are compiled: before their first use, in processes of their own, and for whom."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amptorch

KERNELS = "amptorch.kernels"
CODE = """
import sys
from ase import Atoms
from amptorch.descriptor.ahead import Ahead, compile_now, is_compiled
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames

def cached():
    names = ("neighbors", "values", "derivatives")
    return [is_compiled(name, "moments" in sys.argv) for name in names]

print(*cached())
if "fingerprint" in sys.argv:
    functions = {"G2": {"etas": [1.0]}, "cutoff": 4.0}
    if "moments" in sys.argv:
        functions["G5"] = {"etas": [1.0], "zetas": [1], "gammas": [1.0]}
    descriptor = Gaussian({"default": functions}, ["H"])
    descriptor.values(Frames.from_atoms([Atoms("H2", [[0, 0, 0], [0, 0, 1.0]])]))
elif "now" in sys.argv:
    compile_now(["neighbors"])
else:
    Ahead(["neighbors"]).wait()
print(*cached())
"""


def answer(folder, threads, *what):
    """Which kernels are in the cache before and after a process has done `what`, and what is on
    its stderr."""
    settings = {"NUMBA_CACHE_DIR": str(folder), "NUMBA_DISABLE_JIT": "0"}
    settings["AMPTORCH_NUM_THREADS"] = str(threads)
    run = subprocess.run(
        [sys.executable, "-c", CODE, *what],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in run.stdout.splitlines()], run.stderr


@pytest.mark.slow
def test_kernels_that_are_not_in_the_cache_are_compiled_once(tmp_path):
    found, shown = answer(tmp_path / "one", 1)
    assert found == [["False"] * 3] * 2
    assert shown == ""
    # While this process searches neighbours, another compiles the functions.
    found, shown = answer(tmp_path, 2, "fingerprint")
    assert found == [["False"] * 3, ["True", "True", "False"]]
    assert "compiling kernels, once" in shown
    found, shown = answer(tmp_path, 2)
    assert found == [["True", "True", "False"]] * 2
    assert shown == ""


@pytest.mark.slow
def test_what_one_core_compiles_is_shown(tmp_path):
    found, shown = answer(tmp_path, 1, "now")
    assert found == [["False"] * 3, ["True", "False", "False"]]
    assert "compiling kernels, once" in shown
    assert answer(tmp_path, 1, "now") == ([["True", "False", "False"]] * 2, "")


@pytest.mark.slow
def test_functions_with_moments_have_kernels_of_their_own(tmp_path):
    found, _ = answer(tmp_path, 2, "fingerprint", "moments")
    assert found == [["False"] * 3, ["True", "True", "False"]]
    # The others are not compiled.
    assert answer(tmp_path, 2)[0] == [["True", "False", "False"]] * 2


@pytest.mark.slow
def test_only_kernels_call_what_has_no_way_in_from_python():
    folder = Path(amptorch.__file__).parent
    inside = re.compile(r"^@(?:inner|inlined|spliced)\ndef (\w+)", re.MULTILINE)
    names = {
        (source.stem, name)
        for source in (folder / "kernels").glob("*.py")
        for name in inside.findall(source.read_text(encoding="utf8"))
    }
    assert len(names) > 50
    called = set()
    for source in folder.rglob("*.py"):
        if source.parent.name == "kernels":
            continue
        nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf8"))))
        modules = {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(KERNELS):
                for one in node.names:
                    modules[one.asname or one.name] = one.name
                    called.add((node.module.split(".")[-1], one.name))
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called.add((modules.get(node.value.id), node.attr))
    assert ("neighbors", "search_frames") in called
    assert not names & called
