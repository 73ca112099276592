"""A log receives the runs of other logs: in any order of arrival, once each, verified, and never ended by the receiver."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retold
from retold.audit.verify import verify
from retold.recorder.event_lines import line_of
from retold.recorder.events import Entry, Event
from retold.recorder.log.erasure import ERASED, PRUNED, replace_payloads, tombstone
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from retold.recorder.log.receiving import Arrival, Received, receiver
from retold.recorder.log.store import Receiving, Store

SHELF = "shelf"


def recorded(log: EventLog, name: str, frames: int, *, end: bool = True) -> list[Event]:
    """Record a run and return its events."""
    writer = log.start(name=name, mode="live")
    for number in range(frames):
        writer.append(Entry("frame", b"data: %d of %s\n\n" % (number, name.encode())))
    if end:
        writer.end()
    return list(log.events(writer.run))


def lines(log: EventLog, run: str) -> bytes:
    """Return a run in the format of `retold export --format jsonl`."""
    return b"".join(map(line_of, log.events(run)))


@pytest.fixture(params=["sqlite", "memory"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> EventLog:
    """Return an empty log in each store."""
    return EventLog(tmp_path / "mirror.db") if request.param == "sqlite" else EventLog(store=MemoryStore())


@pytest.fixture
def source(tmp_path: Path) -> EventLog:
    """Return the log that records."""
    return EventLog(tmp_path / "source.db")


def receive(log: EventLog, *batches: list[Event], source: str = "a", cursor: str | None = "c") -> Received:
    """Receive each list of events as one arrival, all in one transaction."""
    return receiver(log).receive(SHELF, [Arrival(source, events) for events in batches], cursor)


def test_a_received_run_is_equal_byte_for_byte(mirror: EventLog, source: EventLog) -> None:
    """Its line in the listing is equal, too, and `verify` finds nothing."""
    events = recorded(source, "one", 30)
    found = receive(mirror, events[:7], events[7:])
    assert (found.events, found.known, found.gaps, found.refused) == (32, 0, {}, {})
    assert lines(mirror, events[0].run) == lines(source, events[0].run)
    assert mirror.runs() == source.runs()
    assert [entry.what for entry in mirror.store.entries()] == ["started", "ended"]


def test_verify_accepts_a_received_log(tmp_path: Path, source: EventLog) -> None:
    """It has ended and open runs."""
    with EventLog(tmp_path / "mirror.db") as log:
        receive(log, recorded(source, "one", 5), recorded(source, "two", 5, end=False))
        assert verify(log).findings == []


def test_known_events_are_skipped(mirror: EventLog, source: EventLog) -> None:
    """A page comes twice, or overlaps the previous one."""
    events = recorded(source, "one", 10)
    receive(mirror, events[:6])
    found = receive(mirror, events[:6], events[3:])
    assert (found.events, found.known) == (6, 9)
    assert lines(mirror, events[0].run) == lines(source, events[0].run)


def test_a_gap_stops_its_run_and_no_other(mirror: EventLog, source: EventLog) -> None:
    """The receiver reports the number of the first missing event. The run continues when that event comes."""
    one, two = recorded(source, "one", 10), recorded(source, "two", 3)
    found = receive(mirror, one[:4], one[6:], two)
    assert (found.gaps, found.events) == ({one[0].run: 4}, 9)
    assert receive(mirror, one[4:]).events == 8
    assert lines(mirror, one[0].run) == lines(source, one[0].run)


FORGERIES: dict[str, Callable[[list[Event]], Event]] = {
    "edited payload": lambda events: events[4]._replace(payload=b"data: other\n\n"),
    "other hash": lambda events: events[4]._replace(hash=bytes(32)),
    "other time": lambda events: events[4]._replace(t_ns=events[4].t_ns + 1),
    "other kind": lambda events: events[4]._replace(kind="run.started"),
    "newer schema": lambda events: events[4]._replace(schema=99),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_event_is_refused_and_named(name: str, mirror: EventLog, source: EventLog) -> None:
    """From then on the receiver skips the run. It keeps the events before the forged one, and other runs."""
    one, two = recorded(source, "one", 10), recorded(source, "two", 3)
    forged = [*one[:4], FORGERIES[name](one), *one[5:]]
    holder = receiver(mirror)
    found = holder.receive(SHELF, [Arrival("a", forged), Arrival("a", two)], "c")
    assert (found.events, list(found.refused)) == (9, [one[0].run])
    assert "event 4" in found.refused[one[0].run]
    assert holder.receive(SHELF, [Arrival("a", one)], "c").refused == found.refused
    assert [event.seq for event in mirror.events(one[0].run)] == [0, 1, 2, 3]


def test_a_forked_run_is_reported(mirror: EventLog, tmp_path: Path) -> None:
    """A copied volume continues a run in two places."""
    with EventLog(tmp_path / "a.db") as log:
        begun = recorded(log, "one", 3, end=False)
    ends = []
    for name in ("a", "b"):
        here = EventLog(store=MemoryStore())
        receive(here, begun)
        other = EventLog(tmp_path / f"{name}2.db")
        ends.append(recorded(other, name, 2))
    receive(mirror, ends[0])
    twisted = [event._replace(run=ends[0][0].run) for event in ends[1]]
    found = receive(mirror, twisted)
    assert "forked" in found.refused[ends[0][0].run]


def test_another_source_cannot_continue_a_run(mirror: EventLog, source: EventLog) -> None:
    """Each credential can write only its own runs."""
    events = recorded(source, "one", 3)
    receive(mirror, events[:2], source="a")
    found = receive(mirror, events[2:], source="b")
    assert "from b and from a" in found.refused[events[0].run]


def test_a_run_of_the_log_itself_receives_nothing(mirror: EventLog) -> None:
    """Its own pages are known when they come back. Further events are refused."""
    with mirror.start(name="own", mode="live") as writer:
        writer.append(Entry("frame", b"data: 1\n\n"))
    events = list(mirror.events(writer.run))
    assert receive(mirror, events).known == 3
    more = events[-1]._replace(seq=3)
    assert writer.run in receive(mirror, [more]).refused


def test_opening_never_ends_a_received_run(tmp_path: Path, source: EventLog) -> None:
    """Neither this process nor another log object ends it. The listing shows it as running, until its end comes."""
    events = recorded(source, "one", 3)
    path = tmp_path / "mirror.db"
    for _ in range(2):
        with EventLog(path) as log:
            receive(log, events[:3])
            log.start(name="own", mode="live").end()
        assert [info.status for info in EventLog(path).runs()][-1] == "running"
    with EventLog(path) as log:
        receive(log, events[3:])
    info = EventLog(path).find("one")
    assert (info.status, info.frames) == ("completed", 3)
    assert lines(EventLog(path), info.run) == lines(source, info.run)


def test_opening_never_ends_a_run_in_a_restored_copy(tmp_path: Path, source: EventLog) -> None:
    """The copy of the mirror lacks the folder of locks."""
    events = recorded(source, "one", 3)
    with EventLog(tmp_path / "mirror.db") as log:
        receive(log, events[:2])
    (tmp_path / "copy.db").write_bytes((tmp_path / "mirror.db").read_bytes())
    with EventLog(tmp_path / "copy.db") as log:
        log.open()
        assert log.find("one").status == "running"
        assert receive(log, events).events == 3


def test_the_cursor_is_stored_with_the_events(mirror: EventLog, source: EventLog) -> None:
    """Each shelf has one cursor."""
    events = recorded(source, "one", 3)
    receive(mirror, events[:2], cursor="7")
    receive(mirror, events[2:], cursor=None)
    assert receiver(mirror)._store.cursor(SHELF) == "7"
    assert receiver(mirror)._store.cursor("another") is None


def test_an_erasure_reaches_the_mirror(mirror: EventLog, source: EventLog) -> None:
    """The mirror has the text already, or gets it erased. An edit without a record is not applied."""
    events = recorded(source, "one", 4)
    receive(mirror, events[:4])
    erased = [event._replace(payload=tombstone(event.kind, event.payload, "x")) for event in events]
    found = receive(mirror, erased)
    assert (found.erased, found.known, found.events) == (4, 4, 2)
    assert b"data: 0" not in lines(mirror, events[0].run)
    edited = [event._replace(payload=b"data: edited\n\n") for event in events[1:2]]
    assert receive(mirror, edited).erased == 0
    assert b"edited" not in lines(mirror, events[0].run)


def test_a_source_cannot_erase_the_run_of_another_source(mirror: EventLog, source: EventLog) -> None:
    """It cannot erase a run that the log itself recorded either."""
    events, own = recorded(source, "one", 3), recorded(mirror, "own", 3)
    receive(mirror, events)
    before = [lines(mirror, run[0].run) for run in (events, own)]
    for run in (events, own):
        erased = [event._replace(payload=tombstone(event.kind, event.payload, "0" * 16)) for event in run]
        assert receive(mirror, erased, source="b").erased == 0
    assert [lines(mirror, run[0].run) for run in (events, own)] == before


def test_an_erasure_reaches_a_mirror_that_reads_both_pages_at_once(mirror: EventLog, source: EventLog) -> None:
    """The first page and its replacement come in one transaction."""
    events = recorded(source, "one", 3)
    erased = [event._replace(payload=tombstone(event.kind, event.payload, "0" * 16)) for event in events]
    assert receive(mirror, events, erased).erased == 5
    assert list(mirror.events(events[0].run)) == erased


@pytest.mark.parametrize("payload", [b"no JSON", b"[]", b"{}", b'{"run": 1, "payloads": [1]}'])
def test_a_misshapen_record_of_an_erasure_is_refused(payload: bytes, mirror: EventLog, source: EventLog) -> None:
    """The receiver continues, and keeps the other runs of the batch."""
    good = recorded(source, "good", 1)
    for kind in (ERASED, PRUNED):
        with EventLog(store=MemoryStore()) as log, log.start(name="audit", mode="audit") as writer:
            writer.append(Entry(kind, payload))
        found = receive(mirror, list(log.events(writer.run)), good)
        assert (list(found.refused), mirror.last(good[0].run)) == ([writer.run] if kind == ERASED else [], good[-1])


def test_a_recorded_redaction_reaches_the_mirror(tmp_path: Path) -> None:
    """A payload that is not a tombstone counts as redacted if an audit run of the source names its digest."""
    with EventLog(tmp_path / "source.db") as log:
        events = recorded(log, "one", 2)
        with log.start(name="redact", mode="audit") as writer:
            replace_payloads(log, writer, events[0].run, [(1, b"data: REDACTED\n\n")], kind=ERASED)
        with EventLog(tmp_path / "mirror.db") as copy:
            receive(copy, events)
            found = receive(copy, list(log.events(writer.run)), list(log.events(events[0].run)))
            assert (found.erased, found.refused) == (1, {})
            assert lines(copy, events[0].run) == lines(log, events[0].run)
            assert verify(copy).findings == []


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_pages_in_any_order_give_prefixes_and_finally_whole_runs(data: st.DataObject) -> None:
    """Pages come in any order, doubled and overlapping. Each run is always a prefix of its source, and equal in the end."""
    source, mirror = EventLog(store=MemoryStore()), EventLog(store=MemoryStore())
    runs = [recorded(source, f"run-{number}", data.draw(st.integers(0, 8))) for number in range(3)]
    cuts = [(run, start, data.draw(st.integers(start + 1, len(run)))) for run in runs for start in range(len(run))]
    order = data.draw(st.permutations(cuts))
    for run, start, stop in order[: data.draw(st.integers(0, len(order)))]:
        receive(mirror, run[start:stop])
        held = list(mirror.events(run[0].run))
        assert held == run[: len(held)]
    for run in runs:
        receive(mirror, run)
        assert lines(mirror, run[0].run) == lines(source, run[0].run)
    assert sorted(map(repr, mirror.runs())) == sorted(map(repr, source.runs()))


def test_two_receivers_of_one_mirror_double_nothing(tmp_path: Path, source: EventLog) -> None:
    """The slower one reads again which events exist."""
    events = recorded(source, "one", 9)
    first, second = (receiver(EventLog(tmp_path / "mirror.db")) for _ in range(2))
    for start in range(0, len(events), 2):
        page = [Arrival("a", events[start : start + 2])]
        first.receive(SHELF, page, "c")
        second.receive(SHELF, page, "c")
    assert lines(EventLog(tmp_path / "mirror.db"), events[0].run) == lines(source, events[0].run)


class Plain(Store):
    """A store that can only record."""

    name = "plain"


def test_a_store_that_cannot_receive_is_refused() -> None:
    """The error comes from the log. A store of another author need not be able to receive."""
    with pytest.raises(retold.LogError, match="cannot receive"):
        receiver(EventLog(store=Plain()))  # type: ignore[abstract]


def test_the_cursors_of_all_shelves_are_stored(mirror: EventLog, source: EventLog) -> None:
    """Each has the name of its shelf and the newest value."""
    assert isinstance(mirror.store, Receiving)
    receiving = receiver(mirror)
    for shelf, cursor in (("one", "1"), ("two", "é"), ("one", "2"), ("one", None)):
        receiving.receive(shelf, [Arrival("a", recorded(source, "one", 3))], cursor)
    assert mirror.store.cursors() == {"one": "2", "two": "é"}
