"""The test of requests that a program sent itself: they are sent again through the anthropic SDK, within a cassette."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ...recorder.errors import InputError
from ...recorder.http.exchange import Exchange, Request, header
from ...recorder.http.platforms import asked_of, model_path
from ...recorder.http.recognition import Outgoing, is_api
from ...recorder.http.refold import refold_exchange
from ...recorder.strict_json import dumps
from ...recorder.words import one_line
from ...replay.matching.rules import path
from .draft import Draft, shown
from .expectations import expectations
from .literals import MARGIN, Code, assignment, call, literal, pattern
from .parts import Parts

LONG_TEXT = 1500
"""A longer text in a request is taken from the cassette."""

MOST_LINES = 60
"""A system prompt or a list of tools with more lines is taken from the cassette."""

STREAMED_ABOVE = 20_000
"""The `max_tokens` above which the SDK refuses a request without a stream, unless it has a time limit."""

_NAMED = (
    "model", "max_tokens", "system", "stop_sequences", "thinking", "metadata", "tool_choice", "tools", "messages",
)  # fmt: skip
"""Fields of a request that every version of the SDK names; the newest has no `temperature`. It takes others as `extra_body`."""

_CLIENTS = {
    "client": "anthropic.Anthropic({retries})",
    "bedrock": 'anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="none", aws_secret_key="none"{more})',
    "vertex": 'anthropic.AnthropicVertex(region="us-east5", project_id="none", access_token="none"{more})',
}


def is_sendable(exchange: Exchange) -> bool:
    """Return whether a request belongs to the API; a check whether it answers, such as HEAD, does not count."""
    request = exchange.request
    if request.method.upper() in ("HEAD", "OPTIONS"):
        return False
    found = {name.lower(): value for name, value in request.headers}
    return is_api(Outgoing(request.method, request.uri, found, request.body)) or path(request.uri).startswith("/v1/messages")


@dataclass
class _Sent:
    """A request as the test sends it: the client, the method, and its arguments; `index` is its place in the cassette."""

    exchange: Exchange
    index: int
    client: str
    method: str
    positional: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    streams: bool = False

    @property
    def messages(self) -> list[Any] | None:
        found = self.fields.get("messages")
        return found if isinstance(found, list) else None


def requests_parts(draft: Draft) -> Parts:
    """Return the parts of the test of requests. Raise InputError for a request that the SDK cannot send."""
    script = _Script([_sent(exchange, index) for index, exchange in enumerate(draft.exchanges)])
    body = tuple(script.lines())
    return Parts(
        f"The requests of {one_line(draft.run.name)}, sent again through the anthropic SDK",
        "The answers come from the cassette, offline. If a request changes, an error names the difference. Put a call of your "
        "own code in the place of the requests, and edit this file as you like. This command records the cassette again:",
        f"pytest {shlex.quote(shown(draft.test))} --retold-mode=rewrite",
        frozenset({"import anthropic", *(["import json"] if script.reads_cassette else [])}),
        tuple(script.constants),
        body,
        (*expectations(draft.trajectory, "retold_cassette"), "assert retold_cassette.all_played"),
        ("retold_cassette",),
        marked=True,
    )


def _sent(exchange: Exchange, index: int) -> _Sent:
    request, uri = exchange.request, exchange.request.uri
    named = model_path(uri)
    client = "client"
    if named is not None:
        client = "vertex" if named.action.endswith("Predict") else "bedrock"
    where = path(uri) if named is None else "/v1/messages"
    if "/sessions/" in where:
        raise _unsendable(request, index, "belongs to a session of Managed Agents, whose events depend on each other")
    if named is not None and named.action.startswith("converse"):
        raise _unsendable(request, index, "is one of boto3, which the anthropic SDK does not send")
    body = asked_of(uri, request.body)
    if named is not None:
        body["model"] = unquote(urlsplit(uri).path.rpartition("/model/")[2].partition("/")[0]) or body["model"]
        if client == "vertex":
            body["model"] = named.model
    resource = f"{client}.messages"
    is_post = request.method.upper() == "POST"
    if is_post and where == "/v1/messages" and {"model", "max_tokens", "messages"} <= body.keys():
        streams = body.get("stream") is True
        further = {} if body.get("stream", True) is not False else {"stream": False}  # some clients send it
        body = {name: value for name, value in body.items() if name != "stream" or value is None}
        method = f"{resource}.stream" if streams else f"{resource}.create"
        made = _Sent(exchange, index, client, method, fields=_arguments(body, request) | further, streams=streams)
        if not streams and isinstance(body["max_tokens"], int) and body["max_tokens"] > STREAMED_ABOVE:
            made.fields["timeout"] = 600
        return made
    if is_post and where == "/v1/messages/count_tokens" and {"model", "messages"} <= body.keys():
        return _Sent(exchange, index, client, f"{resource}.count_tokens", fields=_arguments(body, request))
    return _plain(exchange, index, client, where)


def _plain(exchange: Exchange, index: int, client: str, where: str) -> _Sent:
    """Return a request without a method of its own in the SDK of every version."""
    request = exchange.request
    query = urlsplit(request.uri).query
    fields: dict[str, Any] = {"cast_to": Code("object")}
    if request.body:
        try:
            fields["body"] = json.loads(request.body)
        except (ValueError, RecursionError):
            raise _unsendable(request, index, "has a body that is not JSON") from None
    target = literal(f"{where}?{query}" if query else where)
    return _Sent(exchange, index, client, f"{client}.{request.method.lower()}", target, fields)


def _unsendable(request: Request, index: int, why: str) -> InputError:
    target = urlsplit(request.uri).path
    return InputError(
        f"request {index + 1} ({request.method} {target}) {why}. Record the program with `retold record`, and pin that run."
    )


def _arguments(body: dict[str, Any], request: Request) -> dict[str, Any]:
    """Return the keyword arguments of a call, in the order in which a person writes them.

    Whether the client's methods for betas send a query depends on the version of the SDK, so the query and the header are given.
    """
    own = {name: body[name] for name in _NAMED if name in body and name != "messages"}
    if further := {name: value for name, value in body.items() if name not in _NAMED}:
        own["extra_body"] = further
    if (betas := header(request.headers, "anthropic-beta")) is not None:
        own["extra_headers"] = {"anthropic-beta": betas}
    if query := dict(parse_qsl(urlsplit(request.uri).query, keep_blank_values=True)):
        own["extra_query"] = query
    return own | {"messages": body["messages"]}


class _Script:
    """The statements of the test. `constants` are the values that several requests share."""

    def __init__(self, sent: list[_Sent]) -> None:
        self._sent = sent
        self.constants: list[str] = []
        self.reads_cassette = False
        self._shared: dict[str, str] = {}
        for name in ("system", "tools"):
            self._share(name)

    def _share(self, name: str) -> None:
        """Make a constant of a value that several requests have, or that is long."""
        values = Counter(dumps(each.fields[name]) for each in self._sent if name in each.fields)
        for text, count in values.items():
            source = literal(json.loads(text), before=len(name) + 3)
            if source.count("\n") > MOST_LINES or (count == 1 and len(source) < 200 and "\n" not in source):
                continue
            number = sum(each.startswith(name.upper()) for each in self._shared.values())
            self._shared[f"{name}{text}"] = constant = name.upper() + (f"_{number + 1}" if number else "")
            self.constants.append(assignment(constant, source))

    def lines(self) -> Iterator[str]:
        """Yield the statements of the test."""
        conversations = _Conversations([each.messages for each in self._sent])
        failing = any(each.exchange.ending not in ("complete", "closed") for each in self._sent)
        statements: list[str] = []
        for number, each in enumerate(self._sent):
            statements += ["", *self._statement(each, conversations.names[number], conversations.new[number])]
        for name in dict.fromkeys(each.client for each in self._sent):
            made = _CLIENTS[name].format(retries="max_retries=0" if failing else "", more=", max_retries=0" if failing else "")
            yield assignment(name, made)
        if self.reads_cassette:
            yield 'recorded = [json.loads(each.body or "null") for each in retold_cassette.requests]'
        yield from statements

    def _statement(self, sent: _Sent, variable: str, new: tuple[str, list[Any]] | None) -> Iterator[str]:
        fields = {name: self._value(name, value, sent) for name, value in sent.fields.items()}
        if variable:
            fields["messages"] = Code(variable)
        if new is not None:
            operator, messages = new
            said = self._shortened(messages, sent, 0 if operator == "=" else len(sent.messages or ()) - len(messages))
            yield f"{variable} {operator} {literal(said, before=len(variable) + len(operator) + 2)}"
        raised = _raised(sent.exchange, sent)
        before = len(MARGIN) * (2 if raised else 1) + (len("with  as stream:") if sent.streams else 0)
        source = call(sent.method, fields, *([Code(sent.positional)] if sent.positional else []), before=before)
        if sent.streams:
            source = f"with {source} as stream:\n{MARGIN}stream.until_done()"
        if sent.exchange.ending == "closed":
            yield "# The recorded program stopped reading here."
        if raised:
            source = f"with {raised}:\n" + "\n".join(f"{MARGIN}{line}" for line in source.split("\n"))
        yield source

    def _value(self, name: str, value: Any, sent: _Sent) -> Any:
        if (shared := self._shared.get(f"{name}{dumps(value)}")) is not None:
            return Code(shared)
        if name in ("system", "tools") and literal(value).count("\n") > MOST_LINES:
            return self._recorded(sent, f'["{name}"]')
        return self._shortened(value, sent, 0, name) if name == "messages" else value

    def _shortened(self, value: Any, sent: _Sent, offset: int, name: str = "messages") -> Any:
        """Return messages with long texts taken from the cassette. `offset` is the number of messages before these."""
        return [self._short(each, sent, f'["{name}"][{offset + number}]') for number, each in enumerate(value)]

    def _short(self, value: Any, sent: _Sent, at: str) -> Any:
        if isinstance(value, str) and len(value) > LONG_TEXT:
            return self._recorded(sent, at)
        if isinstance(value, Mapping):
            return {key: self._short(item, sent, f"{at}[{literal(key)}]") for key, item in value.items()}
        if isinstance(value, list):
            return [self._short(item, sent, f"{at}[{number}]") for number, item in enumerate(value)]
        return value

    def _recorded(self, sent: _Sent, at: str) -> Code:
        self.reads_cassette = True
        return Code(f"recorded[{sent.index}]{at}")


class _Conversations:
    """The variables of conversations. A request continues the newest conversation that its messages begin with.

    names  the variable of each request, or an empty text if its messages are written where they are sent
    new    the operator and the messages of the statement before each request, or None if there is none
    """

    def __init__(self, requests: list[list[Any] | None]) -> None:
        known: list[list[Any]] = []
        of: list[int | None] = []
        new: list[tuple[str, list[Any]] | None] = []
        for messages in requests:
            if messages is None:
                of.append(None)
                new.append(None)
                continue
            found = [number for number, each in enumerate(known) if messages[: len(each)] == each]
            number = max(found, key=lambda number: len(known[number]), default=len(known))
            if number == len(known):
                known.append(messages)
                new.append(("=", messages))
            else:
                added = messages[len(known[number]) :]
                new.append(("+=", added) if added else None)
                known[number] = messages
            of.append(number)
        uses = Counter(of)
        kept = [number for number in range(len(known)) if uses[number] > 1]
        names = {number: "messages" + (f"_{at}" if at > 1 else "") for at, number in enumerate(kept, 1)}
        self.names = ["" if number is None else names.get(number, "") for number in of]
        self.new = [each if name else None for each, name in zip(new, self.names, strict=True)]


def _raised(exchange: Exchange, sent: _Sent) -> str:
    """Return the expression that expects the error of an exchange, or an empty text."""
    response, is_message = exchange.response, sent.positional == ""
    match exchange.ending:
        case "http_error":
            status = 0 if response is None else response.status
            return f'pytest.raises(anthropic.APIStatusError, match="{status}")'
        case "no_response":
            return "pytest.raises(anthropic.APIConnectionError)"
        case "closed":
            return "pytest.raises(retold.RecordingEnded)"
        case "error_event" if is_message:
            error = refold_exchange(exchange).error or {}
            return f"pytest.raises(anthropic.APIStatusError, match={pattern(str(error.get('message', '')))})"
        case "cut" if sent.streams:
            message = "" if exchange.failure is None else exchange.failure.message
            return f"pytest.raises(Exception, match={pattern(message[:60])})"
        case "cut":
            return "pytest.raises(anthropic.APIConnectionError)"
    return ""
