"""An erased text is gone from every byte of the files, the chains stay valid, and an event records who erased it and why."""

import json
import re
import time
from pathlib import Path

import pytest

from retold.audit import erase as audit
from retold.audit.index import opened
from retold.audit.leftovers import left_behind
from retold.audit.search import search
from retold.audit.verify import verify
from retold.formats.imports import import_files
from retold.recorder.cassette.format import write_cassette
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.errors import InputError
from retold.recorder.events import Entry, encode
from retold.recorder.log import erasure
from retold.recorder.log.log import EventLog
from tests.e2e import in_this_process
from tests.raw_log import query, rows
from tests.talk import asked, packed, record, stream, text, tool_result, tool_use, turn, unstreamed

DB = Path("log") / "log.db"
NAME = 'Zoë "Quirky" O\'Path/Nyx\nFourth'
"""It contains every kind of character that JSON, JSON in JSON and URLs encode."""


@pytest.fixture
def log() -> EventLog:
    DB.parent.mkdir()
    return EventLog(DB)


def bytes_with(*needles: str) -> list[str]:
    """Return the files of the folder that contain a text in their bytes."""
    return sorted({
        path.name for path in DB.parent.rglob("*") if path.is_file() for needle in needles
        if needle.encode() in path.read_bytes() or needle.lower().encode() in path.read_bytes().lower()
    })  # fmt: skip


def record_everywhere(name: str) -> str:
    """Record a run with a name in every possible place."""
    use = tool_use("Write", "t1", path="a.json", content=json.dumps({"customer": name}))
    block, result = text(f"Hello {name}, how are you?"), tool_result("t1", f"written for {name}")
    ask = f"I am {name}. Say hello."
    return record(
        DB,
        turn(asked(ask), block, call=0),
        packed(turn(asked("again"), block, call=1)),
        unstreamed(asked("and in one piece"), block, call=2),
        turn(asked("now a tool"), text("Of course."), use, call=3),
        turn(asked("now a tool", [use], [result]), text("Done."), call=4),
        turn(asked("nobody"), text("Somebody else entirely"), call=5),
        name="everywhere",
    )


def erase_text(log: EventLog, wanted: str) -> None:
    with log:
        audit.erase(log, audit.plan_text(log, wanted), why="asked", by="tests")


def hits(log: EventLog, wanted: str) -> int:
    with opened(log) as index:
        return len(list(search(index, wanted)))


@pytest.mark.parametrize("name", [NAME, "Quirkington", "Ångström-Ëxample"])
def test_an_erased_text_is_gone_from_every_file(log: EventLog, name: str) -> None:
    """The text is whole or split over deltas, compressed, in tool inputs, results, requests and listings."""
    run = record_everywhere(name)
    record(DB, turn(asked("x"), text("y")), name=f"run of {name}")
    head = log.head()
    assert hits(log, "hello") > 0
    word = max(re.findall(r"\w+", name), key=len)
    assert bytes_with(word, json.dumps(word)[1:-1]) != []
    erase_text(log, name.swapcase())
    assert bytes_with(word, json.dumps(word)[1:-1]) == []
    assert left_behind(log, name) == []
    report = verify(log, against=head)
    assert report.findings == []
    assert report.erased > 20
    assert hits(log, "somebody") == hits(log, "nobody") == 1
    assert hits(log, f'"{word}"') == 0
    assert [exchange.ending for exchange in exchanges_of(log, run)] == ["complete"] * 6
    assert [info.name for info in log.runs()] == ["erase", "erased", "everywhere"]


def test_only_payloads_with_the_text_are_erased(log: EventLog) -> None:
    """The rest of the run keeps its bytes. Erased events keep their header, digest and hash."""
    run = record_everywhere("Quirkington")
    before = rows(DB, run)
    erase_text(log, "quirkington")
    after = rows(DB, run)
    assert [{**row, "payload": b""} for row in before] == [{**row, "payload": b""} for row in after]
    changed = [old for old, new in zip(before, after, strict=True) if old["payload"] != new["payload"]]
    assert {row["kind"] for row in changed} == {"exchange.started", "frame", "chunk", "message"}
    assert len({row["exchange"] for row in before} - {None}) == 6
    assert len({row["exchange"] for row in changed} - {None}) == 5


def test_an_erasure_records_who_when_and_why(log: EventLog) -> None:
    """Events of a separate run in the chain record it. A second erasure finds nothing left to do."""
    run = record_everywhere("Quirkington")
    done = in_this_process("erase", "--text", "Quirkington", "--why", "request 4711", "--who", "dpo", "--yes", "--db", DB)
    assert done.returncode == 0
    info = log.runs(limit=1)[0]
    events = list(log.events(info.run))
    assert (info.mode, info.name) == ("audit", "erase")
    assert events[0].data == {"name": "erase", "mode": "audit", "who": "dpo", "why": "request 4711"}
    records = [event.data for event in events if event.kind == "payloads.erased"]
    assert {each["run"] for each in records} == {run}
    assert in_this_process("verify", "--db", DB).stdout.count("payloads erased") == 1
    assert in_this_process("erase", "--text", "Quirkington", "--why", "again", "--yes", "--db", DB).returncode == 1
    assert log.find("last").run == run


def test_a_name_in_a_reason_can_be_erased_too(log: EventLog) -> None:
    """The record of an erasure is a run like any other. The parts that verify needs stay."""
    record_everywhere("Quirkington")
    with log:
        audit.erase(log, audit.plan_text(log, "hello"), why="Quirkington asked for it")
    assert bytes_with("quirkington") != []
    erase_text(log, "Quirkington")
    assert bytes_with("quirkington") == []
    report = verify(log)
    assert (report.findings, report.erased > 20) == ([], True)


def test_verify_finds_an_edited_tombstone(log: EventLog) -> None:
    """The event of the erasure covers the replacement of each payload."""
    from tests.tamper import tamper

    run = record_everywhere("Quirkington")
    erase_text(log, "Quirkington")
    (seq,) = query(DB, "SELECT min(seq) FROM events WHERE run = ? AND payload = ': erased\n\n'", run)[0]
    tamper(DB, "UPDATE events SET payload = 'data: forged\n\n' WHERE run = ? AND seq = ?", values=(run, seq))
    assert [(f.run, f.seq, f.what) for f in verify(log).findings] == [(run, seq, "edited")]


def test_erasing_a_message_erases_its_repetitions(log: EventLog) -> None:
    """Its frames go, and the requests that repeat it, also in another run. Other texts stay."""
    block = text("The secret ingredient is cardamom.")
    first = record(DB, turn(asked("what"), block, call=0), turn(asked("what", [block], "more"), text("No more."), call=1))
    second = record(DB, turn(asked("what", [block], "go on"), text("Going on."), call=0))
    (seq,) = [event.seq for event in log.events(first, kinds=("message",)) if b"cardamom" in event.payload]
    done = in_this_process("erase", f"{first[:6]}#{seq}", "--why", "asked", "--yes", "--db", DB)
    assert done.returncode == 0
    assert bytes_with("cardamom") == []
    assert [next(m.blocks)["text"] for m in log.messages(first) if m.type == "assistant"] == ["No more."]
    assert [next(m.blocks)["text"] for m in log.messages(second)] == ["Going on."]
    assert verify(log).findings == []
    for way in ((), ("-o", "erased.yaml")):
        done = in_this_process("export", second, *way, "--db", DB)
        last = done.stderr.splitlines()[-1]
        assert last == f"retold: the cassette cannot be replayed whole: 1 payload of run {second[:8]} erased"
    assert "erased" not in in_this_process("export", second, "--format", "jsonl", "--db", DB).stderr


def test_a_short_message_is_erased_only_in_its_own_run(log: EventLog) -> None:
    """Many runs contain `Yes`. It is erased only as a whole string, and only in its run."""
    block = text("Yes")
    first = record(DB, turn(asked("ok?"), block, call=0), turn(asked("ok?", [block], "Yes?"), text("Yes, indeed."), call=1))
    second = record(DB, turn(asked("ok?"), block))
    seq = next(event.seq for event in log.events(first, kinds=("message",)))
    plan = audit.plan_message(log, first, seq)
    assert set(plan.events) == {first}
    with log:
        audit.erase(log, plan, why="asked")
    assert [m.type for m in log.messages(first)] == ["erased", "assistant"]
    assert [m.type for m in log.messages(second)] == ["assistant"]


def test_a_run_is_erased_whole_and_its_account_stays(log: EventLog) -> None:
    """No personal text is left, not even the name. Model, tokens and cost stay."""
    run = record(DB, turn(asked("I am Quirkington"), text("Hello Quirkington"), cost_usd=0.5), name="about Quirkington")
    other = record(DB, turn(asked("x"), text("y")))
    before = [dict(row) for row in rows(DB, other)]
    done = in_this_process("erase", run, "--why", "asked", "--yes", "--db", DB)
    assert (done.returncode, bytes_with("quirkington")) == (0, [])
    assert rows(DB, other) == before
    assert log.find(run).name == "erased"
    table = in_this_process("stats", "--json", "--db", DB)
    assert [(line["exchanges"], line["cost_usd"], line["unpriced"]) for line in json.loads(table.stdout)] == [(2, 0.5, 1)]
    for command in ("show", "play", "export"):
        done = in_this_process(command, run, "--db", DB)
        assert (command, done.returncode, "Traceback" in done.stderr) == (command, 0, False)
    assert verify(log).findings == []


SESSION = [
    {"type": "system", "subtype": "init", "session_id": "s"},
    *({"type": "assistant", "session_id": "s", "message": {
        "id": f"msg_{number}", "model": "claude-opus-5-5", "content": [{"type": "text", "text": "Dear Quirkington"}],
        "usage": {"input_tokens": 7, "output_tokens": 2, "service_tier": "Quirkington"}}} for number in (1, 1, 2)),
    {"type": "result", "subtype": "success", "is_error": False, "result": "Dear Quirkington", "session_id": "s", "modelUsage": {
        "claude-opus-5-5": {"inputTokens": 14, "outputTokens": 5, "cacheReadInputTokens": 1, "costUSD": 0.25}}},
]  # fmt: skip


@pytest.mark.parametrize("lines", [SESSION, SESSION[:-1]], ids=["reported", "cut"])
def test_a_session_is_erased_and_its_account_stays(log: EventLog, lines: list[dict[str, object]]) -> None:
    """Messages contain the usage and the cost of a session. Their replacements keep these, once for each answer."""
    Path("s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (made,) = import_files(log, [Path("s.jsonl")])
    before = in_this_process("stats", "--json", "--db", DB).stdout
    assert json.loads(before)[0]["exchanges"] == 2
    for _ in range(2):  # a second erasure finds its own replacements
        done = in_this_process("erase", made.run, "--why", "asked", "--yes", "--db", DB)
        assert bytes_with("quirkington") == []
    assert (done.returncode, "nothing to erase" in done.stdout) == (1, True)
    after = in_this_process("stats", "--json", "--db", DB).stdout
    assert after == before
    assert verify(log).findings == []


def test_an_interrupted_stream_is_searched_too(log: EventLog) -> None:
    """A stream without an ending, cut in the middle of a name, is still searched as one text."""
    body = stream(text("Dear Quirkington"))
    cut = body[: body.index(b"ton")]
    with log, log.start(name="cut", mode="live") as writer:
        writer.append(Entry("response.started", encode({"status": 200, "reason": "", "headers": []}), exchange=0))
        frames = cut.split(b"\n\n")
        writer.append(*(Entry("frame", frame + b"\n\n", exchange=0) for frame in frames[:-1]))
        writer.append(Entry("chunk", frames[-1], exchange=0))
    assert audit.plan_text(log, "Quirking").kinds["body"] == len(frames)


def test_erasing_a_name_that_the_chain_covers_fails(log: EventLog) -> None:
    """A step's name cannot be erased. The error names the way out, which is to prune the run."""
    run = record(DB, turn(asked("x"), text("y"), step="Quirkington"))
    done = in_this_process("erase", "--text", "Quirkington", "--why", "asked", "--yes", "--db", DB)
    assert done.returncode == 1
    assert "prune those runs" in done.stderr
    with log:
        audit.prune(log, audit.plan_prune(log, time.time_ns()), why="asked")
    assert bytes_with("Quirkington") == []
    assert [f.run for f in verify(log).findings] == []
    assert run not in [info.run for info in log.runs()]


def test_the_next_erasure_finishes_an_interrupted_one(log: EventLog) -> None:
    """The payloads are replaced, but the file is not yet rewritten. The same command cleans up, and rebuilds a stale index."""
    run = record_everywhere("Quirkington")
    assert hits(log, "quirkington") > 0
    plan = audit.plan_text(log, "Quirkington")
    with log, log.start(name="erase", mode="audit", data={"who": "x", "why": "y"}) as writer:
        for event in [event for event in log.events(run) if event.seq in plan.events[run]]:
            payload = erasure.tombstone(event.kind, event.payload, writer.run)
            erasure.replace_payloads(log, writer, run, [(event.seq, payload)], kind=erasure.ERASED)
    assert bytes_with("quirkington") != []
    assert hits(log, "quirkington") == 0
    done = in_this_process("erase", "--text", "Quirkington", "--why", "again", "--yes", "--db", DB)
    assert (done.returncode, bytes_with("quirkington")) == (1, [])


def test_nothing_is_erased_without_consent(log: EventLog) -> None:
    """Without a terminal an erasure needs --yes and a reason without the text. --dry-run and bad input change nothing."""
    record_everywhere("Quirkington")
    before = DB.read_bytes()
    for options, code in (
        (["--text", "Quirkington"], 2),
        (["--text", "Quirkington", "--yes"], 2),
        (["--text", "Quirkington", "--why", "for quirkington", "--yes"], 2),
        (["--text", "Quirkington", "--dry-run"], 0),
        (["--text", "ab", "--why", "x", "--yes"], 2),
        (["last#99999", "--why", "x", "--yes"], 2),
        (["last", "--text", "Quirkington"], 2),
        ([], 2),
        (["--text", "not in there", "--why", "x", "--yes"], 1),
    ):
        assert (options, in_this_process("erase", *options, "--db", DB).returncode) == (options, code)
    assert in_this_process("prune", "--older-than", "0s", "--db", DB).returncode == 2
    assert in_this_process("prune", "--older-than", "soon", "--db", DB).returncode == 2
    assert in_this_process("redact", "--pattern", "Quirk\\w+", "--db", DB).returncode == 2
    assert in_this_process("redact", "--pattern", "(", "--yes", "--db", DB).returncode == 2
    assert in_this_process("redact", "--pattern", "x*", "--yes", "--db", DB).returncode == 2
    assert DB.read_bytes() == before
    with pytest.raises(InputError, match="goes on"), log:
        audit.plan_run(log, log.find(log.start(name="open", mode="live").run))


def test_old_runs_are_pruned_and_the_chain_of_the_rest_is_valid(log: EventLog) -> None:
    """Pruning goes by age and keeps the newest.

    The bytes go, the old head still proves the rest, and the index forgets the runs.
    """
    kept = [record(DB, turn(asked(f"ask {n}"), text(f"answer{n} everywhere")), name=f"run {n}") for n in range(4)][2:]
    head = log.head()
    assert hits(log, "everywhere") == 4
    done = in_this_process("prune", "--older-than", "0s", "--keep", "2", "--yes", "--json", "--db", DB)
    assert len(json.loads(done.stdout)["runs"]) == 2
    assert [info.run for info in log.runs() if info.mode != "audit"] == kept[::-1]
    assert (bytes_with("answer0", "answer1"), hits(log, "everywhere")) == ([], 2)
    report = verify(log, against=head)
    assert (report.findings, report.pruned) == ([], 2)
    assert in_this_process("prune", "--older-than", "1d", "--yes", "--db", DB).stdout == "0 runs to remove\n"


def test_a_pattern_is_redacted_in_place(log: EventLog) -> None:
    """Only its matches are replaced, also over deltas. Streams and JSON stay readable. A compressed body is erased whole."""
    run = record_everywhere("nyx@example.com")
    head = log.head()
    done = in_this_process("redact", "--pattern", r"[\w.]+@example\.com", "--why", "policy", "--yes", "--db", DB)
    assert done.returncode == 0
    assert done.stdout.startswith("1 text found")
    assert bytes_with("nyx@example.com", "@example.com") == []
    texts = [block.get("text") for message in log.messages(run) for block in message.blocks]
    assert texts[:2] == ["Hello REDACTED, how are you?"] * 2
    exchanges = exchanges_of(log, run)
    body = b"" if exchanges[0].response is None else exchanges[0].response.body
    pieces = [
        json.loads(line[5:])["delta"].get("text", "")
        for line in body.splitlines()
        if line.startswith(b"data:") and b'delta"' in line
    ]
    assert "".join(pieces) == "Hello REDACTED, how are you?"
    assert exchanges[1].response is not None
    assert exchanges[1].response.body == b""
    report = verify(log, against=head)
    assert (report.findings, report.redacted > 0, report.erased > 0) == ([], True, True)
    assert in_this_process("redact", "--pattern", r"[\w.]+@example\.com", "--why", "policy", "--yes", "--db", DB).returncode == 1


def test_a_match_that_cannot_be_redacted_in_place_is_erased(log: EventLog) -> None:
    """JSON escapes the value three levels deep, and still no trace of it is left."""
    record_everywhere('say"nyx"')
    done = in_this_process("redact", "--pattern", 'say"nyx"', "--why", "policy", "--yes", "--db", DB)
    assert (done.returncode, bytes_with("nyx"), verify(log).findings) == (0, [], [])


# Remaining copies


@pytest.mark.parametrize("verb", [("erase", "--text"), ("redact", "--pattern")])
@pytest.mark.parametrize("beside", ["plain", "a\u2028b", "a\x85b", "a\x0bb"])
def test_a_line_separator_beside_a_text_does_not_hide_it(log: EventLog, verb: tuple[str, str], beside: str) -> None:
    """Python splits lines at characters that do not end a line in JSON and event streams."""
    block = {"type": "web_search_tool_result", "tool_use_id": "t1", "content": [{"title": beside, "page_age": "Jos\u00e9 Quirk"}]}
    record(DB, turn(asked("x"), {**block, "web_search_tool_result": ""}), name="search")
    done = in_this_process(*verb, "José Quirk", "--why", "asked", "--yes", "--db", DB)
    assert (done.returncode, bytes_with("Quirk")) == (0, [])
    assert verify(log).ok


def test_an_erased_text_in_a_cassette_is_an_error_that_names_it(log: EventLog) -> None:
    """Cassettes belong to the user: the command does not change them, but it reports them."""
    made = turn(asked("x"), text("Hello Zoë Quirk."))
    write_cassette(Path("hello.yaml"), [made])
    with log:
        import_exchanges(log, [made], name="hello", source="here", data={"cassette": "hello.yaml"})
    done = in_this_process("erase", "--text", "zoe\u0308 quirk", "--why", "asked", "--yes", "--db", DB)
    assert done.returncode == 1
    assert "hello.yaml" in done.stderr
    assert bytes_with("Quirk") == []


@pytest.mark.parametrize("spelled", ["Zo\\u00EB Quirk", "Zo%C3%AB%20Quirk", "ZOE\u0308 QUIRK", "Zo\\\\u00eb Quirk"])
def test_the_files_are_searched_in_every_spelling(log: EventLog, spelled: str) -> None:
    """Spellings differ in case, composition, escapes and quotes."""
    record(DB, turn(asked("x"), text("y")), name="run")
    Path(f"{DB}-copy").write_bytes(b"\0" * 2_000_000 + spelled.encode() + b"\0")
    assert left_behind(log, "Zoë Quirk") == [f"{DB.name}-copy"]
