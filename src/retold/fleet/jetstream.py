"""A shelf on NATS JetStream: `retold[nats]`, nats-server 2.11 or newer.

The stream `retold-LOG` has these subjects, and the bucket `retold-LOG-alive` the reports (stream_reports.py):

    retold.LOG.SOURCE.run.RUN               the pages of a run; the last page shows how much of the run the shelf has
    retold.LOG.SOURCE.part.RUN.FIRST.N      the parts of a page that does not fit into one message
    retold.LOG.SOURCE.put.RUN.FIRST         the replacement of an erased page

A shipper publishes a page on the condition that its subject has no newer message than the shipper saw. Some servers broke that
condition, and some lost acknowledged messages, so the receiver checks every number and hash itself.

Readers are pull consumers: a push consumer with a slow reader dropped 59 of 100 pages.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..recorder.errors import InputError, ShelfError
from .pages import Page
from .shelf import Position, Refused, Shelved, Unreachable, check_follows
from .stream_connection import ANSWER_S, StreamConnection
from .stream_reports import StreamReports

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import RawStreamMsg

PART_BYTES = 512 * 1024
BATCH = 64
"""The number of pages in one request of a reader."""

KEEP_READER_S = 10.0
"""Seconds after which an idle reader replaces its consumer. A consumer on a dead node sends no pages and no error."""

_NO_MESSAGE = (10037, 10043, 10057)  # not found, end of file, cannot be deleted
_NAME = re.compile(r"[0-9A-Za-z_-]{1,120}")


class JetStreamShelf:
    """A shelf that keeps its pages as messages of a JetStream stream. It connects at its first use. Raises ShelfError.

    `servers` are addresses `nats://HOST:PORT` (this machine only) or `tls://HOST:PORT`. `credentials` is a file of `nsc` (a JWT
    and its key) or a file with a key alone (a seed, `SU…`), `ca` is a file of certificates. The first use creates a missing
    stream or, with `make=False`, raises Refused.
    """

    remains = "The servers of a cluster keep the erased bytes in their own journals for 2 to 3 minutes."

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
        self._kept: tuple[str, _Consumer] | None = None
        self._reports = StreamReports(self._link)

    # Writing

    def _subject(self, kind: str, *parts: str | int) -> str:
        return ".".join(["retold", self._log, self.source, kind, *map(str, parts)])

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page, erased or not."""
        js = self._link.js()
        found = self._direct(js, self._subject("run", run))
        seq, own, token = -1, b"", 0
        if found is not None:
            seq, own, token = *self._end_of(found), found.seq or 0
        # If the run's last pages were erased, the pages in their place have subjects of their own.
        while (put := self._direct(js, self._subject("put", run, seq + 1))) is not None:
            seq, own = self._end_of(put)
        return None if seq < 0 else Position(seq, own, token)

    def _direct(self, js: "JetStreamContext", subject: str) -> "RawStreamMsg | None":
        from nats.js.errors import NotFoundError

        async def get() -> "RawStreamMsg | None":
            try:
                return await js.get_last_msg(self._stream, subject, direct=True)
            except NotFoundError:
                return None

        return self._ask(get())

    def _end_of(self, message: "RawStreamMsg") -> tuple[int, bytes]:
        header = _header_of(message.headers)
        if header is None:
            raise Refused(f"{self.name}: the message {message.seq} under {message.subject} is no page of retold.")
        return header.last, header.hash

    def put(self, page: Page, after: Position | None) -> Position:
        """Publish the page, and return after the stream has acknowledged it."""
        js = self._link.js()
        subject = self._subject("run", page.run)
        headers = _headers(page) | {
            "Nats-Expected-Last-Subject-Sequence": str(after.token if after else 0),
            # With the hash: of two copies of a log that went on, the second one's page is no repetition of the first one's.
            "Nats-Msg-Id": f"{self.source}:{page.run}:{page.first}-{page.last}:{page.hash.hex()}",
        }
        check_follows(page, after)
        return Position(page.last, page.hash, self._publish(js, subject, page, headers))

    def _publish(self, js: "JetStreamContext", subject: str, page: Page, headers: dict[str, str]) -> int:
        """Publish a page under a subject, in parts if it is large. Return its sequence in the stream."""
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
        kept, self._kept = self._kept, None
        if wait_s and kept is not None and kept[0] == after and kept[1].is_good(self._link.epoch):
            reader = kept[1]
        else:  # without waiting, too: the number of pages that wait for a kept consumer is old
            if kept is not None:
                self._let_go(kept[1])
            kinds = [f"run.{run or '*'}", f"put.{run or '*'}.*"]
            reader = self._reader(js, [f"*.{kind}" for kind in kinds], self._start(js, after))
        cursor = after
        for batch in self._consumed(js, reader, wait_s):
            cursor = batch[-1].cursor if batch else cursor
            yield batch
        if cursor is not None and wait_s and run is None:
            self._kept = (cursor, reader)

    def _in_order(self, js: "JetStreamContext", run: str) -> Iterator[list[Shelved]]:
        """Yield the pages of one run, with each replacement at the position of its erased page.

        If a shipper was killed before it deleted the old page, the stream has both, and this yields both.
        """
        put: dict[tuple[str, int], list[Shelved]] = {}
        for batch in self._consumed(js, self._reader(js, [f"*.put.{run}.*"], 1), 0):
            for got in batch:
                put.setdefault((got.source, got.page.first), []).append(got)
        follows: dict[str, int] = {}

        def fill(source: str) -> Iterator[Shelved]:
            while (found := put.pop((source, follows.get(source, 0)), None)) is not None:
                follows[source] = max(follows.get(source, 0), found[-1].page.last + 1)
                yield from found

        for batch in self._consumed(js, self._reader(js, [f"*.run.{run}"], 1), 0):
            pages: list[Shelved] = []
            for got in batch:
                pages += fill(got.source)
                follows[got.source] = max(follows.get(got.source, 0), got.page.last + 1)
                pages.append(got)
            yield pages
        for source in sorted({source for source, _ in put}):
            yield list(fill(source))
        if put:  # behind a gap
            yield [got for _, found in sorted(put.items()) for got in found]

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

    def _reader(self, js: "JetStreamContext", kinds: list[str], start: int, *, headers_only: bool = False) -> "_Consumer":
        """Create a consumer of the messages of some kinds, from a sequence on."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start, ack_policy=AckPolicy.NONE,
            replay_policy=ReplayPolicy.INSTANT, filter_subjects=[f"retold.{self._log}.{kind}" for kind in kinds],
            mem_storage=True, inactive_threshold=60, num_replicas=1, headers_only=headers_only or None,
        )  # fmt: skip
        epoch = self._link.epoch
        subscription = self._ask(js.pull_subscribe("", stream=self._stream, config=config))
        return _Consumer(subscription, self._ask(subscription.consumer_info()).num_pending or 0, epoch, time.monotonic())

    def _fetched(self, reader: "_Consumer", wait_s: float) -> Iterator[list[Any]]:
        """Yield messages until none is pending and none arrives for `wait_s` seconds. Drop the consumer after an error."""
        try:
            while reader.pending or wait_s:
                fetch_s = ANSWER_S if reader.pending else wait_s
                try:
                    messages = self._ask(_fetch(reader.subscription, fetch_s), fetch_s)
                except _Nothing:
                    if reader.pending:
                        raise Unreachable(f"{self.name} sends no pages, though it has {reader.pending}.") from None
                    return
                reader.pending = messages[-1].metadata.num_pending
                yield messages
        except BaseException:
            self._let_go(reader)
            raise
        if not wait_s:
            self._let_go(reader)

    def _let_go(self, reader: "_Consumer") -> None:
        with contextlib.suppress(ShelfError):
            self._ask(reader.subscription.unsubscribe())

    def _consumed(self, js: "JetStreamContext", reader: "_Consumer", wait_s: float) -> Iterator[list[Shelved]]:
        for messages in self._fetched(reader, wait_s):
            yield [shelved for message in messages if (shelved := self._shelved(js, message)) is not None]

    def _shelved(self, js: "JetStreamContext", message: Any) -> Shelved | None:
        page = self._page(js, message.subject, message.headers or {}, message.data)
        if page is None:
            return None
        cursor = f"{self._link.created}|{message.metadata.sequence.stream}|{page.hash.hex()}"
        return Shelved(cursor, message.subject.split(".")[2], page)

    def _page(self, js: "JetStreamContext", subject: str, headers: dict[str, str], body: bytes) -> Page | None:
        """Return the page of a message, joined from its parts. Return None if a part is missing."""
        _, log, source, _, run, *_ = subject.split(".")
        header = _header_of(headers)
        if header is None:
            return Page(run, 0, 0, bytes(32), b"")  # it has no events, so the receiver names its run
        parts = []
        for number in range(header.parts):
            part = self._direct(js, f"retold.{log}.{source}.part.{run}.{header.first}.{number}")
            if part is None:
                return None  # erased; the page in its place follows
            parts.append(part.data or b"")
        return Page(run, header.first, header.last, header.hash, b"".join(parts) or body)

    # Erasing

    def replace(self, page: Page) -> None:
        """Publish the new page, then delete the parts of the old page and the old page, securely.

        If the shipper is killed between the two, the next shipper finds both pages, and replaces again.
        """
        js = self._link.js()
        old = self._sequences(js, f"part.{page.run}.{page.first}.*", f"put.{page.run}.{page.first}")
        old += [
            int(got.cursor.split("|")[1])
            for batch in self._in_order(js, page.run)
            for got in batch
            if got.source == self.source and got.page.first == page.first
        ]
        self._publish(js, self._subject("put", page.run, page.first), page, _headers(page))
        for seq in dict.fromkeys(old):
            self._delete(js, seq)

    def _sequences(self, js: "JetStreamContext", *kinds: str) -> list[int]:
        """Return the sequences of all messages of this source under some subjects."""
        reader = self._reader(js, [f"{self.source}.{kind}" for kind in kinds], 1, headers_only=True)
        return [message.metadata.sequence.stream for messages in self._fetched(reader, 0) for message in messages]

    def _delete(self, js: "JetStreamContext", seq: int) -> None:
        """Delete a message securely, unless another shipper of this log has deleted it."""
        from nats.js.errors import APIError

        async def delete() -> None:
            try:
                await js.delete_msg(self._stream, seq)
            except APIError as error:
                if error.err_code not in _NO_MESSAGE:
                    raise

        self._ask(delete())

    def drop(self, run: str) -> None:
        """Delete all messages of the run securely, one by one, because a purge leaves the bytes on the disk."""
        js = self._link.js()
        for seq in self._sequences(js, f"part.{run}.>", f"put.{run}.*", f"run.{run}"):
            self._delete(js, seq)

    # Reports

    def report(self, key: str, text: bytes) -> None:
        """Put the text under the key of the bucket."""
        self._reports.put(key, text)

    def reports(self) -> dict[str, bytes]:
        """Return the newest text under each key of the bucket."""
        return self._reports.all()

    def has_read(self, cursor: str, run: str) -> bool:
        """Return whether a reader with this cursor has read every page of a run of this source."""
        js = self._link.js()
        start, last = self._start(js, cursor), self._direct(js, self._subject("run", run))
        return last is not None and (last.seq or 0) < start

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


@dataclass
class _Consumer:
    """A consumer: the number of messages that wait for it, the connection's epoch, and the time of its creation."""

    subscription: Any
    pending: int
    epoch: int
    made_s: float

    def is_good(self, epoch: int) -> bool:
        return self.epoch == epoch and time.monotonic() < self.made_s + KEEP_READER_S


class _Nothing(ShelfError):
    """A fetch ended without a message."""


async def _fetch(subscription: Any, wait_s: float) -> list[Any]:
    import nats.errors

    try:
        messages: list[Any] = await subscription.fetch(BATCH, timeout=wait_s)
    except (nats.errors.TimeoutError, TimeoutError):
        raise _Nothing("no page came.") from None
    if not messages:  # the client got a status instead of a message when its time was over
        raise _Nothing("no page came.")
    return messages


class _PageHeader(NamedTuple):
    """The parsed headers of a page."""

    first: int
    last: int
    hash: bytes
    parts: int


def _headers(page: Page) -> dict[str, str]:
    return {"Retold-First": str(page.first), "Retold-Last": str(page.last), "Retold-Hash": page.hash.hex()}


def _header_of(headers: Mapping[str, str] | None) -> _PageHeader | None:
    """Parse the headers of a page. Return None if retold cannot have written them."""
    try:
        first, last, own = (str((headers or {})[f"Retold-{name}"]) for name in ("First", "Last", "Hash"))
        return _PageHeader(int(first), int(last), bytes.fromhex(own), int((headers or {}).get("Retold-Parts", 0)))
    except (KeyError, ValueError):
        return None
