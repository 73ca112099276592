"""Open an SQLite file as a log, with its settings.

WAL mode lets any number of readers read while one process at a time commits; several processes append in turn
(`busy_timeout`). With `synchronous=NORMAL` a commit survives the death of the process, with `FULL` a loss of power.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import sqlite3
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ...errors import LogError, LogFolderWarning, LogVersionError
from ...hints import not_a_run
from . import reserve
from .rows import waiting
from .scrubbing import empty_wal, scrub
from .sharing import BUSY_TIMEOUT_S
from .turns import scrub_in_turns

VERSION = 3
"""Number of the newest migration; `migrations.py` is only imported where the file is older."""

APPLICATION_ID = 0x7265746C  # "retl": tells a log from any other SQLite file

PAGE_BYTES = 4096

CHECKPOINT_AT_LAST_PAGES = 16_000
"""A stream without a pause lets no checkpoint catch up with it, and the WAL grows. Here (64 MB) the writer does it itself."""

VACUUM_MARGIN_BYTES = 1024 * 1024

REWRITTEN_BYTES = 64 * 1024 * 1024
"""A log with more content is not written anew under the write lock, which takes 15 s a GB, but scrubbed in turns."""

FOLD_TIMEOUT_MS = 1000

READ_CACHE_KB = 1000
"""Half of SQLite's default: a reader goes through the log in order, and each handler of a run is a reader."""

Durability = Literal["process", "power"]


def open_for_writing(path: Path, durability: Durability, *, named: Path | None = None) -> sqlite3.Connection:
    """Return a connection to the log at `path`, made or migrated if needed; `named` is its name in errors.

    Raises LogError, LogVersionError.
    """
    named = named or path
    try:
        _make_folder(path.parent)
        _warn_of_folder(path, named)
        with locked(path.parent):
            create_private(path)
            connection = connect(path)
            try:
                _check_version(connection, named)
                connection.execute("PRAGMA journal_mode = WAL")  # first, because a transaction in it does not wait for the disk
                connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
                _bring_up_to_date(connection)
            except BaseException:
                connection.close()
                raise
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_AT_LAST_PAGES}")
        reserve.keep(path)
        return connection
    except (OSError, sqlite3.Error) as error:
        raise LogError(
            f"cannot write the log {named}: {_reason(error)}. Name another one with --db FILE or RETOLD_DB."
        ) from error


def open_for_reading(path: Path, sought: str = "", *, named: Path | None = None) -> sqlite3.Connection:
    """A read-only connection, to look for a run; `named` is the log's name in errors.

    Raises LogError if there is no log, LogVersionError if it is newer.
    """
    named = named or path
    if path.is_dir():
        raise LogError(f"{named} is a folder, not a log. Name the file with --db FILE.")
    if not path.is_file():
        none = f"no log at {named}. Record or replay something first (retold run …), or name a log with --db FILE."
        raise LogError(not_a_run(sought) or none)
    connection = None
    try:
        connection = connect(reading_uri(path), uri=True)
        _have_room_for_reading(connection, path)
        connection.execute(f"PRAGMA cache_size = -{READ_CACHE_KB}")
        _check_version(connection, named)
        if connection.execute("PRAGMA user_version").fetchone()[0] < VERSION:
            open_for_writing(path, "process").close()
        return connection
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        message = f"cannot read the log {named}: {_reason(error)}. Name another one with --db FILE or RETOLD_DB."
        raise LogError(message) from error
    except LogError:
        if connection is not None:
            connection.close()
        raise


def is_large(connection: sqlite3.Connection) -> bool:
    """Return whether a log has too much content to be written anew while other processes wait. Raises sqlite3.Error."""
    return _content_bytes(connection) > REWRITTEN_BYTES


def scrub_large(path: Path) -> bool:
    """Overwrite deleted data in a large log in turns, between which others write. Return whether all of it is gone.

    The file keeps its length, and the disk gets unused pages back as holes. Raises sqlite3.Error, OSError.
    """
    with contextlib.closing(connect(path)) as connection:
        return scrub_in_turns(connection, path)


def _content_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of a file without its free pages."""
    names = ("page_size", "page_count", "freelist_count")
    size, pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def vacuum(connection: sqlite3.Connection, path: Path) -> bool:
    """Write the file again and empty the WAL, so that neither contains deleted data.

    Deleting is not enough: split pages keep stale copies of moved rows. Without room for a new file, the unused parts of the file
    are overwritten in place, and the room that this gains is used. Return False if that is too little: then the file keeps its
    length. Raises sqlite3.Error, OSError.
    """
    is_new = _write_anew(connection, path)
    if not is_new:
        fold_with_reserve(connection, path)
        with contextlib.closing(connect(path)) as other:
            scrub(other, path)
        is_new = _write_anew(connection, path)
    empty_wal(connection)
    return is_new


def _write_anew(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether there was room for it: for the WAL, and for holes in the file that folding the WAL fills."""
    file, new = path.stat(), _content_bytes(connection)
    holes = max(0, file.st_size - file.st_blocks * 512)
    if reserve.free_bytes(path) < new + min(new, holes) + VACUUM_MARGIN_BYTES:
        return False
    try:
        connection.execute("VACUUM")
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        fold(connection)  # the WAL holds a part of the new file
        return False
    return True


def _have_room_for_reading(connection: sqlite3.Connection, path: Path) -> None:
    """Use a part of the reserve if the disk has no room for the file that readers share. Raises sqlite3.OperationalError."""
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if reserve.free_bytes(path) < reserve.FOR_READING_BYTES and not reserve.give_some(path):
            raise sqlite3.OperationalError(
                f"{error}; its disk is full, and reading it needs {reserve.FOR_READING_BYTES // 1024} kB of room: free so much"
            ) from error
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def fold(connection: sqlite3.Connection) -> bool:
    """Fold the whole WAL into the database and empty it, waiting a second for readers. Return whether that was possible."""
    try:
        with waiting(connection, FOLD_TIMEOUT_MS):
            return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return False


def fold_with_reserve(connection: sqlite3.Connection, path: Path) -> bool:
    """Like `fold`, with the room of the reserve, which is made again."""
    size = reserve.give_up(path)
    is_folded = fold(connection)
    reserve.keep(path, size=size, beside=0)
    return is_folded


def abandon(connection: sqlite3.Connection) -> None:
    """Leave a connection open for ever, because its file is no longer at its path.

    When the last connection of a file is closed, SQLite removes the WAL by its name, which may belong to another log by now.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def is_full(error: BaseException | None) -> bool:
    """Return whether a write failed for lack of space: the disk is full, or the file may not grow."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")


def check_pages(connection: sqlite3.Connection) -> str | None:
    """Return SQLite's first finding about the pages of the file, or None if it has none."""
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else str(found).rpartition("\n")[2]


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits."""
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)


def reading_uri(path: Path) -> str:
    """Return the URI with which SQLite opens a log without writing to it."""
    # immutable: a log in a folder that cannot be written has no place for the -shm file that WAL readers share.
    mode = "mode=ro" if os.access(path.parent, os.W_OK) else "immutable=1"
    return f"{path.absolute().as_uri()}?{mode}"


def connect(target: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """Connect in autocommit mode, so that one INSERT is one transaction. The store's lock guards it against other threads."""
    return sqlite3.connect(target, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    # Another process may make the log at this moment. It writes the id of the application before the tables.
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID and not empty:
        raise LogError(f"{path} is an SQLite file, but not a retold log. Name another one with --db FILE.")
    if version > VERSION:
        raise LogVersionError(
            f"the log {path} was written by a newer retold (log version {version}, this one reads up to {VERSION}). "
            "Update retold (pip install -U retold), or name another log with --db FILE."
        )


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    from .migrations import migrate

    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(connection)


def _make_folder(folder: Path) -> None:
    """Make a private folder; a folder `.retold` also keeps itself out of git."""
    if folder.is_dir():
        return
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{above} is a file, not a folder")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    if folder.name == ".retold":
        (folder / ".gitignore").write_text("*\n")


def _warn_of_folder(path: Path, named: Path) -> None:
    """Warn of a folder to which everybody may write, also of /tmp.

    Its sticky bit prevents others from replacing the log, but not from creating a WAL beside it before SQLite does.
    """
    if path.parent.stat().st_mode & stat.S_IWOTH:
        warnings.warn(
            f"the log {named} stands in a folder that everybody may write to; keep it in your own (chmod o-w {named.parent})",
            LogFolderWarning,
            stacklevel=2,
        )


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read, because a log holds prompts and answers.

    SQLite gives -wal and -shm the same mode.

    An existing file is not opened: closing it would drop the locks that SQLite holds on it in this process.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder, so that two processes that make the same log do not both run the migrations."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
