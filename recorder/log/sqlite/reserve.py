"""A small reserve beside the log, so that a full disk still has room for the changes that relieve it.

Folding the WAL makes the database grow, removing runs writes to the WAL, and even reading needs a file of 32 kB beside the log.
On a disk without a free byte none of this works. So a log keeps a file of 4 MB without content, from the time at which it is
large or its disk is nearly full. The file is given up if the log needs room, and made again afterwards.
"""

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 4 * 1024 * 1024

LARGE_LOG_BYTES = 16 * 1024 * 1024
"""A smaller log keeps a reserve only on a disk that is nearly full."""

NEARLY_FULL_BYTES = 64 * 1024 * 1024

FOR_READING_BYTES = 64 * 1024


def reserve_of(log: Path) -> Path:
    """Return the path of a log's reserve."""
    return log.with_name(log.name + "-reserve")


def is_nearly_full(log: Path) -> bool:
    """Return whether the disk of a log has less room than a long recording takes."""
    try:
        return free_bytes(log) < NEARLY_FULL_BYTES
    except OSError:  # the folder is gone: the log reports that
        return False


def free_bytes(log: Path) -> int:
    """Return the room on the disk of a log, in bytes, for this user."""
    found = os.statvfs(log.parent)
    return found.f_bavail * found.f_frsize


def keep(log: Path, *, size: int = RESERVE_BYTES, beside: int = RESERVE_BYTES) -> None:
    """Make the reserve of a log, or make it `size` bytes large, if the log is large or its disk is nearly full.

    Do nothing if the disk has no room for the reserve and for `beside` bytes more.
    """
    path = reserve_of(log)
    with contextlib.suppress(OSError):  # no room, or a read-only disk: the log reports that if it must
        if _size(path) >= size or free_bytes(log) < size + beside:
            return
        if _size(log) < LARGE_LOG_BYTES and not is_nearly_full(log):
            return
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)


def give_up(log: Path) -> int:
    """Give the reserve of a log to its disk. Return its size in bytes, 0 if there was none."""
    path = reserve_of(log)
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size


def give_some(log: Path) -> bool:
    """Give as much of the reserve to the disk as a reader of the log needs. Return whether there was so much."""
    path = reserve_of(log)
    try:
        left = path.stat().st_size - FOR_READING_BYTES
        if left < 0:
            return False
        os.truncate(path, left)
    except OSError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
