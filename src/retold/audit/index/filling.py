"""Fill the index from the events of a log, batch by batch."""

import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import NoneType
from typing import Any, Self

from ...recorder import strict_json
from ...recorder.errors import LeftOutWarning
from ...recorder.events import fault_in_payload, fault_in_row
from ...recorder.http.prompts import request_in
from ...recorder.log.sqlite.feed import Feed
from ..accounts import OPEN, SUMS, Account, Key, RunAccount
from ..texts import Text, encodable, storable, text_of_error, text_of_message, text_of_prompt, text_of_request
from .tables import Facets, create, from_json, is_current, to_json

BATCH = 16_000
"""Events in a transaction: long enough for FTS5 to write long segments, short enough to show progress."""

PAGE = 4000
"""Events of a run in memory."""

_INSERT_TEXT = "INSERT INTO texts (id, text, run, facets, seq, copy) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_WORDS = "INSERT INTO words (rowid, text, run, facets) VALUES (?, ?, ?, ?)"

_TYPES: tuple[set[type], ...] = ({int}, {int}, {int}, {str}, {str}, {str}, {int, NoneType}, {str, bytes})
"""The types in the columns of the feed, if retold wrote the rows."""

LAST = 2**62
"""A number after all events."""


class Filler:
    """Takes the next events into the index. Each step is one batch, in the transaction of its caller."""

    def __init__(self, connection: sqlite3.Connection, feed: Feed, progress: Callable[[int], None]) -> None:
        self.connection = connection
        self.feed = feed
        self.progress = progress
        self.done = 0
        self.runs: dict[str, _Run] = {}
        self.facets = Facets(connection)

    def step(self) -> bool:
        """Take a batch from the log of one moment. Return whether there may be more."""
        with self.feed.snapshot():
            return self._step()

    def _step(self) -> bool:
        db = self.connection
        if not is_current(db, self.feed):
            create(db, self.feed.erasures())
            self.runs.clear()
        self.facets = Facets(db)  # another process may have rebuilt the index since the last step
        self._see_new_runs()
        taken, batch = 0, BATCH
        for id_, run, seq in db.execute("SELECT id, run, seq FROM pending ORDER BY id").fetchall():
            if self.feed.has_more(run, seq):
                taken += self._take(id_, run, seq, batch - taken)
            if taken >= batch:
                break
        n, chain = self.feed.newest_entry()
        db.executemany("UPDATE state SET value = ? WHERE name = ?", [(n, "n"), (chain, "chain")])
        self.done += taken
        self.progress(self.done)
        return taken >= batch or self._see_new_runs()

    def _see_new_runs(self) -> bool:
        db = self.connection
        (seen,) = db.execute("SELECT value FROM state WHERE name = 'seen'").fetchone()
        new = self.feed.runs(seen, 1000)
        if new:
            db.executemany("INSERT INTO pending (id, run, seq) VALUES (?, ?, -1)", new)
            db.execute("UPDATE state SET value = ? WHERE name = 'seen'", (new[-1][0],))
        return bool(new)

    def _take(self, id_: int, run: str, seq: int, most: int) -> int:
        state = self.runs.get(run)
        if state is None or state.seq != seq:
            state = self.runs[run] = _Run.resumed(self.connection, self.feed, id_, run, seq)
        taken = 0
        while taken < most and (page := state.take(min(PAGE, most - taken))):
            state.save(self.facets)
            taken += page
        if state.ended or state.gone:
            self.connection.execute("DELETE FROM pending WHERE id = ?", (id_,))
            del self.runs[run]
        else:
            self.connection.execute("UPDATE pending SET seq = ? WHERE id = ?", (state.seq, id_))
        return taken


class _Run:
    """One run on its way into the index."""

    def __init__(self, connection: sqlite3.Connection, feed: Feed, id_: int, run: str) -> None:
        self.connection = connection
        self.feed = feed
        self.run = run
        self.seq = -1
        self.ended = False
        self.status = "running"
        self.mode: str
        self.tools: dict[str, str] = {}
        self.last_id = 0
        self.is_taken = False
        line = feed.run(id_, run)
        self.gone = line is None
        name, self.mode, started_ns = ("", "", 0) if line is None else (str(line[0]), str(line[1]), line[2])
        started_ns = started_ns if isinstance(started_ns, int) else 0
        self.account = RunAccount(name, started_ns, partial(feed.first_content_ns, run), self._counted, self._claimed)
        self.texts: list[tuple[int, Text, str, int, str]] = []
        self.words: list[tuple[int, str, int, int]] = []
        self.prompts: dict[int, list[tuple[int, int]]] = {}  # times and numbers of the prompts of open exchanges and sessions
        self.marks: list[tuple[int, int, str]] = []  # prompts of messages that another run has

    @classmethod
    def resumed(cls, connection: sqlite3.Connection, feed: Feed, id_: int, run: str, seq: int) -> Self:
        """Return a run that was indexed up to `seq`. Its earlier events are read again to find the open exchanges and tools."""
        state = cls(connection, feed, id_, run)
        if not state.gone:
            state.account.began()
        while state.seq < seq and state.take(PAGE, upto=seq):
            state.texts.clear()
        if seq >= 0:
            state.account.take()
            state.texts.clear()
            state.seq = seq
        return state

    def take(self, most: int, upto: int | None = None) -> int:
        """Take at most so many of the next events and return their number."""
        rows = self.feed.rows(self.run, self.seq, LAST if upto is None else upto, most)
        columns = zip(*rows, strict=True) if rows else [()] * len(_TYPES)
        is_sound = all(types.issuperset(map(type, column)) for types, column in zip(_TYPES, columns, strict=True))
        for row in rows:
            self._note(row, is_sound=is_sound)
        return len(rows)

    def _note(self, row: tuple[Any, ...], *, is_sound: bool) -> None:
        """Take an event, whose cells are of the right types if it `is_sound`. If it was changed, warn and leave it out."""
        seq, t_ns, wall_ns, kind, step, task, exchange, payload = row
        fault = None if is_sound else fault_in_row((self.run, *row, b"", b"", 0))
        data: Any = None
        if fault is None:
            try:
                data = strict_json.loads(payload)
                fault = fault_in_payload(kind, data)
            except (ValueError, RecursionError):
                fault = "is not JSON"
        if fault is None:
            return self._event(seq, t_ns, wall_ns, kind, step, task, exchange, data)
        self.seq = seq if isinstance(seq, int) else LAST
        self.ended = self.ended or kind == "run.ended"
        message = f"run {self.run}, event {seq}: not indexed ({fault}); see `retold verify`"
        warnings.warn(message[:300], LeftOutWarning, stacklevel=2)
        return None

    def _event(
        self, seq: int, t_ns: int, wall_ns: int, kind: str, step: str, task: str, exchange: int | None, data: dict[str, Any]
    ) -> None:  # fmt: skip
        self.seq = seq
        text, copy_of, wall_us = None, "", wall_ns // 1000
        if kind == "message":
            text = text_of_message(data, self.tools)
            copy_of = self.account.message(data, step, exchange, t_ns, wall_ns)
            if copy_of and exchange is not None:
                self.marks += [(*prompt, copy_of) for prompt in self.prompts.pop(exchange, ())]
        elif kind == "exchange.started":
            asked = request_in(data)
            text = text_of_request(data, asked)
            repeats = self.mode == "live" and data.get("stamped") == "replay"
            self.account.exchange_started(seq, data, str(asked.get("model") or ""), t_ns, repeats=repeats)
            self.prompts[seq] = [(wall_us, seq)]
        elif kind == "exchange.ended" and exchange is not None:
            text = text_of_error(data, self.account.model_asked(exchange))
            self.account.exchange_ended(exchange, data, step, task, seq, t_ns, wall_ns)
            self.prompts.pop(exchange, None)
        elif kind == "session.started":
            self.account.session_started(seq)
        elif kind == "wire.sent":
            text = text_of_prompt(data)
            self.prompts.setdefault(exchange or 0, []).append((wall_us, seq))
        elif kind == "run.ended":
            self.account.ended()
            self.ended, self.status = True, str(data.get("status"))
        if text is not None:
            if text.type in ("prompt", "user text"):
                self.account.prompted(text.text)
            self.texts.append((wall_us, text, step, seq, copy_of))

    def _counted(self, identity: str) -> str:
        """Return the other run that counted a message, or count it for this run. A mock run repeats counted messages."""
        if self.mode not in ("live", "import"):
            return ""
        identity = encodable(identity)
        self.connection.execute("INSERT OR IGNORE INTO counted VALUES (?, ?)", (identity, self.run))
        (run,) = self.connection.execute("SELECT run FROM counted WHERE identity = ?", (identity,)).fetchone()
        return "" if run == self.run else str(run)

    def _claimed(self, identity: str) -> str:
        """Return the other run that counted a message."""
        if self.mode not in ("live", "import"):
            return ""
        row = self.connection.execute("SELECT run FROM counted WHERE identity = ?", (encodable(identity),)).fetchone()
        return "" if row is None or row[0] == self.run else str(row[0])

    def save(self, facets: Facets) -> None:
        """Write the words and accounts of the events since the last call."""
        self._save_texts(facets)
        self._mark(facets)
        for (dimension, key, day), booked in self.account.take().items():
            _book(self.connection, (dimension, self.run if dimension == OPEN else key, day), self.mode, booked)
        if self.ended:
            self._book_status()
        keys = {dimension: list(found) for dimension, found in self.account.keys.items() if dimension in ("model", "tool", "day")}
        account, calls = self.account, self.account.calls
        spent = account.copied if account.copy_of else account.spent
        facts = (
            self.run, spent.cost_usd, account.errors, calls.count, calls.failed, calls.healed, spent.tokens["input_tokens"],
            spent.tokens["output_tokens"], storable(account.prompt),
            strict_json.dumps([sorted(account.times.first), sorted(account.times.took)]), encodable(strict_json.dumps(keys)),
            account.copy_of,
        )  # fmt: skip
        self.connection.execute(f"INSERT OR REPLACE INTO run_facts VALUES ({', '.join('?' * len(facts))})", facts)

    def _save_texts(self, facets: Facets) -> None:
        rows, words = self._rows(facets), self.words
        while True:
            try:
                self.connection.executemany(_INSERT_TEXT, rows)
                break
            except sqlite3.IntegrityError:  # another run has a text of this number: `rows` goes on with the next one
                self.is_taken = True
        self.connection.executemany(_INSERT_WORDS, words)
        self.texts.clear()
        words.clear()

    def _rows(self, facets: Facets) -> Iterator[tuple[int, str, int, int, int, str]]:
        """Yield the rows of the texts, each again with the next number as long as its number `is_taken`."""
        run = facets.of_run(self.run)
        for wall_us, text, step, seq, copy_of in self.texts:
            words, place = storable(text.text), facets.of_text(step, text.type, text.tool, text.model)
            # Several events may share a microsecond: the next free number keeps their order.
            id_ = self.last_id + 1 if wall_us <= self.last_id < wall_us + 1_000_000 else wall_us
            yield id_, words, run, place, seq, copy_of
            while self.is_taken:
                self.is_taken = False
                id_ += 1
                yield id_, words, run, place, seq, copy_of
            self.last_id = id_
            self.words.append((id_, words, run, place))

    def _mark(self, facets: Facets) -> None:
        """Mark the prompts whose answers turned out to be copies. Their rows have the number of their time or one soon after."""
        mark = "UPDATE texts SET copy = ? WHERE id >= ? AND id < ? AND run = ? AND seq = ?"
        if not self.marks:
            return
        run = facets.of_run(self.run)
        marks = [(copy_of, wall_us, wall_us + 2_000_000, run, seq) for wall_us, seq, copy_of in self.marks]
        self.connection.executemany(mark, marks)
        self.marks.clear()

    def _book_status(self) -> None:
        """Move the accounts of the run, which has ended, to its status."""
        where = "dimension = ? AND key = ? AND mode = ?"
        values = (OPEN, self.run, self.mode)
        query = f"SELECT day, first, took, {', '.join(SUMS)} FROM accounts WHERE {where}"
        for day, first, took, *sums in self.connection.execute(query, values).fetchall():
            account = Account(Counter(dict(zip(SUMS, sums, strict=True))), from_json(first), from_json(took))
            _book(self.connection, ("status", self.status, day), self.mode, account)
        self.connection.execute(f"DELETE FROM accounts WHERE {where}", values)


def _book(connection: sqlite3.Connection, key: Key, mode: str, account: Account) -> None:
    dimension, name, day = map(encodable, key)
    where = "dimension = ? AND day = ? AND key = ? AND mode = ?"
    row = connection.execute(f"SELECT first, took FROM accounts WHERE {where}", (dimension, day, name, mode)).fetchone()
    sums = [account.sums[each] for each in SUMS]
    if row is None:
        places = ", ".join("?" * (len(SUMS) + 6))
        columns = f"dimension, key, day, mode, {', '.join(SUMS)}, first, took"
        values = (dimension, name, day, mode, *sums, to_json(account.first), to_json(account.took))
        connection.execute(f"INSERT INTO accounts ({columns}) VALUES ({places})", values)
        return
    first, took = from_json(row[0]) + account.first, from_json(row[1]) + account.took
    add = ", ".join(f"{each} = {each} + ?" for each in SUMS)
    connection.execute(
        f"UPDATE accounts SET {add}, first = ?, took = ? WHERE {where}",
        (*sums, to_json(first), to_json(took), dimension, day, name, mode),
    )
