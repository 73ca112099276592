"""The questions that an open index answers, asked by values."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ...recorder import strict_json
from ...recorder.log.sqlite.feed import Feed
from ..accounts import OPEN, SUMS, Account, Key
from ..texts import readable
from .tables import FACETS, from_json

MOST_TERMS = 500
"""The largest number of facets in a query of the words. FTS5 takes seconds for 20,000; more are found by each text."""

MARKS = "\x02", "\x03"
"""The beginning and the end of each match in a text from the index."""

LAST = 2**62
"""A number after all rows."""


@dataclass(frozen=True, slots=True)
class TextQuery:
    """The texts that are asked for.

    A text that another run has too, because both recorded one session, fits only if that run is not asked for.

    `words` is an expression in the query language of FTS5, and `signs` a text in its stored form that the words cannot find.
    `facets` are (column, words) pairs. The rows are those from `low` to before `high`, in microseconds since the epoch. With
    `runs`, only the texts of these runs fit.
    """

    words: str | None = None
    signs: str = ""
    facets: tuple[tuple[str, str], ...] = ()
    low: int = 0
    high: int = LAST
    oldest: bool = False
    runs: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class IndexedText:
    """A text of the index in its stored form, with MARKS around each match. `id` is its row, `name` the name of its run."""

    id: int
    run: str
    name: str
    seq: int
    step: str
    type: str
    tool: str
    model: str
    marked: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of a run that its events hold. A cost of None is unknown.

    `copy_of` is the run in which all answers of this one are counted, because both recorded one session; empty if there is none.
    `errors` counts the exchanges that failed, `failed` the calls that failed in the end, `healed` the failed attempts of other
    calls. `prompt` is the beginning of the first prompt. `first` and `took` are the buckets of buckets.py in which its times to
    the first token and its durations of answers are.
    """

    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    cost_usd: float | None = None
    errors: int = 0
    calls: int = 0
    failed: int = 0
    healed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt: str = ""
    days: tuple[str, ...] = ()
    first: tuple[int, ...] = ()
    took: tuple[int, ...] = ()
    copy_of: str = ""


class Index:
    """An open index, and the log that it belongs to."""

    def __init__(self, connection: sqlite3.Connection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    def texts(self, query: TextQuery) -> Iterator[IndexedText]:
        """Yield the texts that fit, newest first or oldest first."""
        terms = [] if query.words is None else [f"{{text}} : ({query.words})"]
        narrowed: list[tuple[str, str]] = []
        for column, facets in (("run", FACETS[:1]), ("facets", FACETS[1:])):
            wanted = " AND ".join(f"{facet} : {quoted(words)}" for facet, words in query.facets if facet in facets)
            if not wanted:
                continue
            find = f"SELECT rowid FROM facet_words WHERE facet_words MATCH ? LIMIT {MOST_TERMS + 1}"
            found = [str(number) for (number,) in self._connection.execute(find, (wanted,))]
            if len(found) > MOST_TERMS:
                narrowed.append((f"t.{column} IN (SELECT rowid FROM facet_words WHERE facet_words MATCH ?)", wanted))
            else:
                terms.append(f"{column} : ({' OR '.join(found) or quoted('')})")
        id_ = "w.rowid" if terms else "t.id"
        conditions = [f"{id_} >= ?", f"{id_} < ?", *(condition for condition, _ in narrowed)]
        values: list[object] = [query.low, query.high, *(wanted for _, wanted in narrowed)]
        if terms:
            conditions.append("words MATCH ?")
            values.append(" AND ".join(terms))
        if query.words is None:  # signs are no words of the index, so SQLite reads every text
            conditions.append("instr(t.text, ?)")
            values.append(query.signs)
        if query.runs is not None:
            runs = strict_json.dumps(sorted(query.runs))
            conditions.append("r.run IN (SELECT value FROM json_each(?))")
            conditions.append("t.copy NOT IN (SELECT value FROM json_each(?))")
            values += [runs, runs]
        elif "run" not in dict(query.facets):
            conditions.append("t.copy = ''")
        marks = () if query.words is None else MARKS
        shown = "highlight(words, 0, ?, ?)" if marks else "t.text"
        texts = "words w CROSS JOIN texts t ON t.id = w.rowid" if terms else "texts t"
        statement = (
            f"SELECT t.id, r.run, t.seq, f.step, f.type, f.tool, f.model, {shown} "
            f"FROM {texts} CROSS JOIN facets f ON f.id = t.facets CROSS JOIN facets r ON r.id = t.run "
            f"WHERE {' AND '.join(conditions)} ORDER BY {id_} {'ASC' if query.oldest else 'DESC'}"
        )
        names: dict[str, str] = {}
        for id_, run, seq, step, type_, tool, model, text in self._connection.execute(statement, (*marks, *values)):
            if run not in names:
                names[run] = self._feed.name(run)
            marked = text if marks else text.replace(query.signs, query.signs.join(MARKS))
            yield IndexedText(id_, run, names[run], seq, step, type_, tool, model, marked)

    def accounts(
        self, dimension: str, modes: Collection[str], since_day: str | None, until_day: str | None
    ) -> Iterator[tuple[Key, Account]]:  # fmt: skip
        """Yield the accounts of a dimension for runs of these modes. The first and the last day belong to the span.

        Accounts by status include those of runs without an end, under the present status of each.
        """
        for (_, key, day), account in self._accounts(dimension, modes, since_day, until_day):
            yield (dimension, key, day), account
        if dimension == "status":
            for (_, run, day), account in self._accounts(OPEN, modes, since_day, until_day):
                yield (dimension, self._feed.status(run), day), account

    def _accounts(
        self, dimension: str, modes: Collection[str], since_day: str | None, until_day: str | None
    ) -> Iterator[tuple[Key, Account]]:  # fmt: skip
        query = (
            f"SELECT key, day, first, took, {', '.join(SUMS)} FROM accounts WHERE dimension = ? AND day >= ? AND day <= ? "
            f"AND mode IN ({', '.join('?' * len(modes))})"
        )
        values = (dimension, since_day or "", until_day or "9999-99-99", *modes)
        for key, day, first, took, *sums in self._connection.execute(query, values):
            account = Account(Counter(dict(zip(SUMS, sums, strict=True))), from_json(first), from_json(took))
            yield (dimension, key, day), account

    def facts(self, runs: Sequence[str]) -> dict[str, RunFacts]:
        """Return the facts of runs by their ids."""
        query = (
            "SELECT run, keys, cost_usd, errors, calls, failed, healed, input_tokens, output_tokens, prompt, times, copy_of "
            "FROM run_facts WHERE run IN (SELECT value FROM json_each(?))"
        )
        found = {}
        for row in self._connection.execute(query, (strict_json.dumps(runs),)):
            run, stored, cost_usd, errors, calls, failed, healed, tokens_in, tokens_out, prompt, times, copy_of = row
            models, tools, days = (tuple(json.loads(stored).get(key, ())) for key in ("model", "tool", "day"))
            counted = (errors, calls, failed, healed, tokens_in, tokens_out)
            first, took = map(tuple, json.loads(times))
            found[run] = RunFacts(models, tools, cost_usd, *counted, readable(prompt), days, first, took, copy_of)
        return found

    def runs_with(
        self, *, model: str | None = None, tool: str | None = None, min_cost: float | None = None, min_errors: int = 0
    ) -> frozenset[str]:  # fmt: skip
        """Return the runs that used the model and the tool, cost at least so many US dollars, and had so many errors.

        In the name of a model or a tool `*` is any text.
        """
        conditions, values = ["errors >= ?"], list[object]([min_errors])
        for dimension, name in (("model", model), ("tool", tool)):
            if name is not None:
                fits = "k.value GLOB ?" if "*" in name else "k.value = ?"
                conditions.append(f"EXISTS (SELECT 1 FROM json_each(keys, '$.{dimension}') k WHERE {fits})")
                values.append(name)
        if min_cost is not None:
            conditions.append("cost_usd >= ?")
            values.append(min_cost)
        query = f"SELECT run FROM run_facts WHERE {' AND '.join(conditions)}"
        return frozenset(run for (run,) in self._connection.execute(query, values))


def quoted(text: str) -> str:
    """Return a phrase of the query language of FTS5."""
    return '"' + text.replace('"', '""') + '"'
