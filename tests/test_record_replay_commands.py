"""`retold record -- CMD` records any program on the wire. `retold replay -- CMD` answers it from its recording."""

import json
from pathlib import Path

import pytest

import retold
from tests.conftest import Cli
from tests.messages_server import MessagesServer, Reply, http_error, text
from tests.wire import asks

SCRIPT = [
    Reply([text("Hello from afar.")]),
    http_error(529, headers={"retry-after-ms": "1"}),
    Reply([text("Packed, as it comes.")], encoding="gzip"),
    Reply([text("This one breaks off.")], cut_after=4),
]


@pytest.mark.needs("genai-prices")
@pytest.mark.trap(6, 13, 17)
def test_a_recorded_command_replays_byte_for_byte(cli: Cli) -> None:
    """Status, reason, body, compression, a 529, a cut and the exit code are the same, offline."""
    command = asks("a", "b", "c", "d", "exit=5")
    with MessagesServer(SCRIPT) as server:
        recorded = cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *command)
        sent = list(server.bodies)
    replayed = cli("replay", "c.yaml", "--", *command)
    assert (replayed.stdout, replayed.returncode) == (recorded.stdout, 5)
    assert recorded.returncode == 5
    assert [json.loads(line)[3] for line in recorded.stdout.splitlines()] == [None, None, None, "IncompleteRead"]
    assert [exchange.response.body for exchange in retold.read_cassette("c.yaml").exchanges if exchange.response] == sent
    endings = "4 exchanges (2 complete, 1 HTTP error, 1 cut), 12 frames, 75 in + 8 out tokens, $"
    assert recorded.stderr.startswith(f"retold: recorded {endings}")
    assert recorded.stderr.endswith(" in .retold/log.db and c.yaml\n")
    assert replayed.stderr == "retold: replayed 4 of 4 exchanges from c.yaml\n"


def test_a_run_of_the_log_can_be_replayed(cli: Cli) -> None:
    """Without -o the recording is only in the log. The command reports recorded exchanges that were not requested."""
    with MessagesServer(SCRIPT) as server:
        recorded = cli("record", "--upstream", server.url, "--", *asks("a", "b"))
    replayed = cli("replay", "last", "--", *asks("a"))
    assert replayed.stdout == recorded.stdout.splitlines(keepends=True)[0]
    assert "replayed 1 of 2 exchanges from run " in replayed.stderr
    assert replayed.stderr.endswith("; 1 recorded exchange not played\n")
    assert not list(Path.cwd().glob("*.yaml"))


@pytest.mark.trap(35, 46)
def test_a_miss_is_shown_to_the_program_and_gives_exit_code_3(cli: Cli) -> None:
    """Clients do not repeat this error. The command prints the difference, and ignores the program's exit code."""
    with MessagesServer(SCRIPT) as server:
        cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *asks("a"))
    replayed = cli("replay", "c.yaml", "--", *asks("b"))
    difference = 'messages[0].content: recorded "a", now "b"'
    assert difference in replayed.stdout
    assert difference in replayed.stderr
    assert "retold record --mode new_episodes -o c.yaml" in replayed.stderr
    assert replayed.returncode == 3
