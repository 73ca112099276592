"""A command under `retold record` or `replay` behaves as if started directly, and leaves nothing behind."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from retold.recorder.http.recognition import BASE_URL_VARIABLES
from retold.servers.child import environment
from tests.children import Folder, line_of, rest_of, wait_until
from tests.conftest import Cli
from tests.messages_server import MessagesServer, Reply, text
from tests.wire import asks, connected

READ = [sys.executable, "-S", "-u", "-c", """
import http.client, os
client = http.client.HTTPConnection(os.environ["ANTHROPIC_BASE_URL"][7:])
client.request("POST", "/v1/messages", '{"stream": true, "messages": []}')
for line in client.getresponse():
    if line.startswith(b"data"):
        print("data")
"""]  # fmt: skip
"""A command that prints a line for each received frame."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.close()


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pid_of(parent: int) -> int:
    """Return the id of the only child of a process."""
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


def test_streams_and_exit_code_are_the_commands_own(cli: Cli) -> None:
    """The command reads stdin, and stdout has only the output of the command."""
    done = cli("record", "--upstream", "http://127.0.0.1:9", "--", *asks("stdin", "exit=7"), input="typed\n")
    assert (done.stdout, done.returncode) == ("typed\n\n", 7)


def test_a_missing_command_is_bad_usage(cli: Cli) -> None:
    done = cli("record", "--", "no-such-command")
    assert (done.returncode, done.stderr) == (2, "retold: cannot run no-such-command: No such file or directory.\n")


@pytest.mark.parametrize("option", ["-o", "--db"])
def test_a_command_is_not_started_if_its_recording_cannot_be_kept(cli: Cli, option: str) -> None:
    """The work of the command would be lost."""
    Path("file").write_text("")
    done = cli("record", option, "file/recording.yaml", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert "retold: cannot write the " in done.stderr


@pytest.mark.trap(44)
def test_a_recording_without_requests_fails(cli: Cli) -> None:
    done = cli("record", "--", "true")
    assert done.returncode == 1
    assert "no request came" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 17), (signal.SIGINT, 18)])
def test_a_signal_is_passed_on(folder: Folder, number: signal.Signals, code: int) -> None:
    """A signal to retold alone reaches the command, which ends in its own way."""
    child = folder.spawn("record", "--", *asks("sleep"))
    assert line_of(child.stdout) == "ready\n"
    child.send_signal(number)
    rest_of(child)
    assert child.returncode == code


def test_retold_dies_by_the_signal_that_killed_its_command(folder: Folder) -> None:
    """A shell or a supervisor sees a killed process, not one that exited."""
    child = folder.spawn("record", "--", "sh", "-c", "kill -KILL $$")
    rest_of(child)
    assert child.returncode == -signal.SIGKILL


def test_ctrl_c_reaches_the_command_once(folder: Folder) -> None:
    """The terminal sends it to the whole foreground group, including the command. retold does not pass it on a second time."""
    counting = "import signal, time; signal.signal(2, lambda *_: print('once', flush=True)); print('ready', flush=True)"
    command = ["-m", "retold", "record", "--", sys.executable, "-S", "-c", f"{counting}; time.sleep(.3)"]
    terminal = pexpect.spawn(sys.executable, command, cwd=folder.path, encoding="utf-8", timeout=30, echo=False)
    terminal.expect("ready")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    assert (terminal.before or "").count("once") == 1
    terminal.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_killing_retold_ends_its_command_and_frees_its_port(folder: Folder) -> None:
    """kill -9 runs no code of retold, so the kernel ends the child."""
    child = folder.spawn("record", "--", "sh", "-c", 'echo "$ANTHROPIC_BASE_URL"; exec sleep 60')
    url = line_of(child.stdout).strip()
    command = pid_of(child.pid)
    child.kill()
    child.wait()
    wait_until(lambda: not is_alive(command))
    with pytest.raises(ConnectionRefusedError):
        connected(url)


def test_only_the_command_sees_the_address() -> None:
    """It bypasses any proxy of the environment. It gets a dummy key only if there is no key and none is needed."""
    url = "http://127.0.0.1:8080"
    plain = environment({"A": "b", "ANTHROPIC_API_KEY": "own"}, url, key=True)
    platforms = {name: url for name in BASE_URL_VARIABLES if "FOUNDRY" not in name and "GOOGLE" not in name}
    assert plain == {"A": "b", "ANTHROPIC_API_KEY": "own", "ANTHROPIC_BASE_URL": url} | platforms
    assert environment({"A": "b"}, url, key=False, platforms=False) == {"A": "b", "ANTHROPIC_BASE_URL": url}
    assert {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL"} <= platforms.keys()
    foundry = environment({"ANTHROPIC_FOUNDRY_RESOURCE": "mine"}, url, key=True)
    assert foundry["ANTHROPIC_FOUNDRY_BASE_URL"] == url
    assert "ANTHROPIC_FOUNDRY_RESOURCE" not in foundry
    assert environment({"CLAUDE_CODE_USE_BEDROCK": "1"}, url, key=True)["CLAUDE_CODE_SKIP_BEDROCK_AUTH"] == "1"
    assert "CLAUDE_CODE_SKIP_VERTEX_AUTH" not in environment({"CLAUDE_CODE_USE_VERTEX": "0"}, url, key=True)
    proxied = environment({"https_proxy": "http://p:1", "HTTP_PROXY": "http://p:1", "NO_PROXY": "corp"}, url, key=True)
    assert proxied["NO_PROXY"] == "corp,127.0.0.1,localhost"
    assert proxied["ANTHROPIC_API_KEY"] == "replayed-by-retold"
    assert "ANTHROPIC_API_KEY" not in environment({}, url, key=False)
    assert "ANTHROPIC_BASE_URL" not in os.environ


@pytest.mark.trap(37)
def test_frames_passed_on_before_kill_9_are_in_the_log(folder: Folder) -> None:
    """Each frame is committed before it is passed on, also here."""
    with MessagesServer([Reply([text("one two three")], hang_after=3)]) as server:
        child = folder.spawn("record", "--upstream", server.url, "--", *READ)
        received = sum(line_of(child.stdout) == "data\n" for _ in range(3))
        child.kill()
        child.wait()
    assert folder.frames() == received == 3
    assert folder.newest().status == "interrupted"
