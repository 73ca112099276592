"""Sessions of the Agent SDK from other programs: tapes of claude-agent-cassette, and transcripts of Claude Code, in and out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retold.formats import FORMATS
from retold.formats.imports import import_files
from retold.formats.transcript import write_files
from retold.recorder.cassette.sessions import each_session
from retold.recorder.errors import InputError
from retold.recorder.events import Entry, encode
from retold.recorder.log.log import EventLog
from tests.agent_cli import WIRES
from tests.e2e import in_this_process, refused

# Tapes


def tape(wire: str) -> list[Any]:
    """Return a recorded wire as a tape."""
    steps = [json.loads(line) for line in (WIRES / f"{wire}.jsonl").read_text().split("\n") if line]
    return [
        {"dir": "read", "frame": step["m"]} if step["d"] == "r" else {"dir": "write", "data": json.dumps(step["m"]) + "\n"}
        for step in steps
        if step["d"] in ("r", "w")
    ]


def written(path: Path, entries: list[Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def exported(log: EventLog, run: str, name: str, path: Path) -> str:
    with path.open("wb") as out:
        FORMATS[name].write(log, [log.find(run)], out)
    return path.read_text()


@pytest.mark.parametrize("wire", ["plain", "tool", "mcp", "client", "bad"])
def test_a_tape_goes_into_the_log_and_back(wire: str, tmp_path: Path) -> None:
    """The tape comes back byte for byte. In the log it is a session like a recorded one."""
    path = written(tmp_path / "tape.jsonl", tape(wire))
    with EventLog(tmp_path / "log.db") as log:
        (made,) = import_files(log, [path])
        kinds = [event.kind for event in log.events(made.run)]
        (session,) = each_session(log, made.run)
        assert exported(log, made.run, "agent-cassette", tmp_path / "again.jsonl") == path.read_text()
    assert kinds[1] == "session.started"
    assert kinds[-2] == "session.ended"
    assert {"wire.sent", "wire.received", "message"} <= set(kinds)
    assert (made.sessions, made.unknown_lines, session.cwd) == (1, (), "/home/dev/proj")


_JSON = st.recursive(st.text(max_size=5) | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(max_size=5), inner))
_LINES = st.fixed_dictionaries({"type": st.sampled_from(["user", "x", "control_request"])}, optional={"é\n": _JSON})
_ENTRIES = st.one_of(
    _LINES.map(lambda line: {"dir": "read", "frame": line}),
    _LINES.map(lambda line: {"dir": "write", "data": json.dumps(line) + "\n"}),
    st.sampled_from([{"dir": "note", "a": 1}, {"dir": "write", "data": "no JSON"}, {"dir": "read", "frame": 7}, [1], "text"]),
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_ENTRIES, max_size=6))
def test_any_tape_comes_back(tmp_path: Path, entries: list[Any]) -> None:
    """Unknown lines keep their places."""
    path = written(tmp_path / "tape.jsonl", [*tape("plain")[:1], *entries])
    with EventLog(tmp_path / "any.db") as log:
        (made,) = import_files(log, [path], again=True)
        assert exported(log, made.run, "agent-cassette", tmp_path / "again.jsonl") == path.read_text()
    known = ("frame" in entry or entry.get("data", "no JSON") != "no JSON" for entry in entries if isinstance(entry, dict))
    assert len(made.unknown_lines) >= len(entries) - sum(known)


def test_unknown_lines_are_named(tmp_path: Path) -> None:
    entries = [*tape("plain")[:2], {"dir": "note", "text": "mine"}, *tape("plain")[2:], ["odd"]]
    path = written(tmp_path / "tape.jsonl", entries)
    done = in_this_process("import", path)
    assert f"tape.jsonl: 2 lines of an unknown form, kept unchanged: 3, {len(entries)}" in done.stderr
    path.write_text(path.read_text() + "{")
    assert f"tape.jsonl:{len(entries) + 1}: not a line of JSON" in refused(in_this_process("import", "--again", path))


def test_a_tape_is_compared_without_an_import(tmp_path: Path) -> None:
    path = written(tmp_path / "tape.jsonl", tape("tool"))
    in_this_process("import", path)
    assert in_this_process("diff", path, "last").returncode == 0


def test_a_run_without_exactly_one_session_cannot_be_a_tape(tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    talk.write_text('{"type": "user", "message": {"role": "user", "content": "hi"}}\n')
    in_this_process("import", talk)
    assert "has no session of the Agent SDK" in refused(in_this_process("export", "last", "--format", "agent-cassette"))
    assert "is no transcript of a session" in refused(in_this_process("export", "last", "--format", "transcript"))


# Transcripts

SESSION = "ed0a2f3b-f742-4756-934c-0743667b8cbb"
META = {"agentType": "general-purpose", "type": "mine", "toolUseId": "toolu_1"}


def line(type_: str, second: int | None = None, **fields: Any) -> dict[str, Any]:
    at = {} if second is None else {"timestamp": f"2026-11-28T22:44:{second:02}.000Z"}
    return {"type": type_, "sessionId": SESSION, **fields, **at}


def message(type_: str, text: str, second: int, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return line(type_, second, uuid=f"u{second}", message={"role": type_, "id": f"msg_{second}", "content": content}, **fields)


def transcript(folder: Path) -> dict[str, str]:
    """Write the files of Claude Code 2.1.332: a session, and a subagent that worked at the same time."""
    agent = {"isSidechain": True, "agentId": "a39d948b9a7cafd99"}
    files = {
        f"{SESSION}.jsonl": [
            line("queue-operation", 40, operation="enqueue"), message("user", "Go é", 41), line("atis-latch", atis=""),
            message("assistant", "Started.", 43), line("tools-used", tools=["Agent"]), message("assistant", "Done.", 47),
        ],
        f"{SESSION}/subagents/agent-a39d948b9a7cafd99.jsonl": [
            message("user", "SUBTASK", 44, **agent), message("assistant", "It is done.", 46, **agent),
            line("api-request", 46, **agent),
        ],
    }  # fmt: skip
    texts = {name: "".join(f"{compact(each)}\n" for each in lines) for name, lines in files.items()}
    texts[f"{SESSION}/subagents/agent-a39d948b9a7cafd99.meta.json"] = compact(META)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return texts


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_a_transcript_goes_into_the_log_with_its_subagents_and_back(tmp_path: Path) -> None:
    """Each file comes back byte for byte. In the log the lines are in the order of their times."""
    source, target = tmp_path / "source", tmp_path / "target"
    texts = transcript(source)
    with EventLog(tmp_path / "log.db") as log:
        (made,) = import_files(log, [source / f"{SESSION}.jsonl"])
        order = [event.data["message"]["content"][0]["text"] for event in log.events(made.run, kinds=("message",))]
        write_files(log, log.find(made.run), target / f"{SESSION}.jsonl")
        assert exported(log, made.run, "transcript", tmp_path / "main.jsonl") == texts[f"{SESSION}.jsonl"]
    assert {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()} == texts
    assert order == ["Go é", "Started.", "SUBTASK", "It is done.", "Done."]
    assert made.count == 5


def test_a_transcript_is_compared_with_its_subagents(tmp_path: Path) -> None:
    transcript(tmp_path)
    in_this_process("import", tmp_path / f"{SESSION}.jsonl")
    done = in_this_process("diff", "last", tmp_path / f"{SESSION}.jsonl")
    assert done.returncode == 0, done.stdout
    assert "SUBTASK" in in_this_process("show", "last", "--json").stdout


def test_an_export_of_a_transcript_names_its_files(tmp_path: Path) -> None:
    transcript(tmp_path / "source")
    in_this_process("import", tmp_path / f"source/{SESSION}.jsonl")
    done = in_this_process("export", "last", "--format", "transcript", "-o", tmp_path / "s.jsonl")
    assert "9 lines of run" in done.stderr
    assert (tmp_path / "s/subagents/agent-a39d948b9a7cafd99.meta.json").exists()


@pytest.mark.parametrize("task", ["../outside", "subagents/../../outside", "/tmp/outside-of-the-folder", "sub\0agent"])
def test_a_subagent_outside_of_the_folder_is_refused(task: str, tmp_path: Path) -> None:
    """The run may come from another machine, with paths that Claude Code did not write."""
    with EventLog(tmp_path / "log.db") as log:
        with log.start(name="run", mode="import") as writer:
            for each in ("", task):
                writer.append(Entry("message", encode({"type": "user", "sessionId": SESSION}), task=each))
        (tmp_path / "out").mkdir()
        with pytest.raises(InputError, match="outside of the folder"):
            write_files(log, log.find(writer.run), tmp_path / "out" / "s.jsonl")
    assert list((tmp_path / "out").iterdir()) == []
    assert not list(tmp_path.rglob("outside*"))


def test_a_transcript_with_a_changed_subagent_is_imported_again(tmp_path: Path) -> None:
    transcript(tmp_path)
    with EventLog(tmp_path / "log.db") as log:
        first = import_files(log, [tmp_path / f"{SESSION}.jsonl"])[0]
        assert not import_files(log, [tmp_path / f"{SESSION}.jsonl"])[0].new
        with (tmp_path / f"{SESSION}/subagents/agent-a39d948b9a7cafd99.jsonl").open("a") as file:
            file.write(compact(line("api-request", 48)) + "\n")
        second = import_files(log, [tmp_path / f"{SESSION}.jsonl"])[0]
    assert second.new
    assert second.run != first.run


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (f"{SESSION}/subagents/agent-a39d948b9a7cafd99.jsonl", "{\n", ":1: not a line of JSON"),
        (f"{SESSION}/subagents/agent-a39d948b9a7cafd99.meta.json", "[]", "should hold a JSON object"),
        (f"{SESSION}/subagents/agent-a39d948b9a7cafd99.meta.json", "{", "cannot read "),
    ],
)
def test_the_error_names_the_damaged_file_of_a_subagent(name: str, text: str, why: str, tmp_path: Path) -> None:
    transcript(tmp_path)
    (tmp_path / name).write_text(text)
    error = refused(in_this_process("import", tmp_path / f"{SESSION}.jsonl"))
    assert why in error
    assert Path(name).name in error
