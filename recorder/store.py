"""SQLite behind the log: opening it safely, its settings, and which runs still have a living writer.

WAL mode lets any number of readers read while one process at a time commits; several processes append in turn
(`busy_timeout`). `synchronous=NORMAL` survives the death of the process, `FULL` that of the power.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .errors import LogError, LogFolderWarning, LogVersionError
from .mistaken import not_a_run

VERSION = 2
"""Number of the newest migration; `migrations.py` is only imported where the file is older."""

APPLICATION_ID = 0x7265746C  # "retl": tells a log from any other SQLite file

BUSY_TIMEOUT_S = 60.0

CHECKPOINT_PAGES = 4000
"""After so many pages of WAL (16 MB) a checkpoint begins. An append rewrites the page it shares with its neighbours, so
waiting longer folds more appends into one."""

CHECKPOINT_AT_LAST_PAGES = 16_000
"""A stream without a pause lets no checkpoint catch up with it, and the WAL grows. Here (64 MB) the writer does it itself."""

Durability = Literal["process", "power"]


def open_for_writing(path: Path, durability: Durability) -> sqlite3.Connection:
    """A connection to the log at `path`, made or migrated where needed; raises LogError or LogVersionError."""
    try:
        _make_folder(path.parent)
        _warn_of_folder(path)
        with locked(path.parent):
            create_private(path)
            connection = _connect(path)
            try:
                _bring_up_to_date(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                connection.close()
                raise
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_AT_LAST_PAGES}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        return connection
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"cannot write the log {path}: {_reason(error)}. Name another one with --db FILE or RETOLD_DB.") from error


def open_for_reading(path: Path, sought: str = "") -> sqlite3.Connection:
    """A read-only connection, to look for a run. Raises LogError where there is no log, LogVersionError where it is newer."""
    if path.is_dir():
        raise LogError(f"{path} is a folder, not a log. Name the file with --db FILE.")
    if not path.is_file():
        none = f"no log at {path}. Record or replay something first (retold run …), or name a log with --db FILE."
        raise LogError(not_a_run(sought) or none)
    connection = None
    try:
        connection = _connect(reading_uri(path), uri=True)
        _check_version(connection, path)
        if connection.execute("PRAGMA user_version").fetchone()[0] < VERSION:
            open_for_writing(path, "process").close()
        return connection
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise LogError(f"cannot read the log {path}: {_reason(error)}. Name another one with --db FILE or RETOLD_DB.") from error
    except LogError:
        if connection is not None:
            connection.close()
        raise


def vacuum(connection: sqlite3.Connection) -> None:
    """Write the file anew and empty the WAL, so that nothing that was deleted is left in either.

    Deleting alone is not enough: pages that were split keep stale copies of rows that moved.
    """
    connection.execute("VACUUM")
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the WAL could not be emptied: another process keeps reading from it")


def reading_uri(path: Path) -> str:
    """How SQLite opens a log without writing to it."""
    # immutable: a log in a folder that cannot be written has no place for the -shm file that WAL readers share.
    mode = "mode=ro" if os.access(path.parent, os.W_OK) else "immutable=1"
    return f"{path.absolute().as_uri()}?{mode}"


def _connect(target: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """Autocommit, so that one INSERT is one transaction; the log's own lock guards use from several threads."""
    return sqlite3.connect(target, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != APPLICATION_ID and not empty:
        raise LogError(f"{path} is an SQLite file, but not a retold log. Name another one with --db FILE.")
    if version > VERSION:
        raise LogVersionError(
            f"the log {path} was written by a newer retold (log version {version}, this one reads up to {VERSION}). "
            "Update retold (pip install -U retold), or name another log with --db FILE."
        )


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    _check_version(connection, path)
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    from .migrations import migrate

    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(connection)


def _make_folder(folder: Path) -> None:
    """Make the folder private; `.retold`, our own, also keeps itself out of git."""
    if folder.is_dir():
        return
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{above} is a file, not a folder")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    if folder.name == ".retold":
        (folder / ".gitignore").write_text("*\n")


def _warn_of_folder(path: Path) -> None:
    """Of /tmp too: its sticky bit keeps others from replacing the log, not from putting a WAL beside it before it has one."""
    if path.parent.stat().st_mode & stat.S_IWOTH:
        warnings.warn(
            f"the log {path} stands in a folder that everybody may write to; keep it in your own (chmod o-w {path.parent})",
            LogFolderWarning,
            stacklevel=2,
        )


def create_private(path: Path) -> None:
    """A log holds prompts and answers: readable by its owner alone. SQLite gives -wal and -shm the same mode.

    An existing file is not opened: closing it would drop the locks that SQLite holds on it in this process.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder: two processes that make the same log at once must not both run the migrations."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Checkpoints:
    """Folds the WAL into the database from time to time, in a thread: it syncs to the disk, and no stream should wait for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = 0
        self._thread: threading.Thread | None = None

    def note(self, events: int) -> None:
        """So many events were committed together: begin a checkpoint when it is time, unless one is under way."""
        self._pages += 1 + events // 8
        if self._pages >= CHECKPOINT_PAGES and (self._thread is None or not self._thread.is_alive()):
            self._pages = 0
            self._thread = threading.Thread(target=self._run, name="retold-checkpoint")
            self._thread.start()

    def wait(self) -> None:
        """Return when none is under way any more."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # What fails here (a full disk) loses nothing: it stays in the WAL, and the writer tries again.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # makes no file where the log is gone
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


class Liveness:
    """Which runs still have a living writer.

    A writer holds a lock on a file of its own while its run is open. The kernel drops the lock however the process ends,
    `kill -9` included, also across containers; a process id could be reused, a heartbeat would cost writes.
    """

    def __init__(self, log: Path) -> None:
        self.folder = log.with_name(log.name + ".live")
        self._held: dict[str, int] = {}

    def claim(self, run: str) -> None:
        """Say that `run` is being written by this process, until `release` or the end of the process."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self.folder / run, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise LogError(f"cannot write {self.folder}: {_reason(error)}. Name another log with --db FILE.") from error
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._held[run] = handle

    def release(self, run: str) -> None:
        """Say that `run` is over; one that was never claimed is no error."""
        handle = self._held.pop(run, None)
        if handle is not None:
            (self.folder / run).unlink(missing_ok=True)
            os.close(handle)

    def is_alive(self, run: str) -> bool:
        """Whether somebody, in this process or another, is writing `run`."""
        if run in self._held:
            return True
        try:
            handle = os.open(self.folder / run, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def forget(self, run: str) -> None:
        """Remove what a dead writer left behind."""
        (self.folder / run).unlink(missing_ok=True)
