"""Rules of matching: the parts of two requests that must agree, selected by name.

By default method, path, query and body count. The host does not, because a recording is replayed for any base URL; nor does a
region, an account or a project in a path of Bedrock or Vertex (recorder/http/platforms.py). A JSON body counts by meaning: the
order of its keys does not matter, and the parts that `ignore` names are removed. The boundary of a multipart body does not count.
"""

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...recorder.cassette.kept import Kept
from ...recorder.errors import InputError
from ...recorder.http.exchange import Headers, Request
from ...recorder.http.platforms import model_path
from ...recorder.http.recognition import versioned
from ...recorder.patience import replaced
from .profiles import Profile, normalised, texts_in

Predicate = Callable[[Request, Request], object]
"""A function of (request, recorded) that returns whether they agree. As in vcrpy, None means yes and an AssertionError means
no.
"""

NAMES = ("method", "scheme", "host", "port", "path", "query", "uri", "headers", "body", "raw_body")

DEFAULT_IGNORE = ("metadata.user_id", "**.cache_control")
"""The id of the end user and the cache marks do not change the question."""

_CARRIERS = re.compile(
    r"x-stainless-.*|user-agent|authorization|x-api-key|cookie|content-length|content-type|host|connection|accept|accept-encoding"
    r"|idempotency-key|traceparent|tracestate|baggage|api-key|x-amz-.*|amz-sdk-.*|x-goog-.*",
    re.IGNORECASE,
)
"""Headers about the client and the transport, not about the question."""

_BOUNDARY = re.compile(rb"--[^\r\n]{1,70}\r?\n")

_TOKEN = re.compile(r"\*\*|\[(\*|\d+)\]|[^.\[\]]+")


@dataclass(frozen=True)
class Rules:
    """Which parts of a request count, by name.

    `match_on`: names of NAMES, or predicates. `ignore`: paths in a JSON body (`a.b`, `a[*].b`, `a[0]`, `**.b` anywhere).
    `mask`: regular expressions; the texts in a body that they match are replaced by one name. They see a text as the report of a
    miss shows it. `profile`: the program that makes the requests; the parts that it changes in every run are normalised
    (profiles.py). Raise InputError for an unknown name, or a malformed path or expression.
    """

    match_on: tuple[str | Predicate, ...] = ("method", "path", "query", "body")
    ignore: tuple[str, ...] = DEFAULT_IGNORE
    profile: Profile = "api"
    mask: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.match_on:
            if isinstance(name, str) and name not in NAMES:
                raise InputError(f"unknown rule {name!r} in match_on; there are {', '.join(NAMES)}, or give a function.")
        for path in self.ignore:
            if not path or "".join(match[0] for match in _TOKEN.finditer(path)) != path.replace(".", ""):
                raise InputError(f"{path!r} in ignore is not a path of a JSON body; write a.b, a[*].b, a[0] or **.b.")
        for pattern in self.mask:
            _checked(pattern)

    @property
    def kept(self) -> Kept:
        """The rules that a recording keeps: those that the user added."""
        return Kept(tuple(path for path in self.ignore if path not in DEFAULT_IGNORE), self.mask)

    def with_kept(self, kept: Kept) -> "Rules":
        """Return the rules with those that a recording keeps. Raise InputError."""
        ignore, mask = Kept(self.ignore, self.mask).with_(kept)
        return replace(self, ignore=ignore, mask=mask)

    def meaning(self, request: Request, names: Mapping[str, str]) -> dict[str, Any]:
        """Return the parts of a request that count. `names` maps volatile texts to the names that replace them."""
        return {rule: self._part(rule, request, names) for rule in self.match_on if isinstance(rule, str)}

    def agree(self, request: Request, recorded: Request) -> bool:
        """Return True if every predicate accepts the pair."""
        return not self.disagreeing(request, recorded)

    def disagreeing(self, request: Request, recorded: Request) -> list[str]:
        """Return the names of the predicates that reject the pair."""
        predicates = [rule for rule in self.match_on if not isinstance(rule, str)]
        return [getattr(rule, "__name__", repr(rule)) for rule in predicates if not _says_yes(rule, request, recorded)]

    def _part(self, rule: str, request: Request, names: Mapping[str, str]) -> Any:
        url = urlsplit(request.uri)
        match rule:
            case "method":
                return request.method.upper()
            case "scheme":
                return url.scheme
            case "host":
                return url.hostname
            case "port":
                return url.port or {"https": 443, "http": 80}.get(url.scheme)
            case "path":
                return path(request.uri)
            case "query":
                return sorted(f"{name}={value}" for name, value in parse_qsl(url.query, keep_blank_values=True))
            case "uri":
                return request.uri
            case "headers":
                return _headers(request.headers)
            case "raw_body":
                return request.body.decode("utf-8", "backslashreplace")
        return self._body(request.body, names)

    def counting(self, value: Any) -> Any:
        """Return a copy of a JSON value without the ignored places, and with the masked texts replaced."""
        value = copy.deepcopy(value)
        for ignored in self.ignore:
            _remove(value, _tokens(ignored))
        return masked(value, self.mask)

    def _body(self, body: bytes, names: Mapping[str, str]) -> Any:
        try:
            value = json.loads(body, parse_float=_number, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return masked(_unbounded(body).decode("utf-8", "backslashreplace"), self.mask)
        for ignored in self.ignore:
            _remove(value, _tokens(ignored))
        if self.profile == "claude-code":
            value = normalised(value)
        pattern = "|".join(re.escape(text) for text in sorted(names, key=len, reverse=True))
        return masked(named(value, re.compile(pattern), names) if pattern else value, self.mask)


DEFAULT_RULES = Rules()


def path(uri: str) -> str:
    """Return the path of a URL without the prefix that a base URL puts before `/v1/`, and with that version if it lacks it.

    The path of Bedrock or Vertex is returned without its region, account and project, which are no part of the question.
    """
    if "/model" in uri and (named := model_path(uri)) is not None:
        return named.matched
    _, api, rest = urlsplit(uri).path.rpartition("/v1/")
    return api + rest if api else versioned(rest)


def _unbounded(body: bytes) -> bytes:
    """Return a multipart body (RFC 2046, 5.1) with a fixed boundary, because clients generate a random one for every request."""
    first = _BOUNDARY.match(body)
    if first is None or body.rstrip().rpartition(b"\n")[2] != first[0].rstrip() + b"--":
        return body
    return re.sub(rb"(?m)^" + re.escape(first[0].rstrip()) + rb"(?=(?:--)?\s*$)", b"--boundary", body)


def _says_yes(rule: Predicate, request: Request, recorded: Request) -> bool:
    try:
        said = rule(request, recorded)
    except AssertionError:
        return False
    return said is None or bool(said)


def _headers(headers: Headers) -> dict[str, list[str]]:
    """Return the headers that belong to the question, by lower-case name. Betas are compared as a set."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if _CARRIERS.fullmatch(name) is None:
            values = [part.strip() for part in value.split(",")] if name.lower() == "anthropic-beta" else [value]
            found[name.lower()] = sorted([*found.get(name.lower(), []), *values])
    return found


def _number(text: str) -> float | int | None:
    """Return 1.0 as 1, because the two are equal in JSON; None for a number that is too large, as strict_json.py writes it."""
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _tokens(ignored: str) -> list[str]:
    # `**.**` means the same as `**`.
    tokens = [match[1] or match[0] for match in _TOKEN.finditer(ignored)]
    return [token for number, token in enumerate(tokens) if token != "**" or tokens[number - 1 : number] != ["**"]]


def _remove(value: Any, tokens: list[str]) -> None:
    """Remove the places that a path names. An object that becomes empty is removed too, as if it had never been sent."""
    head, rest = tokens[0], tokens[1:]
    if head == "**":
        _remove(value, rest)
        items: Iterable[Any] = ()
        if isinstance(value, dict):
            items = value.values()
        elif isinstance(value, list):
            items = value
        for item in items:
            if isinstance(item, dict | list):
                _remove(item, tokens)
        return
    if isinstance(value, list):
        chosen = [number for number in range(len(value)) if head in ("*", str(number))]
        # From the end, so that a deletion does not shift the indexes that follow.
        for number in reversed(chosen):
            if rest:
                _remove(value[number], rest)
            else:
                del value[number]
    elif isinstance(value, dict) and head in value:
        if rest:
            _remove(value[head], rest)
        if not rest or value[head] == {}:
            del value[head]


def named(value: Any, pattern: re.Pattern[str], names: Mapping[str, str]) -> Any:
    """Return the value with each volatile text replaced by the name of its variable."""
    if isinstance(value, str):
        return pattern.sub(lambda match: "{{" + names[match[0]] + "}}", value)
    if isinstance(value, dict):
        return {key: named(item, pattern, names) for key, item in value.items()}
    return [named(item, pattern, names) for item in value] if isinstance(value, list) else value


MASKED = "{{masked}}"
"""The name that takes the place of a masked text."""


def _checked(pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{pattern!r} in mask is not a regular expression: {error}.") from error
    if compiled.fullmatch("") is not None:
        raise InputError(f"{pattern!r} in mask matches the empty text; write + instead of *, or a text that must be there.")


def masked(value: Any, patterns: Iterable[str]) -> Any:
    """Return a JSON value with each part of its texts that a pattern matches replaced by one name.

    Raise InputError if a pattern takes too long.
    """
    texts = list(texts_in(value)) if (given := tuple(patterns)) else []
    before = texts
    for pattern in given:
        texts = replaced(re.compile(pattern), texts, MASKED)
    return value if texts == before else _with_texts(value, iter(texts))


def _with_texts(value: Any, texts: Iterator[str]) -> Any:
    """Return a JSON value with other texts, in the order of `texts_in`."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {key: _with_texts(item, texts) for key, item in value.items()}
    return [_with_texts(item, texts) for item in value] if isinstance(value, list) else value
