"""Imports only go down the list of layers in docs/architecture.md, and other rules of the house."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "amptorch"
MODULES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN_CALLS = {
    "print": "use logging, warnings or a progress bar",
    "os.chdir": "the working directory is the user's",
    "torch.set_default_dtype": "the default dtype is the user's",
    "torch.set_default_tensor_type": "the default dtype is the user's",
    "pickle.load": "a stranger's pickle runs the stranger's code",
    "pickle.loads": "a stranger's pickle runs the stranger's code",
}


def layers():
    """{first part of a module's path: place in the table of docs/architecture.md}."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf8")
    table = text.split("## Layers")[1].split("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = [re.findall(r"`([\w/.]+)`", row) for row in rows]
    return {
        name.removesuffix("/").removesuffix(".py"): place
        for place, row in enumerate(names)
        for name in row
    }


LAYERS = layers()


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf8"))


def name_of(path):
    """Dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every module that a file imports, at the top or inside functions: [(line, dotted name)]."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from amptorch import frames` imports a module too.
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def layer_of(name):
    """Place of `amptorch.<layer>...` in the list, a module's own where it has one; None for what is
    not in it."""
    parts = name.split(".")
    if parts[0] != "amptorch" or len(parts) < 2:
        return None
    return LAYERS.get("/".join(parts[1:3]), LAYERS.get(parts[1]))


def is_alias(path):
    """Whether a module holds nothing but a docstring, imports and __all__."""
    return all(
        isinstance(node, (ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
        for node in tree_of(path).body
    )


def test_the_list_is_read():
    assert LAYERS["kernels"] == 0
    assert LAYERS["frames"] < LAYERS["neighbors"] < LAYERS["descriptor"] < LAYERS["training"]
    assert LAYERS["metrics"] == LAYERS["calculator"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    own = layer_of(name_of(path))
    if own is None:
        # The package itself, which imports on demand, and files that keep a v1.0 import path.
        assert path == PACKAGE / "__init__.py" or is_alias(path), (
            f"{name_of(path)} is in no layer of docs/architecture.md and holds more than imports"
        )
        return
    for line, name in imports(path):
        if name.startswith("amptorch.") and name != "amptorch.__version__":
            layer = layer_of(name)
            assert layer is not None, f"{path}:{line} imports {name}, which is in no layer"
            assert layer <= own, f"{path}:{line} imports {name}, which is in a layer above"


def test_a_step_up_would_be_seen():
    assert layer_of("amptorch.training.net") > layer_of("amptorch.kernels.cutoffs")
    found = [name for _, name in imports(PACKAGE / "neighbors.py")]
    assert "amptorch.frames.Frames" in found


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").rglob("*.py")), ids=name_of)
def test_kernels_know_only_numba_and_numpy(path):
    allowed = {"numba", "numpy", "amptorch", *sys.stdlib_module_names}
    outside = {name.split(".")[0] for _, name in imports(path)} - allowed
    assert not outside, f"{path} imports {outside}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_forbidden_calls_and_no_long_files(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in FORBIDDEN_CALLS, f"{path}:{node.lineno}: {FORBIDDEN_CALLS[call]}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: a bare except hides bugs"
    lines = path.read_text(encoding="utf8").count("\n")
    assert lines < 500, f"{path} has {lines} lines; it is two files"


@pytest.mark.parametrize("module", ["amptorch", "amptorch.descriptor.Gaussian", "amptorch.cli"])
@pytest.mark.slow
def test_no_torch_where_none_is_needed(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_class_gaussian_does_not_hide_its_package():
    code = (
        "import amptorch.descriptor, amptorch.descriptor.Gaussian as package, types, sys;"
        "sys.exit(not isinstance(package, types.ModuleType))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
