"""A shelf on NATS JetStream: `retold[nats]`, nats-server 2.11 or newer.

The stream `retold-LOG` has these subjects:

    retold.LOG.SOURCE.run.RUN               the pages of a run; the last one says how far the run is there
    retold.LOG.SOURCE.part.RUN.FIRST.N      the parts of a page that is larger than one message may be
    retold.LOG.SOURCE.put.RUN.FIRST         the page that stands in the place of an erased one

A page is published on the condition that its subject's last message is the one that the shipper saw. Servers were seen to break
that condition, and to lose what they acknowledged, so the receiver checks every number and hash by itself.

Readers are pull consumers: a push consumer with a slow reader dropped 59 of 100 pages.
"""

import asyncio
import contextlib
import json
import os
import re
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..recorder.errors import InputError, ShelfError
from ..recorder.http.guard import is_loopback
from .pages import Page
from .shelf import Full, PageConflict, Position, Refused, Shelved, Unreachable, check_follows

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import RawStreamMsg

OLDEST_SERVER = (2, 11)
PART_BYTES = 512 * 1024
BATCH = 64
"""Pages that a reader asks for at once."""

ANSWER_S = 5.0
"""Seconds after which a server that does not answer is unreachable."""

_WRONG_SEQUENCE = 10071
_NO_ROOM = (10023, 10047, 10077)  # resources, storage, the stream's own limit of messages or bytes
_NAME = re.compile(r"[0-9A-Za-z_-]{1,120}")
_Answer = TypeVar("_Answer")


class JetStreamShelf:
    """The pages in a JetStream stream. It connects at its first use. Raises ShelfError.

    `servers` are addresses `nats://HOST:PORT` or `tls://HOST:PORT`. Plain `nats://` is for this machine only. `credentials` is a
    file that `nsc` makes (a JWT and its key), `ca` a file of certificates.
    """

    def __init__(
        self, servers: Sequence[str], log: str, *, source: str, credentials: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self._servers = [_checked_server(server) for server in servers]
        for part in (log, source):
            if not _NAME.fullmatch(part):
                raise InputError(f"{part!r} is no name for a part of a shelf: use letters, digits, _ and -.")
        self.name = f"{','.join(self._servers)}/{log}"
        self.source = source
        self._log = log
        self._stream = f"retold-{log}"
        self._credentials = None if credentials is None else os.fspath(credentials)
        self._ca = None if ca is None else os.fspath(ca)
        self._loop = _Loop()
        self._connecting = threading.Lock()
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._created = ""
        self._denied: str | None = None

    # Connecting

    def _context(self) -> "JetStreamContext":
        """Return the connection's JetStream, after a look at the server and the stream."""
        with self._connecting:
            if self._js is None:
                self._js = self._ask(self._connect())
            return self._js

    async def _connect(self) -> "JetStreamContext":
        try:
            import nats
        except ModuleNotFoundError as error:
            raise InputError("a shelf on NATS needs nats-py: pip install 'retold[nats]'.") from error
        options: dict[str, Any] = {}
        if any(server.startswith("tls:") for server in self._servers):
            options["tls"] = ssl.create_default_context(cafile=self._ca)
        if self._credentials is not None:
            options["user_credentials"] = self._credentials
        if self._client is None:
            self._client = await nats.connect(
                self._servers, error_cb=self._notice, connect_timeout=2, reconnect_time_wait=0.2, max_reconnect_attempts=-1,
                ping_interval=5, max_outstanding_pings=2, allow_reconnect=True, **options,
            )  # fmt: skip
        version = self._client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            raise Refused(f"{self.name} is nats-server {version.major}.{version.minor}; retold needs 2.11 or newer.")
        js = self._client.jetstream(timeout=ANSWER_S)
        await self._check_stream(js)
        # nats-py reads the time of creation since 2.15 only.
        asked = await self._client.request(f"$JS.API.STREAM.INFO.{self._stream}", timeout=ANSWER_S)
        self._created = json.loads(asked.data)["created"]
        return js

    async def _notice(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self._denied = str(error)

    async def _check_stream(self, js: "JetStreamContext") -> None:
        """Make the stream if it is not there. Raises Refused if it would lose pages."""
        from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig
        from nats.js.errors import NotFoundError

        assert self._client is not None
        nodes = 3 if len(self._client.servers) >= 3 else 1
        try:
            info = await js.stream_info(self._stream)
        except NotFoundError:
            config = StreamConfig(
                name=self._stream, subjects=[f"retold.{self._log}.>"], num_replicas=nodes, storage=StorageType.FILE,
                discard=DiscardPolicy.NEW, allow_direct=True, compression=StoreCompression.S2,
            )  # fmt: skip
            info = await js.add_stream(config)
        kept = info.config
        faults = {
            "it is not stored in files": kept.storage != StorageType.FILE,
            "it discards old pages when it is full; set discard to new": kept.discard != DiscardPolicy.NEW,
            "it forgets pages by age; set max_age to 0": bool(kept.max_age),
            "it forgets pages that were read; set retention to limits": kept.retention not in (None, RetentionPolicy.LIMITS),
            "it keeps few pages of a run; set max_msgs_per_subject to -1": kept.max_msgs_per_subject > 0,
            f"it has {kept.num_replicas} replica in a cluster of {nodes}": (kept.num_replicas or 1) < nodes,
            "it does not answer directly; set allow_direct": not kept.allow_direct,
        }
        if wrong := [fault for fault, is_so in faults.items() if is_so]:
            raise Refused(f"the stream {self._stream} of {self.name} would lose pages: {'; '.join(wrong)}.")

    def _ask(self, asking: Coroutine[Any, Any, _Answer], answer_s: float = ANSWER_S) -> _Answer:
        """Run a coroutine on the loop's thread. Raises ShelfError."""
        import nats.errors
        from nats.js.errors import APIError

        self._denied = None
        try:
            return self._loop.run(asking, answer_s + 2)
        except APIError as error:
            if error.err_code == _WRONG_SEQUENCE:
                raise PageConflict(f"{self.name}: another shipper was faster.") from error
            if error.err_code in _NO_ROOM:
                raise Full(f"{self.name} is full: {error.description}.") from error
            if error.code == 503:
                raise Unreachable(f"{self.name} does not answer: {error.description}.") from error
            raise Refused(f"{self.name}: {error.description} (JetStream error {error.err_code}).") from error
        except (nats.errors.AuthorizationError, ssl.SSLError) as error:
            raise Refused(f"{self.name} refuses this credential: {error}.") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            if self._denied is not None:
                raise Refused(f"{self.name}: this credential does not permit it: {self._denied}.") from error
            raise Unreachable(f"{self.name} does not answer: {type(error).__name__} {error}".rstrip() + ".") from error

    # Writing

    def _subject(self, kind: str, *parts: str | int) -> str:
        return ".".join(["retold", self._log, self.source, kind, *map(str, parts)])

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page, be it erased or not."""
        js = self._context()
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
        js = self._context()
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

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[Shelved]:
        """Yield the pages after the cursor, in the order of the stream; those of one run in the order of their events."""
        js = self._context()
        if run is not None and after is None and wait_s == 0:
            yield from self._in_order(js, run)
            return
        kinds = [f"run.{run or '*'}", f"put.{run or '*'}.*"]
        yield from self._consumed(js, kinds, self._start(js, after), wait_s)

    def _in_order(self, js: "JetStreamContext", run: str) -> Iterator[Shelved]:
        """Yield the pages of one run, each page that stands in the place of an erased one at that place."""
        put = {(got.source, got.page.first): got for got in self._consumed(js, [f"put.{run}.*"], 1, 0)}
        follows: dict[str, int] = {}

        def fill(source: str) -> Iterator[Shelved]:
            while (got := put.pop((source, follows.get(source, 0)), None)) is not None:
                follows[source] = got.page.last + 1
                yield got

        for got in self._consumed(js, [f"run.{run}"], 1, 0):
            yield from fill(got.source)
            follows[got.source] = got.page.last + 1
            yield got
        for source in sorted({source for source, _ in put}):
            yield from fill(source)

    def _start(self, js: "JetStreamContext", cursor: str | None) -> int:
        """Return the sequence in the stream at which a reader with this cursor begins: 1 if the cursor does not fit."""
        from nats.js.errors import NotFoundError

        created, seq, own = (cursor or "||").split("|") if (cursor or "||").count("|") == 2 else ("", "", "")
        if created != self._created or not seq.isdecimal():
            return 1

        async def get() -> "RawStreamMsg | None":
            try:
                return await js.get_msg(self._stream, seq=int(seq), direct=True)
            except NotFoundError:
                return None

        found = self._ask(get())
        return int(seq) + 1 if found is not None and (found.headers or {}).get("Retold-Hash") == own else 1

    def _consumed(self, js: "JetStreamContext", kinds: list[str], start: int, wait_s: float) -> Iterator[Shelved]:
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
                for message in messages:
                    pending = message.metadata.num_pending
                    page = self._page(js, message.subject, message.headers or {}, message.data)
                    if page is not None:
                        at = message.metadata.sequence.stream
                        yield Shelved(f"{self._created}|{at}|{page.hash.hex()}", message.subject.split(".")[2], page)
        finally:
            with contextlib.suppress(ShelfError):
                self._ask(reader.unsubscribe())

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
        js = self._context()
        old = [
            int(got.cursor.split("|")[1])
            for got in self._in_order(js, page.run)
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

        js = self._context()

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
        client, self._client, self._js = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):
                self._loop.run(client.close(), ANSWER_S)
        self._loop.close()


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


def _checked_server(server: str) -> str:
    """Return an address without a path. Raises InputError for one with a credential, or without TLS beyond this machine."""
    parts = urlsplit(server)
    if parts.username or parts.password:
        raise InputError("an address of a shelf holds no user or password; name a file of credentials with --credentials.")
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise InputError(f"{server!r} is no address of a NATS server; write nats://HOST:PORT or tls://HOST:PORT.")
    if parts.scheme == "nats" and not is_loopback(parts.hostname):
        raise InputError(f"{server} has no TLS, and is not on this machine; write tls://{parts.netloc}.")
    return f"{parts.scheme}://{parts.netloc}"


class _Loop:
    """A thread with an event loop, for a client that is asynchronous only."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, asking: Coroutine[Any, Any, _Answer], seconds: float) -> _Answer:
        """Run a coroutine in the thread and return its result. Raises TimeoutError, and what the coroutine raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="retold-nats", daemon=True)
                self._thread.start()
        future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped; then end its tasks, and close it."""
    loop.run_forever()
    loop.run_until_complete(_end(asyncio.all_tasks(loop)))
    loop.close()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
