"""Claude Code, the TypeScript SDK and curl are recorded and replayed. These programs do not use retold.

They are large or need another language. If one is not installed, pytest skips its tests. `.ci/run` installs most of them.
"""

import shutil
from pathlib import Path

import pytest

import retold
from tests import claude_code
from tests.conftest import Cli
from tests.messages_server import MessagesServer, Reply, http_error, text, tool_use

CLAUDE_CODE = claude_code.find()
NODE_SDK = claude_code.CLIENTS / "node_modules" / "@anthropic-ai" / "sdk"
VERCEL_SDK = claude_code.CLIENTS / "node_modules" / "@ai-sdk" / "anthropic"

STREAMS = [
    Reply([text("As it comes.")]),
    http_error(529, headers={"retry-after-ms": "1"}),
    Reply([text("Packed, and a little slower.")], encoding="gzip", gap_s=0.002),
    Reply([text("This one breaks off.")], cut_after=5),
    Reply([text("This one fails.")], error_event_after=5),
]

MORE_PROMPTS = ("GO-TEXT", "GO-AGENT", "GO-PAIR", "GO-ERROR", "GO-CUT")


@pytest.mark.claude_code
@pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed")
@pytest.mark.parametrize("prompt", ["GO-TOOLS", *(pytest.param(prompt, marks=pytest.mark.stress) for prompt in MORE_PROMPTS)])
def test_claude_code_gives_the_same_answers_again(prompt: str, cli: Cli, tmp_path: Path) -> None:
    """It sends the same messages in every turn, offline, with another home, session and date."""
    assert CLAUDE_CODE is not None
    command = claude_code.command(CLAUDE_CODE, prompt)
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    environments = [claude_code.ENVIRONMENT | {"HOME": str(home)} for home in homes]
    with MessagesServer(claude_code.Script()) as server:
        recorded = cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *command, env=environments[0], input="")
    Path("note.txt").unlink(missing_ok=True)
    cassette = Path("c.yaml").read_text()
    date = retold.read_cassette("c.yaml").exchanges[0].recorded_at[:10]
    assert f"date is {date}" in cassette
    Path("c.yaml").write_text(cassette.replace(f"date is {date}", "date is 2025-02-03"))
    for _ in range(3 if prompt == "GO-PAIR" else 1):
        # Claude Code has a race: two reports come in one request or in two, depending on the load of the machine.
        replayed = cli("replay", "c.yaml", "--", *command, env=environments[1], input="")
        if replayed.returncode == 0:
            break
    assert (recorded.returncode, replayed.returncode) == (0, 0), replayed.stderr
    turns = [claude_code.turns(done.stdout, str(home)) for done, home in zip((recorded, replayed), homes, strict=True)]
    if prompt == "GO-PAIR":
        # Claude Code has another race: the usage of two agents at the time of a result.
        results = [turn.pop("result") for turn in turns]
        assert results[0].total() == results[1].total()
    assert turns[1] == turns[0]
    assert "exchanges not played" not in replayed.stderr
    assert "(matched as claude-code)" in replayed.stderr


@pytest.mark.stress
@pytest.mark.claude_code
@pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed")
def test_claude_code_shows_a_miss_and_does_not_repeat_it(cli: Cli) -> None:
    assert CLAUDE_CODE is not None
    with MessagesServer(claude_code.Script()) as server:
        command = claude_code.command(CLAUDE_CODE, "GO-TEXT")
        cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *command, env=claude_code.ENVIRONMENT, input="")
    command = claude_code.command(CLAUDE_CODE, "GO-ELSEWHERE")
    replayed = cli("replay", "c.yaml", "--", *command, env=claude_code.ENVIRONMENT, input="")
    difference = 'recorded "GO-TEXT", now "GO-ELSEWHERE"'
    assert difference in replayed.stdout.replace('\\\\\\"', '"').replace('\\"', '"')
    assert difference in replayed.stderr
    assert "more after it" not in replayed.stderr
    assert replayed.returncode == 3


@pytest.mark.skipif(shutil.which("node") is None or not NODE_SDK.is_dir(), reason="the TypeScript SDK is not installed")
def test_the_typescript_sdk_gets_the_same_bytes(cli: Cli) -> None:
    """The cases include a broken stream, a stream with an error, and a 529 that the SDK repeats itself."""
    client = ["node", str(Path(__file__).parent / "typescript.mjs"), "a", "b", "c", "d"]
    env = {"RETOLD_CLIENTS": str(claude_code.CLIENTS), "ANTHROPIC_API_KEY": "test-key"}
    with MessagesServer(STREAMS) as server:
        recorded = cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *client, env=env)
    replayed = cli("replay", "c.yaml", "--", *client, env=env)
    assert replayed.stdout == recorded.stdout
    assert [line.split(",")[0] for line in recorded.stdout.splitlines()[4:]] == ["[200", "[529", "[200", "[200", "[200"]


@pytest.mark.stress
@pytest.mark.skipif(shutil.which("node") is None or not VERCEL_SDK.is_dir(), reason="the Vercel AI SDK is not installed")
def test_an_agent_of_the_vercel_ai_sdk_runs_again_in_another_folder(cli: Cli, tmp_path: Path) -> None:
    """Its base URL has no version, so it sends requests to /messages."""
    env = {"RETOLD_CLIENTS": str(claude_code.CLIENTS), "ANTHROPIC_API_KEY": "test-key"}
    writes_elsewhere(["node", str(Path(__file__).parent / "vercel.mjs"), "Write it"], "write", cli, tmp_path, env)


@pytest.mark.stress
@pytest.mark.claude_code
@pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed")
def test_claude_code_runs_again_in_another_folder(cli: Cli, tmp_path: Path) -> None:
    assert CLAUDE_CODE is not None
    command = [CLAUDE_CODE, "-p", "Write it", "--allowedTools", "Write"]
    writes_elsewhere(command, "Write", cli, tmp_path, claude_code.ENVIRONMENT)


def writes_elsewhere(command: list[str], tool: str, cli: Cli, tmp_path: Path, env: dict[str, str]) -> None:
    """Replay a program in another folder and home than its recording. The file that it writes is in the other folder."""
    one, two = tmp_path / "one", tmp_path / "two"
    homes = [tmp_path / "first", tmp_path / "second"]
    for folder in (one, two, *homes):
        folder.mkdir()
    file = {"file_path": f"{one}/note.txt", "content": "hello"}
    script = [Reply([tool_use(tool, file)], stop_reason="tool_use"), Reply([text(f"Done in {one}.", 20)])]
    cassette = tmp_path / "c.yaml"
    with MessagesServer(script) as server:
        options = ["-o", cassette, "--upstream", server.url]
        recorded = cli("record", *options, "--", *command, env=env | {"HOME": str(homes[0])}, cwd=one, input="")
    (one / "note.txt").unlink()
    replayed = cli("replay", cassette, "--", *command, env=env | {"HOME": str(homes[1])}, cwd=two, input="")
    assert (recorded.returncode, replayed.returncode) == (0, 0), replayed.stderr
    assert "replayed 2 of 2 exchanges" in replayed.stderr
    assert replayed.stdout == recorded.stdout.replace(str(one), str(two))
    assert (two / "note.txt").read_text() == "hello"
    assert not (one / "note.txt").exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_the_same_bytes(cli: Cli) -> None:
    """The transfers are compressed or not, complete or broken. The exit code, which reports their end, is the same."""
    ask = "curl -s -H 'accept-encoding: gzip' -o {}.%d -w '%%{http_code} %%{exitcode}\n'"
    ask += ' $ANTHROPIC_BASE_URL/v1/messages -d \'{"stream":true,"n":%d}\''
    asks = "; ".join(ask % (n, n) for n in range(5))
    with MessagesServer(STREAMS) as server:
        command = ["sh", "-c", asks.replace("{}", "recorded")]
        recorded = cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *command)
    replayed = cli("replay", "c.yaml", "--", "sh", "-c", asks.replace("{}", "replayed"))
    assert recorded.stdout == replayed.stdout == "200 0\n529 0\n200 0\n200 18\n200 0\n"
    bodies = [[Path(f"{run}.{n}").read_bytes() for n in range(5)] for run in ("recorded", "replayed")]
    assert bodies[0] == bodies[1] == server.bodies
