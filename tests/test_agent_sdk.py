"""Sessions of the Claude Agent SDK are recorded from the lines of their child, and replayed without it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import time_machine

import retold
from tests import agent_cli
from tests.e2e import in_this_process
from tests.test_redact_frames import KEY

sdk: Any = pytest.importorskip("claude_agent_sdk")

NOWHERE = "/nonexistent/claude"
"""The path of the CLI in a replay, which runs no CLI."""

Scene = Callable[[str], Coroutine[Any, Any, list[Any]]]
"""A function that runs a session with the CLI at a path, and returns its messages and errors."""

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@pytest.fixture
def cli(tmp_path: Path) -> str:
    return agent_cli.installed(tmp_path / "bin")


def options(script: str | Path, cli: str, **further: Any) -> Any:
    return sdk.ClaudeAgentOptions(cli_path=cli, env=agent_cli.environment(script), setting_sources=[], **further)


async def collected(messages: AsyncIterator[Any]) -> list[Any]:
    """Return all messages, and the error that ends them."""
    found = []
    try:
        async for message in messages:
            found.append(message)  # noqa: PERF401 - the messages before an error count
    except sdk.ClaudeSDKError as error:
        found.append((type(error).__name__, str(error), getattr(error, "exit_code", None)))
    return found


async def prompts(*texts: str) -> AsyncIterator[dict[str, Any]]:
    for text in texts:
        message = {"role": "user", "content": text}
        yield {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "default"}


# Callbacks of the program


async def allow(name: str, given: dict[str, Any], context: Any) -> Any:  # noqa: ARG001 - the SDK's protocol
    CALLS.append(("allow", name))
    return sdk.PermissionResultAllow()


async def deny(name: str, given: dict[str, Any], context: Any) -> Any:  # noqa: ARG001
    CALLS.append(("deny", name))
    return sdk.PermissionResultDeny(message="no, never")


async def hook(given: dict[str, Any], tool_use_id: str | None, context: Any) -> dict[str, Any]:  # noqa: ARG001
    CALLS.append(("hook", given["hook_event_name"], given["tool_name"]))
    return {}


def calc(more: int = 0) -> Any:
    async def add(given: dict[str, Any]) -> dict[str, Any]:
        CALLS.append(("add", given))
        return {"content": [{"type": "text", "text": str(given["a"] + given["b"] + more)}]}

    return sdk.create_sdk_mcp_server("calc", tools=[sdk.tool("add", "Add two numbers", {"a": int, "b": int})(add)])


def callbacks(**other: Any) -> dict[str, Any]:
    hooks = {"PreToolUse": [sdk.HookMatcher(matcher="Bash", hooks=[hook])]}
    return {"can_use_tool": allow, "hooks": hooks, "mcp_servers": {"calc": calc()}} | other


# Scenes


PLAIN = "plain"
"""A wire of a program without callbacks."""


def scene(script: str | Path, prompt: str = "Say hello", **further: Any) -> Scene:
    async def run(cli: str) -> list[Any]:
        return await collected(sdk.query(prompt=prompt, options=options(script, cli, **further)))

    return run


def streamed(script: str | Path, *texts: str, **further: Any) -> Scene:
    async def run(cli: str) -> list[Any]:
        return await collected(sdk.query(prompt=prompts(*texts), options=options(script, cli, **further)))

    return run


async def conversation(cli: str) -> list[Any]:
    """Have three turns, a new permission mode, a new model, the status, the context, and an interrupt."""
    found: list[Any] = []
    async with sdk.ClaudeSDKClient(options("client", cli, include_partial_messages=True, **callbacks())) as client:
        await client.query("first question")
        found += await collected(client.receive_response())
        await client.set_permission_mode("acceptEdits")
        await client.set_model("claude-haiku-5-5")
        found.append(await client.get_mcp_status())
        found.append(sorted(await client.get_context_usage()))
        await client.query("second question")
        found += await collected(client.receive_response())
        await client.query("third question")
        is_interrupted = False
        async for message in client.receive_response():
            found.append(message)
            if isinstance(message, sdk.StreamEvent) and not is_interrupted:
                is_interrupted = True
                await client.interrupt()
    return found


SCENES: dict[str, Scene] = {
    "text": scene("text", include_partial_messages=True, **callbacks()),
    "tools": streamed("tool", "Write note.txt, read it, count lines", **callbacks()),
    "tool of the program": scene("mcp", **callbacks()),
    "api error": streamed("bad", "Write note.txt", **callbacks()),
    "dropped stream": scene("drop", **callbacks()),
    "two prompts": streamed("iter", "one", "two", **callbacks()),
    "conversation": conversation,
}


def used(path: Path, mode: str = "none", **further: Any) -> Any:
    return retold.use_cassette(path, record_mode=mode, **further)


def recorded_and_replayed(path: Path, run: Scene, cli: str) -> tuple[list[Any], list[Any]]:
    with used(path, "once") as cassette:
        recorded = asyncio.run(run(cli))
    assert cassette.recorded == 1
    with used(path) as cassette:
        replayed = asyncio.run(run(NOWHERE))
    assert (cassette.play_count, cassette.all_played, cassette.misses) == (1, True, [])
    return recorded, replayed


@pytest.mark.parametrize("name", SCENES)
def test_a_session_is_replayed_as_it_was_recorded(name: str, cli: str, tmp_path: Path) -> None:
    """Messages have equal reprs. Callbacks, hooks and tools of the program's MCP servers run again."""
    recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", SCENES[name], cli)
    assert list(map(repr, replayed)) == list(map(repr, recorded))
    assert CALLS[: len(CALLS) // 2] == CALLS[len(CALLS) // 2 :]
    if name == "tools":
        assert CALLS[:2] == [("allow", "Write"), ("hook", "PreToolUse", "Bash")]
    if name == "api error":
        assert recorded[-1][0] == "ResultError"


def steps(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"d": "r", "m": line} for line in lines]


def assistant_text(text: str) -> dict[str, Any]:
    message = {"id": "msg_1", "role": "assistant", "model": "claude-opus-5-5", "content": [{"type": "text", "text": text}]}
    return {"type": "assistant", "message": message, "parent_tool_use_id": None, "session_id": "s1", "uuid": "u1"}


RESULT = {
    "type": "result", "subtype": "success", "is_error": False, "duration_ms": 5, "duration_api_ms": 4, "num_turns": 1,
    "session_id": "s1", "total_cost_usd": 0.25, "result": "done", "uuid": "u2",
    "usage": {"input_tokens": 7, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    "modelUsage": {"claude-opus-5-5": {"inputTokens": 7, "outputTokens": 3, "costUSD": 0.25}},
}  # fmt: skip


@pytest.mark.parametrize(("end", "code"), [({"d": "kill"}, -9), ({"d": "raise", "exit_code": 3}, 3)])
def test_a_killed_child_is_killed_again_in_a_replay(end: dict[str, Any], code: int, cli: str, tmp_path: Path) -> None:
    """A child that exits with an exit code exits with it again."""
    script = agent_cli.written(tmp_path / "killed.jsonl", *steps(assistant_text("Half")), end)
    recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", scene(script), cli)
    assert replayed[-1] == recorded[-1] == (recorded[-1][0], recorded[-1][1], code)
    assert list(map(repr, replayed)) == list(map(repr, recorded))


def test_an_early_break_and_a_cancelled_task_are_recorded_as_closed(cli: str, tmp_path: Path) -> None:
    script = agent_cli.written(
        tmp_path / "long.jsonl", *steps(assistant_text("One"), assistant_text("Two"), assistant_text("Three")), {"d": "close"}
    )

    async def broken(cli: str) -> list[Any]:
        async for message in sdk.query(prompt="Count", options=options(script, cli)):
            return [message]
        return []

    async def cancelled(cli: str) -> list[Any]:
        found, has_begun = [], asyncio.Event()

        async def read() -> None:
            async for message in sdk.query(prompt="Count", options=options(script, cli)):
                found.append(message)
                has_begun.set()

        task = asyncio.create_task(read())
        await has_begun.wait()
        task.cancel()
        await asyncio.wait([task])
        return [found[0], task.cancelled()]

    for name, run in (("broken", broken), ("cancelled", cancelled)):
        recorded, replayed = recorded_and_replayed(tmp_path / f"{name}.yaml", run, cli)
        assert list(map(repr, replayed)) == list(map(repr, recorded))
        (session,) = retold.read_cassette(tmp_path / f"{name}.yaml").sessions
        assert session.ending == "closed"


def test_a_missing_cli_is_missing_in_the_replay_too(tmp_path: Path) -> None:
    recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", scene(PLAIN), NOWHERE)
    assert recorded == replayed == [("CLINotFoundError", recorded[0][1], None)]


# Misses


def missed(path: Path, run: Scene) -> str:
    with used(path) as cassette, pytest.raises(retold.MissError) as caught:
        asyncio.run(run(NOWHERE))
    assert cassette.misses == [str(caught.value)]
    return str(caught.value)


def test_a_changed_prompt_is_a_miss_that_names_the_line(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, scene("text", "Say hello", **callbacks()), cli)
    text = missed(path, scene("text", "Say goodbye", **callbacks()))
    assert "line 6, the message of the user:" in text or "the message of the user:" in text
    assert 'message.content: recorded "Say hello", now "Say goodbye"' in text


def test_a_changed_permission_decision_is_a_miss_that_names_the_tool(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, SCENES["tools"], cli)
    text = missed(path, streamed("tool", "Write note.txt, read it, count lines", **callbacks(can_use_tool=deny)))
    assert "the answer to can_use_tool Write:" in text
    assert 'response.behavior: recorded "allow", now "deny"' in text


def test_a_changed_tool_result_is_a_miss_that_names_the_tool(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, SCENES["tool of the program"], cli)
    assert [call for call in CALLS if call[0] == "add"] == [("add", {"a": 2, "b": 40})] * 2
    text = missed(path, scene("mcp", **callbacks(mcp_servers={"calc": calc(more=1)})))
    assert "the answer to the tool add of calc:" in text
    assert 'response.mcp_response.result.content[0].text: recorded "42", now "43"' in text


def test_a_changed_option_is_a_miss_that_names_the_option(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, scene(PLAIN, model="claude-opus-5-5"), cli)
    assert '--model: recorded "claude-opus-5-5", now "claude-haiku-5-5"' in missed(path, scene(PLAIN, model="claude-haiku-5-5"))


def test_masked_texts_and_ignored_places_do_not_count(cli: str, tmp_path: Path) -> None:
    """This applies to prompts and options. The cassette stores the rules."""
    path = tmp_path / "session.yaml"

    def asked(number: int, model: str) -> Scene:
        return scene(PLAIN, f"Look at run-{number}", system_prompt=f"Today is run-{number}", model=model)

    with used(path, "once", mask=[r"run-\d+"], ignore=["--model"]):
        recorded = asyncio.run(asked(1, "claude-opus-5-5")(cli))
    with used(path) as cassette:
        assert list(map(repr, asyncio.run(asked(2, "claude-haiku-5-5")(NOWHERE)))) == list(map(repr, recorded))
    assert cassette.all_played
    assert isinstance(recorded[-1], sdk.ResultMessage)
    text = missed(path, scene(PLAIN, "Look at run-2 again", system_prompt="Today is run-2"))
    assert 'message.content: recorded "Look at {{masked}}", now "Look at {{masked}} again"' in text


def test_a_session_is_played_again_if_repeats_are_allowed(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded, _ = recorded_and_replayed(path, scene(PLAIN), cli)
    with used(path, allow_playback_repeats=True) as cassette:
        for _ in range(2):
            assert list(map(repr, asyncio.run(scene(PLAIN)(NOWHERE)))) == list(map(repr, recorded))
    assert (cassette.play_count, cassette.all_played) == (2, True)


def test_a_session_without_a_recording_is_a_miss(cli: str, tmp_path: Path) -> None:
    assert "no cassette at" in missed(tmp_path / "none.yaml", scene(PLAIN))
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, scene(PLAIN), cli)

    async def twice(cli: str) -> list[Any]:
        return [*await scene(PLAIN)(cli), *await scene(PLAIN)(cli)]

    assert "all of them are played" in missed(path, twice)


# Several sessions


async def parallel(cli: str, *names: str) -> list[Any]:
    """Run sessions at once, each with its own prompt and answer."""
    running = []
    for name in names:
        script = agent_cli.written(Path.cwd() / f"{name}.jsonl", *steps(assistant_text(f"Answer {name}"), RESULT))
        running.append(scene(script, f"Session {name}")(cli))
    found: list[Any] = await asyncio.gather(*running)
    return found


def test_parallel_sessions_replay_their_own_recordings_in_any_order(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    with used(path, "once"):
        one, two, three = asyncio.run(parallel(cli, "1", "2", "3"))
    assert ["Answer 1" in repr(one), "Answer 2" in repr(two), "Answer 3" in repr(three)] == [True] * 3
    with used(path) as cassette:
        again = asyncio.run(parallel(NOWHERE, "3", "1", "2"))
    assert list(map(repr, again)) == list(map(repr, (three, one, two)))
    assert cassette.play_count == 3
    with used(path) as cassette:
        assert list(map(repr, asyncio.run(parallel(NOWHERE, "2")))) == [repr(two)]
    assert cassette.unplayed_session_numbers == [0, 2]
    assert not cassette.all_played


def test_new_episodes_records_a_session_that_is_not_in_the_cassette(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    with used(path, "once"):
        asyncio.run(parallel(cli, "1"))
    with used(path, "new_episodes") as cassette:
        asyncio.run(parallel(cli, "1"))
        asyncio.run(parallel(cli, "2"))
        asyncio.run(scene(PLAIN, "Session 1", model="claude-opus-5-5")(cli))
    assert (cassette.play_count, cassette.recorded) == (1, 2)
    assert [session.prompts for session in retold.read_cassette(path).sessions] == [["Session 1"], ["Session 2"], ["Session 1"]]


@pytest.mark.parametrize(("mode", "left"), [("all", ["2", "1"]), ("rewrite", ["1"]), ("refresh", ["1"])])
def test_recording_again_replaces_sessions(mode: str, left: list[str], cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    with used(path, "once"):
        asyncio.run(parallel(cli, "1", "2"))
    with used(path, mode):
        asyncio.run(parallel(cli, "1"))
    assert [session.prompts for session in retold.read_cassette(path).sessions] == [[f"Session {name}"] for name in left]


# Timing


def test_original_timing_plays_lines_at_their_times(cli: str, tmp_path: Path) -> None:
    """The replay lasts as long as the recorded lines after the program's last line. Each line arrives at its time."""
    recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", scene(PLAIN), cli)
    for timing in ("original", "20x"):
        with used(tmp_path / "session.yaml", timing=timing):
            assert list(map(repr, asyncio.run(scene(PLAIN)(NOWHERE)))) == list(map(repr, recorded)) == list(map(repr, replayed))


# The cassette and the log


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_the_cassette_replays_in_another_folder_with_another_home_on_another_day(
    suffix: str, cli: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"session.{suffix}"
    recorded, _ = recorded_and_replayed(path, SCENES["tools"], cli)
    here = Path.cwd()
    assert str(here) not in path.read_text()
    assert str(here) in repr(recorded)
    other = tmp_path / "elsewhere" / "project"
    other.mkdir(parents=True)
    monkeypatch.chdir(other)
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    with time_machine.travel("2031-05-04", tick=True), used(path) as cassette:
        replayed = asyncio.run(SCENES["tools"](NOWHERE))
    assert cassette.all_played
    assert str(here) not in repr(replayed)
    assert str(other) in repr(replayed)


def test_the_account_of_the_user_is_not_recorded(cli: str, tmp_path: Path) -> None:
    lines = (agent_cli.WIRES / "text.jsonl").read_text()
    script = tmp_path / "account.jsonl"
    script.write_text(
        lines.replace('"account": {', '"pid": 4711, "account": {"email": "ada@example.com", "organization": "Lovelace", ')
    )
    recorded_and_replayed(tmp_path / "session.yaml", scene(script), cli)
    for kept in (tmp_path / "session.yaml").read_text(), "".join(e.payload.decode() for e in events()):
        assert "ada@example.com" not in kept
        assert "Lovelace" not in kept
        assert "4711" not in kept


def streamed_text(text: str, at: int) -> dict[str, Any]:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "event": delta, "session_id": "s1", "parent_tool_use_id": None, "uuid": f"part-{at}"}


@pytest.mark.parametrize("pieces", [2, 7, 30])
def test_a_key_split_over_the_lines_of_a_stream_is_not_recorded(pieces: int, cli: str, tmp_path: Path) -> None:
    """The program gets each line unchanged. The replay gives the same lines, with REDACTED in place of the key."""
    text = f"The key is {KEY}, and that was it."
    size = -(-len(text) // pieces)
    parts = [streamed_text(text[at : at + size], at) for at in range(0, len(text), size)]
    script = agent_cli.written(tmp_path / "key.jsonl", *steps(*parts, assistant_text(text), RESULT))
    run = scene(script, include_partial_messages=True)
    recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", run, cli)

    def streamed(messages: list[Any]) -> str:
        return "".join(each.event["delta"]["text"] for each in messages if isinstance(each, sdk.StreamEvent))

    assert streamed(recorded) == text
    assert len(replayed) == len(recorded)
    left = streamed(replayed).replace("REDACTED", "")
    assert left in [f"The key is {KEY[:kept]}, and that was it." for kept in range(4)]
    kinds = [event.data.get("uuid") for event in events() if event.kind.startswith(("stream.", "message"))]
    assert [uuid for uuid in kinds if str(uuid).startswith("part")] == [part["uuid"] for part in parts]
    assert KEY not in (tmp_path / "session.yaml").read_text()


def events(run: str = "last") -> list[retold.Event]:
    with retold.EventLog() as log:
        return list(log.events(log.find(run).run))


def test_the_log_contains_both_directions_and_the_messages(cli: str, tmp_path: Path) -> None:
    recorded_and_replayed(tmp_path / "session.yaml", SCENES["tools"], cli)
    found = events()
    started = found[1]
    assert started.kind == "session.started"
    assert started.data["wire"] == "stream-json"
    assert started.data["sdk"] == sdk.__version__
    assert started.data["cwd"] == str(Path.cwd())
    assert "--input-format" in started.data["argv"]
    session = [event for event in found if event.exchange == started.seq]
    assert session == found[1:-1]
    assert {event.kind for event in session} >= {"wire.sent", "wire.received", "stream.stream_event", "message"}
    assert session[-1].kind == "session.ended"
    assert session[-1].data.items() >= {"ending": "complete", "error": None, "exit_code": 0}.items()
    messages = [event.data["type"] for event in session if event.kind == "message"]
    assert messages.count("result") == 1


def test_a_replay_with_a_log_is_recorded_as_a_mock_run(cli: str, tmp_path: Path) -> None:
    recorded_and_replayed(tmp_path / "session.yaml", SCENES["tools"], cli)
    recorded = [(event.kind, event.data.get("type")) for event in events()[1:-1]]
    with retold.EventLog(tmp_path / "replays.db") as log, used(tmp_path / "session.yaml", log=log):
        asyncio.run(SCENES["tools"](NOWHERE))
    with retold.EventLog(tmp_path / "replays.db") as log:
        (run,) = log.runs()
        assert (run.mode, run.status) == ("mock", "completed")
        assert sorted((e.kind, str(e.data.get("type"))) for e in log.events(run.run) if e.exchange is not None) == sorted(
            (kind, str(type_)) for kind, type_ in recorded
        )


def test_a_cassette_contains_sessions_and_interactions(cli: str, tmp_path: Path) -> None:
    """vcrpy reads the interactions. retold reads both, still lazily."""
    path = tmp_path / "both.yaml"
    source = next((Path(__file__).parent.parent / "cassettes").glob("*.yaml"))
    path.write_bytes(source.read_bytes())
    exchanges = retold.read_cassette(path).exchanges
    with used(path, "new_episodes"):
        asyncio.run(scene(PLAIN)(cli))
    both = retold.read_cassette(path)
    assert tuple(both.exchanges) == tuple(exchanges)
    assert len(both.sessions) == 1
    written = tmp_path / "again.yaml"
    retold.write_cassette(written, both.exchanges, both.sessions)
    assert retold.read_cassette(written)[1:] == both[1:]
    vcr = pytest.importorskip("vcr")
    with vcr.use_cassette(str(path), record_mode="none") as tape:
        assert len(tape) == len(exchanges)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("wire: stream-json", "wire: morse", "unknown wire 'morse'"),
        ("ending: complete", "ending: merry", "unknown ending 'merry'"),
        (" > {", " ? {", "line 1 of a session should be"),
        ("sessions:", "sessions: 5\nx:", "should hold a list"),
    ],
)
def test_a_damaged_session_is_an_error_and_stays_unchanged(old: str, new: str, why: str, cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded_and_replayed(path, scene(PLAIN), cli)
    path.write_text(path.read_text().replace(old, new, 1))
    damaged = path.read_bytes()
    with pytest.raises(retold.CassetteError, match=why), used(path, "new_episodes"):
        pytest.fail("the block began")
    assert path.read_bytes() == damaged


def test_a_session_outside_a_block_is_not_recorded(cli: str, tmp_path: Path) -> None:
    with used(tmp_path / "session.yaml", "once"):
        pass
    assert asyncio.run(scene(PLAIN)(cli))
    assert not (tmp_path / "session.yaml").exists()


def test_a_session_is_shown_searched_counted_and_compared_like_any_run(cli: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    recorded, _ = recorded_and_replayed(path, SCENES["conversation"], cli)
    cost = [message.total_cost_usd for message in recorded if isinstance(message, sdk.ResultMessage)][-1]
    assert "Hello from the fake server." in in_this_process("show", "last").stdout
    assert "Hello from the fake server." in in_this_process("tail", "last").stdout
    assert in_this_process("search", "second question").stdout.count("second question") == 1
    (line,) = json.loads(in_this_process("stats", "--by", "workflow", "--json").stdout)
    assert line["cost_usd"] == pytest.approx(cost)
    assert (line["input_tokens"], line["output_tokens"]) == (75, 42)
    with used(path, "rewrite"):
        asyncio.run(SCENES["conversation"](cli))
    assert in_this_process("diff", "last~1", "last").returncode == 0
    assert in_this_process("verify").returncode == 0


# Transports of the program


class Scripted:
    """A program's own transport: one answer without a child."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self._lines = lines
        self._asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def connect(self) -> None:
        CALLS.append("connect")

    async def write(self, data: str) -> None:
        await self._asked.put(json.loads(data))

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        id_ = (await self._asked.get())["request_id"]
        yield {"type": "control_response", "response": {"subtype": "success", "request_id": id_, "response": {}}}
        await self._asked.get()
        for line in self._lines:
            yield line

    async def end_input(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


def test_a_programs_own_transport_is_recorded_and_not_used_in_a_replay(tmp_path: Path) -> None:
    async def asked(_: str) -> list[Any]:
        return await collected(sdk.query(prompt="Hello", transport=Scripted(assistant_text("Hi"), RESULT)))

    async def talked(_: str) -> list[Any]:
        async with sdk.ClaudeSDKClient(transport=Scripted(assistant_text("Hi"), RESULT)) as client:
            await client.query("Hello")
            return await collected(client.receive_response())

    for name, run in (("asked", asked), ("talked", talked)):
        CALLS.clear()
        recorded, replayed = recorded_and_replayed(tmp_path / f"{name}.yaml", run, NOWHERE)
        assert list(map(repr, replayed)) == list(map(repr, recorded))
        assert CALLS == ["connect"]
