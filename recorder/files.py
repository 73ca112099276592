"""Open files that a person named: regular files only.

Reading a named pipe waits until another process writes to it, a device may never end, and neither is a recording. Every
file with a name from outside is opened here.
"""

import errno
import os
import stat
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class NotRegular(OSError):
    """The path names a pipe, a device or a socket. `strerror` names the kind."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, without waiting. Raise OSError; NotRegular for a pipe, a device or a socket."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot be opened at all
            raise NotRegular(error.errno, "it is a socket, not a file", str(path)) from error
        raise
    except ValueError as error:  # a null byte in the name
        raise FileNotFoundError(errno.ENOENT, "the name holds a null byte", str(path)) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for is_kind, kind in _KINDS:
            if is_kind(mode):
                raise NotRegular(errno.EINVAL, f"it is {kind}, not a file", str(path))
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular file. Raise OSError, like `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """Return the text of a regular UTF-8 file, with LF line ends. Raise OSError and UnicodeDecodeError."""
    with TextIOWrapper(open_regular(path), "utf-8") as file:
        return file.read()
