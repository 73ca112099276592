"""Every shelf passes the contract tests of shelves."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from retold.fleet.folder import FolderShelf
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.memory import MemoryShelf
from retold.fleet.opening import address
from retold.fleet.postgres import PostgresShelf
from retold.fleet.shelf import Refused, Unreachable
from retold.recorder.errors import InputError
from tests.contracts.shelf import AttendedShelfContract, ErasableShelfContract, got_from, pages_of
from tests.nats import Nats
from tests.postgres import PASSWORD, Postgres, programs


class TestMemoryShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf in memory."""

    @pytest.fixture
    def make_shelf(self) -> Callable[[str], Any]:
        """Return a function that creates views of one shelf."""
        self.view = MemoryShelf()
        return self.view.of

    def bytes_left(self, mark: bytes) -> list[str]:
        """Return the pages that contain the mark."""
        return [repr(got.page) for batch in self.view.pages() for got in batch if mark in got.page.body]


class TestFolderShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf in a folder."""

    @pytest.fixture
    def make_shelf(self, tmp_path: Path) -> Callable[[str], Any]:
        """Return a function that opens one folder."""
        self.folder = tmp_path / "shelf"
        return lambda source: FolderShelf(self.folder, source=source)

    def bytes_left(self, mark: bytes) -> list[str]:
        """Return the pages that contain the mark. The journal still names a run after its pages are gone."""
        return [str(path) for path in self.folder.rglob("*.jsonl") if mark in path.read_bytes()]

    def test_only_the_owner_can_read_a_folder_that_the_shelf_creates(self, tmp_path: Path) -> None:
        """Logs have the same rule. An existing folder keeps its permissions, for example those of a group that reads it."""
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o750)
        for folder, mode in ((tmp_path / "own", 0o700), (shared, 0o750)):
            FolderShelf(folder, source="a").put(pages_of("one", [1])[0], None)
            assert folder.stat().st_mode & 0o777 == mode


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """Start one server for all tests of this file."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestJetStreamShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf on a real NATS server."""

    @pytest.fixture
    def make_shelf(self, nats: Nats, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
        """Return a function that connects to one stream. Each test has a separate one."""
        self.nats, opened = nats, list[JetStreamShelf]()
        log = f"log-{abs(hash(request.node.nodeid))}"

        def make(source: str) -> JetStreamShelf:
            opened.append(JetStreamShelf(nats.servers, log, source=source))
            return opened[-1]

        yield make
        for shelf in opened:
            shelf.close()

    def bytes_left(self, mark: bytes) -> list[str]:
        """Return the blocks of the server's files that contain the mark."""
        return [name for name in self.nats.files_with(mark) if name.endswith(".blk")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Start one server for all tests of this file."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server


class TestPostgresShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf on a real PostgreSQL server, with the password in the environment."""

    @pytest.fixture
    def make_shelf(
        self, postgres: Postgres, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[str], Any]]:
        """Return a function that connects to one schema. Each test has a separate one."""
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        self.server, self.log, opened = postgres, f"log-{abs(hash(request.node.nodeid))}", list[PostgresShelf]()

        def make(source: str) -> PostgresShelf:
            opened.append(PostgresShelf(postgres.url, self.log, source=source))
            return opened[-1]

        yield make
        for shelf in opened:
            shelf.close()

    def bytes_left(self, mark: bytes) -> list[str]:
        """Return the files of tables that contain the mark after the administrator ran VACUUM FULL."""
        self.server.asked(f'VACUUM FULL "retold_{self.log}".pages')
        self.server.asked("CHECKPOINT")
        return self.server.files_with(mark)

    def test_a_page_that_commits_late_is_not_skipped(self, make_shelf: Callable[[str], Any]) -> None:
        """A reader waits for the transaction with the number before the page that it sees."""
        (first,), (second,) = pages_of("one", [2]), pages_of("two", [2])
        shelf, late = make_shelf("a"), make_shelf("b")
        with late._transaction() as cursor:
            late._insert(cursor, first)
            shelf.put(second, None)
            assert got_from(shelf) == []
        assert [got.page for got in got_from(shelf)] == [first, second]

    def test_a_server_that_crashes_is_unreachable_and_comes_back(self, make_shelf: Callable[[str], Any]) -> None:
        """The acknowledged pages are there after the crash."""
        first, second = pages_of("one", [1, 1])
        shelf = make_shelf("a")
        position = shelf.put(first, None)
        self.server.stop()
        with pytest.raises(Unreachable):
            shelf.last(first.run)
        self.server.start()
        shelf.put(second, position)
        assert [got.page for got in got_from(shelf)] == [first, second]

    @pytest.mark.parametrize(
        ("change", "fault"),
        [("synchronous_commit = off", "synchronous_commit is off"), ("default_transaction_read_only = on", "read-only")],
    )
    def test_a_server_that_cannot_keep_pages_is_refused(self, change: str, fault: str, make_shelf: Callable[[str], Any]) -> None:
        """The message names the setting."""
        self.server.asked(f"ALTER ROLE retold SET {change}")
        try:
            with pytest.raises(Refused, match=fault):
                make_shelf("a").put(pages_of("one", [1])[0], None)
        finally:
            self.server.asked("BEGIN READ WRITE; ALTER ROLE retold RESET ALL; COMMIT")

    def test_a_wrong_password_is_refused(self, make_shelf: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Waiting would not help. No message contains the password."""
        monkeypatch.setenv("PGPASSWORD", "another")
        with pytest.raises(Refused, match="authentication failed") as refused:
            make_shelf("a").last("0" * 16)
        assert "another" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("postgresql://me:secret@127.0.0.1/db", "no password"),
        ("postgresql://127.0.0.1/db?password=secret", "no password"),
        ("mysql://127.0.0.1/db", "no address"),
        ("postgresql://db.example/x?sslmode=require", "verify-full"),
        ("postgresql://127.0.0.1/x?hostaddr=10.0.0.1&sslmode=disable", "verify-full"),
        ("postgresql://127.0.0.1,db.example/x?sslmode=prefer", "verify-full"),
        ("postgresql:///x?service=audit&sslmode=prefer", "verify-full"),
    ],
)
def test_an_address_with_a_password_or_without_tls_is_refused(url: str, fault: str) -> None:
    """The refusal comes before a connection is made. Its message does not contain the password."""
    with pytest.raises(InputError, match=fault) as refused:
        PostgresShelf(url, "log", source="a")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://db.example/x", "postgresql://[2001:db8::1]:5/x", "postgresql:///x?service=audit"])
def test_a_remote_server_must_show_a_certificate(url: str) -> None:
    """libpq would connect without one."""
    assert PostgresShelf(url, "log", source="a")._tls == {"sslmode": "verify-full"}
    assert PostgresShelf("postgresql://[::1]:5/x", "log", source="a")._tls == {}


def test_a_shelf_in_postgresql_is_opened_by_its_address(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the shelf contains no user. A reader does not create the schema."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    place = address(f"{postgres.url}/opened")
    assert place.name == f"postgresql://127.0.0.1:{postgres.port}/postgres/opened"
    with closing(place.open_to_read()) as shelf, pytest.raises(Refused, match="retold ship"):
        shelf.last("0" * 16)
    with closing(place.open("a")) as shelf:
        assert shelf.last("0" * 16) is None
    with closing(place.open_to_read()) as shelf:
        assert got_from(shelf) == []
