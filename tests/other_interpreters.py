"""Interpreters in environments of their own, each with another `amptorch`."""

import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAND_IN = Path(__file__).with_name("stand_in")


def interpreter(folder, package):
    """Path of a new environment's Python, which has the packages of this one, and `amptorch` in
    the folder `package`."""
    venv.create(folder, symlinks=True)
    names = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", names))
    paths = [package, *(path for path in sys.path if path.endswith("-packages"))]
    (site / "another.pth").write_text("".join(f"{path}\n" for path in paths))
    return Path(sysconfig.get_path("scripts", "venv", names)) / "python"
