"""Open the index of a log, which is made if it is missing or unusable, and brought up to date."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ...recorder.collector import without_collections
from ...recorder.errors import LogError
from ...recorder.log.log import EventLog
from ...recorder.log.sqlite import opening as store
from ...recorder.log.sqlite.feed import Feed
from ...recorder.log.sqlite.questions import Unreadable
from ...recorder.log.sqlite.sharing import BUSY_TIMEOUT_S
from .filling import Filler
from .reading import Index
from .tables import KINDS, create, has_news, is_current, transact

MUCH = 100_000
"""After so many new events the segments of the words are merged into one, which makes a phrase search a fifth faster."""

Progress = Callable[[int], None]


def path_of(log: EventLog) -> Path:
    """Return the path of the index of a log."""
    return log.path.with_name(log.path.name + ".index")


@contextmanager
def opened(log: EventLog, *, progress: Progress = lambda _: None) -> Iterator[Index]:
    """Open the index of a log for a `with` block, up to date. `progress` gets the number of events indexed so far.

    If the folder is not writable, the index is made in memory, each time. Raises LogError.
    """
    path = path_of(log)
    with Feed(log, KINDS) as feed:  # migrates a log of an earlier version
        try:
            try:
                connection = _current(path, feed, progress)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # for example a full disk
                    raise
                discard_file(path)  # the index is damaged, and nothing is lost with it
                connection = _current(path, feed, progress)
            with closing(connection):
                yield Index(connection, feed)
        except (sqlite3.Error, Unreadable) as error:
            raise LogError(f"cannot use the log {log.path} or its index {path}: {error}.") from error


def _current(path: Path, feed: Feed, progress: Progress) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        if not is_current(connection, feed) or has_news(connection, feed):
            filler = Filler(connection, feed, progress)
            while _one_step(connection, filler):
                pass
            if filler.done >= MUCH:
                connection.execute("INSERT INTO words (words) VALUES ('optimize')")
    except BaseException:
        connection.close()
        raise
    return connection


def _one_step(connection: sqlite3.Connection, filler: Filler) -> bool:
    with without_collections():  # a sixth of the time of a step
        return bool(transact(connection, filler.step))


def _connect(path: Path) -> sqlite3.Connection:
    target = str(path) if os.access(path.parent, os.W_OK) else ":memory:"
    with store.locked(path.parent):  # two processes that make the index at once would disturb each other
        if target == str(path):
            store.create_private(path)
        connection = sqlite3.connect(target, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            connection.close()
            raise
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA cache_size = -16000")
    return connection


def reset(log: EventLog) -> None:
    """Empty the index to the last byte, also while other processes use it, so that it holds nothing that the log lost."""
    path = path_of(log)
    if not path.exists():
        return
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        transact(connection, lambda: create(connection, None))
        store.vacuum(connection, path)
    except (sqlite3.DatabaseError, OSError):
        discard_file(path)
    finally:
        connection.close()


def discard_file(path: Path) -> None:
    """Remove an index that cannot be used."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
