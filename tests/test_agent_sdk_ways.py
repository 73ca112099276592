"""Sessions of the Agent SDK under other conditions: killed, on trio, in a test suite, and with the real Claude Code."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import agent_cli, claude_code
from tests.messages_server import MessagesServer

sdk: Any = pytest.importorskip("claude_agent_sdk")

from tests.test_agent_sdk import (  # noqa: E402
    NOWHERE,
    SCENES,
    assistant_text,
    callbacks,
    collected,
    prompts,
    recorded_and_replayed,
    steps,
    used,
)

KILLED = """
import asyncio, os, signal, sys
import claude_agent_sdk as sdk, retold

async def main():
    count = 0
    options = sdk.ClaudeAgentOptions(cli_path=sys.argv[1])
    async for message in sdk.query(prompt="Say hello", options=options):
        print(getattr(message, "uuid", None), flush=True)
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)

with retold.use_cassette("session.yaml", record_mode="once"):
    asyncio.run(main())
"""


def test_every_line_that_a_killed_program_saw_is_in_the_log(tmp_path: Path) -> None:
    cli = agent_cli.installed(tmp_path / "bin")
    lines = [assistant_text(str(number)) | {"uuid": f"line-{number}"} for number in range(9)]
    script = agent_cli.written(tmp_path / "long.jsonl", *steps(*lines), {"d": "close"}, base="plain")
    command = [sys.executable, "-W", "ignore", "-c", KILLED, cli]
    environ = os.environ | agent_cli.environment(script)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = [line for line in done.stdout.split() if line != "None"]
    assert seen == [f"line-{number}" for number in range(4 - done.stdout.count("None"))]
    with retold.EventLog() as log:
        (run,) = log.runs()
        kept = {event.data.get("uuid") for event in log.events(run.run) if event.kind.startswith(("message", "stream."))}
        assert set(seen) <= kept
    assert not Path("session.yaml").exists()


def test_a_session_replays_on_trio(tmp_path: Path) -> None:
    """A session recorded on asyncio replays on trio, and one recorded on trio replays on asyncio."""
    trio = pytest.importorskip("trio")
    run, cli = SCENES["tools"], agent_cli.installed(tmp_path / "bin")
    with used(tmp_path / "trio.yaml", "once"):
        recorded = trio.run(run, cli)
    with used(tmp_path / "trio.yaml"):
        assert list(map(repr, asyncio.run(run(NOWHERE)))) == list(map(repr, recorded))
    recorded, _ = recorded_and_replayed(tmp_path / "session.yaml", run, cli)
    for timing in ("instant", "20x"):
        with used(tmp_path / "session.yaml", timing=timing):
            replayed = trio.run(run, NOWHERE)
        assert list(map(repr, replayed)) == list(map(repr, recorded))


SUITE = """
import asyncio
import claude_agent_sdk as sdk
import pytest

pytestmark = pytest.mark.retold

@pytest.mark.parametrize("number", range(10))
def test_greeting(number, retold_cassette):
    async def run():
        options = sdk.ClaudeAgentOptions(cli_path={cli!r})
        return [message async for message in sdk.query(prompt=f"Greet {{number}}", options=options)]
    assert any(isinstance(message, sdk.ResultMessage) for message in asyncio.run(run()))
    assert retold_cassette.play_count + retold_cassette.recorded == 1
"""


@pytest.mark.stress
def test_a_suite_with_one_mark_is_recorded_once_and_runs_without_the_cli(tmp_path: Path) -> None:
    test = Path("test_greetings.py")

    def suite(cli: str, *options: str) -> str:
        test.write_text(SUITE.format(cli=cli))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, str(test)]
        environ = os.environ | agent_cli.environment("plain")
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert "10 recorded" in suite(agent_cli.installed(tmp_path / "bin"), "--retold-mode=once")
    assert "10 replayed, 0 recorded, 0 missed, 0 recordings not played" in suite(NOWHERE)


# The real Claude Code

CLAUDE_CODE = claude_code.find()


@pytest.mark.stress
@pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed")
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("prompt", ["GO-TEXT", "GO-TOOLS", "GO-AGENT", "GO-ERROR"])
def test_claude_code_is_recorded_and_replayed_without_it(prompt: str, partial: bool, tmp_path: Path) -> None:
    with MessagesServer(claude_code.Script()) as server:

        def run(cli: str) -> Any:
            env = {**claude_code.ENVIRONMENT, "ANTHROPIC_BASE_URL": server.url}
            further = {"include_partial_messages": partial, **callbacks(mcp_servers={})}
            options = sdk.ClaudeAgentOptions(cli_path=cli, env=env, setting_sources=[], **further)
            return collected(sdk.query(prompt=prompts(prompt), options=options))

        recorded, replayed = recorded_and_replayed(tmp_path / "session.yaml", run, str(CLAUDE_CODE))
        sent = len(server.requests)
        assert sent > 0
    assert list(map(repr, replayed)) == list(map(repr, recorded))
    with retold.EventLog() as log:
        (run_info,) = log.runs()
        assert run_info.exchanges == 0
        assert json.loads(next(log.events(run_info.run)).payload)["mode"] == "live"
