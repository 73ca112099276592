"""Search finds prompts, answers and tools, newest first. Statistics add up, `ls` filters, and the index follows the log."""

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

from retold.audit.buckets import bucket, percentile
from retold.audit.index import LAST, opened, path_of, reading
from retold.audit.index.tables import KINDS
from retold.audit.runs import Chosen, chosen_runs
from retold.audit.search import Hit, Narrowed, context, search, to_fts
from retold.audit.stats import StatsLine, stats
from retold.audit.texts import readable, storable
from retold.audit.when import moment
from retold.recorder.errors import InputError
from retold.recorder.events import Entry, encode
from retold.recorder.http.exchange import Failure
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.feed import Feed
from tests.e2e import in_this_process
from tests.talk import asked, record, text, tool_result, tool_use, turn, unstreamed

DB = "log.db"


def hits(query: str, limit: int = 20, **narrowed: Any) -> list[Hit]:
    with opened(EventLog(DB)) as index:
        return list(search(index, query, Narrowed(**narrowed), limit=limit))


def found(query: str, **narrowed: Any) -> list[str]:
    """Return the lines with matches, each match in brackets."""
    lines = []
    for hit in hits(query, **narrowed):
        for line in hit.lines:
            shown, at = "", 0
            for low, high in line.found:
                shown, at = shown + line.text[at:low] + f"[{line.text[low:high]}]", high
            if line.found:
                lines.append(shown + line.text[at:])
    return lines


@pytest.fixture
def talk() -> tuple[str, str]:
    """Record two runs: one that uses tools over three turns, and a newer one of another model with an unstreamed answer."""
    use = tool_use("Read", "t1", file_path="/etc/hosts", limits={"lines": 20})
    result = tool_result("t1", [{"type": "text", "text": "127.0.0.1 localhost\nline two"}])
    bad = tool_use("mcp__disk__read", "t2", path="/nowhere")
    tools = record(
        DB,
        turn(asked("Please read the hosts file"), text("I'll look at it.\nOne moment.\nReading now."), use, step="look", call=0),
        turn(asked("Please read the hosts file", [use], [result]), bad, step="look", call=1, cost_usd=0.25),
        turn(asked("Please read the hosts file", [use], [result], [bad], [tool_result("t2", "no such file", is_error=True)]),
             text("The localhost entry is there."), step="say", call=2, cost_usd=0.5),
        name="tools",
    )  # fmt: skip
    other = "claude-other"
    return tools, record(
        DB, unstreamed(asked("Wer ist da?", model=other), text("Niemand; naïve Übung."), model=other), name="plain"
    )


@pytest.mark.usefixtures("talk")
@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("localhost", ["The [localhost] entry is there.", "127.0.0.1 [localhost]"]),
        ("LOCALHOST entry", ["The [localhost] [entry] is there."]),
        ('"entry is there"', ["The localhost [entry is there]."]),
        ("entr*", ["The localhost [entry] is there."]),
        ("localhost NOT entry", ["127.0.0.1 [localhost]"]),
        ("niemand OR nowhere", ["[Niemand]; naïve Übung.", "/[nowhere]"]),
        ("(niemand OR nowhere) AND naive", ["[Niemand]; [naïve] Übung."]),
        ("ubung", ["Niemand; naïve [Übung]."]),
        ("/etc/hosts", ["/[etc/hosts]"]),
        ("127.0.0.1", ["[127.0.0.1] localhost"]),
        ("it's", []),
        ("file_path", []),
        ("hosts file", ["Please read the [hosts] [file]"]),
        ("NEAR", []),
        ("no-such", ["[no such] file"]),
        ("such-no", []),
        ('"no such"', ["[no such] file"]),
    ],
)
def test_a_search_finds_texts_newest_first(query: str, lines: list[str]) -> None:
    """It takes words, phrases, prefixes and operators, in answers, prompts, tool inputs and results.

    Accents and case do not matter.
    """
    assert found(query) == lines


@pytest.mark.usefixtures("talk")
def test_a_match_may_span_lines() -> None:
    """A phrase is marked in each of its lines. Lines around it are shown on demand."""
    assert found('"it one"') == ["I'll look at [it.]", "[One] moment."]
    (hit,) = hits("moment")
    assert [[line.number for line in group] for group in context(hit.lines, 1)] == [[1, 2, 3]]
    assert [[line.number for line in group] for group in context(hit.lines, 0)] == [[2]]


def test_the_oldest_hits_come_first_on_request(talk: tuple[str, str]) -> None:
    """The first hit names the run that began a topic. A second command prints its cost."""
    done = in_this_process("search", "hosts", "--type", "tool_use", "--oldest", "-n", "1", "--db", DB)
    assert (done.returncode, done.stdout.split("#")[0]) == (0, talk[0][:8])
    asked_first = in_this_process("search", "hosts", "--oldest", "-n", "1", "--json", "--db", DB)
    assert json.loads(asked_first.stdout)["type"] == ["prompt"]
    assert asked_first.stderr == "retold: the oldest 1; more with -n 5\n"
    listed = in_this_process("ls", "--cost", "--db", DB).stdout.splitlines()
    assert [line.split()[-2:] for line in listed] == [["COST", "NAME"], ["?", "plain"], ["$0.7500", "tools"]]


@pytest.mark.parametrize("most", [reading.MOST_TERMS, 0], ids=["few facets", "many facets"])
def test_a_search_can_be_narrowed(talk: tuple[str, str], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be limited by run, step, type, tool, model and time. A tool is matched by its whole name, not by its words."""
    monkeypatch.setattr(reading, "MOST_TERMS", most)
    tools, plain = talk
    assert {hit.run for hit in hits("look OR niemand OR localhost", run=tools)} == {tools}
    assert [hit.step for hit in hits("localhost", step="say")] == ["say"]
    assert [hit.type for hit in hits("hosts", type="prompt")] == ["prompt"]
    assert [(hit.type, hit.tool) for hit in hits("hosts OR localhost", tool="Read")] == [
        ("user tool_result", "Read"), ("assistant tool_use", "Read"),
    ]  # fmt: skip
    assert [hit.tool for hit in hits("nowhere", tool="mcp__disk__read")] == ["mcp__disk__read"]
    assert hits("nowhere", tool="read") == []
    assert [hit.run for hit in hits("wer OR niemand OR moment", model="claude-other")] == [plain, plain]
    newest = hits("localhost")[0]
    assert len(hits("localhost", since_ns=newest.wall_ns)) == 1
    assert len(hits("localhost", until_ns=newest.wall_ns)) == len(hits("localhost", before=newest.id)) == 1


@pytest.mark.parametrize("query", ["", "  ", '""', '" "'])
def test_a_search_without_a_condition_is_refused(query: str) -> None:
    """There is one clear error, with exit code 2."""
    record(DB, turn(asked("a"), text("b")))
    done = in_this_process("search", query, "--db", DB)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"retold: the search {query!r} is empty.\n"


@pytest.mark.parametrize(
    "query",
    ["foo.bar(", "foo.bar(baz)", "(foo.bar", "bar)", "f(x) OR foo", "NOT foo", "AND", "foo AND",
     "foo OR OR call", '"open', 'it\'s 5" wide', "-x", "a:b", "NEAR(", "^call", "++", "=>", "*", "()", "((", "C++", "👍🏽",
     "thumbs 👍🏽", "🏽", "{text} : x", "text:call", "x -> y", "\x00", "'; DROP TABLE texts", "%", "_",
     "…", '"call foo"', "(thumbs OR nothing) call"],
)  # fmt: skip
def test_any_text_is_a_valid_search(query: str) -> None:
    """No text is a syntax error. A search that is not an expression is a list of words. One without words reads every text."""
    there = f"{query} " + "call foo.bar(baz) C++, thumbs 👍🏽 up => not near it's 5\" wide x -> y f(x) open and or {text}"
    record(DB, turn(asked("a"), text(there)))
    assert [hit.lines[0].text for hit in hits(query)] == [there]
    assert all(hit.lines[0].found for hit in hits(query))


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("天気", ["今日の[天気]は晴れです。東京は暑い。"]),
        ("東京", ["今日の天気は晴れです。[東京]は暑い。"]),
        ("京東", []),
        ("天*", ["今日の[天]気は晴れです。東京は暑い。"]),
        ("悬空 gen-itgc", ["步2 重跑[gen-itgc]后50条[悬空]引用清零"]),
        ("itgc", ["步2 重跑gen-[itgc]后50条悬空引用清零"]),
        ("50", ["步2 重跑gen-itgc后[50]条悬空引用清零"]),
        ("대한민국", ["한국어 검색은 [대한민국]에서 됩니다"]),
        ("ไทย", ["ภาษา[ไทย]"]),
        ("カタカナ OR 天気", ["[カタカナ]とﾊﾝｶｸ", "今日の[天気]は晴れです。東京は暑い。"]),
        ("ﾊﾝｶｸ", ["カタカナと[ﾊﾝｶｸ]"]),
    ],
)
def test_a_word_of_a_script_without_spaces_is_found(query: str, lines: list[str]) -> None:
    """Chinese, Japanese, Thai and Korean words are found inside a sentence, and shown unchanged."""
    texts = (
        "今日の天気は晴れです。東京は暑い。",
        "步2 重跑gen-itgc后50条悬空引用清零",
        "한국어 검색은 대한민국에서 됩니다",
        "ภาษาไทย",
        "カタカナとﾊﾝｶｸ",
    )
    record(DB, *(turn(asked("a"), text(each)) for each in texts))
    assert found(query) == lines


@pytest.mark.parametrize("stored", ["first\x00second and \x02third\x03 fourth", "\x01\x04\x01\x08 fourth", "\ud83d half fourth"])
def test_control_characters_of_a_text_are_shown_unchanged(stored: str) -> None:
    """NUL does not end a text. Characters that retold uses to mark hits are not marks if a text contains them."""
    record(DB, turn(asked("a"), text(stored)))
    assert found("fourth") == [stored.replace("fourth", "[fourth]").replace("\ud83d", "?")]


@given(strategies.text())
def test_a_stored_text_is_shown_without_its_escapes(stored: str) -> None:
    """The index stores a text with escapes and separators. A person sees none of them."""
    assert readable(storable(stored)) == stored.encode("utf-8", "replace").decode()


def test_the_command_prints_hits_with_their_places(talk: tuple[str, str]) -> None:
    """JSON output has the matches in each line. Without a hit the exit code is 1."""
    tools, _ = talk
    done = in_this_process("search", "entry", "--db", DB)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(f"{tools[:8]}#")
    assert done.stdout.splitlines()[1] == "  The localhost entry is there."
    done = in_this_process("search", "entry", "--json", "--db", DB)
    hit = json.loads(done.stdout)
    assert (hit["run"], hit["name"], hit["step"], hit["type"]) == (tools, "tools", "say", ["assistant", "text"])
    assert hit["lines"] == [{"number": 1, "text": "The localhost entry is there.", "found": [[14, 19]]}]
    done = in_this_process("search", "zebra", "--db", DB)
    assert (done.returncode, done.stdout) == (1, "")
    assert in_this_process("search", "localhost", "-n", "1", "--db", DB).stderr == "retold: the newest 1; more with -n 5\n"


def test_the_index_follows_open_runs() -> None:
    """Each search reads the new events of ended and open runs, and each message once, including half surrogates."""
    with EventLog(DB) as log:
        one, two = log.start(name="one", mode="live"), log.start(name="two", mode="live")
        for number, writer in enumerate((one, two, one, two)):
            message = {"type": "assistant", "message": {"content": [text(f"word{number} \ud800 everywhere")]}}
            writer.append(Entry("message", encode(message)))
            assert [hit.run for hit in hits("everywhere")] == [one.run, two.run, one.run, two.run][number::-1]
        one.end()
        assert len(hits("everywhere")) == 4
        log.start(name="three", mode="live").end()
        two.append(Entry("message", encode({"type": "user", "message": {"content": "word9 everywhere"}})))
        assert len(hits("everywhere")) == 5


def test_half_a_surrogate_pair_in_a_name_is_indexed() -> None:
    """Names and ids with half a surrogate pair, which UTF-8 cannot hold, have a question mark in the index."""
    blocks = [text("said"), {"type": "tool_use", "id": "t1", "name": "Re\ud800ad", "input": {}}]
    message = {"type": "assistant", "uuid": "u\udfff", "message": {"model": "m\ud800", "content": blocks}}
    with EventLog(DB) as log, log.start(name="one", mode="live") as writer:
        writer.append(Entry("message", encode(message)))
    (hit,) = hits("said", model="m?")
    assert (hit.model, hit.tool) == ("m?", "Re?ad")
    with opened(EventLog(DB)) as index:
        assert [line.keys for line in stats(index, ["tool"])] == [("Re?ad",)]


def test_frames_are_not_read_to_find_the_events_of_the_index() -> None:
    """SQLite finds the next events of a run in the index without frames, however many frames come before them."""
    with EventLog(DB) as log, log.start(name="one", mode="live") as writer, Feed(log, KINDS) as feed:
        writer.append(*[Entry("frame", b"x" * 500)] * 2000)
        steps: list[None] = []
        feed._connection.set_progress_handler(lambda: steps.append(None), 100)
        assert not feed.has_more(writer.run, 0)
        assert feed.rows(writer.run, 0, LAST, 10) == feed.rows(writer.run, 0, 1000, 10) == []
        assert len(steps) < 10


def test_hits_of_overlapping_runs_are_in_order_of_time() -> None:
    """A message is ordered by its own time, not by the beginning of its run."""
    with EventLog(DB) as log:
        one, two = log.start(name="one", mode="live"), log.start(name="two", mode="live")
        for number in range(6):
            (one, two)[number % 2].append(Entry("message", encode({"type": "user", "message": {"content": f"n{number} said"}})))
        assert [hit.lines[0].text for hit in hits("said")] == [f"n{number} said" for number in range(5, -1, -1)]


@pytest.mark.parametrize("damage", ["truncate", "garbage", "older", "gone", "foreign"])
def test_an_unusable_index_is_rebuilt(damage: str) -> None:
    """A damaged index, one of another version, and one of another log at this path are rebuilt without loss."""
    record(DB, turn(asked("where"), text("here")))
    assert len(hits("here")) == 1
    path = path_of(EventLog(DB))
    match damage:
        case "truncate":
            os.truncate(path, 5000)
        case "garbage":
            path.write_bytes(b"garbage" * 1000)
        case "older":
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA user_version = 0")
            connection.close()
        case "gone":
            path.unlink()
        case "foreign":
            Path(DB).unlink()
            record(DB, turn(asked("where"), text("elsewhere")))
            assert len(hits("here")) == 0
            assert len(hits("elsewhere")) == 1
            return
    assert len(hits("here")) == 1


def test_the_index_is_private() -> None:
    """It contains the texts of the log."""
    record(DB, turn(asked("where"), text("here")))
    assert len(hits("here")) == 1
    assert path_of(EventLog(DB)).stat().st_mode & 0o777 == 0o600


# Statistics


def lines_by(*by: str, **options: object) -> dict[tuple[str, ...], StatsLine]:
    with opened(EventLog(DB)) as index:
        return {line.keys: line for line in stats(index, by, **options)}  # type: ignore[arg-type]


def test_statistics_add_up(talk: tuple[str, str]) -> None:
    """They count runs, exchanges, messages and tokens by model, step, workflow, day and tool."""
    del talk
    by_model = lines_by("model")
    line = by_model[("claude-test-1",)]
    assert (line.runs, line.exchanges, line.input_tokens, line.output_tokens) == (1, 3, 30, 15)
    assert (line.cache_creation_input_tokens, line.cache_read_input_tokens, line.errors, line.retries) == (9, 6, 0, 0)
    assert by_model[("claude-other",)].exchanges == 1
    assert {keys[0]: (line.exchanges, line.messages) for keys, line in lines_by("step").items()} == {
        "": (1, 1), "look": (2, 4), "say": (1, 2),
    }  # fmt: skip
    assert {keys: line.runs for keys, line in lines_by("workflow").items()} == {("tools",): 1, ("plain",): 1}
    assert {keys[0]: (line.messages, line.errors) for keys, line in lines_by("tool").items()} == {
        "Read": (1, 0), "mcp__disk__read": (1, 1),
    }  # fmt: skip
    ((day, line),) = lines_by("day").items()
    assert (line.runs, line.exchanges, line.messages) == (2, 4, 7)
    assert lines_by("model", "day").keys() == {("claude-test-1", *day), ("claude-other", *day)}
    assert lines_by("model", since_day="2999-01-01") == {}


def test_an_unknown_cost_is_not_zero(talk: tuple[str, str]) -> None:
    """Known costs are added, and exchanges without one are counted. Without any known cost the sum is unknown."""
    del talk
    by_model = lines_by("model")
    known, unknown = by_model[("claude-test-1",)], by_model[("claude-other",)]
    assert (known.cost_usd, known.unpriced) == (0.75, 1)
    assert (unknown.cost_usd, unknown.unpriced) == (None, 1)
    table = in_this_process("stats", "--db", DB)
    assert table.stdout.splitlines()[1].split()[-1] == "?"
    assert table.stdout.splitlines()[2].split()[-1] == "$0.7500+"
    assert "the cost of 2 exchanges is not known" in table.stderr
    rows = [line.split(",") for line in in_this_process("stats", "--csv", "--db", DB).stdout.splitlines()]
    assert [row[rows[0].index("cost_usd")] for row in rows] == ["cost_usd", "", "0.75"]
    assert [line["cost_usd"] for line in json.loads(in_this_process("stats", "--json", "--db", DB).stdout)] == [None, 0.75]


def test_errors_and_retries_are_counted() -> None:
    """A failed attempt is an error and costs nothing, and the next one is a retry. Durations of failures do not count."""
    failed = turn(asked("a"), text("b"), ending="no_response", failure=Failure("Cut", "gone"), call=1)
    record(DB, failed, turn(asked("a"), text("b"), attempt=2, call=1, cost_usd=0.5))
    line = lines_by("workflow")[("talk",)]
    assert (line.exchanges, line.errors, line.retries) == (2, 1, 1)


def test_replays_are_not_counted_by_default() -> None:
    """A mock run costs nothing, and counts only on demand."""
    with EventLog(DB) as log, log.start(name="again", mode="mock") as writer:
        writer.note("exchange.ended", {"ending": "complete", "model": "m", "usage": {"input_tokens": 1}}, exchange=0)
    assert lines_by("model") == {}
    assert lines_by("model", modes=("mock",))[("m",)].input_tokens == 1
    assert in_this_process("stats", "--db", DB).returncode == 1


def test_statistics_do_not_depend_on_how_they_were_gathered(talk: tuple[str, str]) -> None:
    """They are gathered message by message, with queries in between, or all at once."""
    del talk
    events = [event for info in EventLog(DB).runs()[::-1] for event in EventLog(DB).events(info.run)]
    at_once = lines_by("model"), lines_by("tool"), lines_by("step")
    with EventLog("again.db") as log:
        writer = None
        for event in events:
            if event.kind == "run.started":
                writer = log.start(name=event.data["name"], mode="import")
            elif event.kind == "run.ended" and writer is not None:
                writer.end()
            elif writer is not None:
                writer.append(Entry(event.kind, event.payload, event.step, event.task, event.exchange, event.t_ns))
            with opened(log):
                pass
        with opened(log) as index:
            again = tuple({line.keys: line for line in stats(index, [by])} for by in ("model", "tool", "step"))
    assert again == at_once


def test_percentiles_are_accurate_within_one_percent() -> None:
    """The times range from microseconds to hours."""
    from collections import Counter

    times = [0.002 * 1.013**number for number in range(1500)]
    buckets = Counter(map(bucket, times))
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = times[max(round(share * len(times)) - 1, 0)]
        assert percentile(buckets, share) == pytest.approx(exact, rel=0.0101)
    assert percentile(Counter(), 0.5) is None


@pytest.mark.parametrize(
    "options", [["--by", "colour"], ["--by", "model,step"], ["--csv", "--json"], ["--mode", "x"], ["--since", "x"]]
)
def test_an_unknown_statistic_is_refused(options: list[str]) -> None:
    """Bad usage exits with code 2 and one line that names the valid values."""
    record(DB, turn(asked("a"), text("b")))
    done = in_this_process("stats", *options, "--db", DB)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def answer(id_: str, at: str, **more: Any) -> dict[str, Any]:
    """Return a line of a session transcript: one answer of 100 and 10 tokens."""
    message = {"id": id_, "role": "assistant", "model": "m", "content": [{"type": "text", "text": f"tick {id_}"}]}
    usage = {"input_tokens": 100, "output_tokens": 10}
    line = {"type": "assistant", "uuid": f"line-{id_}", "requestId": f"req-{id_}", "sessionId": "s", "timestamp": at}
    return line | {"message": message | {"usage": usage}} | more


def imported(name: str, *lines: dict[str, Any]) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert in_this_process("import", name, "--db", DB).returncode == 0


def test_an_answer_is_counted_once_over_several_imports() -> None:
    """A transcript is imported again after it has grown. A resumed session begins with a copy of the old one."""
    first, second, third = (answer(each, f"2026-11-01T10:00:0{n}Z") for n, each in enumerate("abc"))
    imported("s.jsonl", first, second)
    imported("s.jsonl", first, second, third)
    imported("resumed.jsonl", first | {"uuid": "another", "sessionId": "t"}, second | {"uuid": "more", "sessionId": "t"})
    imported("proxied.jsonl", answer("a", "2026-11-01T11:00:00Z", requestId="another", uuid="other"))
    with opened(EventLog(DB)) as index:
        (line,) = stats(index, ["model"])
    assert (line.exchanges, line.messages, line.input_tokens, line.output_tokens) == (4, 4, 400, 40)


def test_days_are_those_of_the_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics count a day as `ls` and `--since today` do, even if the zone has changed since the last query."""
    imported("s.jsonl", *(answer(at, at) for at in ("2026-10-25T00:30:00Z", "2026-10-25T23:30:00Z", "2026-10-26T03:30:00Z")))
    days = []
    try:
        for zone in ("UTC", "America/New_York", "Asia/Kathmandu"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            with opened(EventLog(DB)) as index:
                days.append({line.keys[0][-2:]: line.messages for line in stats(index, ["day"])})
                assert sum(line.messages for line in stats(index, ["day"], since_day="2026-10-26")) == days[-1].get("26", 0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert days == [{"25": 2, "26": 1}, {"24": 1, "25": 2}, {"25": 1, "26": 2}]


# Listing


def names(**wanted: object) -> list[str]:
    return [found.info.name for found in chosen_runs(EventLog(DB), Chosen(**wanted))]  # type: ignore[arg-type]


@pytest.mark.usefixtures("talk")
def test_ls_filters_runs() -> None:
    """It filters by name, mode, status, time, model, tool, cost and failure, also together."""
    with EventLog(DB) as log:
        log.start(name="Failing run", mode="live").end("failed", error="x")
        log.start(name="open", mode="live")
    assert names() == ["open", "Failing run", "plain", "tools"]
    assert names(status="running") == ["open"]
    assert names(status="interrupted") == []
    assert names(name="fail") == ["Failing run"]
    assert names(name="*l*") == ["Failing run", "plain", "tools"]
    assert names(mode="import") == ["plain", "tools"]
    assert names(model="claude-other") == ["plain"]
    assert names(model="claude*", tool="Read") == ["tools"]
    assert names(min_cost=0.75) == ["tools"]
    assert names(min_cost=0.76) == []
    assert names(failed=True) == ["Failing run"]
    assert names(failed=True, model="claude-other") == []
    assert names(facts=True, status="running") == ["open"]
    assert names(since_ns=moment("1h", "")) == names()
    assert names(until_ns=moment("1h", "")) == []
    done = in_this_process("ls", "--tool", "Read", "--db", DB)
    assert [line.split()[-2:] for line in done.stdout.splitlines()] == [["COST", "NAME"], ["$0.7500", "tools"]]
    (run,) = json.loads(in_this_process("ls", "--min-cost", "0.1", "--json", "--db", DB).stdout)
    assert (run["models"], run["tools"], run["cost_usd"]) == (["claude-test-1"], ["Read", "mcp__disk__read"], 0.75)
    assert in_this_process("ls", "--name", "nobody", "--db", DB).returncode == 1


def test_times_are_accepted_in_common_forms() -> None:
    """These are spans back from now, days, and dates with and without a time or an offset."""
    from datetime import datetime

    now = datetime.fromisoformat("2026-11-22T14:30:00+01:00")

    def at(word: str) -> str:
        return datetime.fromtimestamp(moment(word, "--since", now) / 1e9, now.tzinfo).isoformat()

    assert at("90m") == "2026-11-22T13:00:00+01:00"
    assert at("1.5d") == "2026-11-21T02:30:00+01:00"
    assert at("today") == "2026-11-22T00:00:00+01:00"
    assert at("yesterday") == "2026-11-21T00:00:00+01:00"
    assert at("2026-11-20T10:00:00+01:00") == "2026-11-20T10:00:00+01:00"
    for word in ("", "soon", "5", "99999999999d", "2026-13-01"):
        with pytest.raises(InputError, match="--since: "):
            moment(word, "--since", now)


def test_search_text_becomes_an_fts5_query() -> None:
    """Operators and prefixes stay. Any other text is searched for literally."""
    assert to_fts('a AND "b c"* OR claude-3* NOT (x_y)') == 'a AND "b c"* OR "claude-3"* NOT (x_y)'
    assert to_fts("and near NEAR") == '(and AND near AND "NEAR")'
