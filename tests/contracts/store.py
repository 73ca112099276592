"""The tests that every store passes, including stores of other authors.

Copy this file, or put the root of this repository on `sys.path`. Inherit `StoreContract`, and give it the fixture `store`: a
new and empty store, which the tests open. pytest then runs every test of the class on your store:

    from tests.contracts.store import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            store = MyStore(...)
            yield store
            store.close()

The tests need threads, but no second process. A store for several processes has separate tests of them.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from retold.recorder.events import GENESIS, SCHEMA, Event, encode, seal
from retold.recorder.log.runs import RunInfo, RunQuery
from retold.recorder.log.store import Conflict, Ended, Sealed, Store, chained


def event(
    before: Event | None, kind: str, data: Any = None, *, run: str = "a1", step: str = "", exchange: int | None = None
) -> Event:
    """Return the next event of a run."""
    seq = 0 if before is None else before.seq + 1
    payload = encode(data or {})
    digest = sha256(payload).digest()
    own = seal(GENESIS if before is None else before.hash, SCHEMA, run, seq, seq, 1000 + seq, kind, exchange, step, "", digest)
    return Event(run, seq, seq, 1000 + seq, kind, step, "", exchange, payload, digest, own)


def chain(before: Event, *kinds: str, **fields: Any) -> list[Event]:
    """Return chained events."""
    events: list[Event] = []
    for kind in kinds:
        events.append(event(events[-1] if events else before, kind, run=before.run, **fields))
    return events


def begun(store: Store, run: str = "a1", name: str = "name", mode: str = "live") -> tuple[Event, RunInfo]:
    """Begin a run."""
    first = event(None, "run.started", {"name": name, "mode": mode}, run=run)
    info = RunInfo(run, name, mode, "running", first.wall_ns, None, 0, 0, 0, None)
    store.begin(info, first)
    return first, info


def ended(store: Store, last: Event, info: RunInfo) -> Event:
    """End a run."""
    end = event(last, "run.ended", {"status": "completed"}, run=last.run)
    store.end(end, replace(info, status="completed", ended_ns=end.wall_ns))
    return end


class StoreContract:
    """The rules of `Store`."""

    def test_events_read_back_as_appended(self, store: Store) -> None:
        """Every field and every byte is the same, in the order of the numbers."""
        first, info = begun(store)
        more = chain(first, "message", "frame", exchange=1)
        store.append(more)
        last = ended(store, more[-1], info)
        assert list(store.read("a1")) == [first, *more, last]

    def test_opening_a_store_creates_it(self, store: Store) -> None:
        """An open store exists and answers queries."""
        store.open()
        assert store.exists()
        assert store.name
        assert list(store.runs(RunQuery())) == []

    def test_a_closed_store_keeps_its_events_and_opens_again(self, store: Store) -> None:
        """The next write opens the store, and the run continues."""
        first, info = begun(store)
        store.close()
        assert list(store.read("a1")) == [first]
        store.append(chain(first, "message"))
        store.close()
        ended(store, store.read("a1")[-1], info)
        assert [each.kind for each in store.read("a1")] == ["run.started", "message", "run.ended"]

    def test_several_queries_share_one_reading(self, store: Store) -> None:
        """Queries within `reading` return the same answers as the store, including events that are appended meanwhile."""
        first, info = begun(store)
        with store.reading() as held:
            assert held.name == store.name
            assert list(held.runs(RunQuery())) == [info]
            assert list(held.entries()) == list(store.entries())
            assert held.is_alive("a1")
            more = chain(first, "message")
            store.append(more)
            assert list(held.read("a1")) == [first, *more]

    def test_a_run_without_events_reads_as_empty(self, store: Store) -> None:
        """An unknown run is not an error."""
        store.open()
        assert list(store.read("unknown")) == []
        assert list(store.runs(RunQuery())) == []
        assert list(store.entries()) == []
        assert not store.is_alive("unknown")

    @pytest.mark.parametrize("wrong", ["again", "gap", "hash", "run"])
    def test_a_conflict_appends_nothing(self, store: Store, wrong: str) -> None:
        """The whole append is refused if one of its events is not the next one."""
        first, _ = begun(store)
        begun(store, "b2")
        good, bad = chain(first, "message", "message")
        bad = {
            "again": good,
            "gap": bad._replace(seq=bad.seq + 1),
            "hash": bad._replace(hash=bytes(32)),
            "run": bad._replace(run="b2"),
        }[wrong]
        with pytest.raises(Conflict):
            store.append([good, bad])
        assert list(store.read("a1")) == [first]
        assert len(store.read("b2")) == 1
        store.append([good])

    def test_an_empty_append_changes_nothing(self, store: Store) -> None:
        """It is not an error either."""
        first, _ = begun(store)
        store.append([])
        assert list(store.read("a1")) == [first]

    def test_a_run_begins_once_with_its_own_first_event(self, store: Store) -> None:
        """A second beginning, a later number and an event of another run are conflicts, and change nothing."""
        first, info = begun(store)
        other = replace(info, run="b2")
        for run, event_ in ((info, first), (other, first), (other, event(first, "run.started")._replace(run="b2"))):
            with pytest.raises(Conflict):
                store.begin(run, event_)
        assert [each.run for each in store.runs(RunQuery())] == ["a1"]
        assert len(store.entries()) == 1
        assert not store.is_alive("b2")
        begun(store, "b2")

    def test_a_wrong_end_leaves_the_run_open(self, store: Store) -> None:
        """The run stays open in the listing and in the ledger too."""
        first, info = begun(store)
        _, other = begun(store, "b2")
        last = event(first, "run.ended")
        for wrong, line in ((last._replace(seq=7), info), (last._replace(hash=bytes(32)), info), (last, other)):
            with pytest.raises(Conflict):
                store.end(wrong, replace(line, status="completed"))
        assert [(each.run, each.status) for each in store.runs(RunQuery())] == [("b2", "running"), ("a1", "running")]
        assert [each.what for each in store.entries()] == ["started", "started"]
        assert store.is_alive("a1")
        ended(store, first, info)

    def test_events_of_a_log_chain_by_their_seal(self, store: Store) -> None:
        """A store may trust `Sealed`, but only if the first event follows its newest event."""
        first, _ = begun(store)
        good, wrong = Sealed(chain(first, "message", "frame")), Sealed([event(first, "message")._replace(hash=bytes(32))])
        good.before, wrong.before = first.hash, bytes(32)
        with pytest.raises(Conflict):
            store.append(wrong)
        store.append(good)
        assert list(store.read("a1")) == [first, *good]
        with pytest.raises(Conflict):
            store.append(good)

    def test_nothing_follows_the_end_of_a_run(self, store: Store) -> None:
        """An append, a second end and a second beginning are conflicts."""
        first, info = begun(store)
        last = ended(store, first, info)
        attempts: Sequence[Callable[[], None]] = (
            lambda: store.append([event(last, "message")]),
            lambda: store.end(event(last, "run.ended"), info),
            lambda: store.begin(info, first),
            lambda: store.append([event(None, "message", run="never")]),
        )
        for attempt in attempts:
            with pytest.raises(Conflict):
                attempt()
        with pytest.raises(Ended):
            store.append([event(last, "message")])
        assert list(store.read("a1")) == [first, last]

    def test_reads_filter_by_value(self, store: Store) -> None:
        """Each filter works alone, and all of them work together.

        Long events may end an answer before its limit, but never after it.
        """
        first, _ = begun(store)
        one = chain(first, "exchange.started", "frame", "message", step="s1", exchange=1)
        two = chain(one[-1], "exchange.started", "frame", "message", step="s2", exchange=4)
        store.append([*one, *two])

        def numbers(**values: Any) -> list[int]:
            return [each.seq for each in store.read("a1", **values)]

        assert numbers(after=3) == [4, 5, 6]
        assert numbers(until=2) == [0, 1, 2]
        assert numbers(kinds=("frame",)) == [2, 5]
        assert numbers(kinds=("message", "run.started")) == [0, 3, 6]
        assert numbers(kinds=()) == []
        assert numbers(exchange=4) == [4, 5, 6]
        assert numbers(step="s1") == [1, 2, 3]
        assert numbers(limit=2) == [0, 1]
        assert numbers(newest_first=True, limit=2) == [6, 5]
        assert numbers(exchange=4, newest_first=True, limit=1) == [6]
        assert numbers(after=1, until=5, kinds=("frame", "message"), exchange=4, step="s2") == [5]

    def test_the_parts_of_a_body_are_the_frames_and_chunks_of_its_exchange(self, store: Store) -> None:
        """They have the values of the events, and only those that were asked for."""
        first, _ = begun(store)
        one = chain(first, "exchange.started", "frame", "message", "chunk", "frame", exchange=1)
        two = chain(one[-1], "exchange.started", "frame", exchange=6)
        store.append([*one, *two])

        def parts(exchange: int, after: int, until: int | None = None) -> list[int]:
            found = store.parts("a1", exchange, after=after, until=until)
            events = [each for each in (*one, *two) if each.seq in [number for number, *_ in found]]
            assert list(found) == [(each.seq, each.t_ns, each.kind, each.payload) for each in events]
            return [each.seq for each in events]

        assert parts(1, 1) == [2, 4, 5]
        assert parts(1, 2) == [4, 5]
        assert parts(1, 1, until=4) == [2, 4]
        assert parts(6, 0) == [7]
        assert parts(1, 5) == []

    def test_runs_are_listed_newest_first(self, store: Store) -> None:
        """A query filters by values. `limit` and `skip` page through the answer."""
        for run, name, mode in (("a1", "one", "live"), ("a2", "two", "mock"), ("b3", "one", "audit")):
            begun(store, run, name, mode)

        def listed(query: RunQuery, **page: int) -> list[str]:
            return [info.run for info in store.runs(query, **page)]

        assert listed(RunQuery()) == ["b3", "a2", "a1"]
        assert listed(RunQuery(), limit=1, skip=1) == ["a2"]
        assert listed(RunQuery(), skip=3) == []
        assert listed(RunQuery(run="a2")) == ["a2"]
        assert listed(RunQuery(prefix="a")) == ["a2", "a1"]
        assert listed(RunQuery(name="one")) == ["b3", "a1"]
        assert listed(RunQuery(mode="mock")) == ["a2"]
        assert listed(RunQuery(name="one", without_mode="audit")) == ["a1"]
        assert listed(RunQuery(like="WO")) == ["a2"]
        assert listed(RunQuery(among=frozenset({"a1", "b3", "c4"}))) == ["b3", "a1"]
        assert listed(RunQuery(among=frozenset())) == []
        assert listed(RunQuery(like="?n*")) == ["b3", "a1"]
        assert listed(RunQuery(since_ns=1000)) == ["b3", "a2", "a1"]
        assert listed(RunQuery(since_ns=1001)) == listed(RunQuery(until_ns=1000)) == []
        assert listed(RunQuery(status="running"), limit=1, skip=1) == ["a2"]
        assert listed(RunQuery(status="completed")) == []

    def test_the_listing_shows_the_end_of_a_run(self, store: Store) -> None:
        """The line given to `end` replaces the line given to `begin`."""
        first, info = begun(store)
        assert [each.status for each in store.runs(RunQuery())] == ["running"]
        assert store.is_alive("a1")
        last = ended(store, first, info)
        assert list(store.runs(RunQuery())) == [replace(info, status="completed", ended_ns=last.wall_ns)]
        assert not store.is_alive("a1")

    def test_the_ledger_chains_beginnings_and_ends(self, store: Store) -> None:
        """Each entry covers the entry before it."""
        first, info = begun(store)
        other, _ = begun(store, "b2")
        last = ended(store, first, info)
        before = GENESIS
        entries = list(store.entries())
        for entry, (what, of) in zip(entries, [("started", first), ("started", other), ("ended", last)], strict=True):
            before = chained(before, entry.n, of.run, what, of.seq, of.hash)
            assert (entry.run, entry.what, entry.seq, entry.hash, entry.chain) == (of.run, what, of.seq, of.hash, before)
        assert [entry.n for entry in entries] == [1, 2, 3]
        assert list(store.entries(after=2)) == entries[2:]

    def test_an_append_wakes_a_waiting_reader(self, store: Store) -> None:
        """The reader waits until an event after the given one exists."""
        first, _ = begun(store)
        woken = threading.Event()

        def wait() -> None:
            store.wait("a1", 0, 60)
            woken.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        store.append(chain(first, "message"))
        assert woken.wait(20)
        waiting.join(20)
        store.wait("a1", 0, 60)  # the event exists already

    @pytest.mark.parametrize("way", ["end", "leave"])
    def test_a_waiting_reader_wakes_if_no_more_events_can_come(self, store: Store, way: str) -> None:
        """The run ends, or its writer leaves."""
        first, info = begun(store)
        waiting = threading.Thread(target=store.wait, args=("a1", 0, 60))
        waiting.start()
        store.leave("a1") if way == "leave" else ended(store, first, info)
        waiting.join(20)
        assert not waiting.is_alive()
        store.wait("a1", 5, 60)  # no process writes the run any more

    def test_a_reader_waits_no_longer_than_its_timeout(self, store: Store) -> None:
        """The writer still lives, but appends nothing."""
        begun(store)
        begun(store, "b2")
        store.wait("a1", 0, 0)
        store.wait("a1", 0, 0.01)
        assert store.is_alive("a1")

    def test_a_run_without_a_last_event_ends_as_noted_when_its_writer_leaves(self, store: Store) -> None:
        """Without a note it ends as interrupted."""
        begun(store)
        begun(store, "b2")
        store.note_ending("a1", "failed", "no room")
        assert store.is_alive("a1")
        for run in ("a1", "b2", "never begun"):
            store.leave(run)
        assert [(each.run, each.status, each.error) for each in store.runs(RunQuery())] == [
            ("b2", "interrupted", None), ("a1", "failed", "no room"),
        ]  # fmt: skip
        assert not store.is_alive("a1")
        assert [each.run for each in store.runs(RunQuery(status="failed"))] == ["a1"]

    def test_readers_see_only_whole_appends(self, store: Store) -> None:
        """While a thread appends three events at a time, an answer has three, six or nine of them."""
        last, info = begun(store)
        seen: list[int] = []
        over = threading.Event()

        def read() -> None:
            with store.reading() as held:
                while not over.is_set():
                    events = held.read("a1", limit=10_000)
                    assert [each.seq for each in events] == list(range(len(events)))
                    seen.append(len(events))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(30):
            more = chain(last, "frame", "frame", "message")
            store.append(more)
            last = more[-1]
        over.set()
        reader.join(20)
        assert {number % 3 for number in seen} <= {1}
        ended(store, last, info)

    def test_only_one_of_two_writers_of_a_run_can_append(self, store: Store) -> None:
        """The other writer gets a conflict."""
        first, _ = begun(store)
        conflicts: list[Conflict] = []

        def write(kind: str) -> None:
            try:
                store.append(chain(first, kind))
            except Conflict as error:
                conflicts.append(error)

        writers = [threading.Thread(target=write, args=(kind,)) for kind in ("message", "frame")]
        for each in writers:
            each.start()
        for each in writers:
            each.join(20)
        assert len(conflicts) == 1
        assert len(store.read("a1")) == 2
