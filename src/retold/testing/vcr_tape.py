"""vcrpy's own cassette around a test, with retold's interceptor above it for httpx and httpx2.

vcrpy answers the libraries that retold does not patch (requests, urllib3, urllib, aiohttp, boto3, …); retold answers httpx and
httpx2, because vcrpy would join their streams. Both have the same recorded exchanges, and one of the two writes the file:

1. The suite uses vcrpy's own files. retold reads and writes them; an exchange that vcrpy records is recorded into the log too.
2. The suite has taught vcrpy to read or write in its own way (a persister, a serializer, hooks on loading and saving). vcrpy
   reads and writes; exchanges that retold records are appended to its cassette.
"""

import contextlib
import copy
import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ..recorder.cassette.entry import to_exchange
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.http.exchange import Exchange, Headers, Request
from .session import CassetteSession
from .use import Use
from .used import UsedCassette

OWN_SERIALIZERS = ("yaml", "json")

TAUGHT = ("filter_sensitive_data", "before_save_interaction", "after_load_interaction", "drop_unused_requests")
"""Options of newer vcrpy releases that change a file as it is loaded or saved."""

_HTTPX_METHODS = (
    ("Client", "_send_single_request"),
    ("AsyncClient", "_send_single_request"),
    ("HTTPTransport", "handle_request"),
    ("AsyncHTTPTransport", "handle_async_request"),
)

Keep = Callable[[list[Exchange]], None]
Make = Callable[[list[Exchange] | None, Keep | None], Use]


class SharedFile:
    """A persister that gives vcrpy the exchanges that retold has read, and saves nothing: retold writes the file."""

    def __init__(self) -> None:
        self.used: CassetteSession | None = None

    def load_cassette(self, path: str, serializer: Any) -> tuple[list[Any], list[Any]]:  # noqa: ARG002 - vcrpy's protocol
        """Return requests and responses. Raise vcrpy's CassetteNotFoundError if there is no recording yet."""
        from vcr.persisters.filesystem import CassetteNotFoundError

        if self.used is None or not self.used.replayable:
            raise CassetteNotFoundError
        pairs = [to_pair(exchange) for exchange in self.used.replayable]
        return [request for request, _ in pairs], [response for _, response in pairs]

    @staticmethod
    def save_cassette(path: str, cassette_dict: dict[str, Any], serializer: Any) -> None:
        """Save nothing."""


class VcrUse:
    """vcrpy's cassette `theirs` (a context manager) and retold's use of the same file, as one context manager.

    `make` returns retold's use. Its arguments are None if retold reads and writes the file (`shared` is vcrpy's persister then);
    else they are the exchanges that vcrpy has loaded, or None if there is no file yet, and a function that takes the exchanges
    that retold has recorded.
    """

    def __init__(self, theirs: Any, make: Make, *, shared: SharedFile | None) -> None:
        self._context = theirs
        self._make = make
        self._shared = shared
        self._using: Use | None = None
        self.theirs: Any = None
        self.joined: JoinedCassette | None = None

    def __enter__(self) -> UsedCassette:
        with contextlib.ExitStack() as entered:
            if self._shared is not None:
                self._using = self._make(None, None)
                entered.enter_context(self._using)
                self._shared.used = used = self._using.session
                self.theirs = entered.enter_context(self._context)
                _record_in(self.theirs, used)
            else:
                self.theirs = entered.enter_context(self._context)
                loaded = [to_exchange(to_entry(*pair)) for pair in self.theirs.data]
                self._using = self._make(loaded if loaded or self.theirs.rewound else None, self._keep)
                entered.enter_context(self._using)
                used = self._using.session
            _count_in(self.theirs, used)
            self.joined = JoinedCassette(self.theirs, used, is_shared=self._shared is not None)
            entered.pop_all()
        return used

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._using is not None
        try:
            self._using.__exit__(kind, error, trace)
        finally:
            if error is not None:  # a failed test never replaces a good cassette
                self.theirs.dirty = False
            self._context.__exit__(None, None, None)

    def _keep(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.response is not None:
                self.theirs.append(*to_pair(exchange))


def use_both(
    vcr: Any, path: Path, config: dict[str, Any], mode: str, *, make: Callable[..., Use],
    also: Sequence[Path] = (), is_taught: bool = False,
) -> VcrUse:  # fmt: skip
    """Return both uses of the cassette at `path`: vcrpy's by `vcr` and `config`, and the one that `make` returns.

    `make` gets vcrpy's merged configuration, the record mode, and settings by name. `is_taught` if the suite has given `vcr` a
    persister.
    """
    merged = vcr.get_merged_config(**config)
    is_shared = (
        not is_taught
        and config.get("serializer", vcr.serializer) in OWN_SERIALIZERS
        and not any(merged.get(option) for option in TAUGHT)
    )
    shared = SharedFile()
    persister: Any = shared
    if not is_shared:
        own = vcr.persister if is_taught else OwnFiles(also)
        persister = Rewriting(own) if mode == "rewrite" else own
    theirs = vcr.use_cassette(
        str(path),
        **config | {
            "persister": persister,
            "path_transformer": lambda path: path,
            "custom_patches": (*config.get("custom_patches", ()), *real_httpx()),
            "record_mode": "new_episodes" if mode == "rewrite" else mode,
        },
    )  # fmt: skip

    def making(loaded: list[Exchange] | None, keep: Keep | None) -> Use:
        return make(merged, mode, leads=False, **({} if is_shared else {"recorded": loaded, "keep": keep}))

    return VcrUse(theirs, making, shared=shared if is_shared else None)


class JoinedCassette:
    """The `vcr` fixture: vcrpy's Cassette with the counts and interactions of both. Further names are those of UsedCassette."""

    def __init__(self, theirs: Any, used: CassetteSession, *, is_shared: bool) -> None:
        self._theirs = theirs
        self._used = used
        self._is_shared = is_shared
        self._loaded = len(theirs.data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs if hasattr(self._theirs, name) else self._used, name)

    def __repr__(self) -> str:
        return f"<JoinedCassette {self._used.source} {self.play_count} of {len(self)} played>"

    @property
    def play_counts(self) -> "Counter[int]":
        """How often each interaction was played, by its number."""
        numbers = {id(exchange): number for number, exchange in enumerate(self._used.replayable)}
        return Counter(numbers[id(exchange)] for exchange in self._used.played)

    @property
    def play_count(self) -> int:
        """How many responses were played."""
        return sum(self.play_counts.values())

    @property
    def all_played(self) -> bool:
        """Whether every recorded response was played."""
        return set(self.play_counts) >= set(range(self._loaded))

    @property
    def data(self) -> list[tuple[Any, Any]]:
        """Requests and responses, those that retold has just recorded included."""
        used = self._used
        recorded = [] if used.log is None or used.run is None else [to_pair(each) for each in exchanges_of(used.log, used.run)]
        # With a shared file, an exchange that vcrpy has recorded is in retold's run too.
        return [*(self._theirs.data[: self._loaded] if self._is_shared else self._theirs.data), *recorded]

    @property
    def requests(self) -> list[Any]:
        """The requests, as vcrpy has them: `method`, `path`, `host`, `headers`, `body`."""
        return [request for request, _ in self.data]

    @property
    def responses(self) -> list[Any]:
        """The responses, as vcrpy has them: mappings with `status`, `headers`, `body`."""
        return [response for _, response in self.data]

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, request: Any) -> bool:
        return request in self._theirs


def real_httpx() -> tuple[tuple[Any, str, Any], ...]:
    """Return patches for vcrpy that leave httpx and httpx2 to retold: applied last, they undo vcrpy's own.

    vcrpy before 8 patches the clients, later ones the transports. Transports that a test uses as fakes stay vcrpy's.
    """
    libraries = [importlib.import_module(name) for name in ("httpx", "httpx2") if find_spec(name) is not None]
    places = [(getattr(library, kind), name) for library in libraries for kind, name in _HTTPX_METHODS]
    return tuple((kind, name, getattr(kind, name)) for kind, name in places)


def _record_in(theirs: Any, used: CassetteSession) -> None:
    """Record into retold's run every exchange that vcrpy appends to its cassette."""
    append = theirs.append

    def append_and_record(request: Any, response: Any) -> None:
        append(request, response)
        exchange = to_exchange(to_entry(request, response))
        if exchange.response is not None and used.records(exchange.request):
            capture = used.begin(exchange.request)
            capture.response(exchange.response.status, exchange.response.reason, exchange.response.headers)
            capture.data(exchange.response.body)
            capture.end("complete")

    theirs.append = append_and_record


def _count_in(theirs: Any, used: CassetteSession) -> None:
    """Count in retold's use every exchange that vcrpy plays."""
    play = theirs.play_response

    def play_and_count(request: Any) -> Any:
        before = Counter(theirs.play_counts)
        response = play(request)
        for number in theirs.play_counts - before:
            if number < len(used.replayable):
                used.note_played(used.replayable[number])
        return response

    theirs.play_response = play_and_count


class OwnFiles:
    """A persister of vcrpy's own files for suites with hooks on loading and saving: the test's file and further ones."""

    def __init__(self, also: Sequence[Path]) -> None:
        self._also = also

    def load_cassette(self, path: str, serializer: Any) -> tuple[list[Any], list[Any]]:
        """Return requests and responses of all files. Raise vcrpy's CassetteNotFoundError if there is none."""
        from vcr.persisters.filesystem import CassetteNotFoundError, FilesystemPersister

        found = []
        for each in (path, *map(str, self._also)):
            with contextlib.suppress(CassetteNotFoundError):
                found.append(FilesystemPersister.load_cassette(each, serializer))
        if not found:
            raise CassetteNotFoundError
        return [each for requests, *_ in found for each in requests], [each for _, responses, *_ in found for each in responses]

    @staticmethod
    def save_cassette(path: str, cassette_dict: dict[str, Any], serializer: Any) -> None:
        """Save as vcrpy does."""
        from vcr.persisters.filesystem import FilesystemPersister

        FilesystemPersister.save_cassette(path, cassette_dict, serializer)


class Rewriting:
    """A persister that loads nothing and saves as another one does: the mode `rewrite`, without a file removed first."""

    def __init__(self, persister: Any) -> None:
        self.save_cassette = persister.save_cassette

    def load_cassette(self, path: str, serializer: Any) -> Any:  # noqa: ARG002 - vcrpy's protocol
        """Raise vcrpy's CassetteNotFoundError."""
        from vcr.persisters.filesystem import CassetteNotFoundError

        raise CassetteNotFoundError


def to_pair(exchange: Exchange) -> tuple[Any, dict[str, Any]]:
    """Return an exchange as vcrpy has it: a Request, and a response with `status`, `headers` and `body`."""
    response = exchange.response
    headers: dict[str, list[str]] = {}
    for name, value in () if response is None else response.headers:
        headers.setdefault(name, []).append(value)
    return to_vcr(exchange.request), {
        "status": {
            "code": 0 if response is None else response.status,
            "message": "" if response is None else response.reason,
        },
        "headers": headers,
        "body": {"string": b"" if response is None else response.body},
    }


def to_vcr(request: Request) -> Any:
    """Return a request as vcrpy has it; several values of a header are joined by commas."""
    from vcr.request import Request as VcrRequest

    return VcrRequest(request.method, request.uri, request.body, joined(request.headers))


def joined(headers: Headers) -> dict[str, str]:
    """Return headers as a mapping; several values of one name are joined by commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def to_entry(request: Any, response: Any) -> dict[str, Any]:
    """Return vcrpy's request and response as an interaction of a cassette."""
    recorded = copy.copy(response) if isinstance(response, dict) else response
    body = request.body
    if hasattr(body, "read"):
        body = body.read()
    elif isinstance(body, Iterator):
        body = b"".join(body)
    described = {"method": request.method, "uri": request.uri, "headers": dict(request.headers), "body": body}
    return {"request": described, "response": recorded}
