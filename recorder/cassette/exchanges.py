"""The exchanges of a long cassette, each read when it is first needed.

A damaged interaction raises the CassetteError of a reader of the whole file, with the same place and text, when it is needed. An
outline (where each interaction begins and ends) never guesses: a file that it cannot cut with certainty is read whole.

YAML: the lines of the whole file are checked against the part of YAML that recorders write (block_yaml.py), 3 ms a MB.

JSON: a newline is never inside a string of JSON, so each line that closes a brace in the column of the interactions may end one.
`JsonOutline.entry` reads all entries before the one that is asked for. A text that is a whole value of JSON has one end only, so
if each piece from the beginning on is a whole value, the cuts are those that a parser of the whole file finds.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol, overload

import yaml

from ..http.exchange import Exchange
from .block_yaml import KEY, ODD_BREAKS, CassetteLoader, NotPlain, item_pattern, read_item, read_mapping
from .entry import DAMAGE, to_exchange

Span = tuple[int, int]


class Outline(Protocol):
    """The interactions of a file. `document` is all of the file but these."""

    document: dict[str, Any]

    def __len__(self) -> int: ...

    def entry(self, number: int) -> Any:
        """Return an interaction as the parser of the whole file returns it.

        Raise NotPlain if only that parser can read it, and IndexError.
        """

    def digest(self, number: int) -> bytes | None:
        """Return a digest of the text of an interaction, on which alone its value depends. None if it depends on more."""

    def mentions(self, key: str) -> bool:
        """Return False if no interaction has a key of that name."""


def outline(data: bytes, suffix: str) -> "Outline | None":
    """Return the outline of a cassette, or None for a file that only the parser of the whole file can read."""
    if suffix == ".toml":
        return None
    try:
        return JsonOutline(data) if suffix == ".json" else YamlOutline(data)
    except NotPlain:
        return None


_LIST = re.compile(rb"(?<![^\n])interactions:\n(?=( *)- )")


_AROUND = rf"(?: *{KEY}:(?: [A-Za-z0-9_.+-]+)?\n|#[^\n]*\n|\n)*+"
"""The lines before and after the interactions: keys with a plain value of one word, and comments."""


_SESSIONS = r"(?:sessions:\n(?:(?: |- )[^\n]*\n|\n)*+)?"
"""The sessions after the interactions. They are parsed with the rest of the document."""


_HEAD = re.compile(f"(?:---\n)?{_AROUND}".encode())


_TAIL = re.compile(rf"(?! ){_AROUND}{_SESSIONS}{_AROUND}(?:\.\.\.\n)?".encode())


class YamlOutline:
    """The interactions of a YAML cassette. Raise NotPlain if they cannot be told apart by their lines."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        found = _LIST.search(data)
        if found is None or any(mark[:1] in data and mark in data for mark in ODD_BREAKS):
            raise NotPlain
        self._column = len(found[1])
        pattern = item_pattern(self._column)
        at = found.end()
        self._spans: list[Span] = []
        # Each item ends where the next one begins, or at the end of the list.
        while (item := pattern.match(data, at)) is not None:
            at = item.end()
            self._spans.append(item.span())
        head, tail = data[: found.start()], data[at:]
        if _HEAD.fullmatch(head) is None or _TAIL.fullmatch(tail) is None:
            raise NotPlain
        self.document = _rest(lambda: _around(head, tail), head + tail)

    def __len__(self) -> int:
        return len(self._spans)

    def digest(self, number: int) -> bytes | None:
        start, end = self._spans[number]
        return sha256(self._data[start:end]).digest()

    def mentions(self, key: str) -> bool:
        return f" {key}:".encode() in self._data

    def entry(self, number: int) -> Any:
        text = self._text(number)
        try:
            return read_item(text)
        except NotPlain:
            return self._parsed(text)

    def _text(self, number: int) -> str:
        start, end = self._spans[number]
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError as error:
            raise NotPlain from error

    def _parsed(self, text: str) -> Any:
        try:
            (entry,) = yaml.load("interactions:\n" + text, Loader=CassetteLoader)["interactions"]
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise NotPlain from error
        return entry


_LIST_OF_JSON = re.compile(rb'"interactions": \[\n( *)(?=\{\n)')


class JsonOutline:
    """The interactions of an indented JSON cassette. Raise NotPlain if the file is not indented.

    The number of interactions is certain as soon as the last one was read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        found = _LIST_OF_JSON.search(data)
        if found is None:
            raise NotPlain
        opening, closing = b"\n" + found[1] + b"{\n", b"\n" + found[1] + b"}"
        self._spans: list[Span] = []
        self._sure = 0
        at = end = found.end() - len(opening) + 2
        while data.startswith(opening, at):
            end = data.find(closing, at) + len(closing)
            if end < len(closing):
                raise NotPlain
            self._spans.append((at, end))
            at = end + 1 if data.startswith(b",", end) else len(data)
        head, tail = data[: found.start()], data[end:]
        self.document = _rest(lambda: json.loads(head + b'"interactions": [' + tail), head + tail)

    def __len__(self) -> int:
        if self._sure < len(self._spans):
            self.entry(len(self._spans) - 1)
        return len(self._spans)

    def digest(self, number: int) -> bytes | None:  # noqa: ARG002 - the entries before it decide whether it is one
        return None

    def mentions(self, key: str) -> bool:
        return f'"{key}":'.encode() in self._data

    def entry(self, number: int) -> Any:
        value = None
        for each in range(min(self._sure, number), number + 1):  # those before it are read once
            start, end = self._spans[each]
            try:
                value = json.loads(self._data[start:end])
            except (ValueError, RecursionError) as error:
                raise NotPlain from error
            self._sure = max(self._sure, each + 1)
        return value


def _around(head: bytes, tail: bytes) -> Any:
    """Return the mapping around the interactions, with an empty list of them."""
    try:
        return read_mapping((head + tail).decode()) | {"interactions": []}
    except (NotPlain, UnicodeDecodeError):
        return yaml.load(head + b"interactions: []\n" + tail, Loader=CassetteLoader)


def _rest(read: Any, around: bytes) -> dict[str, Any]:
    """Return the value of a file without its interactions. Raise NotPlain unless it is a mapping with one list of them."""
    try:
        document = read()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotPlain from error
    if not isinstance(document, dict) or document.get("interactions") != [] or b"interactions" in around:
        raise NotPlain
    return document


Whole = Callable[[], tuple[Exchange, ...]]
"""Reads all exchanges of a file. Raises CassetteError."""


Shared = dict[bytes | None, Exchange]
"""Exchanges by the digest of their text, for cassettes that are read together: most interactions of two versions are equal."""


class Exchanges(Sequence[Exchange]):
    """Equal to the tuple of all exchanges of a cassette. An exchange that was read once stays the same object.

    Equal interactions of the cassettes that have `shared` in common are read once.

    Access to an item raises CassetteError if the file is damaged there.
    """

    def __init__(self, outline: Outline, whole: Whole, shared: Shared | None = None) -> None:
        self._outline = outline
        self._shared = shared
        self._read_whole = whole
        self._all: tuple[Exchange, ...] | None = None
        self._known: dict[int, Exchange] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            if self._all is None:
                try:
                    return len(self._outline)
                except NotPlain:
                    self._all = self._whole()
            return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Exchange: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Exchange, ...]: ...

    def __getitem__(self, index: int | slice) -> Exchange | tuple[Exchange, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        with self._lock:
            if self._all is None and number not in self._known:
                found = self._one(number)
                if found is not None:
                    self._known[number] = found
            return self._known[number] if self._all is None else self._all[number]

    @property
    def read_count(self) -> int:
        """How many exchanges were read."""
        return len(self._known) if self._all is None else len(self._all)

    def may_have(self, key: str) -> bool:
        """Return False if certainly no interaction has a key of that name."""
        return self._outline.mentions(key)

    def _one(self, number: int) -> Exchange | None:
        """Return one exchange; None after the whole file had to be read. Raise IndexError, CassetteError."""
        if not number >= 0:
            raise IndexError(number)
        digest = None if self._shared is None else self._outline.digest(number)
        if self._shared is not None and digest in self._shared:
            return self._shared[digest]
        try:
            entry = self._outline.entry(number)
            if named_interaction(entry) is None:
                exchange = to_exchange(entry)
                if self._shared is not None and digest is not None:
                    self._shared[digest] = exchange
                return exchange
        except (NotPlain, *DAMAGE):
            pass
        self._all = self._whole()
        return None

    def _whole(self) -> tuple[Exchange, ...]:
        read = self._read_whole()
        return tuple(self._known.get(number, exchange) for number, exchange in enumerate(read))

    def __iter__(self) -> Iterator[Exchange]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Exchanges | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<Exchanges {len(self)}>"


def named_interaction(entry: Any) -> str | None:
    """Return the sentence that names an interaction of another protocol than HTTP, or None."""
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict):
        return None
    uri = request.get("uri", entry.get("uri", ""))
    headers = request.get("headers") or {}
    scheme = uri.partition("://")[0].lower() if isinstance(uri, str) and "://" in uri[:12] else ""
    if scheme in ("ws", "wss"):
        return _protocol("WebSocket")
    grpc_call = "uri" not in request and "url" not in request and str(request.get("method", "")).startswith("/")
    if scheme.startswith("grpc") or grpc_call or "application/grpc" in str(headers)[:2000]:
        return _protocol("gRPC")
    return None


def _protocol(kind: str) -> str:
    return f"this is a {kind} cassette, and retold reads HTTP. Replay it with the tool that recorded it."
