"""The exact output of each handler for a hand-written run, and the limits of a misbehaving handler."""

import io
import itertools
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from rich.cells import cell_len

import retold
from retold.handlers import make_handler, read_stream
from retold.handlers.base import READ_KINDS, Handler, StreamEnd
from retold.handlers.typist import Typist
from retold.recorder.events import Entry
from retold.recorder.interrupted import why_unended
from retold.recorder.log.log import RunWriter
from retold.recorder.messages import Message
from tests.e2e import normalised
from tests.raw_log import store_of

Json = dict[str, Any]

INIT = {"type": "system", "subtype": "init", "model": "claude-test", "tools": ["Read"], "cwd": "/w", "session_id": "s"}
RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "num_turns": 2,
    "total_cost_usd": 0.0125,
    "usage": {"input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 0},
    "result": "Done.",
}


def assistant(*blocks: Json, **fields: Any) -> Json:
    inner = {"id": "msg_1", "model": "claude-test", "content": list(blocks), "usage": {"input_tokens": 10, "output_tokens": 1}}
    return {"type": "assistant", "message": inner, **fields}


def text(value: str) -> Json:
    return assistant({"type": "text", "text": value})


def tool_use(name: str, **given: Any) -> Json:
    return assistant({"type": "tool_use", "id": "toolu_1", "name": name, "input": given})


def tool_result(content: Any, **fields: Any) -> Json:
    block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **fields}
    return {"type": "user", "message": {"role": "user", "content": [block]}}


STORY = [
    INIT,
    assistant({"type": "thinking", "thinking": "Hm.\nA file.", "signature": "c2ln"}),
    text("I'll look.\nAnd then:\n"),
    tool_use("Read", file_path="notes.txt"),
    tool_result("x" * 51),
    tool_result([{"type": "text", "text": "no such file"}, {"type": "image"}], is_error=True),
    {"type": "weather", "subtype": "rain", "drops": [1, 2]},
    assistant({"type": "new_block", "data": 7}),
    text("Done."),
    RESULT,
]


def written(
    handler: str, messages: Iterable[Json], *, error: str | None = None, task: str = "", name: str = "story", **options: Any
) -> str:
    """Return a handler's output for a run with one step that contains these messages."""
    with retold.EventLog("log.db") as log, log.start(name=name, mode="mock") as writer:
        record_stream(writer, messages, error=error, task=task)
    out = io.StringIO()
    read_stream(log.events(writer.run, kinds=READ_KINDS), make_handler(handler, options, out))
    return normalised(out.getvalue())


def record_stream(writer: RunWriter, messages: Iterable[Json], *, error: str | None = None, task: str = "") -> None:
    writer.note("step.started", {"name": "one", "type": "claude"}, step="one")
    for message in messages:
        writer.note("message", message, step="one", task=task)
    status = "completed" if error is None else "failed"
    writer.note("step.ended", {"name": "one", "status": status, "error": error}, step="one")


# simple

SIMPLE = """\
[HH:MM:SS] ASSISTANT: I'll look.
           And then:
[HH:MM:SS] TOOL USE: Read
[HH:MM:SS] TOOL RESULT: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
[HH:MM:SS] TOOL RESULT: (error) no such file
           [image]
[HH:MM:SS] ASSISTANT: Done.

✓ Stream completed: 10 messages (5 shown) in N.Ns
"""


def test_simple_shows_texts_tools_and_results() -> None:
    """Each is one line. Further lines are indented, long results are cut at 50 characters, and errors are marked."""
    assert written("simple", STORY) == SIMPLE


@pytest.mark.parametrize(
    ("option", "gone", "shown"),
    [
        ("show_tool_use", "[HH:MM:SS] TOOL USE: Read\n", 4),
        ("show_tool_results", SIMPLE[SIMPLE.index("[HH:MM:SS] TOOL RESULT") : SIMPLE.index("[HH:MM:SS] ASSISTANT: Done")], 3),
    ],
)
def test_simple_omits_lines_by_option(option: str, gone: str, shown: int) -> None:
    """Each option removes its own lines and no others. The footer counts the rest."""
    expected = SIMPLE.replace(gone, "").replace("5 shown", f"{shown} shown")
    options: Json = {option: False}
    assert written("simple", STORY, **options) == expected


def test_simple_without_times_begins_with_the_speaker() -> None:
    """Without timestamps further lines are not indented."""
    output = written("simple", STORY, show_timestamps=False)
    assert output == SIMPLE.replace("[HH:MM:SS] ", "").replace("\n           ", "\n")


def test_a_result_of_50_characters_is_whole() -> None:
    """Only results above 50 characters are cut."""
    assert f"TOOL RESULT: {'x' * 50}\n" in written("simple", [tool_result("x" * 50)])


@pytest.mark.parametrize("handler", ["simple", "console"])
def test_a_line_of_a_task_has_its_id(handler: str) -> None:
    """In a batch each line begins with its task."""
    assert re.search(r"(?m)^\[HH:MM:SS\] \[task-2\] (ASSISTANT: )?Done\.$", written(handler, [text("Done.")], task="task-2"))


def test_the_footer_names_the_handler_that_shows_hidden_messages() -> None:
    """It does so if all messages were hidden."""
    expected = "\n✓ Stream completed: 2 messages (0 of 2 shown; try stream_handler: debug) in N.Ns\n"
    assert written("simple", [INIT, RESULT]) == expected


def test_the_footer_of_one_message_is_singular() -> None:
    """It has `1 message`, not `1 messages`."""
    assert written("simple", [text("Hi.")]).endswith("\n✓ Stream completed: 1 message (1 shown) in N.Ns\n")


def test_the_footer_of_a_failed_stream_has_error_and_count() -> None:
    """It contains the error and the number of messages before it, and no check mark."""
    output = written("simple", [text("Hi.")], error="overloaded_error: Overloaded")
    assert output == "[HH:MM:SS] ASSISTANT: Hi.\n\n✗ Stream error: overloaded_error: Overloaded after 1 message\n"


def test_the_duration_of_a_run_without_steps_covers_the_whole_run() -> None:
    """It includes the time before the first complete message, which comes late."""

    class Timed(Handler):
        def message(self, message: Message) -> bool:
            return message.type == "assistant"

        def end(self, end: StreamEnd, count: int, shown: int) -> None:
            self.end_values = (end.duration_ns, count, shown)

    with retold.EventLog("log.db") as log, log.start(name="curl", mode="live") as writer:
        writer.note("message", text("Hello"))
    timed = Timed(None, io.StringIO())
    read_stream(log.events(writer.run, kinds=READ_KINDS), timed)
    assert timed.end_values == (list(log.events(writer.run))[-1].t_ns, 1, 1)


def test_a_line_has_the_time_of_its_event() -> None:
    """A line has the time of recording, not of display."""
    with retold.EventLog("log.db") as log, log.start(name="story", mode="mock") as writer:
        record_stream(writer, [text("Hi.")])
    (message,) = log.messages(writer.run)
    clock = time.strftime("%H:%M:%S", time.localtime(message.wall_ns / 1e9))
    out = io.StringIO()
    read_stream(log.events(writer.run), make_handler("simple", {}, out))
    assert out.getvalue().startswith(f"[{clock}] ASSISTANT: Hi.\n")


# console

CONSOLE = """\
=== story: one ===
mock run RUN, HH:MM:SS
[HH:MM:SS] I'll look.
           And then:
[HH:MM:SS] TOOL USE: Read {"file_path": "notes.txt"}
[HH:MM:SS] Done.
=== Stream completed ===
Messages               10 (3 shown)
Tokens                 100 in, 20 out
Cost                   $0.0125
Duration               N.Ns
Average per message    N ms
Time to first message  N ms
"""


def test_console_in_a_pipe_is_plain_text() -> None:
    """It has header, content and statistics without boxes and colours. Tool results appear only on request."""
    assert written("console", STORY) == CONSOLE


def test_console_options_remove_header_statistics_and_times() -> None:
    """Only the content remains."""
    output = written("console", STORY, show_header=False, show_stats=False, show_timestamps=False, show_tool_use=False)
    assert output == "I'll look.\nAnd then:\nDone.\n"


def test_console_shows_results_on_request() -> None:
    """`show_tool_results: true` shows them, longer than simple does."""
    output = written("console", STORY, show_tool_results=True, show_header=False, show_stats=False)
    assert f"[HH:MM:SS] TOOL RESULT: {'x' * 51}\n[HH:MM:SS] TOOL RESULT: (error) no such file\n" in output


def test_console_of_a_failed_stream_shows_the_error() -> None:
    """The error comes before the statistics, which mark the stream as failed."""
    output = written("console", [INIT], error="the stream was cut", show_header=False)
    assert output.startswith("✗ Stream error: the stream was cut after 1 message\n=== Stream failed ===\nMessages  ")
    assert "\nCost                   unknown\n" in output


# debug

DEBUG = """\
=== DEBUG STREAM START: story: one (run RUN, mock) ===
[2] system:init +N.NNNs
    model: claude-test
    tools: ["Read"]
    cwd: /w
    session_id: s
[3] assistant +N.NNNs
    id: msg_1
    model: claude-test
    thinking: Hm.
      A file.
    usage: input 10, output 1
[4] assistant +N.NNNs
    id: msg_1
    model: claude-test
    text: I'll look.
      And then:
      
    usage: input 10, output 1
[5] assistant +N.NNNs
    id: msg_1
    model: claude-test
    tool: Read (toolu_1)
    input: {"file_path": "notes.txt"}
    usage: input 10, output 1
[6] user +N.NNNs
    result (toolu_1): xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
[7] user +N.NNNs
    error (toolu_1): no such file
      [image]
[8] weather:rain +N.NNNs
    drops: [1, 2]
[9] assistant +N.NNNs
    id: msg_1
    model: claude-test
    new_block: {"data": 7}
    usage: input 10, output 1
[10] assistant +N.NNNs
    id: msg_1
    model: claude-test
    text: Done.
    usage: input 10, output 1
[11] result:success +N.NNNs
    is_error: false
    num_turns: 2
    total_cost_usd: 0.0125
    usage: input 100, output 20
    result: Done.
=== DEBUG STREAM END: 10 messages in N.Ns ===
"""  # noqa: W293 - a text that ends with a newline has an empty last line


def test_debug_shows_every_message_of_every_type() -> None:
    """It shows number, type, time and main fields of all messages, including unknown types and blocks."""
    assert written("debug", STORY) == DEBUG


def test_debug_of_a_failed_stream_names_the_error() -> None:
    """The error comes before the end."""
    output = written("debug", [INIT], error="the stream was cut")
    assert output.endswith("!!! the stream was cut\n=== DEBUG STREAM END: 1 message in N.Ns ===\n")


# Hostile text

EVIL = "a\x1b[31mred\x1b]0;title\x07\rb\x9b2J\u202ecba\x7f\x00\n\tc"
HARMLESS = "a\\x1b[31mred\\x1b]0;title\\x07\\x0db\\x9b2J\\u202ecba\\x7f\\x00\n           \tc"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def test_control_characters_are_shown_instead_of_obeyed() -> None:
    """A model's output is hostile input. Escape codes, carriage returns and marks that reorder text become visible."""
    assert written("simple", [text(EVIL)]).startswith(f"[HH:MM:SS] ASSISTANT: {HARMLESS}\n")


@pytest.mark.parametrize("handler", ["simple", "console", "debug"])
def test_no_handler_writes_control_characters(handler: str) -> None:
    """No raw text, name, input, result, error or title reaches the terminal."""
    block = {"type": "tool_use", "id": "toolu_1", "name": EVIL, "input": {EVIL: EVIL}}
    output = written(handler, [text(EVIL), assistant(block), tool_result(EVIL)], error=EVIL, name=EVIL)
    assert CONTROL.findall(output) == []


@pytest.mark.parametrize("handler", ["simple", "console", "debug"])
def test_no_handler_writes_control_characters_of_names(handler: str) -> None:
    """Task ids, message types, unknown fields and tool ids are hostile input as well."""
    block = {"type": "tool_result", "tool_use_id": EVIL, "content": "x"}
    strange = {"type": EVIL, "subtype": EVIL, EVIL: "x"}
    messages = [text("x"), {"type": "user", "message": {"content": [block]}}, strange]
    assert CONTROL.findall(written(handler, messages, task=EVIL)) == []


def test_half_of_a_character_is_shown_as_unreadable() -> None:
    """A model may answer with half of an emoji, which terminals and files reject."""
    assert "ASSISTANT: half \\ud83d\n" in written("simple", [INIT, text("half \ud83d"), RESULT])


# Typing

TYPED = (
    "A line that is longer than its terminal.\n\n- 一二三四五六七八九十一二三四五六七\n- a/long/path/without/any/space/in/it\n\n"
)

TYPED_AT_24 = """\
A line that is
    longer than its
    terminal.

    - 一二三四五六七八九
    十一二三四五六七
    -
    a/long/path/without/
    any/space/in/it"""


@pytest.mark.needs("rich>=13.7")
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_typed_text_is_wrapped_at_words_with_any_pieces(size: int) -> None:
    """On a terminal typed lines break between words or CJK characters. Further lines are indented, and none is too wide."""
    typist = Typist(24, 4)
    written = "".join(typist.type(TYPED[i : i + size]) for i in range(0, len(TYPED), size)) + typist.end()
    assert [line.rstrip() for line in written.splitlines()] == TYPED_AT_24.splitlines()
    assert max(map(cell_len, written.splitlines())) <= 24


def test_words_stay_separate_at_line_breaks() -> None:
    """The spaces between two words become a line break, also if the second word is a letter that still fits."""
    words = ["a", "name", "a", "(b)", "in", "c", "or", "d", "1", "2", "345", "x\ny", "z"]
    for width, gap in itertools.product(range(8, 30), (" ", "  ", "\t")):
        typist = Typist(width, 2)
        written = typist.type(gap.join(words)) + typist.end()
        assert written.split() == " ".join(words).split(), width
        assert max(map(cell_len, written.splitlines())) <= width
        assert all(written.splitlines()), "no empty line"


# Tokens without a result message, and streams without an end


def test_console_counts_the_tokens_of_each_answer_once_or_calls_them_unknown() -> None:
    """An import has no result message and no exchanges. An answer in several messages has one usage."""

    def tokens(*messages: Json) -> str:
        with retold.EventLog("log.db") as log, log.start(name="import", mode="live") as writer:
            for message in messages:
                writer.note("message", message)
        out = io.StringIO()
        read_stream(log.events(writer.run), make_handler("console", {}, out))
        return next(line for line in out.getvalue().splitlines() if line.startswith("Tokens")).split(maxsplit=1)[1]

    second = text("More.")
    second["message"] |= {"id": "msg_2", "usage": {"input_tokens": 90, "output_tokens": 9}}
    assert tokens(text("One."), text("One, too."), second) == "100 in, 10 out"
    assert tokens({"type": "assistant", "message": {"content": []}}) == "unknown"
    assert tokens(text("One."), RESULT) == "100 in, 20 out"


def test_the_end_of_a_stream_names_the_true_reason() -> None:
    """The run is still in progress, could not be written, or its process died. Each has its own message."""
    with retold.EventLog("log.db") as log:
        writer = log.start(name="run", mode="live")
        writer.note("message", text("Hi."))

        def end() -> str:
            out = io.StringIO()
            read_stream(log.events(writer.run), make_handler("simple", {}, out), lambda: why_unended(log, writer.run))
            return out.getvalue().splitlines()[-1]

        assert end() == "✗ Stream error: the run goes on after 1 message"
        log.store.note_ending(writer.run, "interrupted", "the log could not be written: no room")
        log.store.leave(writer.run)
        assert end() == "✗ Stream error: interrupted: the log could not be written: no room after 1 message"
        store_of(log)._alive.forget(writer.run)
        assert end() == "✗ Stream error: interrupted: the recording process died after 1 message"


def test_halves_of_a_character_in_two_pieces_are_joined() -> None:
    """Other text may be typed in between. A single remaining half is shown as unreadable."""
    with retold.EventLog("log.db") as log, log.start(name="run", mode="live") as writer:
        for piece in ("smile \\ud83d", "\\ude00 done \\ude00"):
            delta = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"' + piece + '"}}'
            writer.append(Entry("frame", f"data: {delta}\n\n".encode(), exchange=1))
        writer.note("message", text("smile \U0001f600 done \ufffd"))
    out = io.StringIO()
    read_stream(log.events(writer.run), make_handler("console", {"partial": True, "show_timestamps": False}, out))
    assert "smile \U0001f600 done \ufffd\n" in out.getvalue()
