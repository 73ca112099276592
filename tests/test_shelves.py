"""Every shelf passes the contract of shelves."""

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
        """Views of one shelf."""
        self.view = MemoryShelf()
        return self.view.of

    def bytes_left(self, mark: bytes) -> list[str]:
        """The pages that hold the mark."""
        return [repr(got.page) for batch in self.view.pages() for got in batch if mark in got.page.body]


class TestFolderShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf in a folder."""

    @pytest.fixture
    def make_shelf(self, tmp_path: Path) -> Callable[[str], Any]:
        """Openings of one folder."""
        self.folder = tmp_path / "shelf"
        return lambda source: FolderShelf(self.folder, source=source)

    def bytes_left(self, mark: bytes) -> list[str]:
        """The pages that hold the mark; the journal goes on naming a run whose pages are gone."""
        return [str(path) for path in self.folder.rglob("*.jsonl") if mark in path.read_bytes()]

    def test_a_folder_that_it_makes_is_for_its_owner_only(self, tmp_path: Path) -> None:
        """As a log. A folder that is there keeps its permissions, for example those of a group that reads the shelf."""
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o750)
        for folder, mode in ((tmp_path / "own", 0o700), (shared, 0o750)):
            FolderShelf(folder, source="a").put(pages_of("one", [1])[0], None)
            assert folder.stat().st_mode & 0o777 == mode


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """One server for the tests of this file."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestJetStreamShelf(ErasableShelfContract, AttendedShelfContract):
    """The shelf on a real NATS server."""

    @pytest.fixture
    def make_shelf(self, nats: Nats, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
        """Connections to one stream, which each test has for itself."""
        self.nats, opened = nats, list[JetStreamShelf]()
        log = f"log-{abs(hash(request.node.nodeid))}"

        def make(source: str) -> JetStreamShelf:
            opened.append(JetStreamShelf(nats.servers, log, source=source))
            return opened[-1]

        yield make
        for shelf in opened:
            shelf.close()

    def bytes_left(self, mark: bytes) -> list[str]:
        """The blocks of the server's files that hold the mark."""
        return [name for name in self.nats.files_with(mark) if name.endswith(".blk")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One server for the tests of this file."""
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
        """Connections to one schema, which each test has for itself."""
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        self.server, self.log, opened = postgres, f"log-{abs(hash(request.node.nodeid))}", list[PostgresShelf]()

        def make(source: str) -> PostgresShelf:
            opened.append(PostgresShelf(postgres.url, self.log, source=source))
            return opened[-1]

        yield make
        for shelf in opened:
            shelf.close()

    def bytes_left(self, mark: bytes) -> list[str]:
        """The tables' files that hold the mark when the administrator has asked for VACUUM FULL."""
        self.server.asked(f'VACUUM FULL "retold_{self.log}".pages')
        self.server.asked("CHECKPOINT")
        return self.server.files_with(mark)

    def test_a_page_that_commits_late_is_not_passed_over(self, make_shelf: Callable[[str], Any]) -> None:
        """A reader waits for the transaction that took a number before the page that it sees."""
        (first,), (second,) = pages_of("one", [2]), pages_of("two", [2])
        shelf, late = make_shelf("a"), make_shelf("b")
        with late._transaction() as cursor:
            late._insert(cursor, first)
            shelf.put(second, None)
            assert got_from(shelf) == []
        assert [got.page for got in got_from(shelf)] == [first, second]

    def test_a_server_that_went_away_is_unreachable_and_comes_back(self, make_shelf: Callable[[str], Any]) -> None:
        """The pages that it acknowledged are there after the crash."""
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
        """With the setting in the message."""
        self.server.asked(f"ALTER ROLE retold SET {change}")
        try:
            with pytest.raises(Refused, match=fault):
                make_shelf("a").put(pages_of("one", [1])[0], None)
        finally:
            self.server.asked("BEGIN READ WRITE; ALTER ROLE retold RESET ALL; COMMIT")

    def test_a_wrong_password_is_refused(self, make_shelf: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Waiting does not mend it, and no message holds it."""
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
    """Before a connection is made, without the password in the message."""
    with pytest.raises(InputError, match=fault) as refused:
        PostgresShelf(url, "log", source="a")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://db.example/x", "postgresql://[2001:db8::1]:5/x", "postgresql:///x?service=audit"])
def test_a_server_elsewhere_must_show_a_certificate(url: str) -> None:
    """Though libpq would go without one."""
    assert PostgresShelf(url, "log", source="a")._tls == {"sslmode": "verify-full"}
    assert PostgresShelf("postgresql://[::1]:5/x", "log", source="a")._tls == {}


def test_a_shelf_in_postgresql_is_opened_by_its_address(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name has no user; a reader does not make the schema."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    place = address(f"{postgres.url}/opened")
    assert place.name == f"postgresql://127.0.0.1:{postgres.port}/postgres/opened"
    with closing(place.open_to_read()) as shelf, pytest.raises(Refused, match="retold ship"):
        shelf.last("0" * 16)
    with closing(place.open("a")) as shelf:
        assert shelf.last("0" * 16) is None
    with closing(place.open_to_read()) as shelf:
        assert got_from(shelf) == []
