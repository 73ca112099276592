"""OTLP: runs as traces of OpenTelemetry, in the JSON of the file exporter, one line a run. An OTLP receiver takes each line.

Names and values are those of the semantic conventions for generative AI, version 0.1 (genai.py).

    invoke_workflow NAME           a run of a workflow; any other run is `invoke_agent NAME`
      invoke_agent STEP            a step, a task of it, or a session of the Agent SDK
        chat MODEL                 one exchange: an attempt of a call, with its usage, ending and time to the first chunk
        execute_tool NAME          a tool, from the use to the result, with a link to the answer that asked for it

1. Ids are digests of the run's id and the event's number, so a second export has the same spans.
2. A request with a `traceparent` belongs to a span of its client, such as the one that the SDK makes of a call. The exchange
   links to it. If that span was sampled, it has the usage already, so here the tokens are `retold.usage.*` and no sum of
   `gen_ai.usage.*` counts them twice.
3. Texts, arguments, results and error texts are left out unless `content` is true.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..recorder import strict_json
from ..recorder.events import encode
from ..recorder.http.call_errors import call_error
from ..recorder.http.exchange import header
from ..recorder.http.platforms import model_path
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.messages import content_blocks
from ..recorder.strict_json import object_or_empty
from .genai import FINISH, messages_of, part_of, tokens_of
from .turns import Prompt, Said, Scope, Tool, Unit, turns

INTERNAL, CLIENT = 1, 3
"""Kinds of spans."""

_ERROR = 2
"""The status of a failed span."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1

Attributes = dict[str, Any]


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO, *, content: bool = False) -> int:
    """Write the runs as traces, and return the number of spans. Raises LogError."""
    return sum(_write_run(log, run, out, content=content) for run in runs)


def _write_run(log: EventLog, run: RunInfo, out: BinaryIO, *, content: bool) -> int:
    from importlib.metadata import version

    scope = encode({"name": "retold", "version": version("retold")}).decode()
    resource = encode({"attributes": _listed({"service.name": "retold"})}).decode()
    out.write(f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"scope":{scope},"spans":['.encode())
    count = 0
    for span in spans(log, run, content=content):
        out.write(b"," if count else b"")
        out.write(encode(span))
        count += 1
    out.write(b"]}]}]}\n")
    return count


def spans(log: EventLog, run: RunInfo, *, content: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the spans of a run, each when it ends. Raises LogError."""
    making = _Spans(run, content=content)
    for turn in turns(log, run.run):
        match turn:
            case Prompt():
                making.prompt(turn)
            case Scope():
                yield making.of_part(turn)
            case Said():
                yield making.of_answer(turn)
            case Tool():
                yield making.of_tool(turn)


class _Spans:
    """Makes the spans of one run."""

    def __init__(self, run: RunInfo, *, content: bool) -> None:
        self._run = run
        self._content = content
        self._trace = _digest("trace", run.run)[:32]
        self._coming: dict[Unit, list[dict[str, Any]]] = defaultdict(list)  # messages for the next answer without a request
        self._systems: dict[Unit, list[dict[str, Any]]] = {}

    def prompt(self, turn: Prompt) -> None:
        """Note a prompt for the next answer, which has no request to hold it."""
        if turn.system:
            self._systems[turn.unit] = turn.system
        if turn.blocks:
            self._coming[turn.unit].append({"role": "user", "content": turn.blocks})

    def of_part(self, part: Scope) -> dict[str, Any]:
        """Return the span of a run, a step, a task or a session."""
        operation = "invoke_workflow" if part.kind == "run" and "workflow" in part.data else "invoke_agent"
        attributes: Attributes = {"gen_ai.operation.name": operation, "gen_ai.agent.name": part.name}
        if part.kind == "run":
            attributes |= {"retold.run": self._run.run, "retold.mode": self._run.mode}
            attributes |= {"retold.replay": True} if self._run.mode == "mock" else {}
            attributes["retold.fork.parent"] = object_or_empty(part.data.get("fork")).get("parent")
        else:
            attributes[f"retold.{part.kind}"] = part.name
        if part.kind == "session":
            attributes["gen_ai.provider.name"] = "anthropic"
        status = str(part.ended.get("status") or part.ended.get("ending") or "")
        error = status if status in ("failed", "interrupted") else None
        said = part.ended.get("error")
        text = str(object_or_empty(said).get("message") or said or "")
        parent = None if part.parent is None else self._id(part.parent.seq)
        span = self._span(part.seq, parent, f"{operation} {part.name}", INTERNAL, part.started_ns, part.ended_ns, attributes)
        return self._failed(span, error, text)

    def of_answer(self, answer: Said) -> dict[str, Any]:
        """Return the span of an exchange, or of an answer without one."""
        uri = str(answer.started.get("uri", ""))
        path = urlsplit(uri).path
        is_chat = not answer.exchange or _is_inference(path)
        operation = "text_completion" if path.endswith("/complete") else "chat"
        links, is_counted = self._client_span(answer)
        attributes: Attributes = {
            "gen_ai.operation.name": operation if is_chat else None,
            "gen_ai.provider.name": _provider(uri),
            **self._of_request(answer),
            **self._of_exchange(answer, uri),
            **self._of_response(answer, "retold.usage." if is_counted else "gen_ai.usage."),
            **self._place(answer),
        }
        if self._content and is_chat:
            attributes |= self._contents(answer, self._coming.pop(answer.unit, []))
        name = f"{operation} {answer.model}".strip() if is_chat else str(answer.started.get("method"))
        span = self._span(
            answer.seq,
            self._id(answer.part.seq),
            name,
            CLIENT,
            answer.started_ns,
            answer.ended_ns or answer.started_ns,
            attributes,
        )
        if links:
            span["links"] = links
        error = _error_type(answer)
        return self._failed(span, error, call_error(answer.ended) or "" if error else "")

    def of_tool(self, tool: Tool) -> dict[str, Any]:
        """Return the span of a tool. Without a result it ends where it begins, and has no status."""
        by_api = tool.block.get("type") != "tool_use"
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name,
            "gen_ai.tool.call.id": tool.id,
            "gen_ai.tool.type": "extension" if by_api else "function",
            "retold.unanswered": True if tool.ended_ns is None else None,
            **self._place(tool.answer),
        }
        if self._content:
            attributes["gen_ai.tool.call.arguments"] = strict_json.dumps(tool.block.get("input"))
            if tool.ended_ns is not None:
                attributes["gen_ai.tool.call.result"] = _text_of(tool.result.get("content"))
        if tool.ended_ns is not None and not tool.answer.exchange and not by_api:
            self._coming[tool.answer.unit].append({"role": "user", "content": [tool.result]})
        ended_ns = tool.started_ns if tool.ended_ns is None else tool.ended_ns
        number = f"{tool.answer.seq}/{tool.id}"
        span = self._span(number, self._id(tool.answer.part.seq), f"execute_tool {tool.name}", INTERNAL,
                          tool.started_ns, ended_ns, attributes)  # fmt: skip
        span["links"] = [{"traceId": self._trace, "spanId": self._id(tool.answer.seq), "flags": _SAMPLED}]
        return self._failed(span, "tool_error" if tool.result.get("is_error") else None, "")

    def _place(self, answer: Said) -> Attributes:
        step, task = answer.unit
        return {"retold.step": step or None, "retold.task": task or None,
                "retold.replay": True if answer.replayed or self._run.mode == "mock" else None}  # fmt: skip

    @staticmethod
    def _of_request(answer: Said) -> Attributes:
        asked = answer.request
        top_k = asked.get("top_k")
        return {
            "gen_ai.request.model": _text_or_none(asked.get("model")),
            "gen_ai.request.max_tokens": _int_or_none(asked.get("max_tokens")),
            "gen_ai.request.temperature": _float_or_none(asked.get("temperature")),
            "gen_ai.request.top_p": _float_or_none(asked.get("top_p")),
            "gen_ai.request.top_k": _int_or_none(top_k),
            "gen_ai.request.stop_sequences": asked.get("stop_sequences") or None,
            "gen_ai.request.stream": True if asked.get("stream") is True else None,
            "gen_ai.request.reasoning.level": _text_or_none(object_or_empty(asked.get("output_config")).get("effort")),
        }

    @staticmethod
    def _of_exchange(answer: Said, uri: str) -> Attributes:
        if not answer.exchange:
            return {}
        split = urlsplit(uri)
        attempt = answer.started.get("attempt") or 1
        return {
            "server.address": split.hostname,
            "server.port": _port(uri),
            "http.request.method": answer.started.get("method"),
            "url.path": split.path or None,
            "http.response.status_code": answer.head.get("status"),
            "http.request.resend_count": attempt - 1 if attempt > 1 else None,
            "retold.exchange": answer.seq,
            "retold.call": answer.started.get("call") or None,
            "retold.ending": answer.ended.get("ending", "interrupted"),
        }

    @staticmethod
    def _of_response(answer: Said, prefix: str) -> Attributes:
        found: Attributes = {
            "gen_ai.response.id": answer.ended.get("message_id") or answer.message.get("id"),
            "gen_ai.response.model": answer.ended.get("model") or answer.message.get("model"),
            "retold.cost_usd": answer.cost_usd,
        }
        if (reason := answer.stop_reason) is not None:
            found["gen_ai.response.finish_reasons"] = [FINISH.get(reason, reason)]
            found["anthropic.message.stop_reason"] = reason
        elif answer.exchange and answer.head.get("status") == 200 and answer.ended.get("ending") != "complete":
            found["gen_ai.response.finish_reasons"] = ["error"]
        if answer.first_ns is not None and answer.request.get("stream") is True:
            found["gen_ai.response.time_to_first_chunk"] = (answer.first_ns - answer.started_ns) / 1e9
        return found | {f"{prefix}{name}": count for name, count in tokens_of(answer.usage).items()}

    def _contents(self, answer: Said, coming: list[dict[str, Any]]) -> Attributes:
        """Return the messages of an answer. Without a request, its input is what came since the answer before."""
        asked, found = answer.request, Attributes()
        if not answer.exchange:
            asked = {"messages": coming, "system": self._systems.pop(answer.unit, None)}
        if isinstance(prompt := asked.get("prompt"), str):  # /v1/complete
            asked = {"messages": [{"role": "user", "content": prompt}]}
        if isinstance(messages := asked.get("messages"), list) and messages:
            found["gen_ai.input.messages"] = strict_json.dumps(list(messages_of(messages)))
        if system := [part_of(block) for block in content_blocks(asked.get("system"))]:
            found["gen_ai.system_instructions"] = strict_json.dumps(system)
        if isinstance(tools := asked.get("tools"), list) and tools:
            found["gen_ai.tool.definitions"] = strict_json.dumps([_definition(object_or_empty(tool)) for tool in tools])
        if answer.blocks:
            reason = answer.stop_reason
            said = {"role": "assistant", "parts": [part_of(block) for block in answer.blocks]}
            said["finish_reason"] = "error" if reason is None else FINISH.get(reason, reason)
            found["gen_ai.output.messages"] = strict_json.dumps([said])
        return found

    @staticmethod
    def _client_span(answer: Said) -> tuple[list[dict[str, Any]], bool]:
        """Return the link to the span that sent a request, and whether that span was sampled."""
        headers = answer.started.get("headers") or []
        sent = _TRACEPARENT.fullmatch((header(headers, "traceparent") or "").strip().lower())
        if sent is None or not int(sent[1], 16) or not int(sent[2], 16):
            return [], False
        link: dict[str, Any] = {"traceId": sent[1], "spanId": sent[2], "flags": int(sent[3], 16)}
        if state := header(headers, "tracestate"):
            link["traceState"] = state
        return [link | {"attributes": _listed({"retold.link": "client"})}], bool(int(sent[3], 16) & _SAMPLED)

    def _id(self, number: int | str) -> str:
        return _digest("span", self._run.run, str(number))[:16]

    def _span(
        self, number: int | str, parent: str | None, name: str, kind: int, start_ns: int, end_ns: int, attributes: Attributes
    ) -> dict[str, Any]:  # fmt: skip
        span: dict[str, Any] = {"traceId": self._trace, "spanId": self._id(number)}
        if parent is not None:
            span["parentSpanId"] = parent
        times = {"startTimeUnixNano": str(start_ns), "endTimeUnixNano": str(max(start_ns, end_ns))}
        return span | {"name": name, "kind": kind, **times, "attributes": _listed(attributes), "flags": _SAMPLED}

    def _failed(self, span: dict[str, Any], error: str | None, text: str) -> dict[str, Any]:
        """Mark a span as failed if there is an error. Its text is content: an API may repeat parts of the request."""
        if error is not None:
            span["attributes"] += _listed({"error.type": error})
            span["status"] = {"code": _ERROR} | ({"message": text} if text and self._content else {})
        return span


def _is_inference(path: str) -> bool:
    found = model_path(path)
    return (found is not None and found.model != "count-tokens") or path.endswith(("/v1/messages", "/v1/complete"))


def _port(uri: str) -> int | None:
    split = urlsplit(uri)
    if split.hostname is None:
        return None
    return split.port or (80 if split.scheme == "http" else 443)


def _provider(uri: str) -> str:
    found = model_path(uri)
    if found is None:
        return "anthropic"
    return "gcp.vertex_ai" if found.action.endswith("Predict") else "aws.bedrock"


def _error_type(answer: Said) -> str | None:
    """Return the class of a failure: the API's type, the status, the type of the exception, or the ending."""
    if not answer.failed:
        return "interrupted" if answer.exchange and not answer.ended else None
    said = object_or_empty(answer.ended.get("api_error")).get("type")
    status = answer.head.get("status") if answer.ended.get("ending") == "http_error" else None
    raised = object_or_empty(answer.ended.get("error")).get("type")
    return str(said or status or raised or answer.ended.get("ending"))


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a tool. A tool of the API has a type and no schema."""
    schema = {"parameters": tool["input_schema"]} if "input_schema" in tool else {}
    about = {"description": tool["description"]} if isinstance(tool.get("description"), str) else {}
    return {"type": "function" if schema else str(tool.get("type")), "name": str(tool.get("name", "")), **about, **schema}


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else strict_json.dumps(content)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _float_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _listed(attributes: Attributes) -> list[dict[str, Any]]:
    """Return attributes as OTLP has them, without those that are None."""
    return [{"key": key, "value": _value(value)} for key, value in attributes.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(each) for each in islice(value, 1000)]}}
    return {"stringValue": str(value)}


def _digest(*parts: str) -> str:
    return sha256("\0".join(("retold", *parts)).encode()).hexdigest()
