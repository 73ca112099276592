"""Handlers: readers of the log that receive one stream of messages at a time, from its beginning to its end.

A stream is the messages of a step, of one task of a step, or of a run without steps. `read_stream` feeds recorded events to a
handler. `HandlerThread` feeds it from a running run, in a thread with its own cursor, so that a slow or crashing handler
neither delays nor breaks the recording.
"""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from pydantic import BaseModel, ConfigDict

from ..recorder.events import Event
from ..recorder.http.call_errors import FAILED, CallCounts, call_error
from ..recorder.http.exchange import frame_json
from ..recorder.http.prompts import prompt_of
from ..recorder.http.sessions import text_delta
from ..recorder.http.sse import PLAIN_DELTA
from ..recorder.interrupted import DIED
from ..recorder.log.log import EventLog
from ..recorder.messages import Message
from ..recorder.strict_json import object_or_empty

READ_KINDS = ("run.started", "run.ended", "step.started", "step.ended", "task.started", "task.ended", "message", "exchange.ended")
"""The kinds of events from which a handler's streams are built. A handler that types texts reads STREAMED_KINDS as well."""

STREAMED_KINDS = ("frame", "stream.stream_event")
"""The kinds of events that hold pieces of texts: those of responses, and partial messages of the Agent SDK."""

_TEXT_DELTA = b'{"type":"text_delta","text":"'


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The beginning of a stream. `wall_ns` counts from the epoch and `t_ns` from the beginning of the run, both in nanoseconds.
    `step` is empty in a run without steps.
    """

    run: str
    name: str
    step: str
    mode: str
    wall_ns: int
    t_ns: int
    task: str = ""

    @property
    def title(self) -> str:
        """`workflow: step: task`, without the parts that are empty."""
        return ": ".join(filter(None, (self.name, self.step, self.task)))


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a stream. `error` is the reason if it failed, else None. `duration_ns` counts from its start.

    `usage` and `cost_usd` are the sums of its exchanges. A cost of None is unknown.
    """

    duration_ns: int
    error: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None


class Options(BaseModel):
    """The options of a handler. An unknown option is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Handler(ABC):
    """Base class of handlers, which show, store or pass on the messages of streams.

    `out` is the output of handlers that show something. `folder` is the folder in which user modules are found (that of the
    workflow). All methods are called in order, from one thread: `start`, then `message` and `delta`, then `end`, for each
    stream; finally `close`.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    silent: ClassVar[bool] = False
    """Whether the handler writes elsewhere than `out`, so that an empty screen is expected."""

    def __init__(self, options: Any, out: TextIO, folder: Path = Path()) -> None:
        self.options = options
        self.out = out
        self.folder = folder

    def check(self) -> None:  # noqa: B027 - not every handler has something to do here
        """Raise HandlerError if the handler is certain to fail. Called before anything runs."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of events that the handler reads."""
        return READ_KINDS

    def start(self, start: StreamStart) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle the beginning of a stream."""

    @abstractmethod
    def message(self, message: Message) -> bool:
        """Handle a complete message and return True if it was shown. The next message follows after the return."""

    def delta(self, event: Event, text: str) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle a piece of an incomplete text. Called only if `kinds` contains STREAMED_KINDS."""

    def thought(self, event: Event, text: str) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle a piece of incomplete thinking. Called only if `kinds` contains STREAMED_KINDS."""

    def prompt(self, event: Event, text: str) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle what the user said in a request. Called only if `kinds` contains those of prompts."""

    def exchange_ended(self, event: Event) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle the end of an exchange. No further piece of its texts comes."""

    def call_failed(self, event: Event, error: str) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle the end of an exchange that failed. `error` is one line: the status, the API's error and the request's id.

        A step of a workflow reports its own failures, in messages and at its end.
        """

    def end(self, end: StreamEnd, count: int, shown: int) -> None:  # noqa: B027 - not every handler has something to do here
        """Handle the end of a stream of `count` messages, of which `shown` were shown."""

    def close(self) -> None:  # noqa: B027 - not every handler has something to do here
        """Release all resources. No further stream follows. Called after a failure too."""

    def result(self) -> dict[str, Any]:
        """Return the handler's part of the run's result: JSON values by name."""
        return {}

    def write(self, text: str) -> None:
        """Write whole lines and flush, so that they appear at once."""
        self.out.write(text)
        self.out.flush()


class Reader:
    """Feeds one handler from events and counts messages. `unit` is the extent of a stream: a step or a task."""

    def __init__(self, handler: Handler, unit: Literal["step", "task"] = "step") -> None:
        self.handler = handler
        self.count = 0
        self.shown = 0
        self._unit = unit
        self._run: Event | None = None
        self._began: Event | None = None
        self._error: str | None = None
        self._calls = CallCounts()
        self._has_steps = False
        self._half: dict[int | None, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether a stream has begun and not ended."""
        return self._began is not None

    def event(self, event: Event) -> None:
        """Process the next event. A stream spans a step, or a whole run that has no steps."""
        match event.kind:
            case "message":
                self._begin(event)
                self.count += 1
                self.shown += self.handler.message(Message.of(event))
            case "run.started":
                self._run = event
            case "step.started" | "task.started" if event.kind.startswith(self._unit):
                self._has_steps = True
                self._begin(event)
            case "exchange.ended":
                self._note_ending(event)
            case "exchange.started" | "wire.sent":
                if text := prompt_of(event):
                    self._begin(event)
                    self.handler.prompt(event, text)
            case "frame":
                self._note_piece(event, *_piece_in(event.payload))
            case "stream.stream_event" if event.data.get("parent_tool_use_id") is None:
                self._note_piece(event, *_piece_of(object_or_empty(event.data.get("event"))))
            case "step.ended" | "task.ended" if event.kind.startswith(self._unit):
                self._end(event)
            case "run.ended" if not self._has_steps:
                self._begin(event)
                self._end(event)

    def broke_off(self, why: str) -> None:
        """End the stream as failed, because no more events will come. `why` is the reason, as returned by `why_unended`."""
        if self._began is not None:
            self.handler.end(StreamEnd(0, why), self.count, self.shown)
            self._began = None

    def _begin(self, event: Event) -> None:
        if self._began is not None:
            return
        if not self._has_steps and self._run is not None:
            event = self._run  # the stream began with the run; its first event in `kinds` may come later
        self._began, self.count, self.shown, self._error = event, 0, 0, None
        self._calls = CallCounts()
        self._usage: dict[str, int] = {}
        self._costs: list[float | None] = []
        run = {} if self._run is None else self._run.data
        name, mode = str(run.get("name", "")), str(run.get("mode", ""))
        task = event.task if self._unit == "task" else ""
        self.handler.start(StreamStart(event.run, name, event.step, mode, event.wall_ns, event.t_ns, task))

    def _end(self, event: Event) -> None:
        if self._began is not None:
            began, self._began = self._began, None
            error = event.data.get("error") or self._error
            if event.data.get("status") == "interrupted":
                error = f"interrupted: {event.data.get('error') or DIED}"
            elif event.data.get("status") == "cancelled":
                error = "cancelled"
            elif event.data.get("status") == "fallback":
                error = f"fell back after: {error}"
            # The report of a miss has several lines; show only the first.
            what = None if error is None else str(error).partition("\n")[0].rstrip(".")
            known = [cost for cost in self._costs if cost is not None]
            cost = sum(known) if known and len(known) == len(self._costs) else None
            self.handler.end(StreamEnd(event.t_ns - began.t_ns, what, self._usage, cost), self.count, self.shown)

    def _note_piece(self, event: Event, is_thinking: bool, piece: str) -> None:
        if piece:
            self._begin(event)
            text = self._half.pop(event.exchange, "") + piece
            if "\ud800" <= text[-1:] <= "\udbff":  # half a surrogate pair: the next piece brings the other half
                text, self._half[event.exchange] = text[:-1], text[-1]
            if text:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                (self.handler.thought if is_thinking else self.handler.delta)(event, text)

    def _note_ending(self, event: Event) -> None:
        """Add the usage of an exchange, and note its failure, which no other event reports if the run has no steps."""
        data = event.data
        self._begin(event)
        if data.get("usage"):
            self._costs.append(data.get("cost_usd"))
            for key, value in data["usage"].items():
                if isinstance(value, int):
                    self._usage[key] = self._usage.get(key, 0) + value
        self.handler.exchange_ended(event)
        error = call_error(data) if data.get("ending") in FAILED else None
        if error is not None:
            self.handler.call_failed(event, error)
        if self._has_steps:
            return
        self._calls.ended(event.exchange, event.step, event.task, data)
        if "call" not in data:  # recorded by retold 0.1: a retry is no call of its own
            self._error = error
        elif self._calls.failed:
            self._error = error or self._error if self._calls.count == 1 else str(self._calls)
        else:
            self._error = None


def _piece_in(frame: bytes) -> tuple[bool, str]:
    """Return whether a frame holds thinking, and the text that it adds to a message; an empty text if it adds none."""
    # Fast way: the pattern finds the text of nearly all deltas, so that their frame is not parsed.
    if (plain := PLAIN_DELTA.fullmatch(frame)) is not None and frame.endswith(_TEXT_DELTA, 0, plain.start(3)):
        return False, str(json.loads(f'"{plain[3].decode("utf-8", "replace")}"'))
    return _piece_of(frame_json(frame) or {})


def _piece_of(data: dict[str, Any]) -> tuple[bool, str]:
    """Return what `_piece_in` does, of the event in a frame."""
    delta = data.get("delta")
    if data.get("type") == "content_block_delta" and isinstance(delta, dict):
        if delta.get("type") == "thinking_delta":
            return True, str(delta.get("thinking", ""))
        if delta.get("type") == "text_delta":
            return False, str(delta.get("text", ""))
    return False, text_delta(data)


class HandlerThread:
    """Feeds one step of a running run to one handler, in a thread, until the step ends.

    `tasks` are the tasks that the handler receives (None: all of the step). With `unit="task"` the one task is a stream of its
    own, which ends with the task. `over` is called in the thread when the handler is done.
    """

    def __init__(
        self, log: EventLog, run: str, step: str, handler: Handler, *, after: int, tasks: frozenset[str] | None = None,
        unit: Literal["step", "task"] = "step", over: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.handler = handler
        self.error: BaseException | None = None
        self.reader = Reader(handler, unit)
        self._log = log
        self._run = run
        self._step = step
        self._after = after
        self._tasks = tasks
        self._last = f"{unit}.ended"
        self._over = over
        self._thread = threading.Thread(target=self._read, name=f"retold-{handler.name}", daemon=True)
        self._thread.start()

    def result(self) -> dict[str, Any]:
        """Return the counts and the outcome of the handler: `{handler, messages, shown, error, …}`."""
        error = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        counted = {"handler": self.handler.name, "messages": self.reader.count, "shown": self.reader.shown}
        return counted | {"error": error} | self.handler.result()

    def _read(self) -> None:
        try:
            try:
                self._follow()
            finally:
                self.handler.close()
        except BaseException as error:  # sys.exit too: the end of the run reports it, and so does the exit code
            self.error = error
        finally:
            self._over()

    def _follow(self) -> None:
        for event in self._log.events(self._run, kinds=("run.started",)):
            self.reader.event(event)
        over = False

        def is_last(event: Event) -> bool:
            nonlocal over
            over = event.step == self._step and (
                event.kind == "step.ended" or (event.kind == self._last and self._tasks is not None and event.task in self._tasks)
            )
            return over

        for event in self._log.follow(self._run, after=self._after, kinds=self.handler.kinds, until=is_last):
            if event.step == self._step and (not event.task or self._tasks is None or event.task in self._tasks):
                self.reader.event(event)
        if not over:
            self.reader.broke_off("the run ended before this stream did")


def read_stream(events: Iterable[Event], handler: Handler, why: Callable[[], str] = lambda: f"interrupted: {DIED}") -> None:
    """Feed the streams in a run's events to a handler. `why` returns the reason if the last stream does not end."""
    reader = Reader(handler)
    try:
        for event in events:
            reader.event(event)
        if reader.is_open:
            reader.broke_off(why())
    finally:
        handler.close()
