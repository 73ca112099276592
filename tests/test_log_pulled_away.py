"""Other programs delete, move, replace and truncate the files of a log during a recording.

The rule: an event for which `append` returned is in a log that another process can read, or the application got a LogError.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from retold.recorder.errors import LogError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.log.sqlite import checkpoints, sharing
from retold.recorder.log.sqlite import opening as store
from retold.recorder.log.store import erasable
from tests.raw_log import Child, store_of

READER = """
import sys
from pathlib import Path
from retold.audit.verify import verify
from retold.recorder.errors import RetoldError
from retold.recorder.log import EventLog

for line in sys.stdin:
    folder, run = line.split()
    best = []
    for file in sorted(Path(folder).rglob("*.db")):
        try:
            found = [event.payload.decode() for event in EventLog(file).events(run, kinds=("frame",))]
            whole = not [finding for finding in verify(EventLog(file)).findings if finding.run == run]
        except (RetoldError, OSError):
            continue
        if whole and len(found) > len(best):
            best = found
    print(",".join(payload.partition(" ")[0] for payload in best), flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[Child]:
    """Another process, which looks for a run in every log below a folder."""
    with Child(READER) as child:
        yield child


class Recorder:
    """A run being recorded in `folder/log.db`, and the events for which `append` returned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "logs"
        self.path = self.folder / "log.db"
        self.log = EventLog(self.path)
        self.handed_on: list[str] = []
        self.errors: list[str] = []
        self.writer: RunWriter

    def begin(self, events: int) -> None:
        with EventLog(self.path) as log:  # an older run, which distinguishes this log from others
            log.start(name="older", mode="live").end()
        (self.folder.parent / "older.copy").write_bytes(self.path.read_bytes())
        self.writer = self.log.start(name="pulled", mode="live")
        self.append(events)

    def append(self, events: int) -> None:
        for _ in range(events):
            payload = f"{len(self.handed_on)} {'x' * 900}"
            try:
                self.writer.append(Entry("frame", payload.encode()))
            except LogError as error:
                self.errors.append(str(error))
                return
            self.handed_on.append(payload.partition(" ")[0])

    def finish(self) -> None:
        try:
            self.writer.end()
        except LogError as error:
            self.errors.append(str(error))
        self.log.close()

    def beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def another_log(folder: Path) -> Path:
    path = folder / "another"
    with EventLog(path) as log:
        log.start(name="another", mode="live").end()
    return path


def deleted(at: Recorder) -> None:
    at.path.unlink()


def renamed(at: Recorder) -> None:
    at.path.rename(at.folder / "moved.db")


def renamed_to_another_folder(at: Recorder) -> None:
    (at.folder.parent / "elsewhere").mkdir()
    at.path.rename(at.folder.parent / "elsewhere" / "moved.db")


def replaced_by_another_log(at: Recorder) -> None:
    another_log(at.folder.parent).replace(at.path)


def overwritten_by_another_log(at: Recorder) -> None:
    at.path.write_bytes(another_log(at.folder.parent).read_bytes())


def replaced_by_an_older_copy(at: Recorder) -> None:
    (at.folder.parent / "older.copy").replace(at.path)


def overwritten_by_an_older_copy(at: Recorder) -> None:
    at.path.write_bytes((at.folder.parent / "older.copy").read_bytes())


def replaced_by_garbage(at: Recorder) -> None:
    (at.folder / "garbage").write_bytes(b"garbage " * 1000)
    (at.folder / "garbage").replace(at.path)


def overwritten_by_garbage(at: Recorder) -> None:
    at.path.write_bytes(b"garbage " * 1000)


def replaced_by_an_empty_file(at: Recorder) -> None:
    (at.folder / "empty").touch()
    (at.folder / "empty").replace(at.path)


def replaced_by_a_folder(at: Recorder) -> None:
    at.path.unlink()
    at.path.mkdir()


def cut_to_nothing(at: Recorder) -> None:
    os.truncate(at.path, 0)


def cut_in_half(at: Recorder) -> None:
    os.truncate(at.path, at.path.stat().st_size // 2)


def wal_deleted(at: Recorder) -> None:
    at.beside("-wal").unlink()


def wal_cut_to_nothing(at: Recorder) -> None:
    os.truncate(at.beside("-wal"), 0)


def wal_cut_in_half(at: Recorder) -> None:
    os.truncate(at.beside("-wal"), at.beside("-wal").stat().st_size // 2)


def index_of_the_wal_deleted(at: Recorder) -> None:
    at.beside("-shm").unlink()


def everything_beside_deleted(at: Recorder) -> None:
    at.beside("-wal").unlink()
    at.beside("-shm").unlink()


def locks_deleted(at: Recorder) -> None:
    shutil.rmtree(at.beside(".live"))


def one_lock_deleted(at: Recorder) -> None:
    (at.beside(".live") / at.writer.run).unlink()


def folder_deleted(at: Recorder) -> None:
    shutil.rmtree(at.folder)


def folder_renamed(at: Recorder) -> None:
    at.folder.rename(at.folder.with_name("renamed"))


def folder_replaced(at: Recorder) -> None:
    at.folder.rename(at.folder.with_name("renamed"))
    at.folder.mkdir()
    another_log(at.folder.parent).replace(at.path)


def moved_with_everything_beside(at: Recorder) -> None:
    for suffix in ("", "-wal", "-shm"):
        at.beside(suffix).rename(at.folder / f"moved.db{suffix}")


def made_read_only(at: Recorder) -> None:
    at.path.chmod(0o400)
    at.folder.chmod(0o500)


def copied_over_itself(at: Recorder) -> None:
    copy = at.folder / "copy"
    shutil.copy(at.path, copy)
    copy.replace(at.path)


def link_led_elsewhere(at: Recorder) -> None:
    at.folder.rename(at.folder.with_name("renamed"))
    shutil.copytree(at.folder.with_name("renamed"), at.folder.with_name("copied"), ignore=shutil.ignore_patterns("*.db*"))
    another_log(at.folder.parent).replace(at.folder.with_name("copied") / "log.db")
    at.folder.symlink_to("copied")


def pruned_by_another_process(at: Recorder) -> None:
    with EventLog(at.path) as log:
        erasable(log.store).vacuum()


def folded_by_another_process(at: Recorder) -> None:
    with closing(sqlite3.connect(at.path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


TOLD_AT_ONCE = (
    deleted, renamed, renamed_to_another_folder, replaced_by_another_log, replaced_by_an_older_copy, replaced_by_garbage,
    replaced_by_an_empty_file, replaced_by_a_folder, folder_deleted, folder_renamed, folder_replaced,
    moved_with_everything_beside, link_led_elsewhere,
)  # fmt: skip
GOES_ON = (
    wal_deleted, index_of_the_wal_deleted, everything_beside_deleted, locks_deleted, one_lock_deleted, made_read_only,
    pruned_by_another_process, folded_by_another_process,
)  # fmt: skip
TOLD_OR_WHOLE = (
    overwritten_by_another_log, overwritten_by_an_older_copy, overwritten_by_garbage, cut_to_nothing, cut_in_half,
    wal_cut_to_nothing, wal_cut_in_half, copied_over_itself,
)  # fmt: skip
MOVED_WHOLE = (
    renamed, renamed_to_another_folder, folder_renamed, folder_replaced, moved_with_everything_beside, link_led_elsewhere,
)  # fmt: skip
WAYS = (*TOLD_AT_ONCE, *GOES_ON, *TOLD_OR_WHOLE)


@pytest.mark.parametrize("events", [20, 400], ids=["short", "long"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
def test_acknowledged_events_are_readable_or_the_application_gets_an_error(
    way: Callable[[Recorder], None], events: int, tmp_path: Path, reader: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a short run the WAL contains everything. In a long run the file contains most of it. Long runs checkpoint meanwhile."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 50)
    recorder = Recorder(tmp_path)
    recorder.begin(events)
    store_of(recorder.log)._checkpoints.wait()
    way(recorder)
    recorder.append(5)
    at_once = bool(recorder.errors) and len(recorder.handed_on) == events
    recorder.append(5)
    recorder.finish()
    if way is made_read_only:
        recorder.folder.chmod(0o700)
    reader.send_line(f"{tmp_path} {recorder.writer.run}")
    found = reader.line().split(",")
    assert recorder.errors or found == recorder.handed_on
    if way in TOLD_AT_ONCE:
        assert at_once, recorder.errors
    if way in GOES_ON:
        assert (recorder.errors, len(recorder.handed_on)) == ([], events + 10)
    if way in MOVED_WHOLE:
        assert found == recorder.handed_on
    for error in recorder.errors:
        assert "begin a new" in error or "--db" in error, error


@pytest.mark.parametrize(
    ("way", "checks"), [(folded_by_another_process, 0), (wal_cut_to_nothing, 1), (wal_cut_in_half, 1)],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_a_writer_reads_the_whole_file_only_after_damage(
    way: Callable[[Recorder], None], checks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of all pages takes seconds in a large log, and SQLite itself shortens the WAL when it has folded it."""
    done: list[str | None] = []

    def check(connection: sqlite3.Connection) -> str | None:
        done.append(check_pages(connection))
        return done[-1]

    check_pages = store.check_pages
    monkeypatch.setattr(store, "check_pages", check)
    recorder = Recorder(tmp_path)
    recorder.begin(200)
    way(recorder)
    recorder.append(5)
    assert len(done) == checks, done


@pytest.mark.parametrize("way", [cut_in_half, overwritten_by_an_older_copy, overwritten_by_another_log])
def test_a_change_right_after_a_checkpoint_is_not_taken_for_that_of_the_checkpoint(
    way: Callable[[Recorder], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer has not looked at the file since the checkpoint began."""
    monkeypatch.setattr(sharing, "LOOK_EVERY_NS", 10**18)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 50)
    recorder = Recorder(tmp_path)
    recorder.begin(60)
    sqlite = store_of(recorder.log)
    sqlite._checkpoints.wait()
    assert sqlite._checkpoints.has_written
    way(recorder)
    assert sqlite._look() in ("touched", "shrunk")
    sqlite._adopt()
    recorder.log.close()


def test_a_checkpoint_of_the_writer_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each checkpoint would make the writer open the file again."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 50)
    recorder = Recorder(tmp_path)
    recorder.begin(60)
    sqlite = store_of(recorder.log)
    assert sqlite._look() is None
    sqlite._checkpoints.wait()
    assert sqlite._look() is None
    recorder.append(60)
    sqlite._checkpoints.wait()
    assert sqlite._look() is None
    recorder.finish()
