"""Bedrock's Converse API in the shapes of the Messages API: the events of a stream, an answer, and a request.

Converse names its fields in its own way (`toolUse`, `stopReason`, `inputTokens`) and holds the same conversation. Fields and
blocks without a counterpart pass through under their own names.
"""

from typing import Any

from ..strict_json import object_or_empty

_COUNTS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
}
_LIMITS = {"maxTokens": "max_tokens", "stopSequences": "stop_sequences", "temperature": "temperature", "topP": "top_p"}
_OWN = ("messages", "system", "inferenceConfig", "toolConfig", "additionalModelRequestFields")


def event_of(name: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of the Messages API for an event of `converse-stream`, or None for an unknown one.

    A block of text has no event that opens it, so its deltas name their block (`content_block`). `messageStop` has the stop
    reason, and `metadata` follows it with the usage.
    """
    index = value.get("contentBlockIndex")
    match name:
        case "messageStart":
            message: dict[str, Any] = {"type": "message", "role": value.get("role"), "content": [], "usage": {}}
            return {"type": "message_start", "message": message}
        case "contentBlockStart":
            # A tool use of the Messages API begins with an empty input.
            block = block_of(object_or_empty(value.get("start")))
            return {"type": "content_block_start", "index": index, "content_block": {"input": {}} | block}
        case "contentBlockDelta":
            block, delta = _delta(object_or_empty(value.get("delta")))
            return {"type": "content_block_delta", "index": index, "content_block": block, "delta": delta}
        case "contentBlockStop":
            return {"type": "content_block_stop", "index": index}
        case "messageStop":
            return {"type": "message_stop", "delta": {"stop_reason": value.get("stopReason")}}
        case "metadata":
            return {"type": "message_delta", "delta": {}, "usage": usage_of(value.get("usage"))}
    return None


def _delta(delta: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the block to which a delta belongs, and the delta."""
    if "text" in delta:
        return {"type": "text", "text": ""}, {"type": "text_delta", "text": delta["text"]}
    if "toolUse" in delta:
        text = object_or_empty(delta["toolUse"]).get("input", "")
        return {"type": "tool_use", "input": {}}, {"type": "input_json_delta", "partial_json": text}
    thought = object_or_empty(delta.get("reasoningContent"))
    if "redactedContent" in thought:
        return {"type": "redacted_thinking"}, {"type": "data_delta", "data": thought["redactedContent"]}
    if "signature" in thought:
        return {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": thought["signature"]}
    if "text" in thought:
        return {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": thought["text"]}
    if "citation" in delta:
        return {"type": "text", "text": ""}, {"type": "citations_delta", "citation": delta["citation"]}
    # The only key of a delta is its kind, also of an unknown one. The fold keeps its value.
    return {"type": next(iter(delta), "")}, {"type": "unknown_delta"} | delta


def usage_of(usage: Any) -> dict[str, Any]:
    """Return the token counts under the names of the Messages API."""
    counts = object_or_empty(usage)
    return {own: counts[name] for name, own in _COUNTS.items() if name in counts}


def message_of(answer: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message of the Messages API for an answer of `converse`, or None for any other JSON object."""
    message: dict[str, Any] = object_or_empty(object_or_empty(answer.get("output")).get("message"))
    if not message or "stopReason" not in answer:
        return None
    content = message.get("content")
    return {
        "type": "message",
        "role": message.get("role"),
        "content": [block_of(block) for block in content if isinstance(block, dict)] if isinstance(content, list) else [],
        "stop_reason": answer["stopReason"],
        "usage": usage_of(answer.get("usage")),
    }


def block_of(block: dict[str, Any]) -> dict[str, Any]:
    """Return the content block of the Messages API for one of Converse."""
    if "text" in block:
        return {"type": "text", "text": block["text"]}
    kind = next(iter(block), "")
    value = object_or_empty(block.get(kind))
    match kind:
        case "toolUse":
            use = {"type": "tool_use", "id": value.get("toolUseId"), "name": value.get("name")}
            return use | ({"input": value["input"]} if "input" in value else {})
        case "toolResult":
            content = value.get("content")
            parts = [block_of(part) for part in content if isinstance(part, dict)] if isinstance(content, list) else content
            error = {"is_error": True} if value.get("status") == "error" else {}
            return {"type": "tool_result", "tool_use_id": value.get("toolUseId"), "content": parts} | error
        case "reasoningContent" if "reasoningText" in value:
            thought = object_or_empty(value["reasoningText"])
            signed = {"signature": thought["signature"]} if "signature" in thought else {}
            return {"type": "thinking", "thinking": thought.get("text", "")} | signed
        case "reasoningContent":
            return {"type": "redacted_thinking", "data": value.get("redactedContent")}
        case "image" | "document":
            data = object_or_empty(value.get("source")).get("bytes")
            return {"type": kind, "format": value.get("format"), "source": {"type": "base64", "data": data}}
    return {"type": kind} | value


def request_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request of the Messages API for one of Converse, without its model, which is in the path."""
    whole = {name: value for name, value in body.items() if name not in _OWN}
    whole |= object_or_empty(body.get("additionalModelRequestFields"))
    messages = body.get("messages")
    whole["messages"] = [
        message | {"content": _blocks(message.get("content"))} for message in messages if isinstance(message, dict)
    ] if isinstance(messages, list) else []  # fmt: skip
    if "system" in body:
        whole["system"] = _blocks(body["system"])
    limits = object_or_empty(body.get("inferenceConfig"))
    whole |= {_LIMITS.get(name, name): value for name, value in limits.items()}
    tools = object_or_empty(body.get("toolConfig"))
    if isinstance(tools.get("tools"), list):
        whole["tools"] = [_tool(tool) for tool in tools["tools"] if isinstance(tool, dict) and "cachePoint" not in tool]
    if "toolChoice" in tools:
        choice = object_or_empty(tools["toolChoice"])
        kind = next(iter(choice), "auto")
        whole["tool_choice"] = {"type": kind} | object_or_empty(choice.get(kind))
    return whole


def _blocks(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [block_of(block) for block in content if isinstance(block, dict) and "cachePoint" not in block]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    spec = object_or_empty(tool.get("toolSpec"))
    if not spec:
        return tool
    named = {name: value for name, value in spec.items() if name != "inputSchema"}
    return named | {"input_schema": object_or_empty(spec.get("inputSchema")).get("json")}
