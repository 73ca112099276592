"""Ship and pull, run by run: every mirror is always a prefix of its source, and equal to it after everything is pulled."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.audit.erase import erase, plan_text
from retold.audit.verify import verify
from retold.fleet.folder import FolderShelf
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.memory import MemoryShelf, Mishap
from retold.fleet.pages import Page, page_of
from retold.fleet.postgres import PostgresShelf
from retold.fleet.pull import Puller
from retold.fleet.shelf import Position, Shelf, Shelved
from retold.fleet.ship import Shipped, Shipper
from retold.recorder.event_lines import line_of
from retold.recorder.events import GENESIS, SCHEMA, Entry, Event, seal
from retold.recorder.log.erasure import REDACTED, prune_run, replace_payloads
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from tests.children import wait_until
from tests.nats import Nats
from tests.postgres import PASSWORD, Postgres, programs


def record(log: EventLog, name: str, frames: int, text: str = "hello") -> str:
    """Record a whole run, and return its id."""
    with log.start(name=name, mode="live") as writer:
        for number in range(frames):
            writer.append(Entry("frame", b"data: %s %d\n\n" % (text.encode(), number)))
    return writer.run


def lines(log: EventLog, run: str) -> bytes:
    """Return a run in the form of `retold export --format jsonl`."""
    return b"".join(map(line_of, log.events(run)))


def assert_prefix(mirror: EventLog, source: EventLog) -> None:
    """Assert that each run of the mirror is a prefix of its source."""
    for info in mirror.runs():
        assert lines(source, info.run).startswith(lines(mirror, info.run))


def assert_equal(mirror: EventLog, *sources: EventLog) -> None:
    """Assert that the mirror equals its source."""
    assert {info.run for info in mirror.runs()} == {info.run for source in sources for info in source.runs()}
    for source in sources:
        for info in source.runs():
            assert lines(mirror, info.run) == lines(source, info.run)


def ship(log: EventLog, shelf: Shelf) -> Shipped:
    """Ship until everything is on the shelf."""
    return Shipper(log, shelf).run(until_done=True)


@contextmanager
def running(worker: Any, **options: Any) -> Iterator[Any]:
    """Run a shipper or a puller in a thread until the block ends. Its error is raised in the block."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(**options)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()
        for error in failed:
            raise error  # also if the block waited in vain, because the worker had failed


@pytest.fixture
def source(tmp_path: Path) -> EventLog:
    """Return the recording log."""
    return EventLog(tmp_path / "source.db")


@pytest.fixture
def mirror(tmp_path: Path) -> EventLog:
    """Return the log that pulls."""
    return EventLog(tmp_path / "mirror.db")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """Start one NATS server for the tests of this file."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Start one PostgreSQL server for the tests of this file."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server


@pytest.fixture(params=["memory", "folder", "jetstream", "postgres"])
def make_shelf(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a function that opens one shelf as a writer with a source."""
    opened: list[Shelf] = []
    shared = MemoryShelf()

    def make(source: str) -> Shelf:
        if request.param == "memory":
            shelf: Shelf = shared.of(source)
        elif request.param == "folder":
            shelf = FolderShelf(tmp_path / "shelf", source=source)
        elif request.param == "postgres":
            monkeypatch.setenv("PGPASSWORD", PASSWORD)
            shelf = PostgresShelf(request.getfixturevalue("postgres").url, f"log-{abs(hash(request.node.nodeid))}", source=source)
        else:
            server = request.getfixturevalue("nats")
            shelf = JetStreamShelf(server.servers, f"log-{abs(hash(request.node.nodeid))}", source=source)
        opened.append(shelf)
        return shelf

    yield make
    for shelf in opened:
        shelf.close()


def test_a_mirror_is_equal_to_its_sources(make_shelf: Callable[[str], Any], tmp_path: Path, mirror: EventLog) -> None:
    """Two sources have pages of many events. `verify` finds nothing, and a second pull has nothing to do."""
    sources = [EventLog(tmp_path / f"{name}.db") for name in "ab"]
    for name, log in zip("ab", sources, strict=True):
        record(log, f"{name}1", 450)
        record(log, f"{name}2", 3)
        assert ship(log, make_shelf(name)).pages == 4
        assert ship(log, make_shelf(name)).pages == 0
    pulled = Puller(mirror, make_shelf("reader")).run()
    assert (pulled.events, pulled.held, pulled.refused) == (914, {}, {})
    assert_equal(mirror, *sources)
    assert verify(mirror).findings == []
    assert Puller(mirror, make_shelf("reader")).run().pages == 0


def test_a_mirror_follows_open_runs(make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog) -> None:
    """Each event arrives during its run. The mirror counts the open run as running."""

    def has(run: str, seq: int) -> bool:
        return mirror.exists() and [event.seq for event in mirror.events(run, after=seq - 1)] == [seq]

    with running(Shipper(source, make_shelf("a"))), running(Puller(mirror, make_shelf("reader")), follow=True):
        with source.start(name="one", mode="live") as writer:
            for number in range(1, 6):
                writer.append(Entry("frame", b"data: %d\n\n" % number))
                wait_until(partial(has, writer.run, number))
                assert [info.status for info in mirror.runs()] == ["running"]
        wait_until(lambda: mirror.find("one").status == "completed")
    assert_equal(mirror, source)


def test_a_single_run_can_be_pulled(make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog) -> None:
    """A later pull of everything omits nothing."""
    one, _ = record(source, "one", 3), record(source, "two", 3)
    ship(source, make_shelf("a"))
    Puller(mirror, make_shelf("reader"), only=one).run()
    assert [info.run for info in mirror.runs()] == [one]
    Puller(mirror, make_shelf("reader")).run()
    assert_equal(mirror, source)


def test_an_erased_text_leaves_shelf_and_mirrors(
    make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog, tmp_path: Path
) -> None:
    """One mirror has the text already, and another pulls afterwards."""
    record(source, "one", 300, text="Alice")
    record(source, "two", 3)
    shelf = make_shelf("a")
    ship(source, shelf)
    Puller(mirror, make_shelf("reader")).run()
    erase(source, plan_text(source, "Alice"), why="asked", by="me")
    ship(source, make_shelf("a"))
    late = EventLog(tmp_path / "late.db")
    assert Puller(mirror, make_shelf("reader")).run().erased > 0
    Puller(late, make_shelf("reader")).run()
    for log in (mirror, late):
        assert_equal(log, source)
        assert verify(log).findings == []
    left = [shelved for batch in make_shelf("a").pages() for shelved in batch if b"Alice" in shelved.page.body]
    assert left == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and b"Alice" in path.read_bytes()] == []


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_each_event_arrives_once_despite_page_faults(data: st.DataObject) -> None:
    """Pages are lost or doubled, acknowledgements are lost, and a shelf returns to an older state."""
    mishaps: list[Mishap] = ["put lost", "acknowledgement lost", "doubled"]
    shelf, source, mirror = MemoryShelf("a"), EventLog(store=MemoryStore()), EventLog(store=MemoryStore())
    shelf.mishaps.extend(data.draw(st.lists(st.sampled_from(mishaps), max_size=3)))
    for number in range(3):
        record(source, f"run-{number}", data.draw(st.integers(0, 5)))
        ship(source, shelf)
        if data.draw(st.booleans()):
            shelf.lose(data.draw(st.integers(0, 2)))
        Puller(mirror, shelf.of("reader")).run()
        assert_prefix(mirror, source)
    ship(source, shelf)
    Puller(mirror, shelf.of("reader")).run()
    assert_equal(mirror, source)


def test_two_shippers_of_one_log_do_no_harm(make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog) -> None:
    """Each page is put once, because the slower shipper checks again."""
    with running(Shipper(source, make_shelf("a"))), running(Shipper(source, make_shelf("a"))):
        for number in range(5):
            record(source, f"run-{number}", 20)
        ship(source, make_shelf("a"))
    Puller(mirror, make_shelf("reader")).run()
    assert_equal(mirror, source)


def test_two_continued_copies_of_a_volume_are_reported(
    make_shelf: Callable[[str], Any], source: EventLog, tmp_path: Path
) -> None:
    """The second copy is refused at its first check, and its other runs are shipped."""
    writer = source.start(name="one", mode="live")
    source.close()
    copied = shutil.copyfile(source.path, tmp_path / "copy.db")
    writer.append(Entry("frame", b"data: here\n\n"))
    writer.end()
    with EventLog(copied) as copy:  # opening ends the run, because its writer is not here
        copy.open()
        record(copy, "two", 3)
        ship(source, make_shelf("a"))
        shipped = ship(copy, make_shelf("a"))
    assert list(shipped.forked) == [writer.run]
    assert shipped.events == 5


def test_a_server_that_lost_acknowledged_pages_gets_them_again(tmp_path: Path, source: EventLog, mirror: EventLog) -> None:
    """A real server returns to an older state. The mirror's cursor becomes invalid, and still no page is missing."""
    with Nats(tmp_path) as server:
        record(source, "one", 50)
        ship(source, shelf := JetStreamShelf(server.servers, "log", source="a"))
        shelf.close()
        server.kill(0)
        server.save(0, "older")
        server.start()
        record(source, "two", 50)
        ship(source, shelf := JetStreamShelf(server.servers, "log", source="a"))
        Puller(mirror, shelf).run()
        shelf.close()
        server.kill(0)
        server.restore(0, "older")
        server.start()
        with EventLog(tmp_path / "other.db") as other:
            record(other, "three", 50)
            for log, name in ((other, "b"), (source, "a")):
                ship(log, shelf := JetStreamShelf(server.servers, "log", source=name))
                shelf.close()
            Puller(mirror, shelf := JetStreamShelf(server.servers, "log", source="reader")).run()
            shelf.close()
            assert_equal(mirror, source, other)


def test_a_shipper_waits_for_an_unreachable_server(tmp_path: Path, source: EventLog, mirror: EventLog) -> None:
    """It reports the problem once, recording continues, and everything is shipped when the server is back."""
    troubles: list[str | None] = []
    with Nats(tmp_path) as server:
        shelf = JetStreamShelf(server.servers, "log", source="a")
        with running(Shipper(source, shelf, on_trouble=troubles.append)) as shipper:
            record(source, "one", 5)
            wait_until(lambda: shipper.shipped.events == 7)
            server.kill(0)
            record(source, "two", 5)
            wait_until(lambda: troubles != [])
            server.start()
            wait_until(lambda: shipper.shipped.events == 14)
        assert troubles[-1] is None
        Puller(mirror, shelf).run()
        shelf.close()
    assert_equal(mirror, source)


class SlowShelf(MemoryShelf):
    """A shelf that stops before the first page with a text until the test continues."""

    def __init__(self) -> None:
        super().__init__("a")
        self.reading, self.go_on = threading.Event(), threading.Event()

    def put(self, page: Page, after: Position | None) -> Position:
        """Wait before the first page with the text."""
        if b"Alice" in page.body and not self.reading.is_set():
            self.reading.set()
            assert self.go_on.wait(30)
        return super().put(page, after)


def test_a_page_in_transit_does_not_survive_an_erasure(source: EventLog, mirror: EventLog) -> None:
    """The shipper read the text before it was erased, and puts its page after the shelf has received the erasure."""
    shelf = SlowShelf()
    one = record(source, "one", 3, text="Alice")
    with running(Shipper(source, shelf)) as shipper:
        assert shelf.reading.wait(30)
        erase(source, plan_text(source, "Alice"), why="asked", by="me")
        two = record(source, "two", 1)
        while shipper._no_erasing(two) is shipper._no_erasing(one):  # runs share locks, and the first one waits with its own
            two = record(source, "two", 1)
        wait_until(lambda: shelf.last(two) is not None)  # the other run; the audit run, which came before, waits
        shelf.go_on.set()
        wait_until(lambda: not shipper._open)
    assert [got for batch in shelf.pages() for got in batch if b"Alice" in got.page.body] == []
    Puller(mirror, shelf).run()
    assert_equal(mirror, source)


def test_a_redacted_text_reaches_mirrors(
    make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog, tmp_path: Path
) -> None:
    """The replaced pages arrive before their record, at a mirror that has the text and at a new one."""
    run = record(source, "one", 300, text="Alice")
    ship(source, make_shelf("a"))
    Puller(mirror, make_shelf("reader")).run()
    with source.start(name="redact", mode="audit") as writer:
        replace_payloads(source, writer, run, [(1, b"data: [X]\n\n"), (250, b"data: [X]\n\n")], kind=REDACTED)
    ship(source, make_shelf("a"))
    late = EventLog(tmp_path / "late.db")
    for log in (mirror, late):
        pulled = Puller(log, make_shelf("reader")).run()
        assert (pulled.held, pulled.refused) == ({}, {})
        assert_equal(log, source)


def test_a_pruned_run_leaves_shelf_and_mirrors(make_shelf: Callable[[str], Any], source: EventLog, mirror: EventLog) -> None:
    """The shipper may start after the pruning, and may check the ledger's old runs."""
    one, _ = record(source, "one", 3), record(source, "two", 3)
    ship(source, make_shelf("a"))
    Puller(mirror, make_shelf("reader")).run()
    with source.start(name="prune", mode="audit") as writer:
        prune_run(source, writer, one)
    ship(source, make_shelf("a"))
    assert make_shelf("a").last(one) is None
    Puller(mirror, make_shelf("reader")).run()
    assert_equal(mirror, source)


def test_a_replaced_log_is_shipped_from_its_beginning(source: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is moved away while the shipper runs, and a new one with fewer runs takes its place."""
    monkeypatch.setattr("retold.fleet.ship.LOOK_AT_FILE_S", 0.05)
    shelf = MemoryShelf("a")
    runs = {record(source, f"run-{number}", 2) for number in range(3)}
    with running(Shipper(source, shelf)) as shipper:
        wait_until(lambda: shipper.shipped.events == 12)
        source.close()
        for file in tmp_path.glob("source.db*"):
            file.rename(tmp_path / f"old-{file.name}")
        wait_until(lambda: not source.exists())
        runs.add(record(EventLog(source.path), "other", 2))
        wait_until(lambda: shipper.shipped.events == 16)
    assert {got.page.run for batch in shelf.pages() for got in batch} == runs


def test_a_log_that_lost_events_has_forked_from_the_shelf(source: EventLog) -> None:
    """A volume returned to an older state. Its open run is reported before it continues with other events."""
    shelf = MemoryShelf("a")
    writer = source.start(name="one", mode="live")
    writer.append(Entry("frame", b"data: 1\n\n"))
    older = EventLog(store=MemoryStore())
    assert writer.info is not None
    older.store.begin(writer.info, next(iter(source.events(writer.run))))
    with running(Shipper(source, shelf)) as shipper:
        wait_until(lambda: shipper.shipped.events == 2)
    with running(Shipper(older, shelf)) as shipper:
        wait_until(lambda: writer.run in shipper.shipped.forked)
    assert "stopped here with event 0" in shipper.shipped.forked[writer.run]
    writer.end()


def test_a_shipped_mirror_does_not_repeat_the_runs_of_others(source: EventLog, mirror: EventLog) -> None:
    """It ships the runs that it recorded itself, and no run that it received."""
    shelf, other = MemoryShelf("a"), MemoryShelf("mirror")
    record(source, "one", 3)
    ship(source, shelf)
    Puller(mirror, shelf.of("reader")).run()
    own = record(mirror, "own", 1)
    assert ship(mirror, other).events == 3
    assert {got.page.run for batch in other.pages() for got in batch} == {own}


def of_a_newer_retold(events: Iterable[Event]) -> list[Event]:
    """Return the events as a version with the next event schema would have sealed them."""
    before, newer = GENESIS, []
    for event in events:
        own = seal(
            before, SCHEMA + 1, event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.exchange, event.step,
            event.task, event.digest,
        )  # fmt: skip
        newer.append(event._replace(schema=SCHEMA + 1, hash=own))
        before = own
    return newer


def test_a_run_of_a_newer_retold_is_pulled_after_an_update(
    source: EventLog, mirror: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old version refuses it by name, and its cursor advances. The new version requests it again, although it has ended."""
    shelf = MemoryShelf("a")
    newer = page_of(of_a_newer_retold(source.events(record(source, "newer", 3))))
    shelf.put(newer, None)
    with EventLog(store=MemoryStore()) as other:
        old = record(other, "old", 3)
        ship(other, shelf)
    pulled = Puller(mirror, shelf.of("reader")).run()
    assert (list(pulled.refused), [info.run for info in mirror.runs()]) == ([newer.run], [old])
    assert "update" in pulled.refused[newer.run]
    assert Puller(mirror, shelf.of("reader")).run().refused == pulled.refused
    for module in ("recorder.log.receiving", "fleet.pages"):
        monkeypatch.setattr(f"retold.{module}.SCHEMA", SCHEMA + 1)
    assert Puller(mirror, shelf.of("reader")).run().refused == {}
    assert lines(mirror, newer.run) == newer.body
    assert Puller(mirror, shelf.of("reader")).run().pages == 0


def test_a_source_cannot_block_a_run_of_another_source(source: EventLog, mirror: EventLog) -> None:
    """A page under a foreign run id is refused, and the run's own pages are accepted."""
    shelf = MemoryShelf("a")
    with running(Shipper(source, shelf)) as shipper, source.start(name="one", mode="live") as writer:
        wait_until(lambda: shipper.shipped.events == 1)
        Puller(mirror, shelf.of("reader")).run()
        shelf.of("b").put(page_of([event._replace(hash=bytes(32)) for event in source.events(writer.run)]), None)
        puller = Puller(mirror, shelf.of("reader"))
        assert list(puller.run().refused) == [writer.run]
        writer.append(Entry("frame", b"data: 1\n\n"))
        wait_until(lambda: shipper.shipped.events == 2)
        puller.run()
        assert_equal(mirror, source)


def test_a_puller_that_dies_before_a_new_request_repeats_it_at_its_start(source: EventLog, mirror: EventLog) -> None:
    """The cursor does not pass a gap that was not requested."""
    shelf = MemoryShelf("a")
    run = record(source, "one", 450)
    ship(source, shelf)

    class Dying(MemoryShelf):
        def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
            if run is not None:
                raise KeyboardInterrupt
            assert wait_s == 0
            yield [got for batch in super().pages(after) for got in batch][1:]

    with pytest.raises(KeyboardInterrupt):
        Puller(mirror, Dying("reader", shelf._kept)).run()
    assert Puller(mirror, shelf.of("reader")).run().held == {}
    assert lines(mirror, run) == lines(source, run)


def test_a_message_that_is_not_a_page_stops_no_mirror(nats: Nats, source: EventLog, mirror: EventLog) -> None:
    """A pod that publishes other data under its own subjects is reported. The runs of the others are pulled."""
    writer = JetStreamShelf(nats.servers, "forged", source="b")
    link = writer._link
    bad = [
        {},
        {"Retold-First": "x", "Retold-Last": "1", "Retold-Hash": "00"},
        {"Retold-First": "0", "Retold-Last": "1", "Retold-Hash": "00"},
    ]
    for number, headers in enumerate(bad):
        link.ask(link.js().publish(f"retold.forged.b.run.{number:016}", b"no lines", headers=headers or None))
    record(source, "one", 3)
    ship(source, shelf := JetStreamShelf(nats.servers, "forged", source="a"))
    pulled = Puller(mirror, shelf).run()
    assert sorted(pulled.refused) == [f"{number:016}" for number in range(len(bad))]
    assert_equal(mirror, source)
    writer.close()
    shelf.close()
