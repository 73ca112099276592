"""One interaction of a cassette, as YAML or JSON give it, becomes an exchange. Damage raises the errors of `DAMAGE`."""

from typing import Any, cast

from ..events import ENDINGS, Ending
from ..folders import UNKNOWN, Folders
from ..http.exchange import Exchange, Failure, Place, Request, Response
from .forms import (
    Pieces,
    address,
    body_of,
    headers_of,
    mapping,
    moment,
    nanoseconds,
    plain_body,
    repaired,
    tool_results,
    whole,
    word,
)
from .json_layout import restore

DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""The errors that a damaged interaction raises."""


def to_exchange(entry: dict[str, Any]) -> Exchange:
    """Return the exchange of one interaction. Raise KeyError, TypeError, ValueError or AttributeError if it is damaged."""
    entry = mapping(entry, "an interaction")
    own = mapping(entry.get("retold") or {}, "retold")
    recorded = mapping(entry["request"], "request")
    request = Request(
        word(recorded["method"]),
        address(recorded["url" if "url" in recorded and "uri" not in recorded else "uri"]),
        headers_of(recorded.get("headers")),
        _asked(recorded, own),
        Folders.of(own["folders"]) if "folders" in own else UNKNOWN,
    )
    ending = word(own.get("ending", "complete"))
    if ending not in ENDINGS:
        raise ValueError(f"unknown ending {ending!r}; one of {', '.join(ENDINGS)}")
    error = own.get("error")
    response = (
        None
        if entry.get("response") is None or ending == "no_response"
        else _to_response(mapping(entry["response"], "response"), own)
    )
    if "ending" not in own and response is not None and response.status >= 400:
        ending = "http_error"
    ended_ns = nanoseconds(own.get("ended_ms"))
    if ended_ns == 0 and own.get("offsets_ms") and response is not None and response.body:
        ended_ns = response.span_ns[1]
    started_ns = nanoseconds(own.get("started_ms"))
    return Exchange(
        request=request,
        response=response,
        ending=cast(Ending, ending),
        failure=None if error is None else Failure(word(error["type"]), word(error["message"])),
        place=_place(own),
        recorded_at=moment(own.get("recorded_at") or entry.get("recorded_at")),
        started_ns=started_ns,
        ended_ns=started_ns + ended_ns,
        cost_usd=None if own.get("cost_usd") is None else float(own["cost_usd"]),
        tool_results=tuple(mapping(result, "a tool result") for result in tool_results(own.get("tool_results"))),
    )


def _place(own: dict[str, Any]) -> Place:
    return Place(
        step=word(own.get("step", "")),
        task=word(own.get("task", "")),
        call=whole(own.get("call", 0), "call"),
        attempt=whole(own.get("attempt", 1), "attempt"),
        stamped=word(own.get("stamped", "pull")),
        variables={word(k): word(v) for k, v in mapping(own.get("variables") or {}, "variables").items()},
    )


def _asked(recorded: dict[str, Any], own: dict[str, Any]) -> bytes:
    """Return the body of a request: its exact bytes if the layout restores them, its new content if a person edited it."""
    layout = own.get("body_layout")
    return body_of(recorded) if layout is None else restore(word(recorded.get("body")), word(layout))


def _to_response(recorded: dict[str, Any], own: dict[str, Any]) -> Response:
    if "status_code" in recorded:  # vcrpy's httpx format before version 6
        status, reason = whole(recorded["status_code"], "status_code"), ""
        body = plain_body(recorded["content"]) if "content" in recorded else body_of(recorded)
    else:
        found = recorded["status"]  # a number in cassetter's files
        state = {"code": found} if isinstance(found, int) else mapping(found, "status")
        status, reason = whole(state["code"], "the status code"), word(state.get("message") or "")
        body = body_of(recorded)
    headers = repaired(headers_of(recorded.get("headers")), body)
    first_ns = nanoseconds(own.get("first_ms"))
    sizes = own.get("sizes")
    pieces = Pieces(
        body, headers, offsets_ms=word(own.get("offsets_ms", "")), sizes=None if sizes is None else word(sizes), first_ns=first_ns
    )
    return Response(status, reason, headers, pieces, first_ns)
