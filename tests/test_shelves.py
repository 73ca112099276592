"""Every shelf passes the contract of shelves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retold.fleet.folder import FolderShelf
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.memory import MemoryShelf
from tests.contracts.shelf import ErasableShelfContract
from tests.nats import Nats


class TestMemoryShelf(ErasableShelfContract):
    """The shelf in memory."""

    @pytest.fixture
    def make_shelf(self) -> Callable[[str], Any]:
        """Views of one shelf."""
        self.view = MemoryShelf()
        return self.view.of

    def bytes_left(self, mark: bytes) -> list[str]:
        """The pages that hold the mark."""
        return [repr(got.page) for batch in self.view.pages() for got in batch if mark in got.page.body]


class TestFolderShelf(ErasableShelfContract):
    """The shelf in a folder."""

    @pytest.fixture
    def make_shelf(self, tmp_path: Path) -> Callable[[str], Any]:
        """Openings of one folder."""
        self.folder = tmp_path / "shelf"
        return lambda source: FolderShelf(self.folder, source=source)

    def bytes_left(self, mark: bytes) -> list[str]:
        """The pages that hold the mark; the journal goes on naming a run whose pages are gone."""
        return [str(path) for path in self.folder.rglob("*.jsonl") if mark in path.read_bytes()]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """One server for the tests of this file."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestJetStreamShelf(ErasableShelfContract):
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
