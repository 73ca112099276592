"""Capture: turn one exchange into events, without I/O of its own. Live tees and the player of mock runs feed it.

The order of writing is the promise: everything that a chunk completes (frames, and the messages folded from them) is
committed in one transaction before the client gets the chunk. The ending is written once; the first one counts.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from ..clock import wall_ns
from ..errors import LogError
from ..events import OWN_SEQ, Ending, Entry, Frames, encode
from ..log.log import RunWriter
from ..messages import Session
from ..secrets.redactor import Redactor
from ..secrets.streams import FrameRedactor, PackedRedactor
from .encodings import MAX_DECODED_BYTES
from .exchange import (
    NOWHERE,
    Failure,
    Headers,
    Parser,
    Place,
    Request,
    as_started,
    content_encoding,
    header,
    timestamp,
    wire_parser,
)
from .fold import Fold
from .platforms import model_in
from .sessions import sent_messages
from .sse import Classified, Deltas, FrameParser, Piece, plain_deltas

MAX_JSON_BODY_BYTES = 64 * 1024 * 1024
"""A larger body without streaming is recorded, but not folded into messages."""

WITHHELD = Failure("Withheld", "this compressed body holds a secret; from there on it was not recorded")
"""The failure of an exchange if its compressed body holds a secret: compressed bytes cannot be redacted."""

TOO_LARGE = Failure(
    "Withheld",
    f"this compressed body holds more than {MAX_DECODED_BYTES >> 20} MB; retold searches no more of it for secrets, "
    "so the rest was not recorded",
)
"""The failure of an exchange if its compressed body decompresses to more than the limit."""

Price = Callable[[str, dict[str, Any]], float | None]
"""(model, usage) -> US dollars, or None if the model's price is unknown."""


class Capture:
    """The recording of one exchange: call `response`, then `data` for each chunk, then `end`. They raise LogError.

    `clock` returns the nanoseconds since the run began; without it, the log sets the time when it appends an event.
    """

    def __init__(
        self, run: RunWriter, request: Request, *, place: Place = NOWHERE, session: Session | None = None,
        redactor: Redactor | None = None, price: Price | None = None, cost_usd: float | None = None,
        clock: Callable[[], int] | None = None, recorded_at: str = "",
    ) -> None:  # fmt: skip
        self._run = run
        # Reentrant: an append first writes deferred endings, and one of them may be the ending of this exchange.
        self._lock = threading.RLock()
        self._last: list[Entry] | None = None  # the last events, once the ending is decided; they may have to be written again
        self._is_unsure = False
        self._is_ending = False
        self.place = place
        self._redactor = redactor or run.redactor
        self._scrub = FrameRedactor(self._redactor)
        self._session = session or Session(run.run)
        self._price = price
        self._clock = clock
        self._cost_usd = cost_usd
        self._sha256 = sha256()
        self._bytes = 0
        self._frames = 0
        self._parser: Parser | None = None
        self._headers: Headers = ()
        self._packed: PackedRedactor | None = None
        self._withheld: Failure | None = None
        self._contents: list[Piece] = []  # the content of a compressed body that is not folded yet
        self._arrivals: list[int] = []  # arrival times of its chunks that are delayed
        self._json: list[bytes] = []
        self.fold = Fold(self._session, model=model_in(request.uri) if "/model" in request.uri else None)
        self.status: int | None = None
        self.ending: Ending | None = None
        self.failure: Failure | None = None
        request = self._redactor.request(request)
        started = self._write(
            "exchange.started", as_started(request, place, recorded_at or timestamp(wall_ns())), exchange=OWN_SEQ
        )
        self.exchange = started.seq
        run.open[started.seq] = self
        self.started_ns = started.t_ns
        self.first_ns: int | None = None
        self.ended_ns = started.t_ns
        to_session = place.attempt == 1 and "/sessions" in request.uri
        if to_session and (sent := sent_messages(request.method, request.uri, request.body, self._session)):
            run.append(*map(self._message, sent))

    def __repr__(self) -> str:
        return f"<Capture {self._run.run[:6]}#{self.exchange} {self._frames} frames {self.ending or 'open'}>"

    def response(self, status: int, reason: str, headers: Headers) -> None:
        """Record the head of the response."""
        self.status = status
        self.fold.request_id = header(headers, "request-id")
        self._headers = headers
        if content_encoding(headers):
            self._packed = PackedRedactor(self._redactor, headers)
        self._write("response.started", {
            "status": status, "reason": reason, "headers": self._redactor.headers(headers),
        })  # fmt: skip

    def data(self, *chunks: bytes) -> None:
        """Record wire bytes. On return, all that they complete is committed, and the client may get them."""
        with self._lock:
            for entries in self._taken(chunks):
                try:
                    events = self._run.append_frames(entries) if isinstance(entries, Frames) else self._run.append(*entries)
                except LogError:
                    if not self._run.ended:  # another thread may have ended the run meanwhile: then nothing more is recorded
                        raise
                    return
                if self.first_ns is None:
                    self.first_ns = events[0].t_ns

    def take(self, chunks: Sequence[bytes]) -> Frames | list[Entry]:
        """Take wire bytes; return the entries that they complete. The caller commits them before the client gets the bytes."""
        with self._lock:
            # Fast way: most reads of a stream are whole deltas.
            if self._frames and chunks[-1].endswith(b"\n\n") and self._last is None and not self._run.ended:
                data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                if self.ending is None and (deltas := self._ordinary(data)) is not None:
                    self._bytes += len(data)
                    return self._frames_of(deltas, data)
            return _joined(list(self._taken(chunks)))

    def _taken(self, chunks: Sequence[bytes]) -> Iterator[Frames | list[Entry]]:
        """Take wire bytes; yield the entries that they complete."""
        if self._last is not None or self.ending is not None or self._run.ended:
            return  # the client still reads after the recording has ended
        # The first bytes decide if the headers do not name the type.
        if self._bytes == 0:
            self._parser = wire_parser(self._headers, chunks[0])
        self._bytes += sum(map(len, chunks))
        if self._parser is None:
            pieces = self._scrubbed([Piece(chunk, False) for chunk in chunks])
            if entries := self._entries(pieces):
                yield entries
            return
        for data in _at_frames(chunks, self._parser):
            if (deltas := self._ordinary(data)) is not None:
                yield self._frames_of(deltas, data)
            elif entries := self._entries(self._scrubbed(self._parser.feed(data))):
                yield entries

    def end(self, ending: Ending, error: BaseException | None = None, *, failure: Failure | None = None) -> None:
        """Record the ending. A stream that closes after its last event is complete.

        The first call decides. If its ending could not be written, later calls, and the end of the run, write it.
        """
        with self._lock:
            # An append first writes deferred entries. One of them may be the ending of this exchange, if its stream was dropped.
            if self.ending is not None or self._is_ending:
                return
            self._is_ending = True
            try:
                if self._last is None:
                    self._decide(ending, error, failure)
                self._write_ending()
            finally:
                self._is_ending = False

    def _write_ending(self) -> None:
        assert self._last is not None
        if not self._run.ended and not (self._is_unsure and self._run.has(self.exchange, "exchange.ended")):
            self._is_unsure = True  # after an interrupt it is unknown whether the ending was written
            try:
                self.ended_ns = self._run.append(*self._last)[-1].t_ns
            except LogError:
                if not self._run.ended:
                    raise
        self._run.open.pop(self.exchange, None)
        self.ending = self._decided

    def _decide(self, ending: Ending, error: BaseException | None, failure: Failure | None) -> None:
        """Decide the ending of the exchange and prepare its last events."""
        rest = [] if self._parser is None else self._parser.flush()
        entries = self._entries([*self._scrubbed(rest), *self._flushed()])
        if self._withheld is not None and self.fold.ending(ending, self.status) == "complete":
            failure = self._withheld
        ending = self._decided = self.fold.ending(ending, self.status, is_withheld=self._withheld is not None)
        self.failure = failure if error is None else failure_of(error, self._redactor)
        messages = self._folded_json() if self._json else []
        messages += self.fold.flush() if ending != "complete" else []  # blocks that the stream left open
        self._last = [*entries, *map(self._message, messages), self._entry("exchange.ended", self._summary())]

    def dropped(self) -> None:
        """Record that the client dropped the stream without reading or closing it. The garbage collector may call this."""
        if self.ending is None and not self._run.ended:
            self._run.log.defer(lambda: self.end("closed"))

    @property
    def run(self) -> RunWriter:
        """The writer of the run that holds the exchange."""
        return self._run

    @property
    def frames(self) -> int:
        """The number of recorded frames."""
        return self._frames

    @property
    def headers(self) -> Headers:
        """The headers of the response; empty before `response`."""
        return self._headers

    @property
    def cost_usd(self) -> float | None:
        """The cost of the exchange in US dollars: the recorded one, or one by today's price; None if it is unknown."""
        model = self.fold.message.get("model")
        if self._cost_usd is None and self._price is not None and self.fold.usage and isinstance(model, str):
            self._cost_usd = self._price(model, self.fold.usage)
        return self._cost_usd

    def _scrubbed(self, pieces: list[Piece]) -> list[Piece]:
        """Return the pieces that may be written now, without secrets.

        Wire bytes of a compressed body cannot be changed. If their content holds a secret, or is too large to be searched, no
        more of the body is written, and the exchange counts as cut there.
        """
        if self._packed is None:
            clean = [each for piece in pieces for each in self._scrub.feed(piece)]
            if self._arrivals or len(clean) != len(pieces):  # a delayed piece keeps the time at which it arrived
                self._arrive(len(pieces))
            return clean
        self._arrive(len(pieces))
        return [each for piece in pieces for each in self._unless_withheld(self._packed.feed(piece.data))]

    def _arrive(self, pieces: int) -> None:
        arrived_ns = self._run.now_ns() if self._clock is None else self._clock()
        self._arrivals += [arrived_ns] * pieces

    def _flushed(self) -> list[Piece]:
        """Return the delayed pieces at the end of the body."""
        return self._scrub.flush() if self._packed is None else self._unless_withheld(self._packed.flush())

    def _unless_withheld(self, packed: tuple[list[bytes], list[Piece]]) -> list[Piece]:
        assert self._packed is not None
        wire, content = packed
        self._contents += content
        if self._withheld is None and self._packed.found:
            self._withheld = WITHHELD
        if self._withheld is None and self._packed.decoder.exceeded:
            self._withheld = TOO_LARGE
        return [] if self._withheld is not None else [Piece(data, False) for data in wire]

    def _ordinary(self, data: bytes) -> Deltas | None:
        """Return plain deltas that need no work on each frame: no frame and no piece is waiting, and no secret is near."""
        if type(self._parser) is not FrameParser or self._parser.is_inside or self._arrivals:
            return None
        deltas = plain_deltas(data)
        return deltas if deltas is not None and self._scrub.passes(deltas) else None

    def _frames_of(self, deltas: Deltas, data: bytes) -> Frames:
        self._frames += len(deltas.frames)
        self._sha256.update(data)
        self.fold.deltas.append((deltas.block, deltas.key, deltas.text))
        t_ns = None if self._clock is None else self._clock()
        return Frames(deltas.frames, [self.exchange] * len(deltas.frames), self.place.step, self.place.task, t_ns)

    def _entries(self, pieces: list[Piece]) -> list[Entry]:
        """Return pieces of the body, and the messages that they complete, as entries of the log."""
        step, task, exchange = self.place.step, self.place.task, self.exchange
        now_ns = None if self._clock is None else self._clock()
        entries: list[Entry] = []
        for piece in pieces:
            data, is_frame = piece
            self._frames += is_frame
            t_ns = self._arrivals.pop(0) if self._arrivals else now_ns
            entries.append(Entry("frame" if is_frame else "chunk", data, step, task, exchange, t_ns))
            # A message follows the frame that completes it. Of a compressed body, the content is folded below.
            if self._packed is None and (messages := self._folded(piece)):
                entries += map(self._message, messages)
        content, self._contents = self._contents, []
        for piece in content:
            entries += map(self._message, self._folded(piece))
        self._sha256.update(b"".join([piece.data for piece in pieces]))
        return entries

    def _folded(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the messages that a piece completes. JSON waits until its end; a truncated or oversized frame has none."""
        if isinstance(piece, Classified):
            if piece.delta is None:
                return self.fold.feed_event(piece.data)
            self.fold.deltas.append(piece.delta)
            return []
        if piece.is_frame:
            return self.fold.feed(piece.data)
        # Neither a frame nor part of a stream: JSON, which is folded at the end of the body.
        is_json = self._parser is None and (self._packed is None or not self._packed.has_frames)
        if is_json and self._bytes <= MAX_JSON_BODY_BYTES:
            self._json.append(piece.data)
        return []

    def _folded_json(self) -> list[dict[str, Any]]:
        body, self._json = b"".join(self._json), []
        return self.fold.feed_json(body) if self._bytes <= MAX_JSON_BODY_BYTES else []

    def _summary(self) -> dict[str, Any]:
        self._cost_usd = self.cost_usd  # once: a price takes as long as two commits
        return {
            "ending": self._decided,
            "error": None if self.failure is None else asdict(self.failure),
            "status": self.status,
            "frames": self._frames,
            "bytes": self._bytes,
            "sha256": self._sha256.hexdigest(),
            **self.fold.summary(),
            "cost_usd": self._cost_usd,
            "call": self.place.call,
            "attempt": self.place.attempt,
        }

    def _entry(self, kind: str, data: dict[str, Any]) -> Entry:
        payload = encode(data)
        if self._redactor is not self._run.redactor:  # the run scrubs each event by its own
            payload = self._redactor.data(payload)
        return self._at(kind, payload, self.exchange)

    def _at(self, kind: str, data: bytes, exchange: int) -> Entry:
        t_ns = None if self._clock is None else self._clock()
        return Entry(kind, data, self.place.step, self.place.task, exchange, t_ns)

    def _message(self, message: dict[str, Any]) -> Entry:
        return self._entry("message", message)

    def _write(self, kind: str, data: dict[str, Any], exchange: int | None = None) -> Any:
        return self._run.append(self._at(kind, encode(data), self.exchange if exchange is None else exchange))[0]


def record_together(arrived: Sequence[tuple[Capture, Sequence[bytes]]]) -> None:
    """Record wire bytes of several exchanges as `Capture.data` does it, in one transaction for each run. Raise LogError."""
    of_runs: dict[RunWriter, list[tuple[Capture, Sequence[bytes]]]] = {}
    for each in arrived:
        of_runs.setdefault(each[0].run, []).append(each)
    for run, those in of_runs.items():
        taken = [(capture, capture.take(chunks)) for capture, chunks in those]
        try:
            events = run.log.append(run, _joined([part for _, part in taken if part]))
        except LogError:
            if not run.ended:
                raise
            continue
        at = 0
        for capture, part in taken:
            if part and capture.first_ns is None:
                capture.first_ns = events[at].t_ns
            at += len(part.payloads if isinstance(part, Frames) else part)


def _joined(parts: list[Frames | list[Entry]]) -> Frames | list[Entry]:
    """Return the entries of several exchanges as one: as frames, which take half the time, if all of them are."""
    frames = [part for part in parts if isinstance(part, Frames)]
    if len(parts) == 1:
        return parts[0]
    if frames and len(frames) == len(parts) and len({part[2:] for part in frames}) == 1:
        exchanges = [exchange for part in frames for exchange in part.exchanges]
        return Frames([payload for part in frames for payload in part.payloads], exchanges, *frames[0][2:])
    return [entry for part in parts for entry in (part.entries() if isinstance(part, Frames) else part)]


def _at_frames(chunks: Sequence[bytes], parser: Parser) -> Iterator[bytes]:
    """Return the chunks joined, in at most three parts. Each part is committed at once.

    A read of the socket may cut its first and its last chunk. These are parts of their own, because all frames between them are
    whole, and mostly plain deltas.
    """
    is_cut = type(parser) is FrameParser
    first = 1 if is_cut and parser.is_inside else 0
    last = len(chunks) - (is_cut and not chunks[-1].endswith(b"\n\n"))
    for part in (chunks[:first], chunks[first:last], chunks[max(first, last) :]):
        if part:
            yield b"".join(part)


def failure_of(error: BaseException, redactor: Redactor) -> Failure:
    """Return an exception as it is recorded: its type with the module, its text without secrets."""
    kind = type(error)
    module = kind.__module__.partition(".")[0]
    return Failure(kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}", redactor.text(str(error)))
