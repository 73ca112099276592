"""Overwrite in place what SQLite deleted but left in a file, for a disk without room for a second copy of the log.

VACUUM needs as much room as the new file takes. Here the unused parts of the file are overwritten with zeros instead, and the
disk gets the pages back that are unused as a whole:

1. Free pages (leaves of the free list): a hole is punched; a file system that has no holes gets zeros.
2. B-tree pages: every byte that belongs to no header, pointer or cell. Deleted and moved rows leave copies there.
3. Last pages of overflow chains: the bytes after the end of the payload.

SQLite reads none of these bytes, so an interruption at any time leaves a sound file. The caller folds the WAL first; this module
holds the write lock while it works. The layout is that of https://www.sqlite.org/fileformat2.html.

A large file is scrubbed in turns (turns.py), so that other processes write in between.
"""

import ctypes
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...clock import monotonic_ns
from .rows import waiting
from .sharing import BUSY_TIMEOUT_S

_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_LOCK_BYTE = 1 << 30
_HEADER_BYTES = 100
"""The file's header stands before the content of page 1."""

HELD_MS = 100
"""How long one try to empty the WAL may keep writers waiting, in milliseconds."""

PAUSE_S = 0.15
"""Longer than the pauses in which SQLite tries for a lock, so that each waiting writer gets its turn."""

_open: list[int] = []
"""Files stay open: closing one drops the locks that SQLite's own connections in this process hold on it (POSIX)."""


def scrub(connection: sqlite3.Connection, path: Path) -> None:
    """Overwrite the unused parts of the log at `path`. `connection` is a new one, whose cache holds no page of it.

    Raises sqlite3.Error, also if the WAL is not empty, and OSError.
    """
    handle = opened(path)
    with exclusively(connection, path):
        DatabaseFile(handle).scrub(roots_of(connection))
        os.fsync(handle)
    empty_wal(connection)


def opened(path: Path) -> int:
    """Open the file of a log for writing past SQLite. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    _open.append(handle)
    return handle


@contextmanager
def exclusively(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Hold the write lock for a `with` block that changes the file itself. Raises sqlite3.Error, also if the WAL is not empty."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if (wal := path.with_name(path.name + "-wal")).exists() and wal.stat().st_size:
            raise WalInUse("the WAL could not be emptied: another process keeps reading from it")
        yield
        # A commit makes other connections forget the pages that they have read, with the old bytes.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def roots_of(connection: sqlite3.Connection) -> list[int]:
    """Return the pages at which the trees of a file begin."""
    return [1, *(root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0"))]


class WalInUse(sqlite3.OperationalError):
    """The WAL holds pages that the file does not have yet."""


def empty_wal(connection: sqlite3.Connection) -> None:
    """Fold the WAL into the file and empty it. Raises WalInUse after `BUSY_TIMEOUT_S`, sqlite3.Error.

    SQLite keeps the write lock while it waits for readers of an older state, and does not wait at all for a checkpoint of another
    process. So each try is short, and others write between two tries.
    """
    end_ns = monotonic_ns() + int(BUSY_TIMEOUT_S * 1e9)
    while True:
        with waiting(connection, HELD_MS):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # most of it, while others write
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        if monotonic_ns() > end_ns:
            raise WalInUse("the WAL could not be emptied: another process keeps reading from it")
        time.sleep(PAUSE_S)


@dataclass(slots=True)
class _Cell:
    """A row on a page: its place, and its payload on overflow pages (first page, bytes)."""

    start: int
    end: int
    overflow: tuple[int, int] | None


class DatabaseFile:
    """A database file whose WAL is empty. `seen` is called with the number of each page that was scrubbed."""

    def __init__(self, handle: int, seen: Callable[[int], None] = lambda _: None) -> None:
        self._handle = handle
        self._seen = seen
        header = os.pread(handle, _HEADER_BYTES, 0)
        size = int.from_bytes(header[16:18])
        self._size = 65536 if size == 1 else size
        self._usable = self._size - header[20]
        self._free = int.from_bytes(header[32:36])
        self.pages = os.fstat(handle).st_size // self._size
        self.moves_pages = header[52:56] != bytes(4)
        """Whether the file has an auto-vacuum, which moves pages and keeps a map of them."""
        self.lock_page = _LOCK_BYTE // self._size + 1
        """The page that SQLite never uses."""

    def _page(self, number: int) -> bytes:
        return os.pread(self._handle, self._size, (number - 1) * self._size)

    def _put(self, number: int, before: bytes, page: bytes) -> None:
        if page != before:
            os.pwrite(self._handle, page, (number - 1) * self._size)

    def scrub(self, roots: list[int]) -> None:
        """Overwrite the unused parts of the free list and of the trees that begin at these pages."""
        for number in self.free_pages():
            self.scrub_free(number)
        waiting = list(roots)
        while waiting:
            waiting += self.scrub_tree(waiting.pop())

    def scrub_free(self, number: int) -> None:
        """Give a free page back to the disk, or overwrite it."""
        if not _punch(self._handle, (number - 1) * self._size, self._size):
            self._put(number, self._page(number), bytes(self._size))
        self._seen(number)

    def free_pages(self) -> Iterator[int]:
        """The leaves of the free list; what its trunk pages do not use is overwritten."""
        trunk = self._free
        while trunk:
            page = self._page(trunk)
            count = int.from_bytes(page[4:8])
            used = page[: 8 + 4 * count]
            self._put(trunk, page, used.ljust(self._size, b"\0"))
            self._seen(trunk)
            yield from (int.from_bytes(used[at : at + 4]) for at in range(8, len(used), 4))
            trunk = int.from_bytes(page[:4])

    def below(self, number: int) -> list[int]:
        """Return the pages below a page of a B-tree, in no order."""
        page = self._page(number)
        at = _HEADER_BYTES if number == 1 else 0
        if page[at] not in (_INTERIOR_INDEX, _INTERIOR_TABLE):
            return []
        end = at + 12 + 2 * int.from_bytes(page[at + 3 : at + 5])
        starts = (int.from_bytes(page[pointer : pointer + 2]) for pointer in range(at + 12, end, 2))
        return [int.from_bytes(page[at + 8 : at + 12]), *(int.from_bytes(page[start : start + 4]) for start in starts)]

    def scrub_tree(self, number: int) -> list[int]:
        """Overwrite what a page of a B-tree, and the overflow pages of its rows, do not use; return the pages below it."""
        page = self._page(number)
        at = _HEADER_BYTES if number == 1 else 0
        kind = page[at]
        is_leaf = kind in (_LEAF_INDEX, _LEAF_TABLE)
        pointers = at + (8 if is_leaf else 12)
        end = pointers + 2 * int.from_bytes(page[at + 3 : at + 5])
        clean = bytearray(self._size)
        clean[:end] = page[:end]
        clean[self._usable :] = page[self._usable :]
        block = int.from_bytes(page[at + 1 : at + 3])
        while block:  # a chain of gaps between rows: its links and sizes stay
            clean[block : block + 4] = page[block : block + 4]
            block = int.from_bytes(page[block : block + 2])
        below = [] if is_leaf else [int.from_bytes(page[at + 8 : at + 12])]
        for pointer in range(pointers, end, 2):
            cell = self._cell(page, int.from_bytes(page[pointer : pointer + 2]), kind)
            clean[cell.start : cell.end] = page[cell.start : cell.end]
            if not is_leaf:
                below.append(int.from_bytes(page[cell.start : cell.start + 4]))
            if cell.overflow is not None:
                self._overflow(*cell.overflow)
        self._put(number, page, bytes(clean))
        self._seen(number)
        return below

    def _cell(self, page: bytes, start: int, kind: int) -> _Cell:
        at = start + (4 if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else 0)
        size, at = _varint(page, at)
        if kind == _INTERIOR_TABLE:
            return _Cell(start, max(at, start + 4), None)
        if kind == _LEAF_TABLE:
            _, at = _varint(page, at)
        local = self._local_bytes(size, kind)
        if local == size:
            return _Cell(start, max(at + local, start + 4), None)
        end = at + local + 4
        return _Cell(start, end, (int.from_bytes(page[end - 4 : end]), size - local))

    def _local_bytes(self, size: int, kind: int) -> int:
        """How much of a payload of this size stands on the page of its row."""
        usable = self._usable
        most = usable - 35 if kind == _LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if size <= most:
            return size
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        return local if local <= most else least

    def _overflow(self, number: int, left: int) -> None:
        while left > self._usable - 4:
            left -= self._usable - 4
            self._seen(number)
            number = int.from_bytes(os.pread(self._handle, 4, (number - 1) * self._size))
        page = self._page(number)
        self._put(number, page, page[: 4 + left].ljust(self._size, b"\0"))
        self._seen(number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and the place after it."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9


def _punch(handle: int, start: int, size: int) -> bool:
    """Give a part of a file back to the disk, so that it reads as zeros. Return whether the file system can do that."""
    try:
        fallocate = ctypes.CDLL(None).fallocate64
    except AttributeError:  # not Linux
        return False
    place = ctypes.c_int64(start), ctypes.c_int64(size)
    return int(fallocate(ctypes.c_int(handle), ctypes.c_int(_KEEP_SIZE_AND_PUNCH_HOLE), *place)) == 0
