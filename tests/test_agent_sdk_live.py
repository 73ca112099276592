"""A program with the real Claude Code, against a scripted API: recorded once, and replayed elsewhere without Claude Code."""

import asyncio
import json
import os
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import claude_code
from tests.messages_server import MessagesServer, Reply, Request, text, tool_use

sdk: Any = pytest.importorskip("claude_agent_sdk")

from tests.test_agent_sdk import CALLS, NOWHERE, allow, calc, collected, hook, used  # noqa: E402

CLAUDE_CODE = claude_code.find()

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed"),
]


PROMPTS = ("ADD", "SLOW", "ONE", "TWO", "FORK", "LOOP", "DIE")
"""The words of the prompts. The last one in a request counts. Claude Code adds further texts to it."""


def answer(request: Request) -> Reply:
    """Return the scripted API's answer to each prompt of the program."""
    texts = json.dumps(request.json["messages"])
    prompt = max(PROMPTS, key=texts.rfind)
    is_answered = texts.rfind("tool_result") > texts.rfind(prompt)
    match prompt:
        case "ADD" if not is_answered:
            bash = tool_use("Bash", {"command": "pwd", "description": "Where"})
            return Reply([text("I add."), tool_use("mcp__calc__add", {"a": 2, "b": 40}), bash], stop_reason="tool_use")
        case "SLOW":
            return Reply([text("This is a long answer, word by word, and it has no end.", pieces=4)], gap_s=0.3)
        case "LOOP":
            return Reply([tool_use("Bash", {"command": "pwd", "description": "Again"})], stop_reason="tool_use")
        case "DIE":
            kill_children()
    return Reply([text(f"Answer {prompt}.")])


def kill_children() -> None:
    """Kill the Claude Code processes of this process."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            is_cli = b"--input-format" in (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and is_cli:
            os.kill(int(entry.parent.name), signal.SIGKILL)


def options(cli: str, url: str, **further: Any) -> Any:
    env = {**claude_code.ENVIRONMENT, "ANTHROPIC_BASE_URL": url}
    return sdk.ClaudeAgentOptions(cli_path=cli, env=env, setting_sources=[], **further)


async def conversation(cli: str, url: str) -> list[Any]:
    """Have turns with a tool of the program, a callback, a hook, a new permission mode and model, and an interrupt."""
    found: list[Any] = []
    hooks = {"PreToolUse": [sdk.HookMatcher(matcher="Bash", hooks=[hook])]}
    given = {"can_use_tool": allow, "hooks": hooks, "mcp_servers": {"calc": calc()}, "include_partial_messages": True}
    async with sdk.ClaudeSDKClient(options(cli, url, **given)) as client:
        await client.query("ADD please")
        found += await collected(client.receive_response())
        await client.set_permission_mode("acceptEdits")
        await client.set_model("claude-haiku-4-5")
        found += [await client.get_mcp_status(), await client.get_context_usage()]
        await client.query("SLOW please")
        is_interrupted = False
        async for message in client.receive_response():
            found.append(message)
            if isinstance(message, sdk.StreamEvent) and "text_delta" in str(message) and not is_interrupted:
                is_interrupted = True
                await client.interrupt()
        await client.query("ONE please")
        found += await collected(client.receive_response())
    return found


async def program(cli: str, url: str) -> dict[str, list[Any]]:
    """Run all sessions of the program: a conversation, its fork beside a new one, one up to its limit, and one that dies."""

    async def ask(prompt: str, **further: Any) -> list[Any]:
        return await collected(sdk.query(prompt=prompt, options=options(cli, url, **further)))

    first = await conversation(cli, url)
    id_ = next(message.session_id for message in first if isinstance(message, sdk.ResultMessage))
    forked, fresh = await asyncio.gather(ask("FORK please", resume=id_, fork_session=True), ask("TWO please"))
    limited = await ask("LOOP please", continue_conversation=True, max_turns=1, allowed_tools=["Bash"])
    resumed = await ask("DIE please", resume=id_)
    return {"first": first, "forked": forked, "fresh": fresh, "limited": limited, "killed": resumed}


def without_folders(found: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Return the messages as texts, with names in place of the folders. Claude Code also writes them as `-home-me-project`."""

    def named(text: str) -> str:
        for folder, name in ((str(Path.cwd()), "CWD"), (os.environ["HOME"], "HOME")):
            text = text.replace(folder, name).replace(re.sub("[^A-Za-z0-9]", "-", folder), name)
        return text

    return {name: [named(repr(message)) for message in messages] for name, messages in found.items()}


def test_a_session_resumes_from_a_copy_of_the_log_in_another_home(tmp_path: Path) -> None:
    """Claude Code has no transcript of the session in that home. The SDK takes it from the store."""
    with MessagesServer(answer) as server:

        async def ask(prompt: str, log: retold.EventLog, **further: Any) -> str:
            store = retold.session_store(log)
            given = options(str(CLAUDE_CODE), server.url, session_store=store, cwd=tmp_path, **further)
            found = await collected(sdk.query(prompt=prompt, options=given))
            store.close()
            return str(found[-1].session_id)

        with retold.EventLog(tmp_path / "one.db") as log:
            id_ = asyncio.run(ask("ONE please", log))
        shutil.copy(tmp_path / "one.db", tmp_path / "two.db")
        with elsewhere(tmp_path / "other"), retold.EventLog(tmp_path / "two.db") as log:
            assert asyncio.run(ask("TWO please", log, resume=id_)) == id_
        texts = json.dumps(server.requests[-1].json["messages"])
    assert texts.index("ONE please") < texts.index("Answer ONE.") < texts.index("TWO please")


@contextmanager
def elsewhere(folder: Path) -> Any:
    """Return another working directory, and another home."""
    (folder / "project").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "project")
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", os.defpath)
        yield


def test_a_program_is_replayed_in_another_folder_without_claude_code(tmp_path: Path) -> None:
    """Messages have equal reprs except for the folders. Callbacks, hooks and tools of the program run as often."""
    path = tmp_path / "session.yaml"
    CALLS.clear()
    with MessagesServer(answer) as server, used(path, "once") as cassette:
        recorded = without_folders(asyncio.run(program(str(CLAUDE_CODE), server.url)))
    calls, url = list(CALLS), server.url
    assert cassette.recorded == 5
    assert "error_max_turns" in recorded["limited"][-2]
    assert recorded["killed"][-1].endswith(", -9)")
    assert {call[0] for call in calls} == {"allow", "hook", "add"}
    assert "Request interrupted by user" in str(recorded["first"])
    CALLS.clear()
    with elsewhere(tmp_path / "other"), used(path) as cassette:
        replayed = without_folders(asyncio.run(program(NOWHERE, url)))
    assert cassette.all_played
    assert calls == CALLS
    for name, messages in recorded.items():
        assert replayed[name] == messages, name
