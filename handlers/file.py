"""file: write messages to a file, and flush each before the next one.

`text` is the lines of simple with date and zone; `jsonl` is one JSON object a line; `json` is one array that is valid JSON
after every message. Relative paths count from the working directory at the start; `~` is the home folder.

Several handlers, in threads or processes, may write the same file. Each write locks the file and checks that it is still the
file at the path. If another writer, or a tool such as logrotate, has renamed it, the line goes into the new file. Only the
writer that holds the lock rotates the file, and renaming it is its last step, so no other writer can rotate the next file
meanwhile.
"""

import fcntl
import gzip
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ..recorder.errors import HandlerError
from ..recorder.events import Event
from ..recorder.files import why_not_writable
from ..recorder.messages import Message
from ..recorder.words import one_line
from .base import Handler, StreamEnd, StreamStart
from .jsonl import json_line
from .simple import LineOptions, footer, lines_of, lines_of_error


def _number_or_text(value: object) -> object:
    """Reject other types, because ByteSize of pydantic before 2.6 raises TypeError for them."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise PydanticCustomError("byte_size", "a number of bytes")
    return value


# pydantic before 2.6 has no JSON schema for ByteSize.
_SIZE_SCHEMA = {
    "anyOf": [
        {"pattern": r"^\s*(\d*\.?\d+)\s*(\w+)?", "type": "string"},
        {"minimum": 1, "type": "integer"},
    ]
}
Size = Annotated[ByteSize, Field(ge=1), BeforeValidator(_number_or_text), WithJsonSchema(_SIZE_SCHEMA)]
"""A number of bytes, or a text with a unit."""


class FileOptions(LineOptions):
    """The path, the format, and the rotation of the file.

    `append: false` truncates the file at the beginning of each run. `max_file_size` is in bytes, or a text such as "10MB". A
    file that would exceed it becomes `NAME.1` (the previous `NAME.1` becomes `NAME.2`, …). `max_files` includes the current
    file; `compress` gzips rotated files.
    """

    file_path: Annotated[str, Field(min_length=1)]
    append: bool = True
    format: Literal["text", "jsonl", "json"] = "text"
    max_file_size: Size | None = None
    max_files: Annotated[int, Field(ge=2)] = 5
    compress: bool = False

    @model_validator(mode="after")
    def _compresses_something(self) -> Self:
        if self.compress and self.max_file_size is None:
            raise ValueError("'compress' gzips the files that are put aside; say when with 'max_file_size'")
        return self


_begun: dict[str, str] = {}
"""The newest run that truncated a file, by path. Later streams of that run append."""


class File(Handler):
    """Writes messages to `file_path` and creates missing folders."""

    name = "file"
    Options = FileOptions
    options: FileOptions
    silent = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.path = Path(self.options.file_path).expanduser()
        self._whole_path = self.path.absolute()
        self._at_path = str(self._whole_path)
        self._fd: int | None = None
        self._written = 0

    def check(self) -> None:
        """Raise HandlerError if the file cannot be created or written. Does not create it."""
        problem = why_not_writable(self.path)
        if problem is not None:
            raise HandlerError(f"handler 'file': cannot write file_path {self.options.file_path!r}: {problem}.", "file_path")

    def start(self, start: StreamStart) -> None:
        if self._fd is None:
            begins = not self.options.append and _begun.get(str(self._whole_path)) != start.run
            self._open(truncate=begins)
            if begins:
                _begun[str(self._whole_path)] = start.run
        if self.options.format == "text":
            self._write(f"=== {one_line(start.title)} (run {start.run}, {start.mode}) {_stamp(start.wall_ns)} ===\n")

    def message(self, message: Message) -> bool:
        if self.options.format == "text":
            stamp = _stamp(message.wall_ns) if self.options.show_timestamps else ""
            line = lines_of(message, self.options, stamp)
        else:
            line = json_line(message)
        if line:
            self._write(line)
            self._written += 1
        return bool(line)

    def call_failed(self, event: Event, error: str) -> None:
        if self.options.format == "text" and not event.step:
            self._write(lines_of_error(event, error, _stamp(event.wall_ns) if self.options.show_timestamps else ""))

    def end(self, end: StreamEnd, count: int, shown: int) -> None:
        if self.options.format == "text":
            self._write(f"{footer(end, count, f'{shown} written')}\n\n")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def result(self) -> dict[str, Any]:
        """Return `{path, written}`: the file, and the number of messages written to it."""
        return {"path": str(self.path), "written": self._written}

    def _open(self, *, truncate: bool = False) -> None:
        path = self._whole_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if truncate else 0)
            # The end of an array must be overwritten; lines are appended.
            flags |= os.O_APPEND if self.options.format != "json" else 0
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise HandlerError(f"cannot write file_path {self.options.file_path!r}: {error.strerror}.") from error
        end = _ARRAY_END if self.options.format == "json" else b"\n"
        with _Alone(self._fd):
            size = os.fstat(self._fd).st_size
            ends_well = not size or os.pread(self._fd, len(end), max(0, size - len(end))) == end
            if not ends_well and self.options.format != "json":  # another program left an unfinished line
                _write_whole(self._fd, b"\n")
        if not ends_well and self.options.format == "json":
            self.close()
            raise HandlerError(f"cannot append to {str(self.path)!r}: it does not end as an array of messages does.")

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        while not self._is_written(data):
            self.close()
            self._open()

    def _is_written(self, data: bytes) -> bool:
        """Write to the open file and return True. Return False if the file was rotated, or had to be."""
        assert self._fd is not None
        with _Alone(self._fd):
            found = os.fstat(self._fd)
            if not self._is_at_path(found):
                return False
            limit = self.options.max_file_size
            if limit is not None and found.st_size and found.st_size + len(data) > limit:
                self._put_aside()
                return False
            if self.options.format == "json":
                _add_to_array(self._fd, data)
            else:
                _write_whole(self._fd, data)
            return True

    def _is_at_path(self, opened: os.stat_result) -> bool:
        try:
            return os.path.samestat(opened, os.stat(self._at_path))
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        """Rename the file at the path to `NAME.1`. The caller holds its lock."""
        path, suffix = self._whole_path, ".gz" if self.options.compress else ""
        if self.options.compress:
            _pack(path, Path(f"{path}.part"))
        for number in range(self.options.max_files - 1, 1, -1):
            older = Path(f"{path}.{number - 1}{suffix}")
            if older.exists():
                older.replace(f"{path}.{number}{suffix}")
        if self.options.compress:
            Path(f"{path}.part").replace(f"{path}.1.gz")
            path.unlink()
        else:
            path.replace(f"{path}.1")


def _pack(path: Path, to: Path) -> None:
    """Write a compressed copy of a file, with its mode. Remove the copy if that fails."""
    try:
        with (
            open(path, "rb") as whole,
            open(to, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as packed,
            gzip.GzipFile(path.name, "wb", fileobj=packed) as stream,
        ):
            shutil.copyfileobj(whole, stream)
        shutil.copymode(path, to)
    except BaseException:
        to.unlink(missing_ok=True)
        raise


_ARRAY_END = b"\n]\n"


class _Alone:
    """Holds the lock of an open file. Other writers, in threads or processes, wait. (A generator takes three times as long.)"""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


def _add_to_array(fd: int, line: bytes) -> None:
    """Replace the end of the array by the next element and the end. One write, so the file is JSON before and after it."""
    size = os.fstat(fd).st_size
    start = b",\n" if size else b"[\n"
    os.lseek(fd, max(0, size - len(_ARRAY_END)), os.SEEK_SET)
    _write_whole(fd, start + line.rstrip(b"\n") + _ARRAY_END, restore=_ARRAY_END if size else b"")


def _write_whole(fd: int, data: bytes, restore: bytes = b"") -> None:
    """Write all of the data, or nothing if that fails (disk full), because half a line is worse than none.

    After a failure the file is truncated to where the write began, and `restore` is written there.
    """
    written = os.write(fd, data)
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError:
        start = os.lseek(fd, -written, os.SEEK_CUR)
        os.ftruncate(fd, start)
        os.write(fd, restore)
        raise


def _stamp(wall_ns: int) -> str:
    """Return local date and time with its zone, to the second: `2026-11-22 12:34:56+0100`."""
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(wall_ns / 1e9))
