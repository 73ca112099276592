"""What a handler is: a reader of the log that is told of one stream of messages, from its beginning to its end.

A stream is what a step, a task of it, or a run without steps said. `read_stream` feeds events to a handler; `HandlerThread`
does so in a thread with a cursor of its own, so that a slow or crashing handler neither delays nor breaks the recording.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from pydantic import BaseModel, ConfigDict

from ..recorder.events import Event
from ..recorder.log.log import EventLog
from ..recorder.messages import Message
from ..recorder.partial import DIED
from ..recorder.sse import frame_json

READ_KINDS = ("run.started", "run.ended", "step.started", "step.ended", "task.started", "task.ended", "message", "exchange.ended")
"""The kinds of events that make up a stream for a handler; one that shows partial messages reads frames as well."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A stream begins. `wall_ns` since the epoch, `t_ns` since its run began; `step` is empty in a run without steps."""

    run: str
    name: str
    step: str
    mode: str
    wall_ns: int
    t_ns: int
    task: str = ""

    @property
    def title(self) -> str:
        """`workflow: step: task`, as far as there are such."""
        return ": ".join(filter(None, (self.name, self.step, self.task)))


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """A stream is over; `error` says why it failed, None where it did not. `duration_ns` counts from its start.

    `usage` and `cost_usd` are those of its exchanges added up; None is a cost that is not known.
    """

    duration_ns: int
    error: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None


class Options(BaseModel):
    """A handler's options, strict: an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Handler(ABC):
    """Shows, stores or passes on the messages of a stream. `message` returns whether it showed the message.

    `out` is where it shows them, `folder` what it names modules from (a workflow's folder). It is told of streams, of one
    message at a time, each in order and from one thread, and then closed.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    silent: ClassVar[bool] = False
    """Whether it writes to another place than `out`, so that nothing on the screen is no surprise."""

    def __init__(self, options: Any, out: TextIO, folder: Path = Path()) -> None:
        self.options = options
        self.out = out
        self.folder = folder

    def check(self) -> None:  # noqa: B027 - not every handler has something to do here
        """Raise HandlerError for what can be known to fail before anything is run."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of events it reads."""
        return READ_KINDS

    def start(self, start: StreamStart) -> None:  # noqa: B027 - not every handler has something to do here
        """The stream begins."""

    @abstractmethod
    def message(self, message: Message) -> bool:
        """A complete message; the next one is given only when this returns. True if it was shown."""

    def delta(self, event: Event, text: str) -> None:  # noqa: B027 - not every handler has something to do here
        """A piece of a text that is not complete yet; only where `kinds` holds `frame`."""

    def end(self, end: StreamEnd, count: int, shown: int) -> None:  # noqa: B027 - not every handler has something to do here
        """The stream is over after `count` messages, of which `shown` were shown."""

    def close(self) -> None:  # noqa: B027 - not every handler has something to do here
        """No stream will follow; also called after a failure."""

    def result(self) -> dict[str, Any]:
        """What the handler has to say for the run's result: JSON values by name."""
        return {}

    def write(self, text: str) -> None:
        """Write whole lines and flush: what is shown is shown now."""
        self.out.write(text)
        self.out.flush()


class Reader:
    """Feeds one handler from events: counts what it was told and what it showed. `unit` is what a stream spans."""

    def __init__(self, handler: Handler, unit: Literal["step", "task"] = "step") -> None:
        self.handler = handler
        self.count = 0
        self.shown = 0
        self._unit = unit
        self._run: Event | None = None
        self._began: Event | None = None
        self._error: str | None = None
        self._has_steps = False
        self._half: dict[int | None, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether a stream has begun and not ended."""
        return self._began is not None

    def event(self, event: Event) -> None:
        """Take the next event. A stream spans a step, or a whole run that has no steps."""
        match event.kind:
            case "run.started":
                self._run = event
            case "step.started" | "task.started" if event.kind.startswith(self._unit):
                self._has_steps = True
                self._begin(event)
            case "exchange.ended":
                self._note_ending(event)
            case "frame":
                self._note_delta(event)
            case "message":
                self._begin(event)
                self.count += 1
                self.shown += self.handler.message(Message.of(event))
            case "step.ended" | "task.ended" if event.kind.startswith(self._unit):
                self._end(event)
            case "run.ended" if not self._has_steps:
                self._begin(event)
                self._end(event)

    def broke_off(self, why: str) -> None:
        """Take note that no more events come although the stream did not end. `why` gives the reason, as `why_unended` does."""
        if self._began is not None:
            self.handler.end(StreamEnd(0, why), self.count, self.shown)
            self._began = None

    def _begin(self, event: Event) -> None:
        if self._began is not None:
            return
        if not self._has_steps and self._run is not None:
            event = self._run  # the first event read may come late: not every handler reads every kind
        self._began, self.count, self.shown, self._error = event, 0, 0, None
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
            # A miss explains itself over several lines; here its first will do.
            what = None if error is None else str(error).partition("\n")[0].rstrip(".")
            known = [cost for cost in self._costs if cost is not None]
            cost = sum(known) if known and len(known) == len(self._costs) else None
            self.handler.end(StreamEnd(event.t_ns - began.t_ns, what, self._usage, cost), self.count, self.shown)

    def _note_delta(self, event: Event) -> None:
        data = frame_json(event.payload) or {}
        delta = data.get("delta")
        if data.get("type") == "content_block_delta" and isinstance(delta, dict) and delta.get("type") == "text_delta":
            self._begin(event)
            text = self._half.pop(event.exchange, "") + str(delta.get("text", ""))
            if "\ud800" <= text[-1:] <= "\udbff":  # the other half of the character comes with the next piece
                text, self._half[event.exchange] = text[:-1], text[-1]
            if text:
                self.handler.delta(event, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def _note_ending(self, event: Event) -> None:
        """In a run without steps nobody else says that an exchange ended badly; a later good one (a retry) mends it."""
        data = event.data
        self._begin(event)
        if data.get("usage"):
            self._costs.append(data.get("cost_usd"))
            for key, value in data["usage"].items():
                if isinstance(value, int):
                    self._usage[key] = self._usage.get(key, 0) + value
        if self._has_steps:
            return
        self._error = (
            None if data["ending"] in ("complete", "closed") else str((data.get("error") or {}).get("message") or data["ending"])
        )


class HandlerThread:
    """Reads one step of a running run for one handler, in a thread, until the step ends.

    `tasks` are the tasks it is told of (None: whatever belongs to the step); `unit="task"` makes the one task a stream of
    its own, which ends when the task does. `over` is called, in the thread, when the handler is done.
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
        """What the handler was told and what came of it: `{handler, messages, shown, error, …}`."""
        error = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        counted = {"handler": self.handler.name, "messages": self.reader.count, "shown": self.reader.shown}
        return counted | {"error": error} | self.handler.result()

    def _read(self) -> None:
        try:
            try:
                self._follow()
            finally:
                self.handler.close()
        except BaseException as error:  # sys.exit too: it is kept for the end of the run, reported there and in the exit code
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
    """Feed the streams in a run's events to a handler. `why` gives the reason if the events stop before the last stream ends."""
    reader = Reader(handler)
    try:
        for event in events:
            reader.event(event)
        if reader.is_open:
            reader.broke_off(why())
    finally:
        handler.close()
