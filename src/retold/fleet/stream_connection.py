"""A connection to NATS JetStream and to the one stream of a shelf, for synchronous callers."""

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..recorder.errors import InputError
from ..recorder.http.guard import is_loopback
from .shelf import Full, PageConflict, Refused, Unreachable

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

OLDEST_SERVER = (2, 11)

ANSWER_S = 5.0
"""Seconds without an answer after which a server is unreachable."""

CONNECT_S = 2
"""Seconds that one server has to accept a connection."""

_ANOTHER_WAS_FASTER = (10071, 10164, 10158)  # the last two while the nodes still agree about the other message
_NO_ROOM = (10023, 10047, 10077)  # resources, storage, the stream's own limit of messages or bytes
_Answer = TypeVar("_Answer")


class StreamConnection:
    """The connection to the stream `retold-LOG`. It connects at its first use.

    `servers`, `credentials`, `ca` and `make` are those of `JetStreamShelf`. Answers come to subjects below `inbox`, so that
    permissions can keep one client from the answers of another. Raises InputError for a wrong address.
    """

    def __init__(
        self, servers: Sequence[str], log: str, *, inbox: str, credentials: str | os.PathLike[str] | None,
        ca: str | os.PathLike[str] | None, make: bool,
    ) -> None:  # fmt: skip
        self._servers = [_checked_server(server) for server in servers]
        self.name = f"{','.join(self._servers)}/{log}"
        self.log = log
        self.stream = f"retold-{log}"
        self.bucket = f"retold-{log}-alive"
        self.created = ""
        self._inbox = inbox
        self.make = make
        self._credentials = None if credentials is None else Path(credentials)
        self._ca = None if ca is None else os.fspath(ca)
        self._loop = _Loop()
        self._connecting = threading.Lock()
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._denied: tuple[float, str] | None = None
        self._deaf: str | None = None
        self.reports_denied: str | None = None
        self._noticed: tuple[float, Exception] | None = None
        self._failed: tuple[float, Unreachable] | None = None
        self.epoch = 0

    def js(self) -> "JetStreamContext":
        """Return the JetStream. The first call, and the first after a failure, connect and check server and stream."""
        asked_s = time.monotonic()
        with self._connecting:
            js = self._js
            if js is None:
                if self._failed is not None and self._failed[0] >= asked_s:
                    raise self._failed[1]  # another thread has just waited for the server
                try:
                    self._js = js = self.ask(self._connect())
                except Unreachable as error:
                    self._failed = (time.monotonic(), error)
                    raise
            return js

    def asynchronous(self) -> "JetStreamContext":
        """Return the JetStream that `js` has looked at, within a coroutine. Raises Unreachable if it was lost since."""
        if self._js is None:
            raise Unreachable(f"{self.name} does not answer: the connection broke.")
        return self._js

    async def _connect(self) -> "JetStreamContext":
        try:
            import nats
        except ModuleNotFoundError as error:
            raise InputError("a shelf on NATS needs nats-py: pip install 'retold[nats]'.") from error
        from nats.js.errors import APIError

        options: dict[str, Any] = {"inbox_prefix": self._inbox}
        if any(server.startswith("tls:") for server in self._servers):
            options["tls"] = ssl.create_default_context(cafile=self._ca)
        if self._credentials is not None:
            # A file that `nsc` makes holds a token and a key; a server without an operator takes a key alone.
            is_key = not self._credentials.read_text("utf-8", "replace").lstrip().startswith("-----BEGIN")
            options["nkeys_seed" if is_key else "user_credentials"] = str(self._credentials)
        if self._client is None:
            connecting = nats.connect(
                self._servers, error_cb=self._notice, reconnected_cb=self._reconnected, connect_timeout=CONNECT_S,
                reconnect_time_wait=0.2, max_reconnect_attempts=-1, ping_interval=5, max_outstanding_pings=2,
                allow_reconnect=True, **options,
            )  # fmt: skip
            # It tries without an end, as it must later, when the connection breaks.
            self._client = await asyncio.wait_for(connecting, CONNECT_S * min(len(self._servers), 3))
        if not self._client.is_connected:  # it has no version then
            raise Unreachable(f"{self.name} does not answer: the connection broke.")
        version = self._client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            raise Refused(f"{self.name} is nats-server {version.major}.{version.minor}; retold needs 2.11 or newer.")
        js = self._client.jetstream(timeout=ANSWER_S)
        info = await self._stream_info()
        if info.get("error", {}).get("code") == 404:
            await self._make_stream(js)
            info = await self._stream_info()
        if "error" in info:
            raise APIError.from_error(info["error"])
        self._check_stream(info["config"])
        self.created = info["created"]  # nats-py reads it since 2.15 only
        return js

    async def _stream_info(self) -> dict[str, Any]:
        assert self._client is not None
        asked = await self._client.request(f"$JS.API.STREAM.INFO.{self.stream}", timeout=ANSWER_S)
        info: dict[str, Any] = json.loads(asked.data)
        return info

    async def _reconnected(self) -> None:
        self.epoch += 1

    async def _notice(self, error: Exception) -> None:
        """Note an error that explains a missing answer, because the NATS client retries for ever without raising it."""
        now_s = time.monotonic()  # several threads ask at once: each looks at the errors since its own question
        self._noticed = now_s, error
        text = str(error).lower()
        if "permissions violation" in text and self.bucket.lower() in text:
            self.reports_denied = str(error)  # no reason to stop shipping
        elif "permissions violation for subscription" in text:
            self._deaf = f"{error}. Is it the right credential for this source?"  # no answer will ever come
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._denied = now_s, f"{error}. Write tls://HOST, and name the authority of its certificate with --ca."
        elif "permissions violation" in text or "authorization" in text:
            self._denied = now_s, f"{error}. Is it the right credential for this source?"

    @property
    def _nodes(self) -> int:
        assert self._client is not None
        return 3 if len(self._client.servers) >= 3 else 1

    async def _make_stream(self, js: "JetStreamContext") -> None:
        from nats.js.api import DiscardPolicy, StorageType, StoreCompression, StreamConfig

        if not self.make:
            raise Refused(f"{self.name} has no stream {self.stream}; the first `retold ship` makes it.")
        config = StreamConfig(
            name=self.stream, subjects=[f"retold.{self.log}.>"], num_replicas=self._nodes, storage=StorageType.FILE,
            discard=DiscardPolicy.NEW, allow_direct=True, compression=StoreCompression.S2,
        )  # fmt: skip
        await js.add_stream(config)
        await self.make_bucket(js)

    async def make_bucket(self, js: "JetStreamContext") -> None:
        """Make the bucket of the reports: a stream that keeps the newest message of each key, with the settings of NATS's own."""
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig

        config = StreamConfig(
            name=f"KV_{self.bucket}", subjects=[f"$KV.{self.bucket}.>"], num_replicas=self._nodes, storage=StorageType.FILE,
            discard=DiscardPolicy.NEW, allow_direct=True, max_msgs_per_subject=1, deny_delete=True, allow_rollup_hdrs=True,
        )  # fmt: skip
        await js.add_stream(config)

    def _check_stream(self, kept: dict[str, Any]) -> None:
        """Raise Refused if the stream's settings can lose pages."""
        faults = {
            "it is not stored in files": kept.get("storage") != "file",
            "it discards old pages when it is full; set discard to new": kept.get("discard") != "new",
            "it forgets pages by age; set max_age to 0": bool(kept.get("max_age")),
            "it forgets pages that were read; set retention to limits": kept.get("retention", "limits") != "limits",
            "it keeps few pages of a run; set max_msgs_per_subject to -1": kept.get("max_msgs_per_subject", -1) > 0,
            "a writer can roll up the pages of others; set allow_rollup_hdrs to false": bool(kept.get("allow_rollup_hdrs")),
            "it acknowledges nothing; set no_ack to false": bool(kept.get("no_ack")),
            f"it has {kept.get('num_replicas', 1)} replica in a cluster of {self._nodes}": kept["num_replicas"] < self._nodes,
            "it does not answer directly; set allow_direct": not kept.get("allow_direct"),
        }
        if wrong := [fault for fault, is_so in faults.items() if is_so]:
            raise Refused(f"the stream {self.stream} of {self.name} would lose pages: {'; '.join(wrong)}.")

    def ask(self, asking: Coroutine[Any, Any, _Answer], answer_s: float = ANSWER_S) -> _Answer:
        """Run a coroutine on the loop's thread. Raises ShelfError."""
        import nats.errors
        from nats.js.errors import APIError

        began_s = time.monotonic()
        try:
            return self._loop.run(asking, answer_s + 2)
        except APIError as error:
            if error.err_code in _ANOTHER_WAS_FASTER:
                raise PageConflict(f"{self.name}: another shipper was faster.") from error
            if error.err_code in _NO_ROOM:
                raise Full(f"{self.name} is full: {error.description}.") from error
            # A consumer that went away with its node, a change of the leader, a node that ends or has not caught up.
            if error.err_code is None or error.code in (404, 408, 409) or (error.code or 0) >= 500:
                raise Unreachable(f"{self.name} does not answer: {error.description}.") from error
            raise Refused(f"{self.name}: {error.description} (JetStream error {error.err_code}).") from error
        except (nats.errors.AuthorizationError, ssl.SSLError) as error:
            raise Refused(f"{self.name} refuses this credential: {error}.") from error
        except CancelledError as error:
            raise Unreachable(f"the connection to {self.name} was closed.") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            self._js = None  # the stream may have been made anew
            denied = self._denied[1] if self._denied is not None and self._denied[0] >= began_s else None
            if refusal := self._deaf or denied:
                raise Refused(f"{self.name} refuses this: {refusal}") from error
            noticed = self._noticed[1] if self._noticed is not None and self._noticed[0] >= began_s else error
            why = noticed if isinstance(error, TimeoutError) else error
            raise Unreachable(f"{self.name} does not answer: {type(why).__name__} {why}".rstrip(" .") + ".") from error

    def close(self) -> None:
        """Close the connection."""
        client, self._client, self._js = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):
                self._loop.run(client.close(), ANSWER_S)
        self._loop.close()


def _checked_server(server: str) -> str:
    """Return the address without a path. Raises InputError if it holds a credential, or lacks TLS beyond this machine."""
    try:
        parts = urlsplit(server)
        parts.port  # noqa: B018  a port that is no number raises
    except ValueError as error:
        raise InputError(f"{server!r} is no address of a NATS server: {error}.") from error
    if parts.username or parts.password:
        raise InputError("an address of a shelf holds no user or password; give a file of credentials instead.")
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise InputError(f"{server!r} is no address of a NATS server; write nats://HOST:PORT or tls://HOST:PORT.")
    if parts.scheme == "nats" and not is_loopback(parts.hostname):
        raise InputError(f"{server} has no TLS, and is not on this machine; write tls://{parts.netloc}.")
    return f"{parts.scheme}://{parts.netloc}"


class _Loop:
    """A thread with an event loop, because the client is asynchronous."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, asking: Coroutine[Any, Any, _Answer], seconds: float) -> _Answer:
        """Run a coroutine in the thread and return its result. Raises TimeoutError, or the error of the coroutine."""
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
    """Run a loop until `stop`, then end its tasks and close it."""
    loop.run_forever()
    loop.run_until_complete(_end(asyncio.all_tasks(loop)))
    loop.close()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
