"""The tests that a store passes. A class that inherits `StoreContract` gives the fixture `store`, a new and empty store.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self): return MyStore(...)
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from retold.recorder.events import GENESIS, SCHEMA, Event, encode, seal
from retold.recorder.log.ledger import chained
from retold.recorder.log.runs import RunInfo, RunQuery
from retold.recorder.log.store import Conflict, Store


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
    """Return events that follow each other."""
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

    def test_events_are_read_as_they_were_appended(self, store: Store) -> None:
        """Every field and byte, in the order of their numbers."""
        first, info = begun(store)
        more = chain(first, "message", "frame", exchange=1)
        store.append(more)
        last = ended(store, more[-1], info)
        assert list(store.read("a1")) == [first, *more, last]

    def test_a_run_without_events_reads_as_empty(self, store: Store) -> None:
        """An unknown run is no error."""
        assert list(store.read("unknown")) == []
        assert list(store.runs(RunQuery())) == []
        assert list(store.entries()) == []
        assert not store.is_alive("unknown")

    @pytest.mark.parametrize("wrong", ["again", "gap", "hash", "run"])
    def test_a_conflict_appends_nothing(self, store: Store, wrong: str) -> None:
        """The whole of an append is refused if one of its events is not the next one."""
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

    def test_nothing_follows_the_end_of_a_run(self, store: Store) -> None:
        """An append, another end and another beginning are conflicts."""
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
        assert list(store.read("a1")) == [first, last]

    def test_reads_choose_by_value(self, store: Store) -> None:
        """Each value chooses on its own, and all of them together."""
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

    def test_runs_are_listed_newest_first(self, store: Store) -> None:
        """A query chooses by values; `limit` and `skip` page through the answer."""
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

    def test_the_listing_has_the_end_of_a_run(self, store: Store) -> None:
        """The line given to `end` replaces the one given to `begin`."""
        first, info = begun(store)
        assert [each.status for each in store.runs(RunQuery())] == ["running"]
        assert store.is_alive("a1")
        last = ended(store, first, info)
        assert list(store.runs(RunQuery())) == [replace(info, status="completed", ended_ns=last.wall_ns)]
        assert not store.is_alive("a1")

    def test_the_ledger_chains_beginnings_and_ends(self, store: Store) -> None:
        """Each entry covers the one before it."""
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

    def test_a_waiting_reader_is_woken_by_an_append(self, store: Store) -> None:
        """A reader waits no longer than until the event after the given one is there."""
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
        store.wait("a1", 0, 60)  # the event is there already

    def test_two_writers_of_one_run_cannot_both_append(self, store: Store) -> None:
        """One of them has a conflict."""
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
