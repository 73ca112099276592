"""Handlers beside a run: a bad one does not harm the run, and a good one stays within the width of the terminal."""

import re
import sys
import threading
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.cells import cell_len

import retold
from retold.handlers import HANDLERS, Handler
from retold.recorder.messages import Message
from retold.recorder.words import indent
from tests.e2e import CASSETTE, NUMBERS, in_this_process, normalised, run_mock
from tests.test_handlers import INIT, RESULT, record_stream, text, tool_use

# Bad handlers


class Fake(Handler):
    """A handler for tests with a configurable reaction to messages."""

    name = "fake"
    seen: list[str]

    def message(self, message: Message) -> bool:
        self.seen.append(message.type)
        return True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Register the handler `fake`."""
    monkeypatch.setitem(HANDLERS, "fake", Fake)
    monkeypatch.setattr(Fake, "seen", [], raising=False)
    return Fake


def test_a_handler_sees_every_message_once(fake: type[Fake]) -> None:
    """A handler receives each message of the stream, in order."""
    run_mock(NUMBERS, handlers=[("fake", {})])
    assert fake.seen == ["system", "assistant", "result"]


def test_a_handler_that_raises_does_not_stop_the_run(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """The result names the crash. The run, the log and the other handlers continue."""

    def crash(_self: Fake, message: Message) -> bool:
        raise ZeroDivisionError(f"at {message.type}")

    monkeypatch.setattr(fake, "message", crash)
    ran = run_mock(NUMBERS, handlers=[("fake", {}), ("simple", {})])
    assert ran.result.handler_errors == ["handler 'fake' failed in step 'count': ZeroDivisionError: at system"]
    assert (ran.result.status, ran.result.ok, ran.result.steps[0].messages) == ("completed", False, 3)
    assert re.search(r"10\n\n✓ Stream completed: 3 messages \(1 shown\) in \d\.\ds\n\Z", ran.output)


def test_a_handler_that_raises_changes_the_exit_code(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line names the handler on stderr and exits with 1."""
    monkeypatch.setattr(fake, "message", lambda _self, _message: 1 / 0)
    done = in_this_process("run", NUMBERS, "--handler", "fake")
    assert done.returncode == 1
    assert "retold: handler 'fake' failed in step 'count': ZeroDivisionError: division by zero\n" in done.stderr


def test_a_slow_handler_does_not_delay_the_recording(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a handler blocks in its first message, the whole stream is recorded. Afterwards it receives all of it."""
    go_on, stuck = threading.Event(), threading.Event()
    original = fake.message

    def wait(self: Fake, message: Message) -> bool:
        stuck.set()
        assert go_on.wait(30)
        return original(self, message)

    monkeypatch.setattr(fake, "message", wait)
    runner = threading.Thread(target=run_mock, args=(NUMBERS,), kwargs={"handlers": [("fake", {})]})
    runner.start()
    try:
        assert stuck.wait(30)
        log = retold.EventLog()
        over = log.follow(log.find("last").run, kinds=("step.ended",), until=lambda event: event.kind == "step.ended")
        assert [event.data["status"] for event in over] == ["completed"]
        assert fake.seen == []
    finally:
        go_on.set()
        runner.join(30)
    assert fake.seen == ["system", "assistant", "result"]


# In a workflow


def numbers_with(options: str) -> Path:
    """Return the workflow of the numbers with other streaming options."""
    old = '        async_streaming: true\n        stream_handler: "console"\n'
    whole = NUMBERS.read_text()
    assert old in whole
    Path("w.yaml").write_text(whole.replace(old, "".join(f"        {line}\n" for line in options.splitlines())))
    return Path("w.yaml")


BODY = "\n".join(map(str, range(1, 11)))
FOOTER = "\n\n✓ Stream completed: 3 messages (1 shown) in N.Ns\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("async_streaming: true", indent(f"[HH:MM:SS] ASSISTANT: {BODY}", 11) + FOOTER),
        ("async_streaming: false", ""),
        (
            "async_streaming: true\nstream_handler: simple\nstream_handler_opts: {show_timestamps: false}",
            f"ASSISTANT: {BODY}" + FOOTER,
        ),
        (
            "async_streaming: true\nstream_handler: {console: {show_header: false, show_stats: false}}",
            indent(f"[HH:MM:SS] {BODY}", 11) + "\n",
        ),
    ],
    ids=["default", "none", "options", "options in place"],
)
def test_the_workflow_selects_the_handler(options: str, shown: str) -> None:
    """The default with streaming is simple. A named handler gets its options. Without streaming no handler runs."""
    assert normalised(run_mock(numbers_with(options), cassette=CASSETTE).output) == shown


def test_each_handler_of_a_list_takes_its_options(fake: type[Fake]) -> None:
    """A list names several handlers, some with their own options. Each receives all messages."""
    workflow = numbers_with("async_streaming: true\nstream_handler: [fake, {simple: {show_timestamps: false}}]")
    ran = run_mock(workflow, cassette=CASSETTE)
    assert normalised(ran.output) == f"ASSISTANT: {BODY}" + FOOTER
    assert fake.seen == ["system", "assistant", "result"]


# In a terminal

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
WIDE = [
    INIT,
    text("A long line " * 20 + "漢字かな" * 30 + "👩‍👩‍👧 " * 20),
    tool_use("Read", file_path="/very/long/" * 20),
    RESULT,
]


def in_a_terminal(environment: dict[str, str], handler: str, **extra: str) -> str:
    """Return the output of `retold show last` in a terminal of 80 columns."""
    with retold.EventLog() as log, log.start(name="story", mode="mock") as writer:
        record_stream(writer, WIDE)
    env: Any = environment | {"TERM": "xterm-256color", "RETOLD_PAGER": "cat"} | extra
    command = ["-m", "retold", "show", "last", "--handler", handler]
    child = pexpect.spawn(sys.executable, command, env=env, dimensions=(24, 80), encoding="utf-8", timeout=30)
    out = str(child.read())
    child.close()
    assert child.exitstatus == 0
    return out.replace("\r\n", "\n")


def test_console_in_a_terminal_draws_boxes_within_its_width(environment: dict[str, str]) -> None:
    """It draws boxes and colours, and no line is wider than the terminal, including wide characters."""
    out = in_a_terminal(environment, "console")
    assert COLOUR.search(out)
    lines = ANSI.sub("", out).splitlines()
    assert max(map(cell_len, lines)) == 80
    assert [line[:3] for line in lines if line.startswith(("╭", "╰"))] == ["╭─ ", "╰──", "╭─ ", "╰──"]
    assert lines[0].startswith("╭─ story: one ─")


def test_no_color_removes_colour_codes(environment: dict[str, str]) -> None:
    """`NO_COLOR` is respected: the boxes stay, the colours go."""
    out = in_a_terminal(environment, "console", NO_COLOR="1")
    assert COLOUR.findall(out) == []
    assert "╭─" in out


def test_a_dumb_terminal_gets_no_escape_codes(environment: dict[str, str]) -> None:
    """`TERM=dumb` gets plain text."""
    assert "\x1b" not in in_a_terminal(environment, "console", TERM="dumb")


def test_simple_in_a_terminal_is_plain(environment: dict[str, str]) -> None:
    """simple writes the same everywhere."""
    out = in_a_terminal(environment, "simple")
    assert "\x1b" not in out
    assert normalised(out).startswith("[HH:MM:SS] ASSISTANT: A long line ")
    assert Path(".retold/log.db").exists()
