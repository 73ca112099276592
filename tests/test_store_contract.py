"""The stores of this project pass the contract tests of a store. A log over each store behaves like a log in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retold.recorder.errors import InputError, LogError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from retold.recorder.log.sqlite.evidence import Evidence
from retold.recorder.log.sqlite.store import SqliteStore
from retold.recorder.log.store import erasable, salvageable
from tests.contracts.store import StoreContract


class TestMemoryStore(StoreContract):
    """The store in memory."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """Return a new store."""
        return MemoryStore()


class TestSqliteStore(StoreContract):
    """The store in an SQLite file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        """Return a new store, which creates its file at the first write."""
        store = SqliteStore(tmp_path / "log.db")
        yield store
        store.close()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_log_behaves_alike_over_every_store(kind: str, tmp_path: Path) -> None:
    """The test compares runs, names, events, messages and errors after the end of a run."""
    with EventLog(store=MemoryStore()) if kind == "memory" else EventLog(tmp_path / "log.db") as log:
        log.open()
        with pytest.raises(InputError, match="holds no runs yet"):
            log.find("last")
        with log.start(name="one", mode="live") as writer:
            writer.note("message", {"type": "user"}, exchange=1)
            writer.append(Entry("frame", b"data: {}\n\n"), Entry("message", b'{"type":"result"}'))
            assert log.find("last").status == "running"
        with pytest.raises(LogError, match="has ended"):
            writer.note("message", {})
        assert [message.data["type"] for message in log.messages(writer.run)] == ["user", "result"]
        kinds = ["run.started", "message", "frame", "message", "run.ended"]
        assert [event.kind for event in log.events(writer.run)] == kinds
        assert [event.kind for event in log.follow(writer.run)] == kinds
        assert [event.kind for event in log.follow(writer.run, kinds=("frame",))] == ["frame"]
        info = log.find("one")
        assert (info.run, info.status, info.messages, info.frames) == (writer.run, "completed", 2, 1)
        assert [log.find(ref) for ref in ("last", "last~0", writer.run[:9])] == [info] * 3
        assert log.runs() == [info]
        for wrong, message in (("last~1", "holds 1 run"), ("last~" + "9" * 30, "holds 1 run"), ("nope", "no run 'nope'")):
            with pytest.raises(InputError, match=message):
                log.find(wrong)


def test_a_log_in_memory_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes nothing. Asking for its file is an error."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with EventLog(store=MemoryStore()) as log, log.start(name="one", mode="live"):
        for ask in (lambda: Evidence(log), lambda: erasable(log.store), lambda: salvageable(log.store)):
            with pytest.raises(LogError, match="not kept in a file"):
                ask()
    assert list(folder.iterdir()) == []
