"""Open, read and replace the files that users name: regular files only, written whole or not at all.

Reading a named pipe waits until another process writes to it, a device may never end, and neither is a recording. Every
file with a name from outside is opened here.
"""

import contextlib
import errno
import gzip
import io
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, cast

_MAX_STEM_BYTES = 200
"""How much of a file's name its temporary name repeats: file systems allow 255 bytes."""

MOST_UNPACKED_BYTES = 512 * 1024 * 1024
"""The largest content of a compressed file that is read into memory: a few kilobytes may decompress to gigabytes."""

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


def plain_name(path: str | os.PathLike[str]) -> str:
    """Return a name in lower case, without the ending `.gz`. Its ending names the format of the file."""
    return os.fspath(path).lower().removesuffix(".gz")


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Return whether a file of this name is compressed with gzip."""
    return os.fspath(path).lower().endswith(".gz")


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file like `open_regular`; the content of a compressed file is decompressed while it is read."""
    file = open_regular(path)
    return cast(BinaryIO, _Unpacking(file)) if is_packed(path) else file


class _Unpacking(gzip.GzipFile):
    """Decompresses a file, and closes it with itself."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._file = file

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._file.close()


def unpacked(data: bytes) -> bytes:
    """Return the content of gzip data. Raise OSError if it is damaged or larger than MOST_UNPACKED_BYTES."""
    with gzip.GzipFile(fileobj=io.BytesIO(data), mode="rb") as file:
        try:
            content = file.read(MOST_UNPACKED_BYTES + 1)
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EINVAL, f"its gzip data is damaged ({error})") from error
    if len(content) > MOST_UNPACKED_BYTES:
        raise OSError(errno.EFBIG, f"it holds more than {MOST_UNPACKED_BYTES // 2**20} MB when it is decompressed")
    return content


@contextlib.contextmanager
def packing(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file that compresses into `file` if the name ends in `.gz`, else `file`. Equal content gives equal bytes."""
    if not is_packed(path):
        yield file
        return
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        yield cast(BinaryIO, packed)


def why_not_writable(path: Path) -> str | None:
    """Return the reason why no file can be created or written at `path`, None if there is none. Create nothing."""
    if plain_name(path).endswith(".toml"):
        return "retold reads TOML and does not write it; use .yaml or .json"
    path = Path(os.path.realpath(path))
    try:
        there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    except OSError as error:  # for example a name that is too long, or a folder without search permission
        return error.strerror or str(error)
    if there == path:
        if there.is_dir():
            return "it is a folder"
        return None if os.access(there, os.W_OK) else "it may not be written"
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"{there} is {'not writable' if there.is_dir() else 'no folder'}"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` if the block ends without an error; otherwise `path` stays unchanged. Raise OSError.

    A symbolic link stays a link: the file that it points to is replaced. The new file gets the mode of the replaced one, or
    `mode` under the umask if there was none.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    kept_mode = _mode_of(target)
    stem = target.name.encode("utf-8", "surrogateescape")[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
    part = target.with_name(f".{stem}.{secrets.token_hex(4)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode if kept_mode is None else kept_mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if kept_mode is not None:
                os.fchmod(handle, kept_mode)
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _mode_of(target: Path) -> int | None:
    """Return the mode of an existing file. Raise OSError for anything else at the path, because a rename would destroy it."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(None, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(None, "it is not a regular file")
    return stat.S_IMODE(mode)
