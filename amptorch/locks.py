"""Locks, by which one process at a time works on a file or a folder."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

# Of file systems without locks, among them NFS whose lock service is off.
NO_LOCK_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(
    path: str | os.PathLike[str], busy: str | None = None, remove: bool = False
) -> Iterator[None]:
    """Have the lock file `path` inside the block; wait for it where another process has it.

    The lock is the operating system's, so that it is gone with the process that has it, however
    that ended. A file system without locks gives a warning.

    busy : do not wait, but raise BlockingIOError with this text
    remove : delete the file at the end; for locks that nobody waits for
    """
    lock = FileLock(path, timeout=-1 if busy is None else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(busy) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCK_ERRORS:
            raise
        folder = os.path.dirname(os.path.abspath(path))
        warnings.warn(
            f"{folder!r} is on a file system without locks ({error}): nothing keeps a second "
            "process from writing to it at the same time",
            stacklevel=3,
        )
    try:
        yield
    finally:
        if lock.is_locked:
            if remove:
                # While it is held: whoever comes later makes another one. Windows will not have it.
                with suppress(OSError):
                    os.unlink(path)
            lock.release()
