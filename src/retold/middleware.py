"""`retold.recording(log)`: explicit recording of one client through the SDK's own middleware; nothing is patched.

    client = anthropic.Anthropic(middleware=[retold.recording(log)])

Works for sync and async clients, `with_options`, retries, and transports that are not httpx2's own (aiohttp). Each HTTP
attempt is an exchange. An exchange is written when the head of its response came (a middleware sees the request as it went
out only then); its beginning carries the time at which the request was handed to the SDK.
"""

import atexit
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anthropic

from .recorder.errors import InputError, LogError
from .recorder.events import encode
from .recorder.http.capture import Capture
from .recorder.http.exchange import Place, Request
from .recorder.http.recognition import pairs, to_request
from .recorder.http.tee import tee
from .recorder.log.log import EventLog, RunWriter
from .recorder.messages import Session
from .recorder.secrets.redactor import Redactor
from .testing.fallbacks import Fallbacks
from .workflow.pricing import price

if TYPE_CHECKING:
    from anthropic import Middleware
else:  # older SDKs have no middleware: `recording` then raises, and everything else works
    Middleware = getattr(anthropic, "Middleware", object)

_open: set[RunWriter] = set()
"""The writers of recordings that are not closed."""


os.register_at_fork(after_in_child=_open.clear)  # the parent ends its runs


class Recording(Middleware):
    """Records the requests and answers of one client into a run of its own.

    `close` ends the run, as leaving a `with` block does; a recording that is never closed ends, completed, when the interpreter
    exits. Streams that are still read then count as closed by the client.
    """

    def __init__(self, log: EventLog, *, name: str = "recording", costs: bool = False) -> None:
        self.log = log
        self._name = name
        self._price = price if costs else None
        self._writer: RunWriter | None = None
        self._session = Session()
        self._redactor = Redactor()
        self._calls = 0
        self._failed_calls: dict[str, int] = {}
        self._fallbacks = Fallbacks()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Recording {self._name!r} into {self.log.path}, {self._calls} calls>"

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(error)

    @property
    def run(self) -> str | None:
        """The id of the run, once something was recorded."""
        return None if self._writer is None else self._writer.run

    def close(self, error: BaseException | None = None) -> None:
        """End the run; a later call of the client begins another one. Raises LogError; a later `close` writes the end then."""
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.end(
                "completed" if error is None else "failed",
                error=None if error is None else self._redactor.text(f"{type(error).__name__}: {error}"),
            )
            _open.discard(writer)
            with self._lock:
                if self._writer is writer:
                    self._writer = None

    def handle(self, request: Any, call_next: Any) -> Any:
        """The SDK's hook of a sync client, once per attempt."""
        writer, began_ns = self._begin()
        try:
            response = call_next(request)
        except BaseException as error:
            self._failed(writer, request, began_ns, error)
            raise
        self._answered(writer, request, began_ns, response.http_response)
        return response

    async def handle_async(self, request: Any, call_next: Any) -> Any:
        """The SDK's hook of an async client, once per attempt."""
        writer, began_ns = self._begin()
        try:
            response = await call_next(request)
        except BaseException as error:
            self._failed(writer, request, began_ns, error)
            raise
        http = response.http_response
        if http.status_code >= 400 and not http.is_closed:
            await http.aread()  # the SDK closes an error that it will repeat without reading it
        self._answered(writer, request, began_ns, http)
        return response

    def _begin(self) -> tuple[RunWriter, int]:
        if self._pid != os.getpid():
            self._become_the_childs()
        with self._lock:
            if self._writer is None or self._writer.ended:
                self._writer = self.log.start(name=self._name, mode="live", data={"via": "middleware"})
                _open.add(self._writer)
                # A collector may run in the middle of a write, so the run of a dropped recording ends with the next one.
                weakref.finalize(self, self.log.defer, functools.partial(_end, self._writer)).atexit = False
            return self._writer, self._writer.now_ns()

    def _become_the_childs(self) -> None:
        """In a forked child: record into a run of its own. Keep the parent's connection: only the parent closes it."""
        self._parents = (self.log, self._writer)
        self.log, self._writer = self.log.reopened(), None
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._session, self._failed_calls, self._fallbacks = Session(), {}, Fallbacks()

    def _capture(self, writer: RunWriter, request: Any, sent: Request, began_ns: int, *, failed: bool) -> Capture:
        # The SDK repeats a call under the same idempotency key; a GET has none and is not told apart.
        key = request.options.idempotency_key or f"{request.method} {request.url}"
        with self._lock:
            call = self._failed_calls.pop(key, None) if request.retries_taken else None
            call, attempt = self._fallbacks.continued(sent) or (call, request.retries_taken + 1)
            if call is None:
                self._calls += 1
                call = self._calls
            if failed:  # it may come again; others need not be remembered
                self._failed_calls[key] = call
        place = Place(call=call, attempt=attempt)
        while True:
            clock = _clock(writer, began_ns)
            try:
                capture = Capture(
                    writer, sent, place=place, session=self._session, redactor=self._redactor, price=self._price, clock=clock
                )
                with self._lock:
                    self._fallbacks.note(sent, capture)
                return capture
            except LogError:
                if not writer.ended:
                    raise
                writer, began_ns = self._begin()  # the recording was closed during the call

    def _failed(self, writer: RunWriter, request: Any, began_ns: int, error: BaseException) -> None:
        """Record a call without an answer: the request of the SDK's error, or if it has none, the one the SDK was given."""
        http = getattr(error, "request", None)
        asked = Request(request.method.upper(), request.url, (), encode(request.json))
        sent = asked if http is None else to_request(http)
        self._capture(writer, request, sent, began_ns, failed=True).end("no_response", error.__cause__ or error)

    def _answered(self, writer: RunWriter, request: Any, began_ns: int, http: Any) -> None:
        """Record the head; the body too where the SDK has read it already, else as the client reads it."""
        capture = self._capture(writer, request, to_request(http.request), began_ns, failed=http.status_code >= 400)
        if http.status_code >= 400 and not http.is_closed:
            http.read()
        if not http.is_stream_consumed and not http.is_closed:
            tee(http, capture)
            return
        # The body was decoded while it was read: what is recorded says so.
        headers = tuple((n, v) for n, v in pairs(http.headers) if n.lower() not in ("content-encoding", "content-length"))
        capture.response(http.status_code, http.reason_phrase, headers)
        capture.data(http.content)
        capture.end("complete")


def _clock(writer: RunWriter, began_ns: int) -> Callable[[], int]:
    """The time of a call's beginning, then the time of the run."""
    at = [began_ns]
    return lambda: at.pop() if at else writer.now_ns()


def _end(writer: RunWriter) -> None:
    writer.end()
    _open.discard(writer)


@atexit.register
def _close_all() -> None:
    for writer in list(_open):
        try:
            writer.end()
        except LogError as error:
            with contextlib.suppress(OSError, AttributeError):  # stderr may be closed, or None
                sys.stderr.write(f"retold: the end of the recording {writer.run} was not written: {error}\n")


def recording(log: EventLog, *, name: str = "recording", costs: bool = False) -> Recording:
    """Return SDK middleware that records a client into `log`, as a run called `name`.

    With `costs` the price of each call is recorded too; loading the table of prices takes 150 ms once. Raises InputError if
    the installed SDK has no middleware.
    """
    if Middleware is object:
        raise InputError(
            f"anthropic {anthropic.__version__} has no middleware: retold.recording needs 0.108 or newer. "
            "With this version, record with retold.use_cassette or retold record."
        )
    return Recording(log, name=name, costs=costs)
