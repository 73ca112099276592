"""callback, buffer, and the partial text of console: handlers for a program or a person during a stream."""

import io
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pexpect
import pytest

import retold
from retold.handlers import make_handler, read_stream
from retold.handlers.callback import load_function
from tests.conftest import Cli
from tests.e2e import CASSETTE, NUMBERS, Ran, in_this_process, normalised, run_mock
from tests.test_handler_contract import record
from tests.test_handlers import INIT, RESULT, text, tool_use
from tests.test_handlers_running import BODY, numbers_with

Json = dict[str, Any]


def run_with(source: str, *, module: str = "mine", **options: Any) -> Ran:
    """Run the numbers through a callback `see` in a module beside the workflow."""
    path = Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    values = ", ".join(f"{key}: {value}" for key, value in ({"module": module, "function": "see"} | options).items())
    workflow = numbers_with(f"async_streaming: true\nstream_handler: callback\nstream_handler_opts: {{{values}}}")
    return run_mock(workflow, cassette=CASSETTE)


def lines() -> list[str]:
    return Path("seen.txt").read_text().splitlines()


SEE = """\
def see(message):
    with open("seen.txt", "a") as file:
        print(message.type, message.subtype, message.step, file=file)
"""


def test_a_callback_is_called_once_per_message() -> None:
    """The function of a module beside the workflow is called for each message, in order."""
    ran = run_with(SEE)
    assert lines() == ["system init count", "assistant None count", "result success count"]
    assert ran.result.ok


def test_a_callback_may_be_in_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dotted path names a module in folders, as in Python."""
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    run_with(SEE, module="my_app.handlers.stream")
    assert len(lines()) == 3


def test_a_callback_may_receive_some_types_only() -> None:
    """It receives only messages of its `types`. The others are not shown."""
    ran = run_with(SEE, types="[assistant, result]")
    assert lines() == ["assistant None count", "result success count"]
    (result,) = ran.result.steps[0].handler_results
    assert (result["messages"], result["shown"], result["called"], result["failed"]) == (3, 2, 2, 0)


def test_an_async_callback_is_awaited() -> None:
    """An `async def` is awaited before the next message, all of them in one event loop."""
    source = """\
import asyncio
loops = set()
async def see(message):
    loops.add(asyncio.get_running_loop())
    with open("seen.txt", "a") as file:
        print("begin", message.type, file=file)
    await asyncio.sleep(0)
    with open("seen.txt", "a") as file:
        print("end", message.type, len(loops), file=file)
"""
    assert run_with(source, module="waits").result.ok
    kinds = ("system", "assistant", "result")
    assert lines() == [line for kind in kinds for line in (f"begin {kind}", f"end {kind} 1")]


RAISES = """\
def see(message):
    with open("seen.txt", "a") as file:
        print(message.type, file=file)
    raise {}
"""


@pytest.mark.parametrize(
    ("on_error", "seen", "message"),
    [
        ("report", ["system", "assistant", "result"], "mine.see raised 3 times, first ZeroDivisionError: no"),
        ("stop", ["system"], "mine.see raised stopped after ZeroDivisionError: no"),
    ],
)
def test_a_callback_that_raises_is_reported_and_does_not_stop_the_run(on_error: str, seen: list[str], message: str) -> None:
    """With `report` the calls continue and failures are counted, with `stop` they end.

    The run is complete, and the exit code is 1.
    """
    ran = run_with(RAISES.format("ZeroDivisionError('no')"), on_error=on_error)
    assert lines() == seen
    assert (ran.result.status, ran.result.ok, ran.text) == ("completed", False, BODY)
    assert [error.partition("CallbackFailed: ")[2] for error in ran.result.handler_errors] == [message]


def test_a_callback_that_exits_does_not_end_the_run() -> None:
    """`sys.exit()` in a callback is reported as a failure."""
    ran = run_with(RAISES.format("SystemExit(0)"), module="exits_late")
    assert (ran.result.status, ran.result.ok) == ("completed", False)
    assert "SystemExit" in ran.result.handler_errors[0]


def test_a_module_beside_the_workflow_takes_precedence() -> None:
    """A module `json` beside the workflow is called. The program keeps its own."""
    theirs = sys.modules["json"]
    run_with(SEE, module="json")
    assert lines()[0] == "system init count"
    assert sys.modules["json"] is theirs


def test_concurrent_imports_of_other_threads_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run in parallel, so one may import the SDK while another searches modules of its callback's name."""

    class Elsewhere(ModuleType):
        """A module of the same name. A request for its file imports another module, as a second thread would at that moment."""

        def __getattr__(self, name: str) -> str:
            monkeypatch.setitem(sys.modules, f"imported_meanwhile_{name}", self)
            return "/elsewhere/notes.py"

    monkeypatch.setitem(sys.modules, "notes", Elsewhere("notes"))
    Path("notes.py").write_text("def note(message):\n    raise AssertionError\n")
    assert load_function("notes", "note", Path.cwd()).__module__ == "notes"
    assert isinstance(sys.modules["notes"], Elsewhere)


def test_a_callback_on_the_command_line_is_found_beside_the_workflow(cli: Cli) -> None:
    """`--handler callback:…` finds the same module as the workflow does."""
    Path("sub").mkdir()
    Path("sub/w.yaml").write_text(NUMBERS.read_text())
    Path("sub/beside.py").write_text(SEE)
    handler = "callback:module=beside,function=see,types=[system,result]"
    done = cli("run", "sub/w.yaml", "--cassette", CASSETTE, "--handler", handler)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert lines() == ["system init count", "result success count"]


# buffer


@pytest.mark.parametrize(("drop", "kept"), [("oldest", ["<3>", "<4>"]), ("newest", ["<0>", "<1>"])])
def test_a_full_buffer_drops_and_counts(drop: str, kept: list[str]) -> None:
    """A buffer keeps `max_size` messages. `drop` selects the ones to drop, and they are counted."""
    log, run = record([text(f"<{number}>") for number in range(5)])
    buffer = make_handler("buffer", {"max_size": 2, "drop": drop}, io.StringIO())
    read_stream(log.events(run), buffer)
    result = buffer.result()
    assert [message["message"]["message"]["content"][0]["text"] for message in result["buffered"]] == kept
    assert result["dropped"] == 3


def test_a_run_returns_the_messages_of_its_buffer() -> None:
    """The step's result contains the messages as they are in the log."""
    workflow = numbers_with("async_streaming: true\nstream_handler: buffer\nstream_handler_opts: {max_size: 1000}")
    ran = run_mock(workflow, cassette=CASSETTE)
    (result,) = ran.result.steps[0].handler_results
    assert [m["message"] for m in result["buffered"]] == [m.data for m in retold.EventLog().messages(ran.result.run)]
    assert result["dropped"] == 0


# console, partial


def recorded(*handler: str) -> str:
    """Return the output of a mock run of the numbers with a handler from the command line."""
    return normalised(in_this_process("run", NUMBERS, "--handler", *handler).stdout)


def test_partial_text_ends_like_the_whole_message() -> None:
    """Text that is typed piece by piece ends up the same, and so do the statistics."""
    assert recorded("console:partial=true") == recorded("console")


def test_partial_text_is_written_as_its_frames_arrive() -> None:
    """Each delta is a separate, flushed write."""
    writes: list[str] = []

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return super().write(text)

    run_mock(NUMBERS, handlers=[])
    (run,) = retold.EventLog().runs()
    console = make_handler("console", {"partial": True, "show_header": False, "show_stats": False}, Screen())
    read_stream(retold.EventLog().events(run.run, kinds=console.kinds), console)
    assert "".join(writes).replace("\n           ", "\n").partition("] ")[2] == f"{BODY}\n"
    assert len(writes) == 8


def test_partial_text_is_separate_from_tools() -> None:
    """A tool use after typed text begins a new line, and each text is shown once."""
    log, run = record([INIT, text("<0>"), tool_use("Read"), text("<1>"), RESULT])
    console = make_handler("console", {"partial": True}, out := io.StringIO())
    read_stream(log.events(run), console)
    assert re.findall(r"<\d>|TOOL USE: Read", out.getvalue()) == ["<0>", "TOOL USE: Read", "<1>"]


def test_partial_text_in_a_terminal(environment: dict[str, str]) -> None:
    """On a terminal the boxes surround the typed text, and it cuts no escape code."""
    command = ["-m", "retold", "run", str(NUMBERS), "--handler", "console:partial=true"]
    env: Any = environment | {"TERM": "xterm-256color", "NO_COLOR": "1"}
    child = pexpect.spawn(sys.executable, command, env=env, dimensions=(40, 80), encoding="utf-8", timeout=30)
    out = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", child.read().replace("\r\n", "\n"))
    child.close()
    assert child.exitstatus == 0
    body = BODY.replace("\n", "\n           ")
    assert f"╯\n[HH:MM:SS] {body}\n╭─ Stream completed ─" in normalised(out)
