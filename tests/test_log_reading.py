"""Reading the log: finding runs by each kind of reference, and events by page, kind, exchange and step."""

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.audit.erase import erase, plan_text
from retold.recorder.errors import InputError, LogError
from retold.recorder.events import Entry, Event
from retold.recorder.log import reading
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from retold.recorder.log.runs import RunQuery
from retold.recorder.log.sqlite.reading import SqliteReadings
from retold.recorder.log.store import PAGE


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "log.db") as opened:
        yield opened


def name_runs(monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
    """Give the next runs these ids."""
    given, real = iter(ids), secrets.token_hex
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(given) if size == 8 else real(size))


@pytest.fixture
def three_runs(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> EventLog:
    name_runs(monkeypatch, "aaaa111122223333", "aaaa444455556666", "bbbb777788889999")
    for name in ("first", "second", "first"):
        log.start(name=name, mode="live").end()
    return log


@pytest.mark.parametrize(
    ("ref", "run"),
    [
        ("aaaa111122223333", "aaaa111122223333"),
        ("bbbb", "bbbb777788889999"),
        ("aaaa4", "aaaa444455556666"),
        ("second", "aaaa444455556666"),
        ("first", "bbbb777788889999"),
        ("last", "bbbb777788889999"),
        ("last~0", "bbbb777788889999"),
        ("last~1", "aaaa444455556666"),
        ("last~2", "aaaa111122223333"),
    ],
)
def test_a_run_is_found_by_id_prefix_name_and_age(three_runs: EventLog, ref: str, run: str) -> None:
    """A name means the newest run of that name. `last~1` is the run before the last one."""
    assert three_runs.find(ref).run == run


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("aaaa", "'aaaa' is the beginning of 2 runs: aaaa444455556666, aaaa111122223333. Give more of the id."),
        ("cccc", "no run 'cccc' in the log "),
        ("last~3", "no run 'last~3': the log "),
        ("last~x", "no run 'last~x': the log "),
        ("last~-1", "no run 'last~-1': the log "),
        ("last~²", "no run 'last~²': the log "),
        ("", "no run '' in the log "),
    ],
)
def test_the_error_of_a_reference_without_a_run_lists_the_runs(three_runs: EventLog, ref: str, message: str) -> None:
    """Ambiguous, unknown and too old references each have another message."""
    with pytest.raises(InputError) as caught:
        three_runs.find(ref)
    assert str(caught.value).startswith(message)


def test_a_name_takes_precedence_over_a_prefix(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of one run equals the beginning of another run's id. The reference means the name."""
    name_runs(monkeypatch, "feed111122223333", "0000444455556666")
    for name in ("x", "feed"):
        log.start(name=name, mode="live").end()
    assert log.find("feed").run == "0000444455556666"


def test_finding_a_run_in_an_empty_log_is_an_error(log: EventLog) -> None:
    """A missing log has another error."""
    with pytest.raises(LogError, match="no log at"):
        log.find("last")
    log.start(name="x", mode="live").end()
    log.close()
    empty = EventLog(log.path.with_name("empty.db"))
    empty.path.touch()
    with pytest.raises(InputError, match="holds no runs yet"):
        empty.find("last")


def test_runs_are_listed_newest_first_with_their_counts(log: EventLog) -> None:
    """The listing counts messages, exchanges and frames of each run, also of an open run."""
    with log.start(name="done", mode="mock") as writer:
        writer.append(Entry("exchange.started", b"{}"), Entry("frame", b""), Entry("frame", b""), Entry("message", b"{}"))
    open_run = log.start(name="open", mode="live")
    open_run.append(Entry("frame", b""))
    listed = [(r.name, r.mode, r.status, r.messages, r.exchanges, r.frames, r.ended_ns is None) for r in log.runs()]
    assert listed == [("open", "live", "running", 0, 0, 1, True), ("done", "mock", "completed", 1, 1, 2, False)]
    assert [info.name for info in log.runs(limit=1)] == ["open"]


NAMES = ("a[b]", "A*", "a", "Älter", "älter", "two\nlines", "")
SOME = st.none() | st.text("aAäÄ[]*?b\nl", max_size=3)


@pytest.fixture(scope="module")
def named_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """Return a log of runs with these names. Some are open, completed or failed."""
    with EventLog(tmp_path_factory.mktemp("named") / "log.db") as log:
        for number, name in enumerate(NAMES):
            writer = log.start(name=name, mode="live")
            if number % 3:
                writer.end("completed" if number % 3 == 1 else "failed")
        yield log


@given(like=SOME, status=st.none() | st.sampled_from(["running", "completed", "failed"]), skip=st.integers(0, 3))
def test_the_listing_selects_the_same_runs_as_a_query(
    named_runs: EventLog, like: str | None, status: str | None, skip: int
) -> None:
    """SQL and `RunQuery.fits` agree about the spelling of names, about patterns, and about the status of open runs."""
    query = RunQuery(like=like, status=status)
    expected = [info.run for info in named_runs.runs() if query.fits(info)]
    assert [info.run for info in named_runs.runs(query)] == expected
    assert [info.run for info in named_runs.runs(query, limit=2, skip=skip)] == expected[skip : skip + 2]


def test_the_last_event_of_a_run_has_its_counts(log: EventLog) -> None:
    """Retold can rebuild the listing from the events."""
    with log.start(name="run", mode="live") as writer:
        writer.append(Entry("exchange.started", b"{}"), Entry("frame", b""), Entry("message", b"{}"), Entry("message", b"{}"))
    ended = list(log.events(writer.run))[-1].data
    assert ended == {"status": "completed", "error": None, "messages": 2, "exchanges": 1, "frames": 1}


def test_events_come_in_order_across_pages(log: EventLog) -> None:
    """The log has more events than one page. None is missing or doubled."""
    count = 2 * PAGE + 3
    with log.start(name="run", mode="live") as writer:
        writer.append(*(Entry("frame", b"%d" % number) for number in range(count)))
    assert [event.seq for event in log.events(writer.run)] == list(range(count + 2))
    assert [event.seq for event in log.events(writer.run, after=count)] == [count + 1]


def test_events_are_filtered_by_kind_exchange_and_step(log: EventLog) -> None:
    """The filters combine."""
    with log.start(name="run", mode="live") as writer:
        writer.append(
            Entry("frame", b"0", "a", exchange=1),
            Entry("frame", b"1", "b", exchange=1),
            Entry("message", b'{"n":2}', "b", exchange=1),
            Entry("frame", b"3", "b", exchange=2),
            Entry("message", b'{"n":4}', "a"),
        )
    run = writer.run
    assert [event.payload for event in log.events(run, kinds=("frame",))] == [b"0", b"1", b"3"]
    assert [event.payload for event in log.events(run, exchange=1, step="b")] == [b"1", b'{"n":2}']
    assert [event.payload for event in log.events(run, kinds=("frame",), exchange=1, step="b")] == [b"1"]
    assert [message.data for message in log.messages(run)] == [{"n": 2}, {"n": 4}]
    assert [message.data for message in log.messages(run, step="a")] == [{"n": 4}]
    assert list(log.events("0" * 16)) == []
    for read in (log.events, log.messages, log.follow):
        with pytest.raises(InputError, match="no run 'unknown' in the log"):
            next(iter(read("unknown")))


def test_a_reader_sees_events_appended_while_it_reads(log: EventLog) -> None:
    """A reader takes no snapshot over pages, so it also gets events that are appended while it reads."""
    writer = log.start(name="run", mode="live")
    writer.append(*(Entry("frame", b"") for _ in range(PAGE)))
    events = log.events(writer.run)
    next(events)
    writer.append(Entry("message", json.dumps({"late": True}).encode()))
    assert [event.kind for event in events][-1] == "message"


def test_the_repr_of_an_event_shows_its_place_time_and_content(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a failed test contains readable events."""
    name_runs(monkeypatch, "aaaa111122223333")
    writer = log.start(name="run", mode="live")
    event = writer.append(Entry("frame", b"data: 1\n\n", t_ns=10**15))[0]
    assert repr(event) == "<aaaa11#1 frame +1000000000.0ms 'data: 1\\n\\n'>"
    assert repr(writer) == "<RunWriter aaaa111122223333 'run' 2 events>"


def test_a_follower_of_a_flood_gets_several_events_with_one_read(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read for each event would take the interpreter from the writer. The test's clock appends ten events in each pause."""
    writer = log.start(name="flood", mode="live")
    now, pauses = [reading.GATHER_NS], [0]

    def flood(seconds: float) -> None:
        now[0] += int(seconds * 1e9) + 1
        pauses[0] += 1
        if writer.seq < 100:
            writer.append(*[Entry("frame", b"data: x\n\n")] * 10)
        else:
            writer.end()

    monkeypatch.setattr(reading, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=flood))
    events = list(log.follow(writer.run))
    assert [event.seq for event in events] == list(range(102))
    assert pauses == [11]


KINDS: list[tuple[str, ...] | None] = [None, ("message",), ("frame", "message")]


@given(st.data())
def test_followers_get_the_same_events_as_readers_of_the_log(data: st.DataObject) -> None:
    """Followers of one run share the events of their reads. Each begins anywhere, reads any kinds, and lags behind the others."""
    now = [0]
    with pytest.MonkeyPatch.context() as patched, EventLog(store=MemoryStore()) as log:
        patched.setattr(reading, "monotonic_ns", lambda: now[0])
        patched.setattr(reading, "time", SimpleNamespace(sleep=lambda _: None))
        patched.setattr(reading, "KEPT", data.draw(st.sampled_from([3, reading.KEPT])))
        patched.setattr(reading, "KEPT_BYTES", data.draw(st.sampled_from([5, reading.KEPT_BYTES])))
        writer = log.start(name="run", mode="live")
        followers: list[tuple[int, tuple[str, ...] | None, Iterator[Event], list[Event]]] = []
        for _ in range(data.draw(st.integers(1, 30))):
            match data.draw(st.sampled_from(["append", "append", "follow", "read", "read", "read", "later"])):
                case "append":
                    kinds = data.draw(st.lists(st.sampled_from(["frame", "message"]), max_size=4))
                    writer.append(*(Entry(kind, b"{}") for kind in kinds))
                case "follow" if len(followers) < 4:
                    after, of = data.draw(st.integers(-1, 10)), data.draw(st.sampled_from(KINDS))
                    followers.append((after, of, log.follow(writer.run, after=after, kinds=of), []))
                case "later":
                    now[0] += data.draw(st.sampled_from([1, reading.GATHER_NS, reading.KEPT_NS + 1]))
                case "read" if followers:
                    after, of, events, got = data.draw(st.sampled_from(followers))
                    if len(got) < len(list(log.events(writer.run, after=after, kinds=of))):  # else it would wait
                        got.append(next(events))
        writer.end()
        for after, of, events, got in followers:
            assert [*got, *events] == list(log.events(writer.run, after=after, kinds=of))


def reads_of(log: EventLog, run: str, followers: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the number of reads with which followers that take turns get all events of a run."""
    count = 0
    real = SqliteReadings.read

    def counted(*arguments: Any, **keys: Any) -> Sequence[Event]:
        nonlocal count
        count += 1
        return real(*arguments, **keys)

    monkeypatch.setattr(SqliteReadings, "read", counted)
    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=lambda _: None))
    turns = zip(*(log.follow(run, kinds=("frame",)) for _ in range(followers)), strict=True)
    assert all(len(set(turn)) == 1 for turn in turns)
    return count


@pytest.mark.parametrize("followers", [1, 3])
def test_followers_side_by_side_read_each_event_once(log: EventLog, monkeypatch: pytest.MonkeyPatch, followers: int) -> None:
    """Two pages are two reads, for one handler or for three."""
    writer = log.start(name="run", mode="live")
    writer.append(*(Entry("frame", b"") for _ in range(PAGE + 10)))
    writer.end()
    monkeypatch.setattr(reading, "monotonic_ns", lambda: reading.KEPT_NS)
    assert reads_of(log, writer.run, followers, monkeypatch) == 2


def test_a_follower_does_not_get_an_event_that_was_erased(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared events are read again after a moment, because a payload may have been replaced meanwhile."""
    writer = log.start(name="run", mode="live")
    writer.append(Entry("message", b'{"said":"Carlos"}'))
    now = [10 * reading.KEPT_NS]
    monkeypatch.setattr(reading, "monotonic_ns", lambda: now[0])
    first, second = log.follow(writer.run), log.follow(writer.run)
    assert [next(first).kind, next(first).kind] == ["run.started", "message"]
    writer.end()
    erase(log, plan_text(log, "Carlos"), why="asked")
    now[0] += reading.KEPT_NS + 1
    assert b"Carlos" not in b"".join(event.payload for event in second)
