"""A recorded session of Claude Code is forked: its first turn is the recorded one, and another model continues."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import retold
from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http.exchange import Exchange
from tests import claude_code
from tests.conftest import Cli
from tests.messages_server import MessagesServer

CLAUDE_CODE = claude_code.find()

pytestmark = [
    pytest.mark.stress,
    pytest.mark.claude_code,
    pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed"),
]


def digests(exchanges: list[Exchange]) -> list[str]:
    return [sha256(exchange.response.body).hexdigest() for exchange in exchanges if exchange.response is not None]


@pytest.fixture
def run(cli: Cli) -> Callable[..., str]:
    """Run a command of retold for Claude Code, and return its stderr."""

    def run(*arguments: str) -> str:
        command = claude_code.command(CLAUDE_CODE or "", "GO-TOOLS")
        done = cli(*arguments, "--", *command, env=claude_code.ENVIRONMENT, input="")
        assert done.returncode == 0, done.stderr
        return str(done.stderr)

    return run


def test_a_session_is_forked_at_turn_2_inside_an_answer_and_again(run: Callable[..., str], cli: Cli) -> None:
    """The API gets no call of the prefix, and every fork verifies with its parent."""
    log = retold.EventLog()
    with MessagesServer(claude_code.Script()) as server:
        run("record", "--name", "session", "--upstream", server.url)
    old = exchanges_of(log, log.find("session").run)
    assert len(old) == 3
    Path("note.txt").unlink()
    with MessagesServer(claude_code.Script()) as server:
        errors = run("fork", "session", "--at", "2", "--model", "claude-opus-5-5", "--upstream", server.url)
    assert [request.json["model"] for request in server.requests] == ["claude-opus-5-5"] * 2
    assert "(matched as claude-code)" in errors
    first = log.find("last").run
    new = exchanges_of(log, first)
    assert digests(new)[:1] == digests(old)[:1]
    assert [exchange.place.stamped for exchange in new] == ["replay", "arrival", "arrival"]
    frames = [event.seq for event in log.events(log.find("session").run, kinds=("frame",))]
    with MessagesServer(claude_code.Script()) as server:
        run("fork", "session", "--at", f"seq:{frames[3]}", "--upstream", server.url)
    cut = exchanges_of(log, log.find("last").run)
    assert cut[0].ending == "cut"
    assert old[0].response is not None
    assert digests(cut)[0] == sha256(b"".join(piece.data for piece in old[0].response.pieces[:4])).hexdigest()
    with MessagesServer(claude_code.Script()) as server:
        run("fork", first, "--at", "3", "--model", "haiku", "--upstream", server.url)
    assert server.calls == 1
    assert digests(exchanges_of(log, log.find("last").run))[:2] == digests(new)[:2]
    report = json.loads(cli("verify", "--json").stdout)
    assert (report["ok"], report["forks"], report["unproven"]) == (True, 3, [])
