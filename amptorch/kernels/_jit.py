"""The decorators that compile every kernel: every flag, with its reason."""

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba

from amptorch.kernels._vectors import compiler_flags

FLAGS = {
    # A user pays for compilation once per machine, not once per run.
    "cache": True,
    # amptorch.threads runs kernels on chunks of atoms from several Python threads.
    "nogil": True,
    # Only what reductions and fused multiply-adds need. `nnan` and `ninf` stay off, so that NaN and
    # infinity in the input come out as such instead of as arbitrary numbers.
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    # numpy's division: no check for zero, which would keep a loop from vectorising.
    "error_model": "numpy",
    **compiler_flags(),
}


# A function without a way in from Python: making it takes a quarter of the time to compile, most of
# it for NamedTuples of arrays. Python's call of such a function ends the process.
NO_ENTRY = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def njit(function: Callable[..., Any]) -> Any:
    """Compile a kernel that Python calls."""
    return _compiled(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call."""
    return _compiled(function, **NO_ENTRY)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small function that is called in an innermost loop: LLVM inlines it, which spares
    the call and the reference counting of array arguments. Only kernels call it."""
    return _compiled(function, forceinline=True, **NO_ENTRY)


def spliced(function: Callable[..., Any]) -> Any:
    """Compile a function as `inlined` does, but one that only chooses between others: numba itself
    puts its body in the caller's, so that array arguments are not counted twice."""
    return _compiled(function, inline="always", **NO_ENTRY)


def cached_signatures(kernel: Any) -> list[tuple[Any, ...]] | None:
    """Return the types of arguments for which numba's cache holds a kernel, compiled from the
    present sources for this kind of processor; None where there is no cache, or no way to know."""
    load_index = getattr(
        getattr(getattr(kernel, "_cache", None), "_cache_file", None), "_load_index", None
    )
    if load_index is None:
        return None
    # A folder may be shared by machines of several kinds; each has its own entries in the list.
    here = kernel.targetctx.codegen().magic_tuple()
    return [key[0] for key in load_index() if key[1] == here]


def _compiled(function: Callable[..., Any], **flags: Any) -> Any:
    """Return the compiled function, cached where numba can, else in a temporary folder, else
    nowhere."""
    flags = {**FLAGS, **flags}
    try:
        return _sharing_stamp(numba.njit(**flags)(function))
    except RuntimeError as error:
        # What numba says where neither the package nor the home can be written.
        if "no locator" not in str(error):
            raise
    folder = _temporary_folder()
    if folder is None:
        return numba.njit(**{**flags, "cache": False})(function)
    # numba looks at this when it decorates, and only then.
    config: Any = numba.config
    given, config.CACHE_DIR = config.CACHE_DIR, folder
    try:
        return _sharing_stamp(numba.njit(**flags)(function))
    finally:
        config.CACHE_DIR = given


@lru_cache(maxsize=1)
def _temporary_folder() -> str | None:
    """Return a folder for compiled kernels, the same for all processes of a user, or None where
    there can be none; warns of either, once."""
    try:
        folder = Path(tempfile.gettempdir()) / f"amptorch-kernels-{_user()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        about = folder.lstat()
        # Machine code that is run from there: nobody else may be able to put any.
        safe = _user() in ("", about.st_uid) and not about.st_mode & 0o022
    except OSError:
        safe = False
    kept = f"are kept in {folder}" if safe else "are compiled anew in every process"
    warnings.warn(
        "neither the package's folder nor your home can be written, so compiled kernels "
        f"{kept}; set NUMBA_CACHE_DIR to a folder that can be written to keep them there",
        stacklevel=2,
    )
    return str(folder) if safe else None


def _user() -> int | str:
    return os.getuid() if hasattr(os, "getuid") else ""


def _sharing_stamp(dispatcher: Any) -> Any:
    """Make the cached machine code of a kernel depend on the sources of all kernels.

    numba looks only at the file a kernel stands in, although what it calls from other files is
    compiled into it: after an update that changes `lanes.py`, users would go on running the old
    code. The attribute is numba's own and not public, so a numba without it keeps its habit.
    """
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _STAMP
    if hasattr(cache_file, "_load_index"):
        cache_file._load_index = _tolerant(cache_file._load_index)
    return dispatcher


def _tolerant(load_index: Callable[[], dict[Any, Any]]) -> Callable[[], dict[Any, Any]]:
    """Return numba's reader of the list of compiled kernels, but one that finds none where a class
    that stands in it, an argument of an older version's kernel, is no longer there.

    numba reads the whole list before it compares the stamp, and fails.
    """

    def load() -> dict[Any, Any]:
        try:
            return load_index()
        except (AttributeError, ImportError):
            return {}

    return load


def _sources_stamp() -> tuple[tuple[int, int], ...]:
    stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


_STAMP = _sources_stamp()
