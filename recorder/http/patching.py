"""The patches that ask an interceptor about each request, and the rule that finds the interceptor.

httpx2 and httpx clients are patched where they choose a transport (`Client._transport_for_url`), so every transport class,
mount and subclass is covered, and cookies, redirects and logging remain the library's own. aiohttp sessions are patched at
`ClientSession._request`. A transport that a test uses as a fake (mock, ASGI, WSGI) reaches no network and is left alone.

`intercepted` puts an interceptor into the current context; tasks, threads and executors inherit it. A `Block` that is opened
for the whole process also answers for contexts that inherited none (`find`).
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from ..errors import BlockedError, MissError
from .recognition import LIBRARIES, REFUSED_HEADER, Outgoing, is_api
from .sdk_errors import for_sdk, prepare_sdk

Send = Callable[[Any], Any]
SendAsync = Callable[[Any], Awaitable[Any]]

__tracebackhide__ = True
"""pytest hides these frames, so an error that passes through looks as it would without retold."""

_FAKES = frozenset({"MockTransport", "ASGITransport", "WSGITransport", "_TestClientTransport", "ReplayTransport"})


class Interceptor(Protocol):
    """Decides for a request: record it, answer it from a recording, or send it."""

    def handle(self, request: Any, send: Send) -> Any:
        """Return the response to a request of a sync client; `send` sends it."""

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        """Return the response to a request of an async client."""


class Led(NamedTuple):
    """The address of a block's door for one request, with the headers that the door needs."""

    url: str
    headers: dict[str, str]


Lead = Callable[[Outgoing], Led | None]
"""Return the door for a request, None to send it unchanged. Raises BlockedError."""


class Block:
    """An interceptor while it is in use.

    only_replays  whether nothing can be recorded: then requests of other contexts are not sent either
    everywhere    whether contexts without a block of their own belong to this one
    covers        whether the block records or plays a request
    lead          the door for clients that cannot be answered in process (aiohttp)
    """

    def __init__(
        self, interceptor: Interceptor, *, only_replays: bool = False, everywhere: bool = False,
        covers: Callable[[Outgoing], bool] = is_api, lead: Lead | None = None,
    ) -> None:  # fmt: skip
        self.interceptor = interceptor
        self.only_replays = only_replays
        self.everywhere = everywhere
        self.covers = covers
        self.lead = lead
        self.is_open = True

    def __repr__(self) -> str:
        return f"<Block {self.interceptor!r} {'open' if self.is_open else 'closed'}>"

    def open(self) -> None:
        """Decide for all contexts of the process without a block of their own."""
        install()
        _open.append(self)

    def close(self) -> None:
        """Stop deciding, in every context."""
        self.is_open = False
        with contextlib.suppress(ValueError):
            _open.remove(self)

    def enter(self) -> None:
        """Put the block in front of the current context's blocks."""
        _blocks.set((self, *_blocks.get()))

    def leave(self) -> None:
        """Remove the block from the current context, which may differ from the one of `enter`, and drop closed blocks."""
        _blocks.set(tuple(block for block in _blocks.get() if block is not self and block.is_open))


_blocks: ContextVar[tuple[Block, ...]] = ContextVar("retold_blocks", default=())
"""The blocks of this context, innermost first."""

_is_lent: ContextVar[bool] = ContextVar("retold_is_lent", default=False)
"""Whether the context is that of a thread, which may outlive the block that started it and serve the next one."""

_sending: ContextVar[bool] = ContextVar("retold_sending", default=False)
"""Whether an interceptor has decided about the request that is being sent."""

_open: list[Block] = []
_outside: list[Callable[[Outgoing], None]] = []


@contextlib.contextmanager
def intercepted(interceptor: Interceptor) -> Iterator[None]:
    """Hand every request of this context to `interceptor`; tasks, threads and copied contexts inherit it."""
    install()
    block = Block(interceptor)
    block.enter()
    try:
        yield
    finally:
        block.is_open = False
        block.leave()


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Mark this context as sending a request that an interceptor has decided about. It is not refused or recorded again."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


def is_sending() -> bool:
    """Return whether this context is inside `sending`."""
    return _sending.get()


@contextlib.contextmanager
def watched(note: Callable[[Outgoing], None]) -> Iterator[None]:
    """Call `note` with every API request that no block covers; it may raise an error to refuse it."""
    _outside.append(note)
    try:
        yield
    finally:
        _outside.remove(note)


def current() -> Interceptor | None:
    """Return the interceptor of this context, else that of a block for every context, else None."""
    block = block_here()
    return None if block is None else block.interceptor


def block_here() -> Block | None:
    """Return the innermost open block of this context, else the newest block for every context, else None."""
    for block in _blocks.get():
        if block.is_open:
            return block
    return next((block for block in reversed(_open) if block.everywhere), None)


def open_blocks() -> tuple[Block, ...]:
    """Return the blocks that are open for the whole process, oldest first."""
    return tuple(_open)


def find(asked: Outgoing, *, watches: bool = True) -> Block | None:
    """Return the block that decides about a request, or None to send it. Raises BlockedError.

    `watches` reports a request that no block covers to `watched`.

    1. The innermost open block of the context decides.
    2. A task or a piece of work that outlived its block gets an error from that block.
    3. Otherwise the newest block for every context decides (pytest's).
    4. Otherwise, if one block is open in the process, it decides, if it only replays or if the context is that of a thread
       which an earlier block started.
    5. Otherwise, if a block is open that only replays, an API request is refused.
    """
    blocks = _blocks.get()
    for block in blocks:
        if block.is_open:
            return block  # 1
    if blocks and not _is_lent.get():
        return blocks[0]  # 2
    for block in reversed(_open):
        if block.everywhere:
            return block  # 3
    if len(_open) == 1 and (_open[0].only_replays or blocks):
        return _open[0]  # 4
    if any(block.only_replays for block in _open) and any(block.covers(asked) for block in _open):
        names = ", ".join(sorted(str(getattr(block.interceptor, "source", "?")) for block in _open))
        text = (
            f"{asked} was refused: several cassettes are in use ({names}), and this request was made in a context that "
            "belongs to none of them. Enter a cassette in the thread or task that makes the request."
        )
        raise for_sdk(BlockedError(text))  # 5
    if blocks:
        return blocks[0]  # 2, for a thread that no later block has adopted
    if watches and _outside and is_api(asked):
        _outside[-1](asked)
    return None


# httpx2 and httpx


class _Way:
    """Replaces the transport that a client chose, and asks the interceptor first."""

    def __init__(self, client: Any, choose: Callable[[Any, Any], Any], transport: Any) -> None:
        self._client = client
        self._choose = choose
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def handle_request(self, request: Any) -> Any:
        block = find(_outgoing(request))
        if block is None:
            return self._transport.handle_request(request)
        return block.interceptor.handle(request, self._send)

    async def handle_async_request(self, request: Any) -> Any:
        block = find(_outgoing(request))
        if block is None:
            return await self._transport.handle_async_request(request)
        return await block.interceptor.handle_async(request, self._send_async)

    def _send(self, request: Any) -> Any:
        with sending():
            return self._choose(self._client, request.url).handle_request(request)

    async def _send_async(self, request: Any) -> Any:
        with sending():
            return await self._choose(self._client, request.url).handle_async_request(request)


def _outgoing(request: Any) -> Outgoing:
    return Outgoing(request.method, str(request.url), request.headers, getattr(request, "_content", None))


def _patch_client(kind: Any) -> None:
    # The choice of a transport is patched, not `send`: redirects, cookies, authentication and event hooks stay the library's.
    choose = kind._transport_for_url
    if getattr(choose, "_retold", False):
        return

    @functools.wraps(choose)
    def transport_for_url(self: Any, url: Any) -> Any:
        transport = choose(self, url)
        # A request that an interceptor sends must not be intercepted again, and a fake reaches no network.
        if _sending.get() or any(base.__name__ in _FAKES for base in type(transport).__mro__):
            return transport
        return _Way(self, choose, transport)

    transport_for_url._retold = True  # type: ignore[attr-defined] # a mark of ours on another library's function
    kind._transport_for_url = transport_for_url


# aiohttp

_OF_THE_WAY = ("ssl", "verify_ssl", "ssl_context", "fingerprint", "server_hostname", "proxy", "proxy_auth", "proxy_headers")
"""Options of an aiohttp request that describe the connection to the API; the door is a plain one on this machine."""


def _patch_session(aiohttp: Any) -> None:
    send = aiohttp.ClientSession._request
    if getattr(send, "_retold", False):
        return

    @functools.wraps(send)
    async def request(self: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        if _sending.get():
            return await send(self, method, str_or_url, **options)
        # As aiohttp itself builds them, so that the base URL and the session's headers count.
        url, headers = self._build_url(str_or_url), self._prepare_headers(options.get("headers"))
        asked = Outgoing(method.upper(), str(url), headers, _body_of(options))
        block = find(asked)
        led = None if block is None or block.lead is None else block.lead(asked)
        if led is None:
            return await send(self, method, str_or_url, **options)
        headers.update(led.headers)
        options = {name: value for name, value in options.items() if name not in _OF_THE_WAY}
        # `encoded`: the door gets the path as it was, because a replay matches it.
        response = await send(self, method, type(url)(led.url, encoded=True), **{**options, "headers": headers})
        if REFUSED_HEADER in response.headers:
            raise miss_of(await response.read())
        return response

    request._retold = True  # type: ignore[attr-defined]
    aiohttp.ClientSession._request = request


def _body_of(options: dict[str, Any]) -> bytes | None:
    """Return the body's bytes, as far as recognition needs them."""
    data = options.get("data")
    if isinstance(options.get("json"), dict):
        return b'"anthropic_version"' if "anthropic_version" in options["json"] else None
    if isinstance(data, str):
        return data.encode()
    return data if isinstance(data, bytes) else None


def miss_of(refusal: bytes) -> BaseException:
    """Return the miss in a door's answer, in a form that SDKs do not retry."""
    return for_sdk(MissError(json.loads(refusal)["error"]["message"].removeprefix("retold: ")))


# Threads, and all of it


def _patch_threads() -> None:
    """Let threads and executors inherit the blocks of the code that starts them, as tasks and `to_thread` already do."""
    if getattr(threading.Thread.start, "_retold", False):
        return
    start: Any = threading.Thread.start
    submit: Any = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def start_inheriting(self: threading.Thread) -> None:
        if _blocks.get() or _sending.get():
            self.run = _inheriting(self.run, lent=True)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)
    def submit_inheriting(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        # Another block may have started the worker, so each piece of work carries its own.
        return submit(self, _inheriting(fn, lent=_is_lent.get()), *args, **kwargs)

    start_inheriting._retold = True  # type: ignore[attr-defined]
    threading.Thread.start = start_inheriting  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_inheriting  # type: ignore[method-assign, assignment]


def _inheriting(work: Callable[..., Any], *, lent: bool) -> Callable[..., Any]:
    own: list[tuple[ContextVar[Any], Any]] = [(_blocks, _blocks.get()), (_sending, _sending.get()), (_is_lent, lent)]

    @functools.wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        tokens = [(variable, variable.set(value)) for variable, value in own]
        try:
            return work(*args, **kwargs)
        finally:
            for variable, token in tokens:
                variable.reset(token)

    return run


def install(*, imports: bool = True) -> None:
    """Patch every HTTP library that is installed; with `imports` false only those imported already. Idempotent."""
    _patch_threads()
    prepare_sdk(imports=imports)
    for name in LIBRARIES:
        if name in sys.modules or (imports and importlib.util.find_spec(name) is not None):
            library = importlib.import_module(name)
            _patch_client(library.Client)
            _patch_client(library.AsyncClient)
    after_import("aiohttp", _patch_session)


def after_import(name: str, patch: Callable[[Any], None]) -> None:
    """Patch a module now if it is imported, else when it is imported. `patch` may be called more than once for a module.

    Importing aiohttp here would take half a second even if it is not used.
    """
    if name in sys.modules:
        patch(sys.modules[name])
    elif not any(isinstance(finder, _AfterImport) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(name, patch))


class _AfterImport:
    """Patches a module when it is imported."""

    def __init__(self, name: str, patch: Callable[[Any], None]) -> None:
        self.name = name
        self._patch = patch

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002 - the protocol of a finder
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                self._patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
