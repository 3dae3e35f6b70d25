"""The decorators that compile every kernel: every flag, with its reason."""

from pathlib import Path

import numba

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
}


def njit(function):
    """Compile a kernel."""
    return _sharing_stamp(numba.njit(**FLAGS)(function))


def inlined(function):
    """Compile a small function that is called in an innermost loop: LLVM inlines it, which spares
    the call and the reference counting of array arguments."""
    return _sharing_stamp(numba.njit(forceinline=True, **FLAGS)(function))


def spliced(function):
    """The same for a function that only chooses between others: numba itself puts its body in the
    caller's, so that array arguments are not counted twice."""
    return _sharing_stamp(numba.njit(inline="always", **FLAGS)(function))


def _sharing_stamp(dispatcher):
    """Make the cached machine code of a kernel depend on the sources of all kernels.

    numba looks only at the file a kernel stands in, although what it calls from other files is
    compiled into it: after an update that changes `lanes.py`, users would go on running the old
    code. The attribute is numba's own and not public, so a numba without it keeps its habit.
    """
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _STAMP
    return dispatcher


def _sources_stamp():
    stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


_STAMP = _sources_stamp()
