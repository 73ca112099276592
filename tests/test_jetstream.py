"""A shelf on JetStream: servers and streams that would lose pages, a full stream, and answers during an election."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from retold.fleet.jetstream import BATCH, JetStreamShelf, _fetch, _Nothing
from retold.fleet.pull import Puller
from retold.fleet.shelf import Full, PageConflict, Refused, Unreachable
from retold.fleet.ship import Shipper
from retold.fleet.stream_connection import StreamConnection
from retold.recorder.errors import ShelfError
from retold.recorder.log.log import EventLog
from tests.children import wait_until
from tests.contracts.shelf import pages_of, put_all
from tests.nats import Nats
from tests.test_fleet import assert_equal, record, running


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """Start one server for all tests of this file."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def log(request: pytest.FixtureRequest) -> str:
    """Return the name of this test's stream."""
    return f"log-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def admin(nats: Nats) -> Iterator[StreamConnection]:
    """Return an administrator's connection to another stream."""
    with closing(JetStreamShelf(nats.servers, "admin", source="admin")) as shelf:
        yield shelf._link


def config(log: str, **changed: Any) -> StreamConfig:
    """Return the settings of a stream that loses nothing, with these changes."""
    safe: dict[str, Any] = {"storage": StorageType.FILE, "discard": DiscardPolicy.NEW, "allow_direct": True}
    return StreamConfig(name=f"retold-{log}", subjects=[f"retold.{log}.>"], **safe | changed)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"storage": StorageType.MEMORY}, "not stored in files"),
        ({"discard": DiscardPolicy.OLD}, "set discard to new"),
        ({"max_age": 3600}, "set max_age to 0"),
        ({"retention": RetentionPolicy.INTEREST}, "set retention to limits"),
        ({"max_msgs_per_subject": 5}, "set max_msgs_per_subject to -1"),
        ({"allow_rollup_hdrs": True}, "set allow_rollup_hdrs to false"),
        ({"no_ack": True}, "set no_ack to false"),
        ({"allow_direct": False}, "set allow_direct"),
    ],
)
def test_a_stream_that_would_lose_pages_is_refused(
    changed: dict[str, Any], fault: str, nats: Nats, log: str, admin: StreamConnection
) -> None:
    """The error names the setting and its right value."""
    admin.ask(admin.js().add_stream(config(log, **changed)))
    with closing(JetStreamShelf(nats.servers, log, source="a")) as shelf, pytest.raises(Refused, match=fault):
        shelf.put(pages_of("one", [1])[0], None)


def test_the_shipper_waits_for_room_in_a_full_stream(nats: Nats, log: str, admin: StreamConnection, tmp_path: Path) -> None:
    """The shipper reports the problem and recording continues. After the administrator has made room, no event is lost."""
    admin.ask(admin.js().add_stream(config(log, max_bytes=40_000)))
    source, mirror = EventLog(tmp_path / "source.db"), EventLog(tmp_path / "mirror.db")
    told: list[str | None] = []
    with closing(JetStreamShelf(nats.servers, log, source="a")) as shelf:
        with running(Shipper(source, shelf, on_trouble=told.append)) as shipper:
            for number in range(4):
                record(source, f"run-{number}", 98, text="x" * 100)
            wait_until(lambda: told != [])
            assert "is full" in str(told[0])
            assert shipper.shipped.events < 400
            admin.ask(admin.js().update_stream(config(log, max_bytes=40_000_000)))
            wait_until(lambda: shipper.shipped.events == 400)
        assert told[-1] is None
        Puller(mirror, shelf).run()
    assert_equal(mirror, source)


def test_a_slow_reader_loses_no_page(nats: Nats, log: str) -> None:
    """1,000 pages arrive while the reader processes the first ones."""
    pages = pages_of("one", [1] * 1000)
    with (
        closing(JetStreamShelf(nats.servers, log, source="a")) as shelf,
        closing(JetStreamShelf(nats.servers, log, source="b")) as other,
    ):
        put_all(shelf, pages[:1])
        reading = other.pages(wait_s=1)
        got = [shelved.page for shelved in next(reading)]
        position = shelf.last(pages[0].run)
        for page in pages[1:]:
            position = shelf.put(page, position)
        for batch in reading:
            assert len(batch) <= BATCH
            got += [shelved.page for shelved in batch]
            if len(got) >= len(pages):
                break
    assert got == pages


def test_an_old_server_is_refused() -> None:
    """The shelf checks the server's version before it sends a page."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            with closing(listening.accept()[0]) as client, client.makefile("rb") as lines:
                info = {"server_id": "x", "version": "2.10.29", "proto": 1, "headers": True, "max_payload": 1 << 20, "port": port}
                client.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
                for line in lines:
                    if line.startswith(b"PING"):
                        client.sendall(b"PONG\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        shelf = JetStreamShelf([f"nats://127.0.0.1:{port}"], "log", source="a")
        with closing(shelf), pytest.raises(Refused, match=r"2\.10; retold needs 2\.11"):
            shelf.last("0" * 16)
        thread.join()


@pytest.mark.parametrize(
    ("code", "err_code", "kind"),
    [
        (400, 10071, PageConflict),
        (400, 10164, PageConflict),
        (409, 10158, PageConflict),
        (503, 10077, Full),
        (503, 10008, Unreachable),
        (500, 10001, Unreachable),
        (404, 10014, Unreachable),
        (409, None, Unreachable),
        (403, 10039, Refused),
    ],
)
def test_the_shelf_retries_after_errors_unless_they_are_final(
    code: int, err_code: int | None, kind: type[ShelfError], admin: StreamConnection
) -> None:
    """All of these errors except the last occurred in tests that killed nodes."""

    async def fail() -> None:
        raise APIError(code=code, err_code=err_code, description="of the test")

    with pytest.raises(kind, match="faster" if kind is PageConflict else "of the test"):
        admin.ask(fail())


def test_a_fetch_without_messages_raises_nothing_found() -> None:
    """The client may get a status just before its timeout, and then returns an empty list instead of raising an error."""

    class Late:
        async def fetch(self, *_: object, **__: object) -> list[Any]:
            return []

    with pytest.raises(_Nothing):
        asyncio.run(_fetch(Late(), 1))
