"""The contract of all six handlers. `test_handlers.py` tests their output."""

import functools
import io
import json
import re
import sys
import threading
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.handlers import HANDLERS, HandlerThread, StreamEnd, StreamStart, make_handler, read_stream
from retold.recorder.errors import HandlerError
from retold.recorder.messages import Message
from tests.children import wait_until
from tests.e2e import CASSETTE, run_mock, step, write_workflow
from tests.test_handlers import CONTROL, EVIL, INIT, RESULT, assistant, record_stream, text, tool_result, tool_use

Json = dict[str, Any]

OPTIONS: dict[str, Json] = {
    "simple": {},
    "console": {},
    "debug": {},
    "file": {"file_path": "out.log"},
    "buffer": {},
    "callback": {"module": "seen", "function": "see"},
}
every_handler = pytest.mark.parametrize("name", HANDLERS)
writing = pytest.mark.parametrize("name", ["simple", "console", "debug", "file"])


@pytest.fixture(autouse=True)
def callback(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Return a module `seen` with a function that stores its arguments."""
    called: list[Message] = []
    module = types.ModuleType("seen")
    module.__dict__["see"] = called.append
    monkeypatch.setitem(sys.modules, "seen", module)
    return called


class Kept:
    """A handler, and access to its output."""

    def __init__(self, name: str, called: list[Message], **options: Any) -> None:
        self.out = io.StringIO()
        self.handler = make_handler(name, OPTIONS[name] | options, self.out)
        self._called = called

    def shows(self, text: str) -> bool:
        """Return whether its output has a text."""
        return text in self.text

    @property
    def text(self) -> str:
        """Return all text that it wrote, stored or passed on."""
        path = Path("out.log")
        messages = [m["message"] for m in self.handler.result().get("buffered", [])] + [m.data for m in self._called]
        return self.out.getvalue() + (path.read_text() if path.exists() else "") + json.dumps(messages)


def record(*steps: Iterable[Json], **keys: Any) -> tuple[retold.EventLog, str]:
    """Record a run with steps that contain these messages."""
    with retold.EventLog("log.db") as log, log.start(name="story", mode="mock") as writer:
        for messages in steps:
            record_stream(writer, messages, **keys)
    return log, writer.run


STORY = [INIT, *(text(f"<{number}>") for number in range(20)), RESULT]


@every_handler
def test_a_handler_receives_each_message_once_and_in_order(name: str, callback: list[Message]) -> None:
    """A handler processes each message once, in recorded order."""
    kept = Kept(name, callback)
    log, run = record(STORY)
    read_stream(log.events(run), kept.handler)
    assert re.findall(r"<\d+>", kept.text) == [f"<{number}>" for number in range(20)]


@every_handler
def test_a_handler_receives_every_stream_of_a_run(name: str, callback: list[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps are two streams: each begins, ends and is counted separately."""
    kept = Kept(name, callback)
    handled: list[Any] = []
    start, end = kept.handler.start, kept.handler.end

    def note_start(begin: StreamStart) -> None:
        handled.append(begin.title)
        start(begin)

    def note_end(stop: StreamEnd, count: int, shown: int) -> None:
        handled.append((stop.error, count))
        end(stop, count, shown)

    monkeypatch.setattr(kept.handler, "start", note_start)
    monkeypatch.setattr(kept.handler, "end", note_end)
    log, run = record([INIT, text("<0>"), RESULT], [text("<1>")])
    read_stream(log.events(run), kept.handler)
    assert handled == ["story: one", (None, 3), "story: one", (None, 1)]
    assert re.findall(r"<\d>", kept.text) == ["<0>", "<1>"]


@every_handler
def test_a_handler_reports_its_messages_in_its_result(name: str, callback: list[Message]) -> None:
    """In a run each handler has a result, with the same keys, as JSON."""
    log, run = record(STORY)
    over = threading.Event()
    thread = HandlerThread(log, run, "one", Kept(name, callback).handler, after=0, over=over.set)
    assert over.wait(30)
    result = json.loads(json.dumps(thread.result()))
    assert {key: result[key] for key in ("handler", "messages", "error")} == {"handler": name, "messages": 22, "error": None}
    assert result["shown"] == (22 if name in ("debug", "buffer", "callback") else 20)


@writing
def test_a_line_appears_before_the_handler_waits_for_the_next(name: str, callback: list[Message]) -> None:
    """Each message is visible before the next one arrives."""
    with retold.EventLog("log.db") as log, log.start(name="story", mode="mock") as writer:
        started = writer.note("step.started", {"name": "one"}, step="one")
        kept, over = Kept(name, callback), threading.Event()
        HandlerThread(log, writer.run, "one", kept.handler, after=started.seq - 1, over=over.set)
        for number in range(5):
            for part in range(3):
                writer.note("message", text(f"<{number}.{part}>"), step="one")
            wait_until(functools.partial(kept.shows, f"<{number}.2>"))
        writer.note("step.ended", {"name": "one", "status": "completed", "error": None}, step="one")
        assert over.wait(30)


class Flushed(io.StringIO):
    """An output that keeps its text at each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def flush(self) -> None:
        self.seen.append(self.getvalue())


def test_messages_that_are_read_at_once_are_shown_one_by_one() -> None:
    """Nothing gathers lines between the log and the screen, also if the handler lags behind a flood."""
    log, run = record([text(f"<{number}>") for number in range(40)])
    out, over = Flushed(), threading.Event()
    HandlerThread(log, run, "one", make_handler("simple", {}, out), after=0, over=over.set)
    assert over.wait(30)
    counts = [sum(f"<{number}>" in seen for number in range(40)) for seen in out.seen]
    assert sorted({*counts}) == list(range(1, 41)), counts


STRANGE: list[Json] = [
    {},
    {"type": 5},
    {"type": None, "subtype": 3, "message": "text"},
    {"type": "weather", "subtype": "rain", "drops": [1, None]},
    {"type": "assistant"},
    {"type": "assistant", "message": None},
    {"type": "assistant", "message": {"content": None}},
    {"type": "assistant", "message": {"content": "plain"}},
    {"type": "assistant", "message": {"content": [None, 5, {}, {"type": "text"}, {"type": "text", "text": None}]}},
    {"type": "assistant", "message": {"content": [{"type": "tool_use"}, {"type": "hologram", "x": {}}], "usage": 5}},
    {"type": "user", "message": {"content": [{"type": "tool_result"}, {"type": "tool_result", "content": [5, {}]}]}},
    {"type": "user", "message": {"content": [{"type": "tool_result", "content": 7, "is_error": "yes"}]}},
    {"type": "result"},
    {"type": "result", "usage": None, "total_cost_usd": None, "num_turns": "many"},
    {"type": "result", "usage": {"input_tokens": "many", "output_tokens": None}, "total_cost_usd": "free"},
]


@every_handler
def test_a_handler_accepts_messages_of_any_shape(name: str, callback: list[Message]) -> None:
    """No handler fails on unknown types, unknown blocks, or messages of unexpected shape."""
    kept = Kept(name, callback)
    log, run = record([*STRANGE, text("<0>")])
    read_stream(log.events(run), kept.handler)
    assert "<0>" in kept.text


@every_handler
@pytest.mark.parametrize("messages", [[], [INIT]], ids=["no message", "no text"])
def test_a_handler_accepts_an_empty_stream(name: str, messages: list[Json], callback: list[Message]) -> None:
    """An empty stream begins and ends like any other."""
    kept = Kept(name, callback)
    log, run = record(messages)
    read_stream(log.events(run), kept.handler)
    assert bool(kept.text.strip("[]")) == (name not in ("buffer", "callback") or bool(messages))


@writing
def test_a_handler_names_the_error_of_a_failed_stream(name: str, callback: list[Message]) -> None:
    """Handlers for a person show that the stream failed, and the reason."""
    kept = Kept(name, callback)
    log, run = record([text("<0>")], error="overloaded_error: Overloaded")
    read_stream(log.events(run), kept.handler)
    assert "overloaded_error: Overloaded" in kept.text
    assert "Stream completed" not in kept.text


@every_handler
def test_a_handler_receives_the_end_of_a_broken_stream(name: str, callback: list[Message]) -> None:
    """If the recording process died, the stream still ends and the handler is closed."""
    kept = Kept(name, callback)
    log, run = record([text("<0>")])
    read_stream([event for event in log.events(run) if not event.kind.endswith(".ended")], kept.handler)
    assert "<0>" in kept.text
    assert ("interrupted: the recording process died" in kept.text) == (name not in ("buffer", "callback"))


@every_handler
def test_handler_options_are_strict(name: str) -> None:
    """An unknown name and a wrong type are errors that list the valid ones."""
    handler = HANDLERS[name]
    for option, field in handler.Options.model_fields.items():
        with pytest.raises(HandlerError, match=f"^handler '{name}' has no option '{option}s'; did you mean '{option}'\\?$"):
            make_handler(name, OPTIONS[name] | {f"{option}s": 1}, io.StringIO())
        with pytest.raises(HandlerError, match=f"^handler '{name}': option '{option}' (should be|cannot be) .*\\.$"):
            make_handler(name, OPTIONS[name] | {option: object()}, io.StringIO())
        assert field.default is not None or option in ("types", "max_file_size")


@writing
@pytest.mark.parametrize(("option", "word"), [("show_tool_use", "Read"), ("show_tool_results", "salt and bread")])
def test_a_handler_shows_tools_according_to_its_options(name: str, option: str, word: str, callback: list[Message]) -> None:
    """`show_tool_use` and `show_tool_results` mean the same in the four handlers that write."""
    log, run = record([text("<0>"), tool_use("Read"), tool_result("salt and bread")])
    for wanted in (True, False):
        kept = Kept(name, callback, **({"file_path": f"{wanted}.log"} if name == "file" else {}), **{option: wanted})
        read_stream(log.events(run), kept.handler)
        output = Path(f"{wanted}.log").read_text() if name == "file" else kept.out.getvalue()
        assert (word in output) == wanted
        assert "<0>" in output


@writing
def test_a_handler_writes_no_control_characters(name: str, callback: list[Message]) -> None:
    """A model's output is hostile input, in a file as on a screen."""
    kept = Kept(name, callback)
    log, run = record([text(EVIL), tool_use(EVIL), tool_result(EVIL), assistant({"type": EVIL})], error=EVIL)
    read_stream(log.events(run), kept.handler)
    assert CONTROL.findall(kept.text) == []


@every_handler
def test_a_handler_takes_its_options_from_a_list_of_handlers(name: str) -> None:
    """With `stream_handler: [{name: options}]` a shared option applies to the handlers that know it."""
    handlers = [{name: OPTIONS[name] or None}, "buffer"]
    shown = {"async_streaming": True, "stream_handler": handlers, "stream_handler_opts": {"max_size": 2}}
    prompt = "Count from 1 to 10, one number per line, and nothing else."
    workflow = write_workflow("w.yaml", step("count", prompt, claude_options=shown | {"max_tokens": 256}))
    ran = run_mock(workflow, cassette=CASSETTE)
    own, buffer = ran.result.steps[0].handler_results
    assert (own["handler"], own["messages"], own["error"]) == (name, 3, None)
    assert (len(buffer["buffered"]), buffer["dropped"]) == (2, 1)
