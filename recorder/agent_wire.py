"""The wire of the Claude Agent SDK: lines of JSON between the SDK and Claude Code, its child process.

The events of a session; the seq of the first one is the `exchange` of all of them:

    session.started   {wire, sdk, cwd, home, argv}: the versions, the folders, and the options that the child gets; in a workflow
                      also {options, variables}: the options and volatile values of the step, which a replay compares
    wire.sent         a line that the SDK wrote (control_request, control_response, user), or {"type": "end_input"}
    wire.unsent       a sent line, again, that the SDK could not write: Claude Code had ended, or its input had
    wire.received     a line of the control protocol (control_request, control_response, control_cancel_request,
                      transcript_mirror), or a line for the SDK alone (`sdk_host_only`)
    stream.TYPE       a line that is no message: stream_event, rate_limit_event, …
    message           system, assistant, user, result
    session.ended     {ending, error, exit_code, unread}: `unread` are the fields that the SDK's parser did not read

A session ends `complete` if the child ended its output, `closed` if the program closed the session before, and `failed` if
the SDK raised an error, which is kept with its type.
"""

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .events import OWN_SEQ, Ending, Entry, encode
from .http.sse import Piece
from .log.log import RunWriter
from .secrets.redactor import REDACTED
from .secrets.streams import FrameRedactor
from .strict_json import object_or_empty

WIRE = "stream-json"
"""The name of the format of the lines."""

END_INPUT = {"type": "end_input"}
"""Stands for the end of the child's input among the sent lines."""

SessionEnding = Literal["complete", "closed", "failed"]

SESSION_ENDINGS: tuple[SessionEnding, ...] = ("complete", "closed", "failed")

_MESSAGES = frozenset({"system", "assistant", "user", "result", "erased"})
_CONTROL = frozenset({"control_request", "control_response", "control_cancel_request", "transcript_mirror"})

_OPEN_FACTS = frozenset({"apiProvider", "apiKeySource", "tokenSource"})
"""The facts about an account that identify no person."""


@dataclass(frozen=True, slots=True)
class WireLine:
    """One line. `offset_ns` counts from the start of the session. `data` is the line's JSON."""

    offset_ns: int
    is_sent: bool
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepPlace:
    """The place of a session in a workflow. `steps` has the step of each of its prompts, in order, and at least one.

    `options` are those of the step, `variables` the volatile values in its texts by their names.
    """

    steps: tuple[str, ...]
    task: str
    options: dict[str, Any]
    variables: dict[str, str]


@dataclass(frozen=True, slots=True)
class AgentSession:
    """A recorded session, already redacted. `argv` is None for a transport that the program made itself.

    `error` has a type, a message and the attributes `stderr` and `exit_code` if the SDK's error had them. `unread` names the
    fields that the recording SDK did not read; it is None if they are unknown.
    """

    lines: tuple[WireLine, ...]
    ending: SessionEnding
    error: dict[str, Any] | None = None
    exit_code: int | None = None
    sdk: str = ""
    cwd: str = ""
    home: str = ""
    argv: tuple[str, ...] | None = None
    recorded_at: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    unread: tuple[str, ...] | None = None
    place: StepPlace | None = None

    @property
    def prompts(self) -> list[Any]:
        """The contents of the user's messages."""
        return [object_or_empty(line.data.get("message")).get("content") for line in self.lines if is_prompt(line)]


def options_of(argv: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line. A value that is JSON is parsed."""
    found: dict[str, list[Any]] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name, is_joined, value = word.partition("=")
            found.setdefault(name, []).extend([_parsed(value)] if is_joined else [])
        else:
            found.setdefault(name, []).append(_parsed(word))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _parsed(word: str) -> Any:
    try:
        return json.loads(word) if word[:1] in ("{", "[") else word
    except ValueError:
        return word


def is_prompt(line: WireLine) -> bool:
    """Return whether a line is a message of the user that the program sent."""
    return line.is_sent and line.data.get("type") == "user"


def kind_of(line: dict[str, Any]) -> str:
    """Return the event kind of a received line."""
    type_ = str(line.get("type"))
    if line.get("sdk_host_only") is True:
        return "wire.received"
    if type_ in _MESSAGES:
        return "message"
    return "wire.received" if type_ in _CONTROL else f"stream.{type_[:40]}"


def without_person(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without the person's account and the child's process id, which the answer to `initialize` holds."""
    answer = object_or_empty(object_or_empty(line.get("response")).get("response"))
    if line.get("type") != "control_response" or not answer.keys() & {"account", "pid"}:
        return line
    changed = dict(answer)
    if isinstance(account := answer.get("account"), dict):
        changed["account"] = {
            key: REDACTED if isinstance(value, str) and key not in _OPEN_FACTS else value for key, value in account.items()
        }
    if "pid" in answer:
        changed["pid"] = 0
    return line | {"response": line["response"] | {"response": changed}}


class WireCapture:
    """Appends one session to a run. Each line is committed when its method returns. All methods may raise LogError.

    There is one exception: a line that streams a part of a text waits if a secret may begin at its end, and the lines behind it
    wait, too. The next part of the text, the complete text, or a line of the program ends the wait.

    `step` and `task` are the place of the next lines in a workflow. `started_ns` is the time of the run at which the session
    began, `last_ns` that of its newest line.
    """

    def __init__(self, writer: RunWriter, started: dict[str, Any], *, step: str = "", task: str = "") -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._scrub = FrameRedactor(writer.redactor)
        self._waiting: deque[tuple[str, int, str]] = deque()
        self.step = step
        self.task = task
        self.ending: SessionEnding | None = None
        (event,) = writer.append(Entry("session.started", encode(started), step, task, exchange=OWN_SEQ))
        self.exchange = event.seq
        self.started_ns = self.last_ns = event.t_ns
        # The end of the run ends the session, as it ends an exchange.
        writer.open[self.exchange] = self

    def __repr__(self) -> str:
        return f"<WireCapture #{self.exchange} {self.ending or 'open'}>"

    def sent(self, line: dict[str, Any]) -> None:
        """Append a line that the SDK writes. Call this before the line is written."""
        self._settle()
        self._note("wire.sent", line)

    def unsent(self, line: dict[str, Any]) -> None:
        """Append that a sent line could not be written."""
        self._note("wire.unsent", line)

    def received(self, line: dict[str, Any]) -> None:
        """Append a line that the child wrote. Call this before the line is handed on."""
        kind = kind_of(line)
        if kind != "stream.stream_event" and not self._scrub.waiting:
            self._note(kind, without_person(line))
            return
        self.last_ns = self._writer.now_ns()
        self._waiting.append((kind, self.last_ns, self.step))
        self._write(self._scrub.feed(Piece(encode(without_person(line)), True)))
        if line.get("type") == "assistant":
            self._settle()

    def end(
        self, ending: SessionEnding | Ending, error: dict[str, Any] | None = None, exit_code: int | None = None,
        unread: list[str] | None = None,
    ) -> None:  # fmt: skip
        """Append the ending. The first call decides; a log that ends its run calls this with `closed`."""
        with self._lock:
            if self.ending is not None:
                return
            self.ending = ending if ending in SESSION_ENDINGS else "closed"
            self._writer.open.pop(self.exchange, None)
        self._settle()
        self._note("session.ended", {"ending": self.ending, "error": error, "exit_code": exit_code, "unread": unread})

    def _settle(self) -> None:
        """Append the lines that wait."""
        if self._scrub.waiting:
            self._write(self._scrub.flush())

    def _write(self, pieces: list[Piece]) -> None:
        """Append received lines, each with the time of its arrival."""
        entries = []
        for piece in pieces:
            kind, t_ns, step = self._waiting.popleft()
            entries.append(Entry(kind, piece.data, step, self.task, self.exchange, t_ns))
        if entries and not self._writer.ended:
            self._writer.append(*entries)

    def _note(self, kind: str, data: dict[str, Any]) -> None:
        if not self._writer.ended:
            (event,) = self._writer.append(Entry(kind, encode(data), self.step, self.task, self.exchange))
            self.last_ns = event.t_ns


def error_data(error: BaseException) -> dict[str, Any]:
    """Return an error of the SDK as values that can be kept."""
    kept = {name: getattr(error, name) for name in ("exit_code", "stderr") if isinstance(getattr(error, name, None), int | str)}
    return {"type": type(error).__name__, "message": str(error), **kept}
