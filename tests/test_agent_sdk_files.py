"""Sessions of the Agent SDK in files: a cassette goes into the log and back, and all commands read it. No test needs the SDK."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import retold
from retold.comparing.reading import Side, read_exchanges, read_run
from retold.recorder.agent_wire import SESSION_ENDINGS, AgentSession, StepPlace, WireLine, is_prompt
from retold.recorder.cassette.folding import in_order
from retold.recorder.cassette.sessions import CWD, HOME, each_session, entry_to_session, session_to_entry
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.http.exchange import Exchange
from retold.recorder.log.memory import MemoryStore
from tests.agent_cli import WIRES
from tests.e2e import in_this_process
from tests.exchanges import JSON, answer, exchange
from tests.talk import asked, text, turn

FOLDER = "/home/dev/proj"


def session(wire: str, change: Callable[[str], str] = lambda line: line, **facts: Any) -> AgentSession:
    """Return a recorded wire as a session. `change` changes the text of each line."""
    steps = [json.loads(change(line)) for line in (WIRES / f"{wire}.jsonl").read_text().split("\n") if line]
    lines = [WireLine(step["t"] * 1000, step["d"] == "w", step["m"]) for step in steps if step["d"] in ("r", "w")]
    made = AgentSession(
        tuple(lines), "complete", None, 0, "0.2.187", FOLDER, "/home/dev", ("--output-format", "stream-json", "--model", "opus"),
        "2026-11-22T12:15:58.000Z", 3_000_000, 3_000_000 + lines[-1].offset_ns,
    )  # fmt: skip
    return replace(made, **facts)


def cassette(path: Path, *sessions: AgentSession) -> Path:
    retold.write_cassette(path, [], sessions)
    return path


def items(side: Side) -> list[Any]:
    return [(each.label, each.root, [(i.kind, i.value, i.turn, i.seq, i.t_ns) for i in each.items]) for each in side.streams]


# Into the log and back

_WORDS = st.text(max_size=8)
_JSON = st.recursive(_WORDS | st.integers() | st.booleans() | st.none(), lambda inner: st.dictionaries(_WORDS, inner, max_size=3))
_TIMES_NS = st.integers(0, 10**10).map(lambda us: us * 1000)
_LINES = st.builds(
    WireLine, _TIMES_NS, st.booleans(),
    st.fixed_dictionaries({"type": st.sampled_from(["user", "system", "control_request", "x"])}, optional={"x": _JSON}),
)  # fmt: skip


@st.composite
def sessions(draw: st.DrawFn) -> AgentSession:
    """Draw a session as a cassette contains it: with the folders of a cassette, in whole microseconds."""
    lines = sorted(draw(st.lists(_LINES, max_size=5)), key=lambda line: line.offset_ns)
    last_ns = max((line.offset_ns for line in lines), default=0)
    error = draw(
        st.none() | st.fixed_dictionaries({"type": _WORDS, "message": _WORDS}, optional={"exit_code": st.integers(0, 9)})
    )
    started_ns = draw(_TIMES_NS)
    prompts = sum(is_prompt(line) for line in lines)
    steps = st.lists(_WORDS, min_size=max(prompts, 1), max_size=max(prompts, 1)).map(tuple)
    named = st.dictionaries(st.sampled_from(["date", "execution_id"]), _WORDS)
    place = draw(st.none() | st.builds(StepPlace, steps, _WORDS, st.dictionaries(_WORDS, _WORDS | st.integers(0, 9)), named))
    return AgentSession(
        tuple(lines), draw(st.sampled_from(SESSION_ENDINGS)), error, draw(st.none() | st.integers(-9, 255)), draw(_WORDS),
        CWD, HOME, draw(st.none() | st.lists(_WORDS, max_size=3).map(tuple)),
        draw(st.sampled_from(["", "2026-11-28T12:00:00.000Z"])), started_ns, started_ns + last_ns + draw(_TIMES_NS),
        draw(st.none() | st.lists(st.sampled_from(["result.a", "stream_event.b"]), max_size=2).map(tuple)),
        place,
    )  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions())
def test_a_session_is_the_same_after_a_file_and_after_a_log(made: AgentSession) -> None:
    assert entry_to_session(session_to_entry(made)) == made
    with retold.EventLog(store=MemoryStore()) as log:
        assert list(each_session(log, import_exchanges(log, [made], name="s", source="here"))) == [made]


def test_a_session_of_an_hour_keeps_its_times() -> None:
    """The format allows no exponent."""
    hour = WireLine(3_600_000_001_000, True, {"type": "user"})
    made = session("text", lines=(hour,), ended_ns=3_600_010_000_000)
    assert entry_to_session(session_to_entry(made)).lines[0].offset_ns == hour.offset_ns


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_import_and_export_give_the_same_cassette(suffix: str, tmp_path: Path) -> None:
    later: dict[str, Any] = {"recorded_at": "2026-11-22T12:16:58.000Z", "started_ns": 60_003_000_000, "ended_ns": 70_000_000_000}
    path = tmp_path / f"both.{suffix}"
    exchange = replace(turn(asked("Hi"), text("Hello")), recorded_at="2026-11-22T12:16:18.000Z", started_ns=20_003_000_000)
    exchange = replace(exchange, ended_ns=exchange.ended_ns + 20_003_000_000)
    retold.write_cassette(path, [exchange], [session("tool"), session("client", **later)])
    imported = in_this_process("import", path)
    assert imported.stdout.rstrip().endswith("both  1 exchange and 2 sessions")
    exported = in_this_process("export", "last", "-o", f"again.{suffix}")
    assert "1 exchange and 2 sessions of run" in exported.stderr
    assert Path(f"again.{suffix}").read_bytes() == path.read_bytes()
    (line,) = json.loads(in_this_process("import", path, "--json").stdout)
    assert (line["new"], line["exchanges"], line["sessions"]) == (False, 1, 2)


def test_exchanges_and_sessions_are_imported_in_the_order_of_their_recording() -> None:
    first = replace(turn(asked("Hi"), text("Hello")), recorded_at="2026-11-22T12:15:59.000Z", started_ns=0, ended_ns=5_000_000)
    with retold.EventLog(store=MemoryStore()) as log:
        run = import_exchanges(log, in_order([first], [session("text")]), name="s", source="here")
        kinds = [event.kind for event in log.events(run, kinds=("session.started", "exchange.started"))]
        assert kinds == ["session.started", "exchange.started"]
        assert (len(exchanges_of(log, run)), len(list(each_session(log, run)))) == (1, 1)


def test_an_export_as_jsonl_restores_the_sessions(tmp_path: Path) -> None:
    path = cassette(tmp_path / "s.yaml", session("tool"))
    in_this_process("import", path)
    in_this_process("export", "last", "-o", "run.jsonl")
    in_this_process("import", "run.jsonl", "--db", "other.db")
    in_this_process("export", "last", "-o", "again.yaml", "--db", "other.db")
    assert Path("again.yaml").read_bytes() == path.read_bytes()
    assert in_this_process("verify", "--db", "other.db").returncode == 0


def test_all_runs_with_sessions_are_exported_to_a_folder(tmp_path: Path) -> None:
    in_this_process("import", cassette(tmp_path / "one.yaml", session("text")), cassette(tmp_path / "two.yaml", session("tool")))
    assert in_this_process("export", "--all", "-o", "out").returncode == 0
    assert sorted(path.name.partition("-")[0] for path in Path("out").iterdir()) == ["one", "two"]


# Comparing


@pytest.mark.parametrize("wire", ["text", "tool", "client", "bad"])
def test_a_cassette_is_compared_like_its_import(wire: str) -> None:
    made = session(wire)
    with retold.EventLog(store=MemoryStore()) as log:
        imported = read_run(log, import_exchanges(log, [made], name="s", source="here"))
    side = read_exchanges([made], title="c")
    assert items(side) == items(imported)
    assert side.totals == imported.totals
    assert {item.kind for stream in side.streams for item in stream.items} >= {"session", "prompt", "result"}


def changed(old: str, new: str) -> Callable[[str], str]:
    return lambda line: line.replace(old, new)


def test_only_prompts_options_and_results_are_differences(tmp_path: Path) -> None:
    path = cassette(tmp_path / "a.yaml", session("tool"))

    def differs(other: AgentSession) -> list[str]:
        found = retold.compare(path, cassette(tmp_path / "b.yaml", other))
        return [f"{each.what} {change.path}" for each in found.differences for change in each.changes]

    moved = session("tool", changed(FOLDER, "/srv/other"), cwd="/srv/other", home="/home/dev")
    assert differs(moved) == []
    assert differs(session("tool", changed('"uuid": "', '"uuid": "f'))) == []
    assert differs(session("tool", argv=("--output-format", "stream-json", "--model", "haiku"))) == ["session options.--model"]
    assert differs(session("tool", changed("count lines", "count words"))) == ["prompt content[0].text"]
    assert differs(session("tool", changed("2 note.txt", "3 note.txt"))) == ["tool_result content"]


def test_parallel_sessions_of_a_run_are_separate_conversations() -> None:
    """Their messages alternate in the log. The sessions of a pair begin with the same prompt."""
    one, other = session("text"), session("text", changed("Write note.txt", "Say goodbye"), started_ns=4_000_000)
    with retold.EventLog(store=MemoryStore()) as log:
        sides = [
            read_run(log, import_exchanges(log, pair, name="s", source="here"))
            for pair in ([one, other], [replace(other, started_ns=3_000_000), replace(one, started_ns=4_000_000)])
        ]
    assert [len(side.streams) for side in sides] == [2, 2]
    assert retold.compare(*sides).same


def test_only_the_common_kinds_of_two_forms_of_recording_are_compared(tmp_path: Path) -> None:
    """The output of Claude Code has no prompts and no options."""
    made = session("tool")
    printed = tmp_path / "printed.jsonl"
    lines = [line.data for line in made.lines if not line.is_sent and "uuid" in line.data]
    printed.write_text("".join(f"{json.dumps(line)}\n" for line in lines if "sdk_host_only" not in line))
    found = retold.compare(cassette(tmp_path / "s.yaml", made), printed, ignore=["**.cwd", "tool_use", "tool_result", "init"])
    assert found.same, found
    assert set(found.not_compared) == {"session", "prompt"}


# Other commands


def test_a_cassette_of_sessions_is_played_listed_and_shown() -> None:
    path = cassette(Path("tool.yaml"), session("tool"))
    played = in_this_process("play", path, "--timing", "instant").stdout
    assert "TOOL USE: Write" in played
    assert "tool.yaml: 1 session" in in_this_process("doctor").stdout
    in_this_process("import", path)
    for form in ("markdown", "html"):
        page = in_this_process("export", "last", "--format", form).stdout
        assert page.index("Write note.txt, read it, count lines") < page.index("alpha")
    assert "--model" in page


def test_a_cassette_of_sessions_cannot_be_served(tmp_path: Path) -> None:
    path = cassette(tmp_path / "s.yaml", session("text"))
    commands: list[list[str | Path]] = [["replay", path, "--", "true"], ["serve", path]]
    for command in commands:
        done = in_this_process(*command)
        assert done.returncode == 2
        assert "holds no requests, only sessions of the Agent SDK" in done.stderr


def test_an_empty_cassette_has_nothing_to_play_compare_or_import(tmp_path: Path) -> None:
    path = cassette(tmp_path / "empty.yaml")
    for command in (["play"], ["diff", path], ["import"]):
        assert "holds no interactions" in in_this_process(*command, path).stderr


# A session that was recorded on both wires


def requests_of(made: AgentSession) -> list[Exchange]:
    """Return the exchanges of a session, as a proxy records them: its answers, with their ids."""
    answers = [line.data for line in made.lines if line.data.get("type") == "assistant"]
    headers = [(*JSON, ("request-id", each["request_id"])) for each in answers]
    bodies = [json.dumps(each["message"]).encode() for each in answers]
    return [exchange(answer(body, headers=head), body=asked("Hi")) for body, head in zip(bodies, headers, strict=True)]


@pytest.mark.parametrize("order", [("session", "http"), ("http", "session")])
def test_a_session_on_both_wires_is_counted_once(order: tuple[str, str], tmp_path: Path) -> None:
    made = session("text")
    cassette(tmp_path / "session.yaml", made)
    retold.write_cassette(tmp_path / "http.yaml", requests_of(made))
    for name in order:
        in_this_process("import", tmp_path / f"{name}.yaml")
        in_this_process("stats")  # counts the messages so far
    found = json.loads(in_this_process("stats", "--by", "workflow", "--json").stdout)
    assert {each["workflow"]: each["exchanges"] for each in found} == {order[0]: 1, order[1]: 0}
    # A search finds each text once, in the counted run. With --run or --name it finds it in the other run too.
    for phrase in ("Hello from the fake", "Hi" if order[0] == "http" else "count lines"):
        hits = [json.loads(line)["name"] for line in in_this_process("search", phrase, "--json").stdout.splitlines()]
        assert set(hits) == {order[0]}, phrase
    for option in ("--run", "--name"):
        hit = json.loads(in_this_process("search", "Hello from the fake", option, order[1], "--json").stdout.splitlines()[0])
        assert hit["name"] == order[1]
    first, second = (retold.EventLog().find(name).run for name in order)
    listed = {each["run"]: each["copy_of"] for each in json.loads(in_this_process("ls", "--json").stdout)}
    assert listed == {first: None, second: first}
    assert f"{order[1]} (counted in {first[:8]})" in in_this_process("ls").stdout


# Erasing


@pytest.mark.parametrize("at", ["prompt", "answer"])
def test_an_erased_text_is_gone_from_every_line_of_a_session(at: str, tmp_path: Path) -> None:
    """This includes an answer split over lines of partial messages."""
    phrase = {"prompt": "Write note.txt, read it", "answer": "Hello from the fake server."}[at]
    path = cassette(tmp_path / "s.yaml", session("text"))
    in_this_process("import", path)
    assert in_this_process("erase", "--text", phrase, "--why", "asked for", "--yes").returncode == 0
    assert in_this_process("search", phrase).returncode == 1
    with retold.EventLog() as log:
        run = next(info for info in log.runs() if info.mode == "import")
        events = list(log.events(run.run))
        left = b"".join(event.payload for event in events)
        assert phrase.encode() not in left
        assert (b'"Hello"' in left) == (at == "prompt")
    assert in_this_process("verify").returncode == 0
    for command in (["show", run.run], ["export", run.run, "-o", "left.yaml"], ["diff", run.run, "left.yaml"]):
        assert in_this_process(*command).returncode == 0


def test_a_message_and_a_prompt_are_erased_by_their_numbers(tmp_path: Path) -> None:
    in_this_process("import", cassette(tmp_path / "s.yaml", session("text")))
    for phrase in ("count lines", "Hello from the fake server."):
        hit = json.loads(in_this_process("search", phrase, "--json").stdout.splitlines()[0])
        place = f"{hit['run']}#{hit['seq']}"
        assert in_this_process("erase", place, "--why", "asked for", "--yes").returncode == 0, place
        assert in_this_process("search", phrase).returncode == 1


def test_an_erased_session_is_still_readable(tmp_path: Path) -> None:
    in_this_process("import", cassette(tmp_path / "s.yaml", session("tool")))
    assert in_this_process("erase", "last", "--why", "asked for", "--yes").returncode == 0
    for command in (["verify"], ["show", "last"], ["export", "last", "-o", "left.yaml"]):
        assert in_this_process(*command).returncode == 0, command


def test_an_erased_text_left_in_a_cassette_is_an_error(tmp_path: Path) -> None:
    """This includes a text that is split over lines."""
    made = session("text")
    lines = tuple(line for line in made.lines if line.data.get("type") == "stream_event")
    path = cassette(tmp_path / "s.yaml", replace(made, lines=lines))
    with retold.EventLog() as log:
        import_exchanges(log, [made], name="s", source="here", data={"cassette": str(path)})
    erased = in_this_process("erase", "--text", "Hello from the fake", "--why", "asked for", "--yes")
    assert erased.returncode == 1
    assert f"a cassette does: {path}" in erased.stderr


def test_a_redacted_pattern_is_gone_from_every_line_of_a_session(tmp_path: Path) -> None:
    in_this_process("import", cassette(tmp_path / "s.yaml", session("text")))
    assert in_this_process("redact", "--pattern", "from.the.fake", "--why", "asked for", "--yes").returncode == 0
    with retold.EventLog() as log:
        left = b"".join(event.payload for info in log.runs()[1:] for event in log.events(info.run))
    assert b"Hello REDACTED server." in left
    assert b" fake" not in left
