"""A shelf on NATS JetStream: `retold[nats]`, nats-server 2.11 or newer.

The stream `retold-LOG` has these subjects:

    retold.LOG.SOURCE.run.RUN               the pages of a run; the last one says how far the run is there
    retold.LOG.SOURCE.part.RUN.FIRST.N      the parts of a page that is larger than one message may be
    retold.LOG.SOURCE.put.RUN.FIRST         the page that stands in the place of an erased one

A page is published on the condition that its subject's last message is the one that the shipper saw. Servers were seen to break
that condition, and to lose what they acknowledged, so the receiver checks every number and hash by itself.

Readers are pull consumers: a push consumer with a slow reader dropped 59 of 100 pages.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..recorder.errors import InputError, ShelfError
from .pages import Page
from .shelf import Position, Shelved, Unreachable, check_follows
from .stream_connection import ANSWER_S, StreamConnection

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import RawStreamMsg

PART_BYTES = 512 * 1024
BATCH = 64
"""Pages that a reader asks for at once."""

_NAME = re.compile(r"[0-9A-Za-z_-]{1,120}")


class JetStreamShelf:
    """The pages in a JetStream stream. It connects at its first use. Raises ShelfError.

    `servers` are addresses `nats://HOST:PORT` or `tls://HOST:PORT`. Plain `nats://` is for this machine only. `credentials` is a
    file that `nsc` makes (a JWT and its key) or that holds a key alone (a seed, `SU…`), `ca` a file of certificates. With
    `make=False` the stream must be there.
    """

    def __init__(
        self, servers: Sequence[str], log: str, *, source: str, credentials: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None, make: bool = True,
    ) -> None:  # fmt: skip
        for part in (log, source):
            if not _NAME.fullmatch(part):
                raise InputError(f"{part!r} is no name for a part of a shelf: use letters, digits, _ and -.")
        self._link = StreamConnection(servers, log, inbox=f"_INBOX_{source}", credentials=credentials, ca=ca, make=make)
        self._ask = self._link.ask
        self._stream = self._link.stream
        self.name = self._link.name
        self.source = source
        self._log = log

    # Writing

    def _subject(self, kind: str, *parts: str | int) -> str:
        return ".".join(["retold", self._log, self.source, kind, *map(str, parts)])

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page, be it erased or not."""
        js = self._link.js()
        found = self._direct(js, self._subject("run", run))
        seq, own, token = -1, b"", 0
        if found is not None:
            seq, own, token = *_end_of(found), found.seq or 0
        # If the run's last pages were erased, the pages in their place have subjects of their own.
        while (put := self._direct(js, self._subject("put", run, seq + 1))) is not None:
            seq, own = _end_of(put)
        return None if seq < 0 else Position(seq, own, token)

    def _direct(self, js: "JetStreamContext", subject: str) -> "RawStreamMsg | None":
        from nats.js.errors import NotFoundError

        async def get() -> "RawStreamMsg | None":
            try:
                return await js.get_last_msg(self._stream, subject, direct=True)
            except NotFoundError:
                return None

        return self._ask(get())

    def put(self, page: Page, after: Position | None) -> Position:
        """Publish the page; the stream has acknowledged it when this returns."""
        js = self._link.js()
        subject = self._subject("run", page.run)
        headers = _headers(page) | {
            "Nats-Expected-Last-Subject-Sequence": str(after.token if after else 0),
            "Nats-Msg-Id": f"{self.source}:{page.run}:{page.first}-{page.last}",
        }
        check_follows(page, after)
        return Position(page.last, page.hash, self._publish(js, subject, page, headers))

    def _publish(self, js: "JetStreamContext", subject: str, page: Page, headers: dict[str, str]) -> int:
        """Publish a page under a subject, in parts if it is large; return its sequence in the stream."""
        body = page.body
        if len(body) > PART_BYTES:
            parts = range(0, len(body), PART_BYTES)
            for number, at in enumerate(parts):
                part = self._subject("part", page.run, page.first, number)
                self._ask(js.publish(part, body[at : at + PART_BYTES], stream=self._stream, timeout=ANSWER_S))
            headers, body = headers | {"Retold-Parts": str(len(parts))}, b""
        return self._ask(js.publish(subject, body, headers=headers, stream=self._stream, timeout=ANSWER_S)).seq

    # Reading

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield the pages after the cursor. Without one, the pages of one run come in the order of its events."""
        js = self._link.js()
        if run is not None and after is None and wait_s == 0:
            yield from self._in_order(js, run)
            return
        kinds = [f"run.{run or '*'}", f"put.{run or '*'}.*"]
        yield from self._consumed(js, kinds, self._start(js, after), wait_s)

    def _in_order(self, js: "JetStreamContext", run: str) -> Iterator[list[Shelved]]:
        """Yield the pages of one run, each page that stands in the place of an erased one at that place."""
        put = {(got.source, got.page.first): got for batch in self._consumed(js, [f"put.{run}.*"], 1, 0) for got in batch}
        follows: dict[str, int] = {}

        def fill(source: str) -> Iterator[Shelved]:
            while (got := put.pop((source, follows.get(source, 0)), None)) is not None:
                follows[source] = got.page.last + 1
                yield got

        for batch in self._consumed(js, [f"run.{run}"], 1, 0):
            pages: list[Shelved] = []
            for got in batch:
                pages += fill(got.source)
                follows[got.source] = got.page.last + 1
                pages.append(got)
            yield pages
        for source in sorted({source for source, _ in put}):
            yield list(fill(source))

    def _start(self, js: "JetStreamContext", cursor: str | None) -> int:
        """Return the sequence in the stream at which a reader with this cursor begins: 1 if the cursor does not fit."""
        from nats.js.errors import NotFoundError

        created, seq, own = (cursor or "||").split("|") if (cursor or "||").count("|") == 2 else ("", "", "")
        if created != self._link.created or not seq.isdecimal():
            return 1

        async def get() -> "RawStreamMsg | None":
            try:
                return await js.get_msg(self._stream, seq=int(seq), direct=True)
            except NotFoundError:
                return None

        found = self._ask(get())
        return int(seq) + 1 if found is not None and (found.headers or {}).get("Retold-Hash") == own else 1

    def _consumed(self, js: "JetStreamContext", kinds: list[str], start: int, wait_s: float) -> Iterator[list[Shelved]]:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start, ack_policy=AckPolicy.NONE,
            replay_policy=ReplayPolicy.INSTANT, filter_subjects=[f"retold.{self._log}.*.{kind}" for kind in kinds],
            mem_storage=True, inactive_threshold=60, num_replicas=1,
        )  # fmt: skip
        reader = self._ask(js.pull_subscribe("", stream=self._stream, config=config))
        pending = self._ask(reader.consumer_info()).num_pending or 0
        try:
            while pending or wait_s:
                fetch_s = ANSWER_S if pending else wait_s
                try:
                    messages = self._ask(_fetched(reader, fetch_s), fetch_s)
                except _Nothing:
                    if pending:
                        raise Unreachable(f"{self.name} sends no pages, though it has {pending}.") from None
                    return
                pending = messages[-1].metadata.num_pending
                yield [shelved for message in messages if (shelved := self._shelved(js, message)) is not None]
        finally:
            with contextlib.suppress(ShelfError):
                self._ask(reader.unsubscribe())

    def _shelved(self, js: "JetStreamContext", message: Any) -> Shelved | None:
        page = self._page(js, message.subject, message.headers or {}, message.data)
        if page is None:
            return None
        cursor = f"{self._link.created}|{message.metadata.sequence.stream}|{page.hash.hex()}"
        return Shelved(cursor, message.subject.split(".")[2], page)

    def _page(self, js: "JetStreamContext", subject: str, headers: dict[str, str], body: bytes) -> Page | None:
        """Return the page of a message, joined from its parts; None if a part is not there any more."""
        _, log, source, _, run, *_ = subject.split(".")
        first = int(headers["Retold-First"])
        parts = []
        for number in range(int(headers.get("Retold-Parts", 0))):
            part = self._direct(js, f"retold.{log}.{source}.part.{run}.{first}.{number}")
            if part is None:
                return None  # erased; the page in its place follows
            parts.append(part.data or b"")
        return Page(run, first, int(headers["Retold-Last"]), bytes.fromhex(headers["Retold-Hash"]), b"".join(parts) or body)

    # Erasing

    def replace(self, page: Page) -> None:
        """Publish the page that stands in place of the first; then delete the first securely, with its parts."""
        js = self._link.js()
        old = [
            int(got.cursor.split("|")[1])
            for batch in self._in_order(js, page.run)
            for got in batch
            if got.source == self.source and got.page.first == page.first
        ]
        old += self._parts(js, page.run, page.first)
        self._publish(js, self._subject("put", page.run, page.first), page, _headers(page))
        for seq in old:
            self._ask(js.delete_msg(self._stream, seq))

    def _parts(self, js: "JetStreamContext", run: str, first: int) -> list[int]:
        found: list[int] = []
        while (part := self._direct(js, self._subject("part", run, first, len(found)))) is not None:
            found.append(part.seq or 0)
        return found

    def drop(self, run: str) -> None:
        """Delete all messages of the run securely, one by one: a purge leaves the bytes."""
        from nats.js.errors import NotFoundError

        js = self._link.js()

        async def delete_last(subject: str) -> bool:
            try:
                found = await js.get_last_msg(self._stream, subject)
            except NotFoundError:
                return False
            return await js.delete_msg(self._stream, found.seq or 0)

        for kind in (f"run.{run}", f"put.{run}.*", f"part.{run}.>"):
            while self._ask(delete_last(self._subject(kind))):
                pass

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


class _Nothing(ShelfError):
    """A fetch that ended without a message."""


async def _fetched(reader: Any, wait_s: float) -> list[Any]:
    import nats.errors

    try:
        messages: list[Any] = await reader.fetch(BATCH, timeout=wait_s)
    except (nats.errors.TimeoutError, TimeoutError):
        raise _Nothing("no page came.") from None
    return messages


def _headers(page: Page) -> dict[str, str]:
    return {"Retold-First": str(page.first), "Retold-Last": str(page.last), "Retold-Hash": page.hash.hex()}


def _end_of(message: "RawStreamMsg") -> tuple[int, bytes]:
    headers = message.headers or {}
    return int(headers["Retold-Last"]), bytes.fromhex(headers["Retold-Hash"])
