"""Read traces in the JSON of OTLP as far as they hold messages: those of our own exports, and of other instrumentations.

Each trace is one run. Read are the spans with the attributes `gen_ai.input.messages`, `gen_ai.output.messages`,
`gen_ai.system_instructions` (of an inference) and `gen_ai.tool.call.result` (of a tool). A value may be JSON or structured.
Lost are the spans and attributes without messages, the requests themselves, and costs. Times are those of the spans.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.files import open_regular
from ..recorder.messages import Session
from ..recorder.strict_json import object_or_empty
from ..recorder.words import plural
from .genai import STOP, block_of, is_blocks, usage_of_tokens
from .talks import Talk
from .turns import key_of

Span = dict[str, Any]
"""A span: trace, id, parent, name, from_ns, to_ns, attributes."""

_USAGE = ("gen_ai.usage.", "retold.usage.")
_TEXTS = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")


def is_ours(document: dict[str, Any]) -> bool:
    """Return whether a JSON object is one of traces."""
    return isinstance(document.get("resourceSpans"), list)


def may_be(data: bytes) -> bool:
    """Return whether a file may hold traces. It is not parsed."""
    return b'"resourceSpans"' in data


def read(path: Path) -> list[Talk]:
    """Return the messages of a file of traces, a talk for each trace. Raises InputError with the place of the fault."""
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in _spans(path):
        traces[span["trace"]].append(span)
    talks = [talk for trace, spans in traces.items() if (talk := _talk(path, trace, spans)).lines]
    if not talks:
        count = plural(sum(map(len, traces.values())), "span")
        raise InputError(
            f"{path} holds {count} and no messages; there is nothing to import. retold writes them with "
            "`retold export --format otlp --content`."
        )
    if len(talks) == 1:
        talks[0].key = ""
    return talks


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each document: one for the whole file, or one a line."""
    with open_regular(path) as file:
        data = file.read()
    try:
        yield str(path), json.loads(data)
        return
    except (ValueError, RecursionError) as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if len(lines) < 2:
        raise InputError(f"{path}: not a JSON document: {whole}.") from whole
    for number, line in lines:
        try:
            yield f"{path}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not a line of JSON: {error}.") from error


def _spans(path: Path) -> Iterator[Span]:
    for where, document in _documents(path):
        resources = _listed(where, document, "resourceSpans", required=True)
        for r, resource in enumerate(resources):
            for s, scope in enumerate(_listed(f"{where}: resourceSpans[{r}]", resource, "scopeSpans")):
                place = f"{where}: resourceSpans[{r}].scopeSpans[{s}]"
                for number, span in enumerate(_listed(place, scope, "spans")):
                    yield _span(f"{place}.spans[{number}]", span)


def _listed(where: str, value: Any, key: str, *, required: bool = False) -> list[Any]:
    default: list[Any] | None = None if required else []
    found = value.get(key, default) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise InputError(f"{where}: `{key}` should be a list; nothing was imported.")
    return found


def _span(where: str, span: Any) -> Span:
    try:
        trace, id_ = (bytes.fromhex(span[name]).hex() for name in ("traceId", "spanId"))
        if len(trace) != 32 or len(id_) != 16:
            raise ValueError("an id has another length")
        from_ns, to_ns = (int(span.get(name, 0)) for name in ("startTimeUnixNano", "endTimeUnixNano"))
        attributes = {each["key"]: _value(each.get("value", {})) for each in span.get("attributes", ())}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{where} is not a span of OTLP in JSON ({fault}); nothing was imported.") from error
    return {"trace": trace, "id": id_, "parent": span.get("parentSpanId") or "", "name": str(span.get("name", "")),
            "from_ns": from_ns, "to_ns": max(from_ns, to_ns), "attributes": attributes}  # fmt: skip


def _value(value: dict[str, Any]) -> Any:
    """Return an attribute's value as JSON."""
    for key, held in value.items():
        match key:
            case "intValue":
                return int(held)
            case "arrayValue":
                return [_value(each) for each in held.get("values", ())]
            case "kvlistValue":
                return {each["key"]: _value(each.get("value", {})) for each in held.get("values", ())}
            case _:
                return held
    return None


def _talk(path: Path, trace: str, spans: list[Span]) -> Talk:
    """Return the messages of a trace. Spans of one time keep their order in the file."""
    named = next((span["attributes"].get("gen_ai.agent.name") for span in spans if not span["parent"]), None)
    talk = Talk(str(named or path.name.partition(".")[0]), trace, session=Session(f"otlp {trace}"))
    reading = _OtlpReading(talk)
    done: list[tuple[tuple[int, ...], Any, Span]] = []
    for number, span in enumerate(spans):
        attributes = span["attributes"]
        if any(name in attributes for name in _TEXTS) and attributes.get("gen_ai.operation.name") != "invoke_agent":
            # At one time answers come first, then tools, then requests. Spans without a duration keep their order in the file.
            lasts = span["from_ns"] < span["to_ns"]
            begun, ended = ((2, number), (0, number)) if lasts else ((1, number, 0), (1, number, 1))
            done += [((span["from_ns"], *begun), reading.asked, span), ((span["to_ns"], *ended), reading.answered, span)]
        elif "gen_ai.tool.call.result" in attributes:
            done.append(((span["to_ns"], 1, number), reading.tool, span))
    for (at_ns, *_), take, span in sorted(done, key=lambda each: each[0]):
        take(at_ns, span)
    return talk


class _OtlpReading:
    """Turns the spans of one trace into lines, in the order of their times."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._answered: set[str] = set()  # ids of tool uses with a result
        self._begun: set[tuple[str, str]] = set()
        self._said: set[str] = set()
        self._systems: dict[tuple[str, str], list[Any]] = defaultdict(list)

    def asked(self, at_ns: int, span: Span) -> None:
        """Add the messages of a request that are new."""
        unit = _unit(span)
        system = [block_of(part) for part in _parts(span["attributes"].get("gen_ai.system_instructions"))]
        if system and system not in self._systems[unit]:
            self._systems[unit].append(system)
            self._talk.system(at_ns, unit, system)
        messages = _parts(span["attributes"].get("gen_ai.input.messages"))
        last = max((at for at, each in enumerate(messages, 1) if each.get("role") == "assistant"), default=0)
        is_known = last and key_of(map(block_of, _parts(messages[last - 1].get("parts")))) in self._said
        new = last if is_known or unit in self._begun else 0
        self._begun.add(unit)
        for at, message in enumerate(messages[new:], new):
            blocks = [block_of(part) for part in _parts(message.get("parts"))]
            results = [b for b in blocks if b["type"] == "tool_result" and str(b.get("tool_use_id")) not in self._answered]
            said = [b for b in blocks if b["type"] != "tool_result"]
            self._answered |= {str(b.get("tool_use_id")) for b in results}
            if message.get("role") == "assistant":
                id_ = f"{self._talk.session.id} {span['id']} before {at}"
                self._talk.answer(at_ns, unit, {"id": id_}, said, copied=True)
            elif message.get("role") == "system":
                self._talk.system(at_ns, unit, said)
            elif results or said:
                self._talk.user(at_ns, unit, [*results, *said], copied=at < last)

    def answered(self, at_ns: int, span: Span) -> None:
        """Add the answer of a span."""
        attributes = span["attributes"]
        messages = _parts(attributes.get("gen_ai.output.messages"))
        if not messages:
            return
        reasons = attributes.get("gen_ai.response.finish_reasons")
        reason = attributes.get("anthropic.message.stop_reason")
        if reason is None and isinstance(reasons, list) and reasons and reasons[0] != "error":
            reason = STOP.get(str(reasons[0]), str(reasons[0]))
        tokens = {name.removeprefix(prefix): n for prefix in _USAGE for name, n in attributes.items() if name.startswith(prefix)}
        message = {
            "id": attributes.get("gen_ai.response.id") or f"{self._talk.session.id} {span['id']}",
            "model": attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"),
            "stop_reason": reason,
            "usage": usage_of_tokens(tokens) or None,
        }
        blocks = [block_of(part) for part in _parts(messages[0].get("parts"))]
        self._said.add(key_of(blocks))
        self._talk.answer(at_ns, _unit(span), message, blocks)

    def tool(self, at_ns: int, span: Span) -> None:
        """Add the result of a tool, unless a request had it before."""
        attributes = span["attributes"]
        id_ = str(attributes.get("gen_ai.tool.call.id", ""))
        if id_ in self._answered or attributes.get("gen_ai.tool.type") == "extension":  # the answer holds a result of the API
            return
        self._answered.add(id_)
        content = attributes["gen_ai.tool.call.result"]
        if isinstance(content, str) and content.startswith(("[", "{")):
            parsed = _json(content)
            content = parsed if is_blocks(parsed) else content
        elif not isinstance(content, str):
            content = strict_json.dumps(content)
        block = {"type": "tool_result", "tool_use_id": id_, "content": content}
        self._talk.user(at_ns, _unit(span), [block | ({"is_error": True} if "error.type" in attributes else {})])


def _unit(span: Span) -> tuple[str, str]:
    attributes = span["attributes"]
    return str(attributes.get("retold.step") or ""), str(attributes.get("retold.task") or "")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, which may be in JSON."""
    found = _json(value) if isinstance(value, str) else value
    return [object_or_empty(each) for each in found] if isinstance(found, list) else []
