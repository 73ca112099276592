"""Recorded sessions are compared with today's Claude Code, and with today's Agent SDK."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.agent_sdk.unread import FieldWatch
from tests import agent_cli
from tests.e2e import in_this_process

sdk: Any = pytest.importorskip("claude_agent_sdk")

from tests.test_agent_sdk import RESULT, assistant_text, recorded_and_replayed, scene, steps, used  # noqa: E402

CASSETTE = Path("session.yaml")


@pytest.fixture
def cli(tmp_path: Path) -> str:
    return agent_cli.installed(tmp_path / "bin")


def script(name: str, *lines: dict[str, Any]) -> Path:
    return agent_cli.written(Path.cwd() / f"{name}.jsonl", *steps(*lines))


# Record mode verify


def drift(cli: str, *runs: Any) -> list[str]:
    """Return the drift of sessions from the cassette, which stays unchanged. A warning names the same drift."""
    before = CASSETTE.read_bytes()

    async def run() -> None:
        for each in runs:
            await each(cli)

    with pytest.warns(retold.DriftWarning) as caught, used(CASSETTE, "verify") as cassette:
        asyncio.run(run())
    lines = str(caught[0].message).splitlines()
    assert lines == ["session.yaml: the API answers otherwise than recorded:", *(f"  {line}" for line in cassette.drift)]
    assert CASSETTE.read_bytes() == before
    assert (cassette.recorded, cassette.play_count) == (len(runs), 0)
    return list(cassette.drift)


def write(name: str, content: str) -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"toolu_{name}", "name": "Write", "input": {"content": content}}
    return assistant_text("") | {
        "message": assistant_text("")["message"] | {"id": f"msg_{name}", "content": [block]},
        "uuid": f"use {name}",
    }


CHANGES = {
    "text": ([assistant_text("Hello, Bob")], ['session 1: turn 1, text: text: recorded "Hello, Ada", now "Hello, Bob"']),
    "tool": (
        [assistant_text("Hello, Ada"), write("a", "x")],
        ['session 1: turn 2, tool call Write: not recorded, now "Write {\\"content\\": \\"x\\"}"'],
    ),
    "nothing": ([], ['session 1: turn 1, text: recorded "Hello, Ada", now missing']),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_names_the_changes_of_a_session(change: str, cli: str) -> None:
    with used(CASSETTE, "once"):
        asyncio.run(scene(script("before", assistant_text("Hello, Ada"), RESULT), "Greet")(cli))
    now, lines = CHANGES[change]
    assert drift(cli, scene(script("now", *now, RESULT), "Greet")) == lines


def test_verify_compares_each_session_with_the_one_of_its_prompt(cli: str) -> None:
    async def both() -> None:
        for name in ("one", "two"):
            await scene(script(name, assistant_text(f"Answer {name}"), RESULT), f"Ask {name}")(cli)

    with used(CASSETTE, "once"):
        asyncio.run(both())
    other, same = script("other", assistant_text("Answer 2"), RESULT), script("one", assistant_text("Answer one"), RESULT)
    found = drift(cli, scene(other, "Ask two"), scene(same, "Ask one"), scene(same, "Ask three"))
    assert found == ['session 1: turn 1, text: text: recorded "Answer two", now "Answer 2"', "session 3: not recorded"]


def test_verify_finds_nothing_if_only_ids_times_and_counts_change(cli: str) -> None:
    with used(CASSETTE, "once"):
        asyncio.run(scene(script("before", assistant_text("Hello"), RESULT), "Greet")(cli))
    with used(CASSETTE, "verify") as cassette:
        other = assistant_text("Hello") | {"uuid": "u9", "session_id": "s9"}
        asyncio.run(scene(script("now", other, RESULT | {"duration_ms": 9, "total_cost_usd": 1.5}), "Greet")(cli))
    assert cassette.drift == []


# After an update of the SDK


def test_unread_fields_are_named_by_type_and_place() -> None:
    """A dictionary that a message keeps counts as read: the input of a tool, the data of a system message."""
    watch = FieldWatch()
    watch.received(write("a", "x") | {"novel": 1, "message": write("a", "x")["message"] | {"extra": {"a": 1}}})
    watch.received({"type": "system", "subtype": "novel", "anything": {"deep": 1}})
    watch.received(RESULT | {"novel": {"a": 1}})
    watch.received({"type": "control_request", "request": {"novel": 1}})
    watch.received({"type": "novel_line", "x": 1})
    names = watch.unread or []
    assert {"assistant.novel", "assistant.message.extra", "result.novel", "novel_line"} <= set(names)
    assert [name for name in names if ".input" in name or name.startswith(("system", "control"))] == []
    assert watch.errors == []
    watch.received({"type": "result", "subtype": "success"})
    assert watch.errors == ["result: Missing required field in result message: 'duration_ms'"]


def test_the_doctor_names_fields_that_a_newer_sdk_does_not_read(cli: str) -> None:
    result = RESULT | {"novel": 1}
    recorded_and_replayed(CASSETTE, scene(script("greet", assistant_text("Hello"), result), "Greet"), cli)
    (session,) = retold.read_cassette(CASSETTE).sessions
    assert session.unread is not None
    assert "result.novel" in session.unread
    assert "no longer read" not in in_this_process("doctor").stdout

    def recorded_by_another(old: str, new: str) -> Any:
        """Return the cassette as another version of the SDK, which read the field, would have recorded it."""
        content = CASSETTE.read_text().replace(sdk.__version__, "0.2.1").replace(old, new)
        Path("old.yaml").write_text(content)
        return in_this_process("doctor")

    done = recorded_by_another("result.novel", "")
    assert done.returncode == 0
    assert "no longer read by this Agent SDK: result.novel\n" in done.stdout
    done = recorded_by_another('"duration_ms"', '"duration"')
    assert done.returncode == 1
    assert (
        f"Agent SDK {sdk.__version__} cannot read session 1, which 0.2.1 recorded: result: Missing required field" in done.stdout
    )
    (line,) = [each for each in json.loads(in_this_process("doctor", "--json").stdout)["cassettes"] if "old" in each["path"]]
    assert line["sessions"] == 1
