"""A shelf in a local folder, or in a folder that several machines mount.

    journal                     a line SOURCE/RUN/FIRST for each page, in the order of arrival
    SOURCE/RUN/FIRST.jsonl      the lines of the page that begins with event FIRST
    SOURCE/RUN/last             number and hash of the last event of the run's last page, and FIRST of that page
    alive.d/KEY                 the newest report under a key (reports.py)
    made                        a random word in every cursor, so that no other shelf accepts the cursor

A writer locks the folder while it writes a page. It writes the line in the journal first, then the page. If a writer died between
the two, the journal has a line without a page, and readers skip it.
"""

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..recorder.event_lines import event_of
from .pages import Page
from .shelf import Full, PageConflict, Position, Refused, Shelved, Unreachable, check_follows

POLL_S = 0.02
"""Seconds after which a waiting reader reads the journal again."""

BATCH = 64
"""The highest number of pages in one list for a reader."""

_NAME = re.compile(r"[0-9A-Za-z_-]{1,120}")
_LINE = re.compile(rf"({_NAME.pattern})/({_NAME.pattern})/(\d{{12,}})")


class FolderShelf:
    """A shelf that keeps its pages as files in a folder.

    The first use creates a missing folder or, with `make=False`, raises Refused. Raises ShelfError.
    """

    remains = ""

    def __init__(self, folder: str | os.PathLike[str], *, source: str, make: bool = True) -> None:
        self.name = str(folder)
        self.source = _checked(source)
        self._folder = Path(folder).absolute()
        self._journal = self._folder / "journal"
        self._make = make
        self._word: str | None = None

    @property
    def _made(self) -> str:
        """The random word of this shelf. The first use reads it, or creates the shelf."""
        if self._word is None:
            with _named(self.name):
                if not self._make and not (self._folder / "made").exists():
                    raise Refused(f"there is no shelf in {self.name}; the first `retold ship` makes it.")
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # as a log, for its owner only
                with _lock(self._folder, fcntl.LOCK_EX):
                    if not (self._folder / "made").exists():
                        self._journal.touch()
                        _write(self._folder / "made", secrets.token_hex(8).encode())
                self._word = (self._folder / "made").read_text()
        return self._word

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page."""
        with _named(self.name), self._locked(fcntl.LOCK_SH):
            return self._last(run)

    def _last(self, run: str) -> Position | None:
        try:
            seq, own, first = (self._run(run) / "last").read_text().split()
        except FileNotFoundError:
            return None
        return Position(int(seq), bytes.fromhex(own), first)

    def put(self, page: Page, after: Position | None) -> Position:
        """Write the page to the disk, and return its position."""
        check_follows(page, after)
        with _named(self.name), self._locked(fcntl.LOCK_EX):
            if self._last(page.run) != after:
                raise PageConflict(f"{page!r} does not follow the last page of its run in {self.name}.")
            self._list(page)
            return Position(page.last, page.hash, f"{page.first:012}")

    def _list(self, page: Page) -> None:
        """Write the line in the journal, then the page, then the run's last position."""
        folder, first = self._run(page.run), f"{page.first:012}"
        folder.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a+b") as journal:
            if journal.tell() and os.pread(journal.fileno(), 1, journal.tell() - 1) != b"\n":
                journal.write(b"\n")  # a writer died within its line
            journal.write(f"{self.source}/{page.run}/{first}\n".encode())
            journal.flush()
            os.fsync(journal.fileno())
        _write(folder / f"{first}.jsonl", page.body)
        last = self._last(page.run)
        if last is None or last.seq <= page.last:
            _write(folder / "last", f"{page.last} {page.hash.hex()} {first}".encode())

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield the pages after the cursor, which is an offset in the journal."""
        if run is not None and after is None and wait_s == 0 and self._made:
            yield from self._in_order(run)
            return
        made, _, number = (after or "").partition(":")
        at = int(number) if made == self._made else 0
        deadline = time.monotonic() + wait_s
        while True:
            with _named(self.name), self._locked(fcntl.LOCK_SH), self._journal.open("rb") as journal:
                size = os.fstat(journal.fileno()).st_size
                at = at if at <= size else 0  # the journal lost its end
                journal.seek(at)
                lines = journal.read(1 << 16).split(b"\n")[:-1][:BATCH]
            if lines:
                yield [shelved for shelved in self._shelved(lines, at) if run in (None, shelved.page.run)]
                at += sum(len(line) + 1 for line in lines)
                deadline = time.monotonic() + wait_s
            elif time.monotonic() >= deadline:
                return
            else:
                time.sleep(min(POLL_S, wait_s))

    def _in_order(self, run: str) -> Iterator[list[Shelved]]:
        """Yield all pages of a run. Their cursor points to the beginning of the shelf."""
        files = sorted(self._folder.glob(f"*/{_checked(run)}/*.jsonl"))
        named = [(file.parent.parent.name, file.stem) for file in files]
        for at in range(0, len(named), BATCH):
            pages = [(source, self._page(source, run, first)) for source, first in named[at : at + BATCH]]
            yield [Shelved(f"{self._made}:0", source, page) for source, page in pages if page is not None]

    def _shelved(self, lines: list[bytes], at: int) -> Iterator[Shelved]:
        """Yield the pages that lines of the journal name. Skip lines without a page."""
        for line in lines:
            at += len(line) + 1
            listed = _LINE.fullmatch(line.decode("utf-8", "replace"))
            if listed is not None and (page := self._page(*listed.groups())) is not None:
                yield Shelved(f"{self._made}:{at}", listed[1], page)

    def _page(self, source: str, run: str, first: str) -> Page | None:
        with _named(self.name):
            try:
                body = (self._folder / source / run / f"{first}.jsonl").read_bytes()
            except FileNotFoundError:
                return None
        try:
            last = event_of(body.rstrip(b"\n").rpartition(b"\n")[2])
        except ValueError:
            return Page(run, int(first), int(first), bytes(32), body)  # the receiver names it
        return Page(run, int(first), last.seq, last.hash, body)

    def replace(self, page: Page) -> None:
        """Overwrite the bytes of the old page that has the same events, then write this page."""
        with _named(self.name), self._locked(fcntl.LOCK_EX):
            _wipe(self._run(page.run) / f"{page.first:012}.jsonl")
            self._list(page)

    def drop(self, run: str) -> None:
        """Overwrite and remove all pages of a run."""
        with _named(self.name), self._locked(fcntl.LOCK_EX):
            folder = self._run(run)
            for file in folder.glob("*"):
                _wipe(file)
                file.unlink()
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()

    def report(self, key: str, text: bytes) -> None:
        """Write the text into the file of the key."""
        with _named(self.name), self._locked(fcntl.LOCK_EX):  # two pods may share a source
            (self._folder / "alive.d").mkdir(exist_ok=True)
            _write(self._folder / "alive.d" / ".".join(map(_checked, key.split("."))), text)

    def reports(self) -> dict[str, bytes]:
        """Return the newest text under each key."""
        assert self._made
        with _named(self.name):
            return {path.name: path.read_bytes() for path in self._folder.glob("alive.d/*") if path.suffix != ".new"}

    def has_read(self, cursor: str, run: str) -> bool:
        """Return whether a reader with this cursor has read every page of a run of this source."""
        made, _, number = cursor.partition(":")
        if made != self._made or not number.isdecimal():
            return False
        with _named(self.name):
            journal = self._journal.read_bytes()
        own = (b"\n" + journal).rfind(f"\n{self.source}/{_checked(run)}/".encode())
        return 0 <= own < int(number) <= len(journal)

    def close(self) -> None:
        """Do nothing, because no file stays open."""

    def _run(self, run: str) -> Path:
        return self._folder / self.source / _checked(run)

    def _locked(self, kind: int) -> contextlib.AbstractContextManager[None]:
        assert self._made
        return _lock(self._folder, kind)


@contextlib.contextmanager
def _lock(folder: Path, kind: int) -> Iterator[None]:
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, kind)
        yield


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no name for a part of a shelf: use letters, digits, _ and -.")
    return name


def _write(path: Path, data: bytes) -> None:
    """Write a file to the disk, completely or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _wipe(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Raise a ShelfError with the shelf's name for an error of the operating system."""
    try:
        yield
    except OSError as error:
        kind: Callable[[str], Exception] = Unreachable
        if error.errno in (28, 122):  # no space left, quota exceeded
            kind = Full
        elif isinstance(error, PermissionError | FileExistsError):  # the latter: a file is in the place of the folder
            kind = Refused
        raise kind(f"the shelf {name}: {error}.") from error
