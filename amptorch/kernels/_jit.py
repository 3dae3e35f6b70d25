"""The one decorator that compiles every kernel."""

import numba

# fastmath: only what reductions and fused multiply-adds need. `nnan` and `ninf` stay off, so that
#   NaN and infinity in the input come out as such instead of as arbitrary numbers.
# error_model: numpy's division (no check for zero, which would stop a loop from vectorising).
# nogil: amptorch.threads runs kernels on chunks of atoms from several Python threads.
# cache: a user pays for compilation once per machine, not once per run.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def njit(function):
    """Compile a kernel with the flags that all kernels share."""
    return numba.njit(
        cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy", boundscheck=False
    )(function)


def inlined(function):
    """The same for a small function called in an innermost loop: LLVM inlines it, which spares the
    call and the reference counting of array arguments."""
    return numba.njit(
        cache=True,
        nogil=True,
        fastmath=FASTMATH,
        error_model="numpy",
        boundscheck=False,
        forceinline=True,
    )(function)
