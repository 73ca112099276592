"""vcrpy's configuration of a test as options of `use_cassette`: with its own matchers and filters."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from ..recorder.http.exchange import Exchange, Request, Response, TimedPiece, pieces_of
from ..replay.matching.rules import Predicate
from .pytest_session import SINCE, log_path
from .record_modes import check
from .use import Use
from .use_cassette import use_cassette
from .vcr_tape import to_vcr


def in_test(item: pytest.Item, path: Path, also: Sequence[Path] = ()) -> Any:
    """Return a function that makes retold's use of a test's cassette from vcrpy's configuration."""

    def make(merged: dict[str, Any], mode: str, **own: Any) -> Use:
        settings = replace(
            use_cassette(**vcr_options(merged)).settings, also=tuple(extra for extra in also if extra.exists()), hosts=("*",),
            name=item.nodeid, recordings=log_path(item.config), since=item.config.stash[SINCE], is_overridden=True, **own,
        )  # fmt: skip
        return Use(path, check(mode), settings, everywhere=True)

    return make


def vcr_options(merged: dict[str, Any]) -> dict[str, Any]:
    """Return options of `use_cassette` for vcrpy's merged configuration, with its own matchers and filters."""
    return {
        "match_on": [_predicate(matcher) for matcher in merged["match_on"]],
        "ignore": (),
        "before_record": _filter(merged["before_record_request"]),
        "before_keep": _response_filter(merged["before_record_response"]),
        "allow_playback_repeats": bool(merged.get("allow_playback_repeats", False)),
    }


def _predicate(matcher: Any) -> Predicate:
    @functools.wraps(matcher)
    def agree(request: Request, recorded: Request) -> object:
        return matcher(_to_vcr(request), _to_vcr(recorded))

    return agree


@lru_cache(maxsize=256)
def _to_vcr(request: Request) -> Any:
    return to_vcr(request)


def _filter(before_record: Any) -> Any:
    """Return vcrpy's request filter as a filter of requests. None leaves a request unrecorded."""

    def filtered(request: Request) -> Request | None:
        changed = before_record(_to_vcr(request))
        if changed is None:
            return None
        headers = tuple((name, ", ".join(v) if isinstance(v, list) else str(v)) for name, v in changed.headers.items())
        body = changed.body or b""
        return Request(changed.method, changed.uri, headers, body if isinstance(body, bytes) else str(body).encode())

    return filtered


def _response_filter(before_record: Any) -> Any:
    """Return vcrpy's response filter as a filter of exchanges for the cassette. None leaves an exchange out."""

    def filtered(exchange: Exchange) -> Exchange | None:
        response = exchange.response
        if response is None:
            return exchange
        headers: dict[str, list[str]] = {}
        for name, value in response.headers:
            headers.setdefault(name, []).append(value)
        status = {"code": response.status, "message": response.reason}
        before = {"status": status, "headers": headers, "body": {"string": response.body}}
        after = before_record(copy.deepcopy(before))
        if after is None or after == before:
            return None if after is None else exchange
        body = after["body"]["string"] or b""
        body = body.encode() if isinstance(body, str) else body
        pairs = tuple((name, value) for name, values in after["headers"].items() for value in values)
        first_ns = response.first_ns
        pieces = tuple(TimedPiece(first_ns, piece.data, piece.is_frame) for piece in pieces_of(body, pairs))
        code, reason = after["status"]["code"], after["status"]["message"] or ""
        return replace(exchange, response=Response(code, reason, pairs, pieces, first_ns))

    return filtered
