"""Scripts for the relay's state machines, without a socket: `>>` lines are events, `<<` lines are the commands that follow.

In the text of a line `

` is CRLF, `{1000 x}` is a thousand times x, and other bytes are escaped as in Python. The playbook connects both machines as
the rims do: a complete request goes to the API, and the end of an answer goes back to the client. Its clock shows only the time
that passes in the script.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from retold.recorder.proxy import commands as c
from retold.recorder.proxy.api_side import ApiSide
from retold.recorder.proxy.client_side import ClientSide, Limits, Room
from retold.recorder.proxy.http_messages import Asked, Refusal, refusal
from retold.recorder.proxy.upstream import Upstream

API = Upstream.parse("http://api.example")


def to_bytes(text: str) -> bytes:
    """Return the bytes of a script's text."""
    repeated = re.sub(r"\{(\d+) (.)\}", lambda match: match[2] * int(match[1]), text)
    return repeated.replace("¶", r"\r\n").encode("latin-1").decode("unicode_escape").encode("latin-1")


def to_text(data: bytes) -> str:
    """Return the text of bytes in a script. Inverse of `to_bytes`."""
    text = repr(data.decode("latin-1"))[1:-1].replace("¶", r"\xb6")
    text = re.sub(r"\{(?=\d)", r"\\x7b", text)  # no repetition
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\r\\n", r"\1¶", text)
    return re.sub(r"([a-z])\1{29,}", lambda match: f"{{{len(match[0])} {match[1]}}}", text)


class LogFailedError(Exception):
    """The recording failed."""


class Playbook:
    """Both machines, a clock and the transcript: events and commands, in order."""

    def __init__(
        self, limits: Limits | None = None, refuses: Callable[[Asked], Refusal | None] = lambda _: None, upstream: Upstream = API,
        room: Room | None = None,
    ) -> None:  # fmt: skip
        self.room = room or Room(limits or Limits())
        self.transcript: list[str] = []
        self.performed: list[c.ClientCommand | c.ApiCommand] = []
        self.client = ClientSide(self.room, refuses, lambda: self._now_ns)
        self.api = ApiSide(upstream)
        self._now_ns = 0
        self._due_ns: int | None = None
        self._refused: list[bytes] = []
        self._log_fails = False
        self._is_answering = False

    # Events

    def happen(self, line: str) -> None:
        """Process the event of a line, and add its commands to the transcript."""
        self.transcript.append(f">> {line}")
        match line.split(" ", 1):
            case ["client", "connects"]:
                self._client(self.client.connected())
            case ["client", others] if match := re.fullmatch(r"connects beside (\d+)", others):
                self._client(self.client.crowded_out(int(match[1])))
            case ["client", "leaves"]:
                self._client(self.client.left())
            case ["client", text]:
                self._client(self.client.received(to_bytes(text)))
            case ["api", "connects"]:
                self._api(self.api.connected())
            case ["api", "closes"]:
                self._api(self.api.ended())
            case ["api", "resets"]:
                self._api(self.api.broken(ConnectionResetError("reset")))
            case ["api", "refuses"]:
                self._api(self.api.broken(ConnectionRefusedError("refused")))
            case ["api", text]:
                self._api(self.api.received(to_bytes(text)))
            case ["server", "stops"]:
                self._client(self.client.stop())
            case ["log", "fails"]:
                self._log_fails = True
            case [seconds, "s pass"]:
                self._pass(float(seconds))
            case _:
                raise AssertionError(f"the playbook has no event {line!r}")

    def _pass(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)
        if self._due_ns is not None and self._now_ns >= self._due_ns:
            self._due_ns = None
            self._client(self.client.late())

    # Commands

    def _perform(self, command: c.ClientCommand | c.ApiCommand) -> None:
        self.performed.append(command)
        self.transcript.append(f"<< {self._line(command)}")
        if self._log_fails and isinstance(command, c.BeginCapture | c.CaptureHead | c.CaptureBody | c.EndCapture):
            self.transcript[-1] += " (fails)"
            raise LogFailedError

    def _client(self, commands: Sequence[c.ClientCommand]) -> None:
        for command in commands:
            self._perform(command)
            match command:
                case c.Wait(seconds):
                    self._due_ns = None if seconds is None else self._now_ns + round(seconds * 1e9)
                case c.Answer(asked):
                    self._is_answering = True
                    self._api(self.api.asked(asked))
                case c.CancelAnswer(stopped) if self._is_answering:
                    self._api(self.api.stop() if stopped else self.api.left())
                    self._done(goes_on=False)
                case _:
                    pass

    def _api(self, commands: Sequence[c.ApiCommand]) -> None:
        try:
            for command in commands:
                if isinstance(command, c.CloseClient):
                    self._client(self.client.stop())
                    continue
                self._perform(command)
                if isinstance(command, c.Done):
                    self._done(goes_on=command.goes_on)
        except LogFailedError:
            self._done(goes_on=False)

    def _done(self, *, goes_on: bool) -> None:
        if self._is_answering:
            self._is_answering = False
            self._client(self.client.answered(goes_on=goes_on))

    def _line(self, command: c.ClientCommand | c.ApiCommand) -> str:
        match command:
            case c.SendClient(data):
                return f"client {'the error' if data in self._refused else to_text(data)}"
            case c.Wait(seconds):
                return "wait no more" if seconds is None else f"wait {seconds:g} s"
            case c.Answer(asked):
                return f"answer {asked.method} {asked.target} with {len(asked.body)} bytes"
            case c.CancelAnswer(stopped):
                return "cancel the answer" + (" because the server stops" if stopped else "")
            case c.Refuse(refused):
                self._refused = [refusal(*refused, closes=True, head=head) for head in (True, False)]
                is_parsers = refused.message.startswith("this is not an HTTP/1.1 request")  # h11 wrote the rest of the text
                return f"refuse {refused.status}: {refused.message.partition(':')[0] if is_parsers else refused.message}"
            case c.SendApi(data):
                return f"api {to_text(data)}"
            case c.BeginCapture(request):
                return f"begin capture of {request.method} {request.uri}"
            case c.CaptureHead(status, reason, _):
                return f"observe {status} {reason}".rstrip()
            case c.CaptureBody(pieces):
                return f"observe {' | '.join(map(to_text, pieces))}"
            case c.EndCapture(ending, error, failure):
                reason = failure.message if failure is not None else str(error or "")
                return f"end capture: {ending}" + (f" ({reason})" if reason else "")
            case c.Done(goes_on):
                return "done, both go on" if goes_on else "done"
            case _:
                words = re.findall("[A-Z][a-z]+", type(command).__name__)
                return " ".join(words).lower()  # CloseClient: "close client"

    def sent(self, kind: type[c.SendClient] | type[c.SendApi]) -> bytes:
        """Return all bytes that were sent to the client or to the API."""
        return b"".join(command.data for command in self.performed if isinstance(command, kind))

    def of(self, *kinds: Any) -> list[Any]:
        """Return the commands of these kinds."""
        return [command for command in self.performed if isinstance(command, kinds)]


def play(script: str, *, before: Iterable[str] = (), **options: Any) -> Playbook:
    """Process the events of a script, after the events `before` it, and assert its commands."""
    playbook = Playbook(**options)
    for line in before:
        playbook.happen(line)
    playbook.transcript.clear()
    expected = [line.lstrip() for line in script.splitlines() if line.strip()]
    for line in expected:
        if line.startswith(">> "):
            playbook.happen(line.removeprefix(">> "))
    assert playbook.transcript == expected
    return playbook
