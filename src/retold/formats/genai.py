"""Messages in the form of OpenTelemetry's semantic conventions for generative AI, version 0.1, and back.

The conventions: https://github.com/open-telemetry/semantic-conventions-genai, `gen-ai-input-messages.json`. A message is
`{"role", "parts"}`. Blocks of the Messages API that have no part there pass through unchanged, because a part may have any type.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..recorder.messages import content_blocks, result_text
from ..recorder.strict_json import object_or_empty

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_call",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""The reasons of the Messages API by which a model stops, in the words of the conventions. Others pass through."""

STOP = {
    "tool_call": "tool_use",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
    "stop": "end_turn",
}
"""The words of the conventions, and of the OpenAI API, in those of the Messages API."""


def messages_of(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a request. Results of tools are messages of the role `tool`."""
    for message in messages:
        message = object_or_empty(message)
        blocks = list(content_blocks(message.get("content")))
        results = [part_of(block) for block in blocks if block.get("type") == "tool_result"]
        others = [part_of(block) for block in blocks if block.get("type") != "tool_result"]
        if results:
            yield {"role": "tool", "parts": results}
        if others or not results:
            yield {"role": str(message.get("role", "")), "parts": others}


def part_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a content block as a part."""
    kind = str(block.get("type", ""))
    match kind:
        case "text":
            return {"type": "text", "content": str(block.get("text", ""))}
        case "thinking":
            return {"type": "reasoning", "content": str(block.get("thinking", ""))}
        case "tool_use":
            return {
                "type": "tool_call",
                "id": block.get("id"),
                "name": str(block.get("name", "")),
                "arguments": block.get("input"),
            }
        case "tool_result":
            failed = {"is_error": True} if block.get("is_error") else {}
            return {"type": "tool_call_response", "id": block.get("tool_use_id"), "response": block.get("content", "")} | failed
        case "image" | "document":
            return _media(block, kind)
    if kind.endswith("tool_use"):
        call = {"type": str(block.get("name", "")), "input": block.get("input")}
        return {"type": "server_tool_call", "id": block.get("id"), "name": str(block.get("name", "")), "server_tool_call": call}
    if kind.endswith("tool_result"):
        response = {"type": kind, "content": block.get("content")}
        return {"type": "server_tool_call_response", "id": block.get("tool_use_id"), "server_tool_call_response": response}
    return {**block, "type": kind}


def _media(block: Mapping[str, Any], modality: str) -> dict[str, Any]:
    source = object_or_empty(block.get("source"))
    common = {"modality": modality, "mime_type": source.get("media_type")}
    match source.get("type"):
        case "base64":
            return {"type": "blob", **common, "content": str(source.get("data", ""))}
        case "url":
            return {"type": "uri", **common, "uri": str(source.get("url", ""))}
        case "file":
            return {"type": "file", **common, "file_id": str(source.get("file_id", ""))}
    return dict(block)


def block_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part as a content block; the inverse of `part_of`."""
    kind = str(part.get("type", ""))
    match kind:
        case "text":
            return {"type": "text", "text": str(part.get("content", ""))}
        case "reasoning" | "thinking":
            return {"type": "thinking", "thinking": str(part.get("content", ""))}
        case "tool_call":
            return {"type": "tool_use", "id": part.get("id"), "name": str(part.get("name", "")), "input": part.get("arguments")}
        case "tool_call_response":
            content = part.get("response", part.get("result", ""))
            if not isinstance(content, str) and not is_blocks(content):
                content = result_text(content) or _as_text(content)
            failed = {"is_error": True} if part.get("is_error") else {}
            return {"type": "tool_result", "tool_use_id": part.get("id"), "content": content} | failed
        case "server_tool_call":
            call = object_or_empty(part.get("server_tool_call"))
            return {
                "type": "server_tool_use",
                "id": part.get("id"),
                "name": str(part.get("name", "")),
                "input": call.get("input"),
            }
        case "server_tool_call_response":
            response = object_or_empty(part.get("server_tool_call_response"))
            return {"type": str(response.get("type")), "tool_use_id": part.get("id"), "content": response.get("content")}
        case "blob" | "uri" | "file":
            return _source(part, kind)
    return dict(part)


def _source(part: Mapping[str, Any], kind: str) -> dict[str, Any]:
    source: dict[str, Any] = {
        "blob": {"type": "base64", "media_type": part.get("mime_type"), "data": part.get("content")},
        "uri": {"type": "url", "url": part.get("uri")},
        "file": {"type": "file", "file_id": part.get("file_id")},
    }[kind]
    return {"type": "image" if part.get("modality") == "image" else "document", "source": source}


def is_blocks(value: Any) -> bool:
    """Return whether a value is a list of content blocks."""
    return isinstance(value, list) and all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in value)


def _as_text(value: Any) -> str:
    from ..recorder.strict_json import dumps

    return "" if value is None else dumps(value)


def tokens_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a usage under the names of the conventions. `input_tokens` includes cached ones."""
    counts = {name: n for name, n in usage.items() if isinstance(n, int) and not isinstance(n, bool) and n >= 0}
    found: dict[str, int] = {}
    if "input_tokens" in counts:
        found["input_tokens"] = counts["input_tokens"]
        for name, own in (("cache_read", "cache_read_input_tokens"), ("cache_write", "cache_creation_input_tokens")):
            if own in counts:
                found["input_tokens"] += counts[own]
                found[f"{name}.input_tokens"] = counts[own]
    if "output_tokens" in counts:
        found["output_tokens"] = counts["output_tokens"]
        thought = object_or_empty(usage.get("output_tokens_details")).get("thinking_tokens")
        if isinstance(thought, int):
            found["reasoning.output_tokens"] = thought
    return found


def usage_of_tokens(tokens: Mapping[str, Any]) -> dict[str, int]:
    """Return counts under the names of the conventions as a usage of the Messages API; the inverse of `tokens_of`."""
    counts = {name: n for name, n in tokens.items() if isinstance(n, int) and not isinstance(n, bool) and n >= 0}
    read = counts.get("cache_read.input_tokens", 0)
    wrote = counts.get("cache_write.input_tokens", counts.get("cache_creation.input_tokens", 0))
    usage: dict[str, int] = {}
    if "input_tokens" in counts:  # some instrumentations leave the cached tokens out of it
        usage["input_tokens"] = max(counts["input_tokens"] - read - wrote, 0)
    if "output_tokens" in counts:
        usage["output_tokens"] = counts["output_tokens"]
    if "cache_read.input_tokens" in counts:
        usage["cache_read_input_tokens"] = read
    if "cache_write.input_tokens" in counts or "cache_creation.input_tokens" in counts:
        usage["cache_creation_input_tokens"] = wrote
    return usage
