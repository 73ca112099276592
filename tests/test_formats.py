"""Runs are exported in every format and imported again, byte for byte and once. The content determines the format of a file."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from retold.audit.index import opened
from retold.audit.search import search
from retold.audit.stats import stats
from retold.audit.verify import verify
from retold.formats import FORMATS, parquet
from retold.formats.imports import import_files
from retold.recorder.errors import CassetteError, InputError
from retold.recorder.events import Entry
from retold.recorder.log import erasure
from retold.recorder.log.log import EventLog
from retold.recorder.log.runs import RunInfo
from tests.conftest import RECORDINGS, SHARED
from tests.e2e import in_this_process
from tests.raw_log import query, rows
from tests.talk import asked, packed, record, text, tool_result, tool_use, turn, unstreamed

DB = "log.db"


def exported(form: str, *runs: RunInfo) -> bytes:
    out = io.BytesIO()
    FORMATS[form].write(EventLog(DB), runs or EventLog(DB).runs()[::-1], out)
    return out.getvalue()


@pytest.fixture
def talk() -> str:
    """Record a run with tools, a compressed answer and thinking."""
    use, result = tool_use("Read", "t1", path="/a`b"), tool_result("t1", "```\nx\n```", is_error=True)
    return record(
        DB,
        turn(asked("Read it.\nPlease."), {"type": "thinking", "thinking": "Hm."}, text("Yes."), use, step="read", call=0),
        packed(turn(asked("Read it.", [use], [result]), text("Done."), step="say", call=1)),
    )


@pytest.mark.usefixtures("talk")
def test_jsonl_reads_back_to_the_byte() -> None:
    """A log that imports the lines has the same rows, and exports the same lines. A second import changes nothing."""
    with EventLog(DB) as log, log.start(name="second", mode="live") as writer:
        writer.append(Entry("frame", b"\xff\x00"), Entry("x.unknown", b"{}", "step", "task"))
    Path("all.jsonl").write_bytes(exported("jsonl"))
    with EventLog("other.db") as other:
        assert [each.new for each in import_files(other, [Path("all.jsonl")])] == [True, True]
        assert [each.new for each in import_files(other, [Path("all.jsonl")])] == [False, False]
        assert [(i.run, i.name, i.mode, i.status, i.messages, i.frames) for i in other.runs()] == [
            (i.run, i.name, i.mode, i.status, i.messages, i.frames) for i in EventLog(DB).runs()
        ]
        for info in other.runs():
            assert rows(Path("other.db"), info.run) == rows(Path(DB), info.run)
        assert verify(other).findings == []


def test_a_run_with_erased_payloads_reads_back(talk: str) -> None:
    """The record of the erasure is also imported, or rewritten. An edited line is refused."""
    with EventLog(DB) as log:
        event = next(log.events(talk, kinds=("frame",)))
        with log.start(name="erase", mode="audit") as writer:
            erasure.replace_payloads(log, writer, talk, [(event.seq, b": erased\n\n")], kind=erasure.ERASED)
        run = log.find(talk)
        whole, alone = exported("jsonl"), exported("jsonl", run)
    for number, data in enumerate((whole, alone)):
        Path("x.jsonl").write_bytes(data)
        with EventLog(f"other{number}.db") as other:
            import_files(other, [Path("x.jsonl")])
            assert verify(other).findings == []
            assert verify(other).erased == 1
    Path("x.jsonl").write_bytes(whole.replace(b": erased", b": forged"))
    with EventLog("other2.db") as other, pytest.raises(InputError, match=rf"event {event.seq} of run {talk} was edited"):
        import_files(other, [Path("x.jsonl")])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "event 3 of run"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "event 0 of run"),
        (lambda lines: [lines[0].replace(b'"wall_ns":', b'"wall_ns":1'), *lines[1:]], "event 0 of run"),
        (lambda lines: [*lines[:5], lines[5][:40]], ":6: not an event"),
        (lambda lines: [lines[0].replace(b'"schema":1', b'"schema":9'), *lines[1:]], "newer retold"),
    ],
)
def test_lines_that_were_tampered_with_are_not_imported(talk: str, damage: object, message: str) -> None:
    """Lines are omitted, moved, edited, cut or too new. One error names the place, and the log stays empty."""
    lines = exported("jsonl", EventLog(DB).find(talk)).splitlines(keepends=True)
    Path("x.jsonl").write_bytes(b"".join(damage(lines)))  # type: ignore[operator]
    done = in_this_process("import", "x.jsonl", "--db", "other.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not Path("other.db").exists() or EventLog("other.db").runs() == []


def test_stream_json_reads_back_unchanged(talk: str) -> None:
    """Each message is the same line, in order."""
    data = exported("stream-json", EventLog(DB).find(talk))
    Path("x.jsonl").write_bytes(data)
    with EventLog("other.db") as other:
        (made,) = import_files(other, [Path("x.jsonl")])
        assert (made.count, made.name) == (5, "x")
        assert b"".join(event.payload + b"\n" for event in other.events(made.run, kinds=("message",))) == data


SESSION = [
    {"type": "summary", "summary": "About hosts", "leafUuid": "u2"},
    {"parentUuid": None, "isSidechain": False, "sessionId": "s1", "type": "user", "uuid": "u1",
     "timestamp": "2025-03-01T10:00:00.000Z", "message": {"role": "user", "content": "What is in hosts?"}},
    {"parentUuid": "u1", "isSidechain": False, "sessionId": "s1", "type": "assistant", "uuid": "u2",
     "timestamp": "2025-03-01T10:00:02.500Z", "message": {"id": "m1", "model": "claude-x", "role": "assistant",
     "content": [{"type": "text", "text": "Localhost."}], "usage": {"input_tokens": 7, "output_tokens": 2}}},
    {"type": "file-history-snapshot", "messageId": "u2", "snapshot": {}},
]  # fmt: skip


def test_a_session_of_claude_code_is_imported_with_its_times() -> None:
    """Messages are messages, and other lines are a separate kind of event. Statistics count its tokens. Its cost is unknown."""
    Path("s1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SESSION))
    with EventLog(DB) as log:
        (made,) = import_files(log, [Path("s1.jsonl")])
        events = list(log.events(made.run))
    assert [event.kind for event in events] == [
        "run.started", "stream.summary", "message", "message", "stream.file-history-snapshot", "run.ended",
    ]  # fmt: skip
    assert [event.data for event in events[1:-1]] == SESSION
    assert (events[3].t_ns, log.find(made.run).started_ns) == (2_500_000_000, 1_740_823_200_000_000_000)
    with opened(log) as index:
        (line,) = stats(index, ["model"])
        assert (line.keys, line.input_tokens, line.exchanges, line.cost_usd, line.unpriced) == (("claude-x",), 7, 1, None, 1)
        assert [line.keys for line in stats(index, ["day"])] == [("2025-03-01",)]
        assert [hit.type for hit in search(index, "hosts OR localhost")] == ["assistant text", "user text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", "{", ":1: not a line of JSON"),
        ("x.jsonl", '{"type":"user"}\n[1]\n', ":2: not a line of stream-json"),
        ("x.jsonl", '{"type":"user"}\n{"a":\n', ":2: not a line of JSON"),
        ("x.jsonl", '{"type":"summary"}\n', "holds no messages"),
        ("x.yaml", "interactions: []", "holds no interactions"),
    ],
)
def test_an_unreadable_file_is_refused_before_anything_is_written(talk: str, name: str, content: str, message: str) -> None:
    """One of several files is unreadable: one error with its place, exit code 2, and no run of the good files."""
    del talk
    Path("good.jsonl").write_bytes(exported("stream-json"))
    Path(name).write_text(content)
    done = in_this_process("import", "good.jsonl", name, "--db", "other.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}{message if message.startswith(':') else ''}" in done.stderr
    assert message in done.stderr
    assert not Path("other.db").exists()


def test_a_file_is_imported_once(talk: str) -> None:
    """A second import, another name, or a copy give the same run, unless the user asks for a new one."""
    done = in_this_process("export", talk, "-o", "a.yaml", "--db", DB)
    assert done.returncode == 0
    Path("b.yaml").write_bytes(Path("a.yaml").read_bytes())
    first = json.loads(in_this_process("import", "a.yaml", "b.yaml", "--json", "--db", "other.db").stdout)
    again = json.loads(in_this_process("import", "b.yaml", "--name", "c", "--json", "--db", "other.db").stdout)
    assert [each["new"] for each in first + again] == [True, False, False]
    assert len({each["run"] for each in first + again}) == 1
    assert "is there already" in in_this_process("import", "a.yaml", "--db", "other.db").stdout
    in_this_process("import", "a.yaml", "--again", "--db", "other.db")
    assert len(EventLog("other.db").runs()) == 2


def test_markdown_is_a_readable_transcript(talk: str) -> None:
    """It has speakers, tools with their input, and results in a fence that their content cannot close."""
    transcript = exported("markdown", EventLog(DB).find(talk)).decode()
    assert transcript.startswith(f"# talk\n\nrun `{talk}`, import, completed, ")
    assert transcript.partition("\n## read\n")[2] == (
        "\n**User**\n\n> Read it.\n> Please.\n\n**Thinking**\n\n> Hm.\n\n**Assistant**\n\nYes.\n\n**Tool use** `Read`\n\n"
        '```json\n{\n  "path": "/a`b"\n}\n```\n\n## say\n\n**Tool result** *(error)*\n\n````\n```\nx\n```\n````\n\n'
        "**Assistant**\n\nDone.\n"
    )


@pytest.mark.usefixtures("talk")
def test_parquet_has_every_event() -> None:
    """It has columns for data tools: payloads as text, or as bytes if they are not text."""
    whole = pyarrow.parquet.read_table(io.BytesIO(exported("parquet")))
    table = whole.drop(["wall"]).to_pylist()
    (info,) = EventLog(DB).runs()
    events = list(EventLog(DB).events(info.run))
    assert [(row["run"], row["seq"], row["kind"], row["hash"]) for row in table] == [
        (e.run, e.seq, e.kind, e.hash) for e in events
    ]
    assert [row["payload_bytes"] if row["payload"] is None else row["payload"].encode() for row in table] == [
        e.payload for e in events
    ]
    assert {row["name"] for row in table} == {"talk"}


@pytest.mark.parametrize("form", ["jsonl", "stream-json", "markdown", "parquet"])
def test_export_needs_little_memory(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 MB is exported in a fraction of that."""
    message = json.dumps({"type": "assistant", "message": {"content": [text("x" * 5_000)]}}).encode()
    with EventLog(DB) as log, log.start(name="long", mode="live") as writer:
        for _ in range(40):
            writer.append(*[Entry("message", message)] * 50)
    monkeypatch.setattr(parquet, "GROUP", 100)  # it holds a row group beside the page of events of every format
    FORMATS[form].write(EventLog(DB), EventLog(DB).runs(), Nowhere())  # imports during the export are not part of the run
    tracemalloc.start()
    try:
        FORMATS[form].write(EventLog(DB), EventLog(DB).runs(), Nowhere())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_cassette_is_exported_exchange_by_exchange() -> None:
    """Of a run of 12 MB, only a few exchanges are in memory at once."""
    record(DB, *[unstreamed(asked(f"ask {n}"), text("y" * 400_000), call=n) for n in range(30)])
    tracemalloc.start()
    try:
        assert FORMATS["cassette"].write(EventLog(DB), EventLog(DB).runs(), Nowhere()) == 30
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


class Nowhere(io.BytesIO):
    """A file that keeps nothing."""

    def write(self, data: object) -> int:
        return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


@pytest.mark.usefixtures("talk")
def test_the_export_command_chooses_formats_by_name_and_ending() -> None:
    """All runs go into one file, or as cassettes into a folder. A refused export leaves no file."""
    assert in_this_process("export", "last", "--format", "jsonl", "--db", DB).stdout.encode() == exported("jsonl")
    for name in ("x.jsonl", "x.md", "x.parquet", "x.yaml", "x.json"):
        assert (name, in_this_process("export", "last", "-o", name, "--db", DB).returncode) == (name, 0)
        assert in_this_process("export", "last", "-o", name, "--db", DB).returncode == 2
    assert Path("x.md").read_bytes() == exported("markdown")
    assert Path("x.yaml").read_bytes() == exported("cassette")
    assert {name: Path(name).stat().st_mode & 0o777 for name in ("x.yaml", "x.json", "x.jsonl")} == {
        "x.yaml": 0o644, "x.json": 0o644, "x.jsonl": 0o600,
    }  # fmt: skip
    record(DB, turn(asked("x"), text("y")), name="a/b")
    assert in_this_process("export", "--all", "-o", "out", "--db", DB).returncode == 0
    assert sorted(path.name.rpartition("-")[0] for path in Path("out").iterdir()) == ["a_b", "talk"]
    for options in (["last", "--all"], [], ["last", "--format", "xml"], ["--all"], ["--all", "-o", "y.yaml"]):
        assert (options, in_this_process("export", *options, "--db", DB).returncode) == (options, 2)
    assert [path.name for path in Path().iterdir() if path.suffix == ".part"] == []


def test_show_selects_and_shows_raw_events(talk: str) -> None:
    """It selects by step, type and number. Raw output has every event with header and payload."""

    def shown(*options: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in in_this_process("show", talk, "--json", *options, "--db", DB).stdout.splitlines()]

    everything = shown()
    assert [line["step"] for line in shown("--step", "say")] == ["say", "say"]
    assert [line["type"] for line in shown("--type", "user")] == ["user"]
    assert shown("--from", str(everything[1]["seq"]), "--to", str(everything[2]["seq"])) == everything[1:3]
    assert [line["seq"] for line in shown("--raw", "--type", "exchange.started")] == [1, 23]
    assert len(shown("--raw")) == len(list(EventLog(DB).events(talk)))
    raw = in_this_process("show", talk, "--raw", "--type", "run.started", "--db", DB).stdout
    assert raw.startswith("#0  +0.000ms  run.started  ")
    assert in_this_process("show", talk, "--step", "say", "--db", DB).stdout.count("ASSISTANT") == 1
    assert in_this_process("show", talk, "--raw", "--handler", "debug", "--db", DB).returncode == 2


def shared_files() -> Iterator[Path]:
    yield from sorted((SHARED / "streamjson").glob("*.jsonl"))
    yield from sorted(path for path in RECORDINGS.rglob("*") if path.suffix in (".yaml", ".json"))


@pytest.mark.stress
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample data is not here")
def test_recordings_of_other_tools_go_into_one_log() -> None:
    """Real stream-json and real cassettes are imported, searched, counted, verified, and exported again."""
    refused, made = [], []
    with EventLog(DB) as log:
        for path in shared_files():
            try:
                made += import_files(log, [path])
            except CassetteError:
                refused.append(path.name)  # has only a response, so it is not a recording
        assert len(made) > 160
        assert len(refused) < 12
        assert len(log.runs()) == sum(each.new for each in made)
        report = verify(log)
        assert (report.findings, report.runs) == ([], len(log.runs()))
        with opened(log) as index:
            assert len(list(search(index, "weather", limit=5))) == 5
            lines = stats(index, ["model"])
        scanned = dict(query(Path(DB), "SELECT ifnull(model, ''), sum(input_tokens) FROM usage GROUP BY model"))
        assert len(scanned) > 10
        assert scanned == {line.keys[0]: line.input_tokens for line in lines if line.keys[0] in scanned}
        assert {line.keys[0]: line.cost_usd for line in lines}["claude-2.1"] is None
