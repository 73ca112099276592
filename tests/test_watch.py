"""Watching on a terminal: texts are typed as they streamed, keys move the player, and the terminal is restored."""

import io
import re
import signal
import sys
import termios
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pexpect
import pytest

import retold
from retold.cli.keyboard import Keyboard
from retold.cli.screen import Screen
from retold.cli.step_table import print_steps
from retold.cli.viewing import readers, viewed
from retold.cli.watch import FOLLOWING, Theatre
from retold.handlers import make_handler, read_stream
from retold.handlers.typed import Opening, Typed
from retold.recorder.events import Entry, Event
from retold.recorder.strict_json import dumps
from retold.replay.timing.viewer import Key, Viewer
from retold.workflow.results import StepResult
from tests.conftest import ROOT
from tests.e2e import NUMBERS, in_this_process, normalised

S = 1_000_000_000
STATUS = re.compile(r"(?:\x1bD\x1b\[A)?\x1b7\r\x1b\[B(?:\x1b\[J|\x1b\[2m([^\x1b]*)\x1b\[0m|([^\x1b]+))\x1b8")
FILES = ROOT / "cassettes" / "streaming_file_operations.yaml"


class Terminal(io.StringIO):
    """A terminal that stores the text written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """Return the written text without the status line."""
        return STATUS.sub("", self.getvalue())

    @property
    def statuses(self) -> list[str]:
        """Return the status lines, one after the other."""
        return [dim or plain for dim, plain in STATUS.findall(self.getvalue()) if dim or plain]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Set up a terminal of 80 columns, for outputs that read its size from the environment."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Terminal()


# Shown parts


def test_show_names_steps_prompts_and_the_input_of_tools() -> None:
    """`simple` as an explicit handler keeps the lines of the seed document."""
    in_this_process("import", FILES)
    shown = normalised(in_this_process("show", "last").stdout)
    assert "] USER: Work step by step, saying before each step what you are about to do:\n           1. Write a file" in shown
    assert '] TOOL USE: Write file_path=test_file.txt content="alpha\\nbeta\\n"\n' in shown
    assert "] TOOL USE: Read file_path=test_file.txt\n" in shown
    plain = normalised(in_this_process("show", "last", "--handler", "simple").stdout)
    assert "USER:" not in plain
    assert "] TOOL USE: Read\n" in plain
    in_this_process("run", ROOT / "examples" / "parallel_reviews.yaml", "--handler", "debug")
    steps = re.findall("(?m)^STEP: .*$", in_this_process("show", "last").stdout)
    assert steps == ["STEP: look", "STEP: conclude"]


def test_play_in_a_pipe_writes_the_lines_of_the_handler() -> None:
    """Only a terminal gets prompts and thinking."""
    shown = in_this_process("play", FILES, "--timing", "instant").stdout
    assert "USER:" not in shown
    assert "] TOOL USE: Read\n" in shown


Told = tuple[str, dict[str, Any] | str, int | None]


def lines_of(*entries: Told, handler: str = "simple", **options: Any) -> list[str]:
    """Return the lines that a handler writes to a terminal for (kind, data or frame text, exchange)."""
    with retold.EventLog("told.db") as log, log.start(name="told", mode="live") as writer:
        for kind, data, exchange in entries:
            if isinstance(data, str):
                name, _, text = data.partition(":")
                delta = {"type": f"{name}_delta", name: text}
                frame = {"type": "content_block_delta", "index": 0, "delta": delta}
                writer.append(Entry("frame", f"data: {dumps(frame)}\n\n".encode(), exchange=exchange))
            else:
                writer.note(kind, data, exchange=exchange)
    out = Terminal()
    read_stream(log.events(writer.run), make_handler(handler, options, out))
    return re.sub(r"\x1b\[[0-9;]*m", "", normalised(out.getvalue())).split("\n\n✓")[0].splitlines()


def reply(**block: Any) -> dict[str, Any]:
    kind = "tool_use" if "name" in block else next(iter(block))
    return {"type": "assistant", "message": {"content": [{"type": kind, **block}]}}


def test_concurrent_answers_are_typed_one_after_the_other() -> None:
    """The second text waits for the first, is typed up to date, and continues. Whole messages wait in between."""
    lines = lines_of(
        ("frame", "text:One ", 1), ("frame", "text:Two ", 2), ("frame", "text:is typed.", 1),
        ("message", reply(name="Read", input={"path": "a b"}), 3), ("message", reply(text="One is typed."), 1),
        ("frame", "text:follows.", 2), ("message", reply(text="Two follows."), 2),
        partial=True, show_tool_input=True,
    )  # fmt: skip
    assert lines == [
        "[HH:MM:SS] ASSISTANT: One is typed.", '[HH:MM:SS] TOOL USE: Read path="a b"', "[HH:MM:SS] ASSISTANT: Two follows.",
    ]  # fmt: skip


def test_partial_messages_of_the_agent_sdk_are_typed_except_those_of_subagents() -> None:
    def piece(text: str, parent: str | None = None) -> Told:
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        return "stream.stream_event", {"type": "stream_event", "event": delta, "parent_tool_use_id": parent}, 1

    lines = lines_of(
        piece("One "), piece("Sub", "toolu_1"), ("message", reply(text="Sub.") | {"parent_tool_use_id": "toolu_1"}, 1),
        piece("text."), ("message", reply(text="One text.") | {"parent_tool_use_id": None}, 1), partial=True,
    )  # fmt: skip
    assert lines == ["[HH:MM:SS] ASSISTANT: One text.", "[HH:MM:SS] ASSISTANT: Sub."]


def test_text_of_an_exchange_that_ends_without_a_message_blocks_no_other() -> None:
    lines = lines_of(
        ("frame", "text:Half", 1), ("message", reply(text="Whole."), 2),
        ("exchange.ended", {"ending": "cut", "status": 200}, 1), ("frame", "text:More", 3), ("message", reply(text="More."), 3),
        partial=True,
    )  # fmt: skip
    assert [line for line in lines if "ASSISTANT" in line] == [
        "[HH:MM:SS] ASSISTANT: Half", "[HH:MM:SS] ASSISTANT: Whole.", "[HH:MM:SS] ASSISTANT: More",
    ]  # fmt: skip


@pytest.mark.parametrize("handler", ["simple", "console"])
def test_thinking_is_typed_before_the_text_on_request(handler: str) -> None:
    thought: list[Told] = [
        ("frame", "thinking:Hm, ", 1), ("frame", "thinking:yes.", 1), ("message", reply(thinking="Hm, yes."), 1),
        ("frame", "text:Yes.", 1), ("message", reply(text="Yes."), 1),
    ]  # fmt: skip
    boxes: dict[str, Any] = {"show_header": False, "show_stats": False} if handler == "console" else {}
    label = "ASSISTANT: " if handler == "simple" else ""
    shown = lines_of(*thought, handler=handler, partial=True, show_thinking=True, **boxes)
    assert shown == ["[HH:MM:SS] THINKING: Hm, yes.", f"[HH:MM:SS] {label}Yes."]
    assert lines_of(*thought, handler=handler, partial=True, **boxes) == [f"[HH:MM:SS] {label}Yes."]


def test_typed_and_whole_lines_are_wrapped_at_words_within_the_width() -> None:
    """The texts include CJK and right-to-left text."""
    text = "漢字かな " * 12 + "שלום עולם " * 12
    lines = lines_of(
        ("frame", f"text:{text}", 1), ("message", reply(text=text), 1), ("message", reply(text=text), 2), partial=True
    )
    from rich.cells import cell_len

    assert max(map(cell_len, lines)) <= 80
    half = len(lines) // 2
    assert lines[:half] == lines[half:]
    assert "".join(line[11:] for line in lines[:half]).replace(" ", "") == f"ASSISTANT:{text}".replace(" ", "")


def test_text_is_wrapped_at_the_new_width_after_the_window_changed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A tab takes the space that is counted for it."""
    typed = Typed(terminal)
    typed.piece(1, "one two three four five six seven eight nine ten eleven twelve thirteen fourteen ", lambda: Opening("> ", 2))
    monkeypatch.setenv("COLUMNS", "20")
    typed.piece(1, "fifteen\tsixteen seventeen eighteen", lambda: Opening("> ", 2))
    typed.complete(1)
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == [
        "> one two three four five six seven eight nine ten eleven twelve thirteen",
        "  fourteen fifteen", "  sixteen seventeen", "  eighteen",
    ]  # fmt: skip
    typed.line("a\tb", head="> ", margin=2)
    assert terminal.getvalue().endswith("> a    b\n")


# The screen


def test_the_status_line_is_below_the_text_and_erased_before_it_grows(terminal: Terminal) -> None:
    state = ["one"]
    screen = Screen(terminal, lambda: state[0])
    screen.write("Hello")
    state[0] = "two"
    screen.refresh()
    screen.refresh()
    screen.write(" there\n")
    screen.close()
    assert terminal.text == "Hello there\n"
    assert terminal.statuses == ["one", "two", "two"]
    assert not terminal.getvalue().endswith("two\x1b[0m\x1b8")


def test_an_unfinished_line_is_ended_when_the_screen_closes(terminal: Terminal) -> None:
    screen = Screen(terminal, lambda: "")
    screen.write("Half")
    screen.close()
    screen.close()
    assert terminal.getvalue() == "Half\n"


def test_text_that_is_shown_again_replaces_the_screen(terminal: Terminal) -> None:
    screen = Screen(terminal, lambda: "")
    screen.write("before\n")
    screen.hold()
    for number in range(100):
        screen.write(f"{number}\n")
    screen.release()
    assert terminal.getvalue() == "before\n\x1b[H\x1b[2J" + "".join(f"{number}\n" for number in range(77, 100))


def test_a_dumb_terminal_gets_only_text(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(terminal, lambda: "status")
    screen.write("Text")
    screen.hold()
    screen.write("Te")
    screen.release()
    assert terminal.getvalue() == "Text\n--- again from here ---\nTe"


def test_no_color_leaves_the_status_line_without_a_style(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(terminal, lambda: "x" * 100).refresh()
    assert "\x1b[2m" not in terminal.getvalue()
    assert terminal.statuses == ["x" * 79]


# Keys, on a virtual clock


class Keys:
    """Keys that are pressed at seconds of a virtual clock. Waiting advances the clock."""

    def __init__(self, *pressed: tuple[float, Key]) -> None:
        self.pressed = list(pressed)
        self.now_ns = 0

    def now(self) -> int:
        return self.now_ns

    def wait(self, seconds: float | None) -> list[Key]:
        until = self.now_ns + round((seconds or 0) * S)
        if self.pressed and self.pressed[0][0] * S <= until:
            when, key = self.pressed.pop(0)
            self.now_ns = max(self.now_ns, round(when * S))
            return [key]
        assert self.pressed or self.now_ns < 1000 * S, "nobody presses a key, and nothing goes on"
        self.now_ns = until
        return []

    def wake(self) -> None:
        """Do nothing, because no wait takes time."""


def seconds_of_words() -> list[Event]:
    """Return one answer of ten words, one word a second."""
    with retold.EventLog("words.db") as log:
        writer = log.start(name="words", mode="live")
        for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]:
            frame = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{word} "}}
            writer.append(Entry("frame", f"data: {dumps(frame)}\n\n".encode(), exchange=1))
        writer.end("completed")
        events = list(log.events(writer.run))
    return [event._replace(t_ns=max(0, number - 1) * S) for number, event in enumerate(events)]


def watched(*pressed: tuple[float, Key], handlers: Iterable[str] = (), out: Terminal, viewer: Viewer | None = None) -> Keys:
    """Watch ten words with keys at these seconds. Return the keys and the duration."""
    keys, events = Keys(*pressed), seconds_of_words()
    watch = Theatre(viewer or Viewer(), out, 10 * S, now=keys.now)
    watch.keys = cast(Keyboard, keys)
    specs = viewed(list(handlers), shown=True, types=True)
    watch.play(lambda: iter(events), lambda screen: readers(specs, screen), why=lambda: "interrupted")
    watch.screen.close()
    return keys


def test_text_is_typed_word_by_word_at_its_recorded_times(terminal: Terminal) -> None:
    keys = watched(out=terminal)
    assert keys.now_ns == 10 * S
    assert "ASSISTANT: zero one two three four five six seven eight nine\n" in terminal.text
    seconds = dict.fromkeys(line.partition(" ")[0] for line in terminal.statuses)
    assert list(seconds) == [*(f"0:0{number}" for number in range(10)), "0:10"]


def test_a_paused_player_steps_by_one_word(terminal: Terminal) -> None:
    watched((1.5, "pause"), (20, "step"), (21, "step"), (22, "quit"), out=terminal)
    assert terminal.text.rstrip().endswith("ASSISTANT: zero one two three")
    assert terminal.text.endswith("\n")
    assert "0:03  paused" in terminal.statuses[-1].replace(" of 0:10", "")


def test_going_back_shows_the_text_before_the_position_again(terminal: Terminal) -> None:
    """The screen is cleared, and the rest streams again at its pace."""
    keys = watched((7.5, "back"), out=terminal)
    before, after = terminal.text.split("\x1b[H\x1b[2J")
    assert before.endswith("ASSISTANT: zero one two three four five six seven")
    assert normalised(after).startswith("[HH:MM:SS] ASSISTANT: zero one")
    assert "eight nine\n\n✓ Stream completed" in after
    assert keys.now_ns == 15 * S


def test_going_forward_shows_everything_before_the_position_at_once(terminal: Terminal) -> None:
    assert watched((1.5, "forward"), out=terminal).now_ns == 5 * S
    assert terminal.text.count("zero one two three four five six") == 1


def test_a_handler_with_another_output_gets_each_event_once(terminal: Terminal) -> None:
    watched((7.5, "back"), (9, "back"), handlers=["simple", "file:file_path=x.log"], out=terminal)
    assert Path("x.log").read_text().count("===") == 2


def test_a_run_in_progress_is_shown_live_until_the_user_quits(terminal: Terminal) -> None:
    """A failure of the log is raised in the thread that shows the events."""

    def coming() -> Iterable[Event]:
        yield from seconds_of_words()[:3]
        raise retold.RetoldError("the log is gone")

    watch = Theatre(Viewer(speed=None, keys=FOLLOWING), terminal)
    watch.keys = cast(Keyboard, Unpressed())
    with pytest.raises(retold.RetoldError, match="gone"):
        watch.follow(iter(coming()), readers(viewed(None, shown=True, types=True), watch.out))
    assert "ASSISTANT: zero" in terminal.text


class Unpressed:
    """A keyboard without keys, which wakes on request."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def wait(self, seconds: float | None) -> list[Key]:
        self._woken.wait(seconds)
        self._woken.clear()
        return []

    def wake(self) -> None:
        self._woken.set()


# The command in a terminal


def spawned(environment: dict[str, str], *arguments: object, **extra: str) -> "pexpect.spawn[str]":
    """`retold` in a pseudo-terminal of 80 columns."""
    env: Any = environment | {"TERM": "xterm-256color"} | extra
    return pexpect.spawn(
        sys.executable, ["-m", "retold", *map(str, arguments)], env=env, dimensions=(24, 80), encoding="utf-8", timeout=30
    )  # fmt: skip


def rest_of(child: "pexpect.spawn[str]") -> str:
    """Return the text that is still written, and wait for the end. The terminal stays open."""
    child.expect(pexpect.EOF)
    child.wait()
    return STATUS.sub("", str(child.before)).replace("\r\n", "\n")


def is_raw(child: "pexpect.spawn[str]") -> bool:
    """Return whether the terminal gives single keys without an echo."""
    mode = termios.tcgetattr(child.child_fd)[3]
    assert bool(mode & termios.ICANON) == bool(mode & termios.ECHO)
    assert mode & termios.ISIG
    return not mode & termios.ICANON


def test_play_in_a_terminal_takes_keys(environment: dict[str, str]) -> None:
    child = spawned(environment, "play", FILES, "-s", "0.1", "-i", "60")
    child.expect("0.1x  space pauses")
    child.send(" ")
    child.expect("paused  space plays on")
    assert is_raw(child)
    child.send("\x1b[C ")
    assert "ASSISTANT: I wrote test_file.txt" in rest_of(child)
    assert not is_raw(child)
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.stress),
        pytest.param(signal.SIGHUP, -signal.SIGHUP, marks=pytest.mark.stress),
        pytest.param(signal.SIGQUIT, -signal.SIGQUIT, marks=pytest.mark.stress),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_signal_restores_the_terminal(environment: dict[str, str], number: signal.Signals, code: int) -> None:
    child = spawned(environment, "play", FILES, "-s", "0.01")
    child.expect("space pauses")
    assert is_raw(child)
    child.kill(number)
    rest_of(child)
    assert not is_raw(child)
    assert (child.exitstatus, child.signalstatus) == ((code, None) if code > 0 else (None, -code))


@pytest.mark.stress
def test_a_crash_restores_the_terminal(environment: dict[str, str]) -> None:
    """The note of the crash begins on a new line, and the status line is gone."""
    Path("crash.py").write_text("def crash(message):\n    raise SystemExit('crashed')\n")
    child = spawned(environment, "play", FILES, "-s", "5", "--handler", "callback:module=crash,function=crash,on_error=stop")
    out = rest_of(child)
    assert not is_raw(child)
    assert "crashed" in out
    assert child.exitstatus == 1


@pytest.mark.stress
def test_a_suspended_player_restores_the_terminal_and_takes_it_again(environment: dict[str, str]) -> None:
    """Ctrl-Z stops it. In the foreground again, it continues at the same place."""
    env: Any = environment | {"TERM": "xterm-256color", "PS1": "", "HISTFILE": ""}
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=env, dimensions=(24, 80), encoding="utf-8", timeout=30)
    shell.sendline(f"{sys.executable} -m retold play {FILES} -s 0.01")
    shell.expect("space pauses")
    assert is_raw(shell)
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.sendline("stty -a")
    shell.expect(" icanon .* echo ")
    shell.sendline("fg")
    shell.expect("space pauses")
    assert is_raw(shell)
    shell.send("q")
    shell.sendline("stty -a; exit")
    shell.expect(" icanon .* echo ")
    rest_of(shell)


def test_tail_in_a_terminal_types_the_recording_of_another_process(environment: dict[str, str]) -> None:
    with retold.EventLog() as log, log.start(name="talk", mode="live") as writer:
        child = spawned(environment, "tail")
        child.expect("live  space pauses")
        for word in ("Hello ", "from ", "there "):
            frame = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            writer.append(Entry("frame", f"data: {dumps(frame)}\n\n".encode(), exchange=1))
        child.expect("ASSISTANT: Hello")
        child.expect(" from")
        child.send("q")
        rest_of(child)
    assert (child.exitstatus, is_raw(child)) == (0, False)


@pytest.mark.stress
def test_play_without_keys_types_too(environment: dict[str, str]) -> None:
    """Only the output is a terminal: it gets no status line, and the player ends by itself."""
    command = f"{sys.executable} -m retold play {FILES} -s 50 < /dev/null"
    env: Any = environment | {"TERM": "dumb"}
    child = pexpect.spawn("/bin/sh", ["-c", command], env=env, dimensions=(24, 80), encoding="utf-8", timeout=30)
    out = rest_of(child)
    assert "\x1b" not in out
    assert "] THINKING: Four operations" in out
    assert child.exitstatus == 0


# Workflows


@pytest.mark.stress
def test_run_in_a_terminal_names_steps_and_ends_with_their_table(environment: dict[str, str]) -> None:
    child = spawned(environment, "run", ROOT / "examples" / "parallel_reviews.yaml")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", rest_of(child)).splitlines()
    assert child.exitstatus == 0
    assert [line for line in lines if line.startswith("step ") and "/" in line] == ["step 1/2 look", "step 2/2 conclude"]
    table = lines[lines.index(next(line for line in lines if line.startswith("step  "))) :][:4]
    assert [line.split()[0] for line in table] == ["step", "look", "conclude", "total"]
    assert table[0].split() == ["step", "model", "turns", "in", "out", "cost", "time", "status"]
    assert table[1].endswith("completed")
    assert max(map(len, table)) <= 80
    assert lines[-1].startswith("retold: run ") or lines[-2].startswith("retold: run ")


def test_table_of_steps_marks_failed_and_skipped_steps(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """An unknown cost is a question mark, and so is a sum with it."""
    done = StepResult("one", "claude", "completed", turns=2, usage={"input_tokens": 3, "cache_read_input_tokens": 1000})
    fell = StepResult("two", "claude_robust", "fallback", cost_usd=0.5, duration_ms=1500)
    steps = [done, fell, StepResult("three", "claude", "skipped"), StepResult("four", "claude", "failed", cost_usd=0.25)]
    monkeypatch.setattr(sys, "stderr", terminal)
    with retold.EventLog("table.db") as log, log.start(name="w", mode="mock") as writer:
        answer = {"type": "assistant", "message": {"model": "claude-a", "content": []}}
        writer.note("message", answer, step="one")
        writer.note("message", answer | {"message": {"model": "claude-b", "content": []}}, step="one")
        print_steps(retold.RunResult(writer.run, "w", "mock", "failed", steps, "table.db", None), log)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [re.split(r"\s{2,}", line) for line in shown.splitlines()] == [
        ["step", "model", "turns", "in", "out", "cost", "time", "status"],
        ["one", "claude-a, claude-b", "2", "1,003", "0", "?", "0.0s", "completed"],
        ["two", "?", "0", "0", "0", "$0.5000", "1.5s", "fallback"],
        ["three", "skipped"],
        ["four", "?", "0", "0", "0", "$0.2500", "0.0s", "failed"],
        ["total", "2", "1,003", "0", "?", "1.5s"],
    ]
    assert "\x1b[31mfailed" in terminal.getvalue()


def test_run_at_a_pace_in_a_terminal_types_and_takes_keys(environment: dict[str, str]) -> None:
    """A pause stops the clock of the run. The key of a seek moves it on, and the run ends as usual."""
    child = spawned(environment, "run", NUMBERS, "-s", "0.05")
    child.expect("0.05x  space pauses")
    assert is_raw(child)
    child.send(" ")
    child.expect("paused  space plays on")
    child.send("\x1b[C ")
    out = rest_of(child)
    assert "Stream completed" in out
    assert "completed: 1 step, 3 messages" in out
    assert (child.exitstatus, is_raw(child)) == (0, False)


@pytest.mark.stress
def test_run_that_is_quit_is_cancelled(environment: dict[str, str]) -> None:
    child = spawned(environment, "run", NUMBERS, "-s", "0.01")
    child.expect("space pauses")
    child.send("q")
    rest_of(child)
    assert (child.exitstatus, is_raw(child)) == (130, False)
    (run,) = retold.EventLog().runs()
    assert run.status == "cancelled"


def test_run_in_a_pipe_writes_the_lines_of_its_handler_at_any_pace() -> None:
    done = in_this_process("run", NUMBERS, "--handler", "simple", "-s", "100")
    instant = in_this_process("run", NUMBERS, "--handler", "simple")
    assert normalised(done.stdout) == normalised(instant.stdout)
    assert "turns" not in done.stderr
