"""Search, count and list a log of a million messages, beside ripgrep and DuckDB on the same data.

The benchmark writes a log of runs with conversations, indexes it, exports it, and asks all three the same questions in turn. It
takes some minutes and about 3 GB. `make bench` asks for fewer messages (MESSAGES=100000), without goals. ripgrep reads the JSON
lines of `retold export --all --format stream-json`, DuckDB a table of the same messages, in memory. A row reports if either is
not installed (`RG=/path/to/rg` names another ripgrep).

Writing and indexing are measured in CPU time, beside SQLite with the same rows in the same transactions, and FTS5 with the same
texts in one transaction. Searches are measured in a process with an open log, like `retold view`, and DuckDB likewise. ripgrep
starts a new process each time.
"""

import json
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, absent, figure, folder, found_command, ratio, rounds, run
from retold.audit.index import Index, opened, path_of
from retold.audit.runs import Chosen, chosen_runs
from retold.audit.search import search
from retold.audit.stats import stats
from retold.audit.verify import verify
from retold.formats import FORMATS
from retold.recorder.events import OWN_SEQ, Entry, encode
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.rows import COLUMNS, to_row

MESSAGES = int(os.environ.get("MESSAGES", 1_000_000))
RG = os.environ.get("RG") or found_command("rg")
RUN = 500
"""Messages of one run."""

ROUNDS = 7
PAGE = 50
DAY_NS = 86_400 * 10**9

RARE, COMMON, PHRASE = "zygomorphic", "the", "the deployment failed"
WORDS = [
    "the",
    "of",
    "a",
    "to",
    "and",
    "in",
    "is",
    "for",
    "with",
    "on",
    "that",
    "this",
    "build",
    "test",
    "file",
    "line",
    "error",
    "value",
    "returns",
    "function",
    "module",
    "request",
    "response",
    "token",
    "stream",
    "cache",
    "user",
    "session",
    "deployment",
    "failed",
    "passed",
    "retry",
    "timeout",
    "config",
    "schema",
    "index",
    "query",
    "result",
    "message",
    "tool",
    "model",
    "prompt",
    "answer",
    "check",
    "fix",
    "update",
    "remove",
    "add",
    "write",
    "read",
    "run",
    "server",
    "client",
    "event",
    "log",
    "frame",
    "step",
    "workflow",
]
MODELS = ("claude-opus-5", "claude-sonnet-5", "claude-haiku-5")
TOOLS = ("Read", "Bash", "Edit", "Grep")


def _turn(pick: random.Random, model: str, number: int, first: int) -> Iterator[Entry]:
    """Return an exchange: a request, an answer with a tool use, and its result. It has three messages in five events.

    `first` is the number of its first event, which identifies the exchange.
    """
    words = [*pick.choices(WORDS, k=40)]
    if number % 150_000 == 77:
        words[20] = RARE
    if number % 997 == 0:
        words[10:13] = PHRASE.split()
    usage = {"input_tokens": pick.randrange(3000), "output_tokens": pick.randrange(800), "cache_read_input_tokens": 1000}
    use = {"type": "tool_use", "id": f"t{number}", "name": pick.choice(TOOLS), "input": {"path": f"src/{words[0]}/{words[1]}.py"}}
    answer = {"id": f"m{number}", "role": "assistant", "model": model}
    t_ns = number % RUN * 3 * 10**9
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": " ".join(words[:12])}]})
    asked: dict[str, Any] = {"method": "POST", "uri": "/v1/messages", "headers": [], "body": body, "call": number, "attempt": 1}
    asked |= {"stamped": "pull", "variables": {}, "recorded_at": ""}
    yield Entry("exchange.started", encode(asked), "work", "", OWN_SEQ, t_ns)
    content = [{"type": "text", "text": " ".join(words)}]
    said = {"type": "assistant", "message": {**answer, "content": content}}
    yield Entry("message", encode(said), "work", "", first, t_ns + pick.randrange(10**9))
    yield Entry("message", encode({**said, "message": {**answer, "content": [use]}}), "work", "", first, t_ns + 10**9)
    ended = {"ending": "complete", "error": None, "status": 200, "model": model, "usage": usage, "cost_usd": pick.random() / 50}
    yield Entry("exchange.ended", encode(ended), "work", "", first, t_ns + 10**9 + pick.randrange(10**9))
    result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": " ".join(pick.choices(WORDS, k=30))}
    said = {"type": "user", "message": {"role": "user", "content": [result]}}
    yield Entry("message", encode(said), "work", "", first, t_ns + 2 * 10**9)


def write_log(path: Path, messages: int) -> float:
    """Write a log of this many messages, in runs spread over sixty days. Return the seconds of CPU that the log took."""
    pick = random.Random(6)
    runs = max(messages // RUN, 1)
    now_ns, spent = time.time_ns(), 0.0
    with EventLog(path) as log:
        for number in range(runs):
            recorded_ns = now_ns - 60 * DAY_NS + 60 * DAY_NS * number // runs
            name, model = f"workflow {number % 7}", MODELS[number % 3]
            transactions: list[list[Entry]] = [[]]
            for at, turn in enumerate(range(number * RUN // 3, (number + 1) * RUN // 3)):
                for entry in _turn(pick, model, turn, 1 + 5 * at):  # the run begins with one event
                    transactions[-1].append(entry)
                    if entry.kind == "exchange.ended":
                        transactions.append([])
            began = time.process_time()
            with log.start(name=name, mode="live", recorded_ns=recorded_ns) as writer:
                for entries in transactions:
                    writer.append(*entries)
            spent += time.process_time() - began
        began = time.process_time()
    return spent + time.process_time() - began


def _bare_rows(log: EventLog, path: Path) -> float:
    """Write the rows of the log to a table of the same columns and key, in the same transactions. Return the seconds of CPU."""
    spent = 0.0
    began = time.process_time()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"CREATE TABLE events ({COLUMNS}, PRIMARY KEY (run, seq)) WITHOUT ROWID")
        insert = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * (COLUMNS.count(',') + 1))})"
        spent += time.process_time() - began
        for info in reversed(log.runs()):
            transactions: list[list[Any]] = [[]]
            for event in log.events(info.run):
                if event.kind == "run.ended":
                    transactions.append([])
                transactions[-1].append(to_row(event))
                if event.kind in ("run.started", "exchange.ended"):
                    transactions.append([])
            began = time.process_time()
            for rows in transactions:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(insert, rows)
                connection.execute("COMMIT")
            spent += time.process_time() - began
        began = time.process_time()
    return spent + time.process_time() - began


def _timed(work: Callable[[], Any]) -> Callable[[], float]:
    def measured() -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1000

    return measured


def _cpu_s(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _bare_fts5(index: Path, path: Path) -> float:
    """Write the texts of the index to a bare FTS5 table, in one transaction. Return the seconds of CPU."""
    with closing(sqlite3.connect(index)) as source, closing(sqlite3.connect(path)) as connection:
        texts = source.execute("SELECT text FROM texts ORDER BY rowid").fetchall()
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")

        def fill() -> None:
            connection.executemany("INSERT INTO texts (text) VALUES (?)", texts)
            connection.commit()

        return _cpu_s(fill)


def _ripgrep(pattern: str, export: Path) -> Callable[[], float]:
    command = [str(RG), "--no-config", "-c", "-i", pattern, str(export)]
    return _timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def _duckdb(export: Path, log: EventLog) -> Callable[[str], Callable[[], float]] | None:
    """Return a function that queries DuckDB, or None if it is not installed."""
    try:
        import duckdb
    except ModuleNotFoundError:
        return None
    db = duckdb.connect()
    db.execute("SET threads = 2")
    read = f"read_csv('{export}', delim = '\x01', quote = '', escape = '', header = false, columns = {{'column0': 'VARCHAR'}})"
    db.execute(f"CREATE TABLE messages AS SELECT row_number() OVER () AS n, column0 AS text FROM {read}")
    rows = (
        (info.started_ns // DAY_NS, *_used(event.data))
        for info in log.runs()
        for event in log.events(info.run, kinds=("exchange.ended",))
    )
    db.execute("CREATE TABLE spent (day BIGINT, model VARCHAR, input BIGINT, output BIGINT, cost DOUBLE)")
    while part := list(islice(rows, 50_000)):
        import pyarrow

        columns = list(zip(*part, strict=True))
        names = ("day", "model", "input", "output", "cost")
        db.register("part", pyarrow.table({name: list(column) for name, column in zip(names, columns, strict=True)}))
        db.execute("INSERT INTO spent SELECT * FROM part")
    return lambda query: _timed(lambda: db.execute(query).fetchall())


def _used(ended: dict[str, Any]) -> tuple[str, int, int, float]:
    usage = ended["usage"]
    return ended["model"], usage["input_tokens"], usage["output_tokens"], ended["cost_usd"]


def measure() -> list[Row]:
    with folder() as home:
        log = EventLog(home / "log.db")
        wrote = write_log(log.path, MESSAGES)
        bare_rows = _bare_rows(log, home / "rows.db")
        indexed = _cpu_s(lambda: _open(log))
        export = home / "all.jsonl"
        with export.open("wb") as out:
            exported = _timed(lambda: FORMATS["stream-json"].write(log, log.runs()[::-1], out))()
        bare_texts = _bare_fts5(path_of(log), home / "texts.db")
        verified = _timed(lambda: verify(log))()
        duck = _duckdb(export, log)
        with opened(log) as index:
            contestants: dict[str, Callable[[], float]] = {}
            queries = {"a rare word": RARE, "a common word": COMMON, "a phrase": f'"{PHRASE}"'}
            for what, query in queries.items():
                contestants[what] = _timed(partial(_hits, index, query))
                if RG is not None:
                    contestants[f"{what} rg"] = _ripgrep(query.strip('"'), export)
                if duck is not None:
                    like = f"SELECT n FROM messages WHERE text ILIKE '%{query.strip(chr(34))}%' ORDER BY n DESC LIMIT {PAGE}"
                    contestants[f"{what} duckdb"] = duck(like)
            contestants["stats by model"] = _timed(lambda: stats(index, ["model"]))
            contestants["stats by model, day"] = _timed(lambda: stats(index, ["model", "day"]))
            if duck is not None:
                group = "SELECT {0}, sum(input), sum(output), sum(cost) FROM spent GROUP BY {0}"
                contestants["stats by model duckdb"] = duck(group.format("model"))
                contestants["stats by model, day duckdb"] = duck(group.format("model, day"))
            contestants["catching up with nothing new"] = _timed(lambda: _open(log))
            contestants["ls of the last 50"] = _timed(lambda: chosen_runs(log, Chosen(), limit=PAGE))
            contestants["ls of the last 50 by model"] = _timed(lambda: chosen_runs(log, Chosen(model=MODELS[0]), limit=PAGE))
            rounds(1, contestants)
            found = rounds(ROUNDS, contestants)
        sizes = {"the log": log.path, "the index": path_of(log), "the export": export}
        return [
            ratio(f"{MESSAGES:,} messages written (CPU)", [wrote], "the same rows in SQLite", [bare_rows], "s", at_most=2.0),
            ratio("indexed (CPU)", [indexed], "the same texts in FTS5", [bare_texts], "s", at_most=2.0),
            figure("exported as stream-json", [exported / 1000], "s"),
            figure("verified", [verified / 1000], "s"),
            *(figure(f"size of {what}", [path.stat().st_size / 1e6], "MB") for what, path in sizes.items()),
            *_rows(found),
        ]


def _hits(index: Index, query: str) -> int:
    return len(list(search(index, query, limit=PAGE)))


def _open(log: EventLog) -> None:
    with opened(log):
        pass


_GOALS = {"a": 10.0, "stats": 100.0, "ls": 50.0, "catching": 10.0}
"""The limits in milliseconds for a million messages, by the first word of the measured row."""


def _rows(found: dict[str, list[float]]) -> Iterator[Row]:
    for what, ours in found.items():
        if what.endswith((" rg", " duckdb")):
            continue
        yield figure(what, ours, "ms", at_most=_GOALS[what.split()[0]] if MESSAGES >= 1_000_000 else None)
        for peer in ("rg", "duckdb"):
            theirs = found.get(f"{what} {peer}")
            if theirs is not None:
                yield ratio(what, ours, peer, theirs, "ms")
            elif what.startswith("a ") or (what.startswith("stats") and peer == "duckdb"):
                yield absent(what, ours, peer, "ms")


if __name__ == "__main__":
    run(f"audit: a log of {MESSAGES:,} messages", measure)
