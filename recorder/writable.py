"""Write files whole or not at all, and find out beforehand whether they can be written."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAX_STEM_BYTES = 200
"""How much of a file's name its temporary name repeats: file systems allow 255 bytes."""


def why_not_writable(path: Path) -> str | None:
    """Return why a file cannot be made or written at `path`; None if nothing is known to prevent it. Nothing is made."""
    if path.suffix == ".toml":
        return "retold reads TOML and does not write it; use .yaml or .json"
    path = Path(os.path.realpath(path))
    try:
        there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    except OSError as error:  # a name that is too long, a folder that may not be searched
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
    """Open a new file that takes the place of `path` if the block ends well; if not, `path` is left as it is. Raises OSError.

    A symbolic link stays one: the file that it points to is replaced. A file that is there gives its mode to the new one; the
    mode of any other is `mode` under the umask.
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
    """The mode of a file that is there. Raises OSError for anything else that is there, which a rename would destroy."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(None, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(None, "it is not a regular file")
    return stat.S_IMODE(mode)
