"""Which parts of two requests must agree for a recording to answer: by name, visible and configurable.

By default method, path, query and body count. The host does not: a recording is replayed for whatever base URL the client
has. A JSON body counts by meaning: whatever the order of its keys, and without what `ignore` names. The boundary of a multipart
body does not count.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..recorder.errors import InputError
from ..recorder.exchange import Headers, Request
from .profiles import Profile, normalised

Predicate = Callable[[Request, Request], object]
"""(request, recorded) -> whether they agree; None counts as yes, AssertionError as no, as in vcrpy."""

NAMES = ("method", "scheme", "host", "port", "path", "query", "uri", "headers", "body", "raw_body")

DEFAULT_IGNORE = ("metadata.user_id", "**.cache_control")
"""Who the end user is, and which parts are cached, does not change what is asked."""

_CARRIERS = re.compile(
    r"x-stainless-.*|user-agent|authorization|x-api-key|cookie|content-length|content-type|host|connection|accept|accept-encoding"
    r"|idempotency-key|traceparent|tracestate|baggage",
    re.IGNORECASE,
)
"""Headers that say who carries a request and how, not what it asks."""

_BOUNDARY = re.compile(rb"--[^\r\n]{1,70}\r?\n")

_TOKEN = re.compile(r"\*\*|\[(\*|\d+)\]|[^.\[\]]+")


@dataclass(frozen=True)
class Rules:
    """`match_on`: names of NAMES or predicates; `ignore`: paths of JSON bodies (`a.b`, `a[*].b`, `a[0]`, `**.b` anywhere);
    `profile`: whose habits are known (profiles.py)."""

    match_on: tuple[str | Predicate, ...] = ("method", "path", "query", "body")
    ignore: tuple[str, ...] = DEFAULT_IGNORE
    profile: Profile = "api"

    def __post_init__(self) -> None:
        for name in self.match_on:
            if isinstance(name, str) and name not in NAMES:
                raise InputError(f"unknown rule {name!r} in match_on; there are {', '.join(NAMES)}, or give a function.")
        for path in self.ignore:
            if not path or "".join(match[0] for match in _TOKEN.finditer(path)) != path.replace(".", ""):
                raise InputError(f"{path!r} in ignore is no path of a JSON body; write a.b, a[*].b, a[0] or **.b.")

    def meaning(self, request: Request, names: Mapping[str, str]) -> dict[str, Any]:
        """Everything of a request that counts; `names` are volatile texts and what they are called."""
        return {rule: self._part(rule, request, names) for rule in self.match_on if isinstance(rule, str)}

    def agree(self, request: Request, recorded: Request) -> bool:
        """Whether every predicate says that they agree."""
        return not self.disagreeing(request, recorded)

    def disagreeing(self, request: Request, recorded: Request) -> list[str]:
        """The names of the predicates that say no."""
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

    def _body(self, body: bytes, names: Mapping[str, str]) -> Any:
        try:
            value = json.loads(body, parse_float=_number)
        except (ValueError, RecursionError):
            return _unbounded(body).decode("utf-8", "backslashreplace")
        for ignored in self.ignore:
            _remove(value, _tokens(ignored))
        if self.profile == "claude-code":
            value = normalised(value)
        pattern = "|".join(re.escape(text) for text in sorted(names, key=len, reverse=True))
        return named(value, re.compile(pattern), names) if pattern else value


DEFAULT_RULES = Rules()


def path(uri: str) -> str:
    """The path of a URL; what a base URL puts before `/v1/` does not count."""
    before, api, rest = urlsplit(uri).path.rpartition("/v1/")
    return (api or before) + rest


def _unbounded(body: bytes) -> bytes:
    """Return a multipart body (RFC 2046, 5.1) with one boundary for all: clients make a random one for every request."""
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
    """Headers that say what is asked, by lower-case name; betas count as a set."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if _CARRIERS.fullmatch(name) is None:
            values = [part.strip() for part in value.split(",")] if name.lower() == "anthropic-beta" else [value]
            found[name.lower()] = sorted([*found.get(name.lower(), []), *values])
    return found


def _number(text: str) -> float | int:
    """1.0 is worth what 1 is worth."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _tokens(ignored: str) -> list[str]:
    tokens = [match[1] or match[0] for match in _TOKEN.finditer(ignored)]
    return [token for number, token in enumerate(tokens) if token != "**" or tokens[number - 1 : number] != ["**"]]


def _remove(value: Any, tokens: list[str]) -> None:
    """Remove what a path names; an object that is empty afterwards goes too, as if it had never been sent."""
    head, rest = tokens[0], tokens[1:]
    if head == "**":
        _remove(value, rest)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(item, dict | list):
                _remove(item, tokens)
        return
    if isinstance(value, list):
        chosen = [number for number in range(len(value)) if head in ("*", str(number))]
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
    """The value with each volatile text replaced by the name of its variable."""
    if isinstance(value, str):
        return pattern.sub(lambda match: "{{" + names[match[0]] + "}}", value)
    if isinstance(value, dict):
        return {key: named(item, pattern, names) for key, item in value.items()}
    return [named(item, pattern, names) for item in value] if isinstance(value, list) else value
