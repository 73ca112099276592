"""The searchable words of an event: the texts of messages, the inputs and results of tools, and the prompts of requests.

One row of the index is one event. Its words are the texts of its blocks. Type, tool and model are in columns beside them.
"""

import re
from typing import Any, NamedTuple

from ..recorder.http.call_errors import call_error
from ..recorder.http.prompts import prompt_of_line, prompt_of_request, request_in
from ..recorder.messages import blocks_of, result_text
from ..recorder.strict_json import object_or_empty


class Text(NamedTuple):
    """The words of one event. `type` is one or more of prompt, assistant, user, result, system, error, text, thinking, tool_use,
    tool_result; `tool` is the name of the used or answering tool."""

    text: str
    type: str
    tool: str = ""
    model: str = ""


def text_of_message(message: dict[str, Any], tools: dict[str, str]) -> Text | None:
    """Return the words of a message event, or None if it has none. `tools` maps ids of tool uses to names, and gets new ones."""
    kind = str(message.get("type", ""))
    if kind == "result":
        return _text_of_result(message)
    inner = object_or_empty(message.get("message"))
    model = str(inner.get("model") or "")
    blocks = blocks_of(message)
    if len(blocks) == 1:  # as in almost every message of Claude Code
        type_, text, tool = _of_block(blocks[0], tools)
        types_ = kind if type_ == kind else f"{kind} {type_}"
        return Text(text, types_, tool, model) if text or tool else None
    words: list[str] = []
    types, names = {kind: None}, dict[str, None]()
    for block in blocks:
        type_, text, tool = _of_block(block, tools)
        types[type_] = None
        if tool:
            names[tool] = None
        if text:
            words.append(text)
    if not words and not names:
        return None
    return Text("\n".join(words), " ".join(types), " ".join(names), model)


def _text_of_result(message: dict[str, Any]) -> Text | None:
    """Return the error of a failed result. A good result repeats the last answer, which is indexed already."""
    if not message.get("is_error"):
        return None
    errors = message.get("errors")
    said = [message.get("result"), *(errors if isinstance(errors, list) else ())]
    words = "\n".join(each for each in said if isinstance(each, str))
    return Text(words, "result") if words else None


def _of_block(block: dict[str, Any], tools: dict[str, str]) -> tuple[str, str, str]:
    """Return (type, words, tool) of one content block."""
    type_ = str(block.get("type", ""))
    if type_ == "text":
        return type_, str(block.get("text", "")), ""
    if type_ == "thinking":
        return type_, str(block.get("thinking", "")), ""
    if type_.endswith("tool_use"):
        name = str(block.get("name", ""))
        tools[str(block.get("id"))] = name
        return "tool_use", "\n".join(strings(block.get("input"))), name
    if type_.endswith("tool_result"):
        content = block.get("content")
        text = result_text(content) if type_ == "tool_result" else "\n".join(strings(content))
        return "tool_result", text, tools.get(str(block.get("tool_use_id")), "")
    return type_, "\n".join(strings({k: v for k, v in block.items() if k not in ("type", "data", "signature", "source")})), ""


def text_of_request(started: dict[str, Any], request: dict[str, Any] | None = None) -> Text | None:
    """Return the prompt of a request, or None if it has none. `request` is `request_in(started)`, if the caller has it."""
    request = request_in(started) if request is None else request
    text = prompt_of_request(started, request)
    return Text(text, "prompt", "", str(request.get("model") or "")) if text else None


def text_of_prompt(line: dict[str, Any]) -> Text | None:
    """Return the words of a message of the user that the Agent SDK wrote, or None for any other line that it wrote."""
    text = prompt_of_line(line)
    return Text(text, "prompt") if text else None


def text_of_error(ended: dict[str, Any], model: str) -> Text | None:
    """Return the words of a failed exchange, or None if it did not fail. `model` is the model that was asked."""
    error = call_error(ended)
    return None if error is None else Text(error, "error", "", model)


def strings(value: Any) -> list[str]:
    """Return every text and number in a JSON value, without keys."""
    found: list[str] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _gather(item, found)
    elif isinstance(value, list):
        for item in value:
            _gather(item, found)
    elif value is not None and not isinstance(value, bool):
        found.append(str(value))


# How a text is stored in the index, and back

_ESCAPE = "\x01"
_BREAK = _ESCAPE + "\x08"
"""A separator between characters of scripts without spaces, so that the tokenizer makes a word of each."""

_RESERVED = re.compile("[\x00-\x03]")
_STORED = re.compile(f"{_ESCAPE}([\x04-\x08])")
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U0001aff0-\U0001b16f\U00020000-\U0003ffff]+"
)
"""Thai, Lao, Burmese, Khmer, Hangul, kana and Chinese characters. Korean has spaces, but its particles join the word."""


def storable(text: str) -> str:
    """Return a text as the index stores it. `readable` is the inverse.

    1. Characters of scripts without spaces are separated, so that a word of them is found as a phrase.
    2. NUL, at which FTS5 stops, and the characters that mark a hit are escaped.
    3. Half a surrogate pair becomes `?`.
    """
    is_ascii = text.isascii()
    text = encodable(text)
    if "\0" in text or "\1" in text or "\2" in text or "\3" in text:  # faster than a search for one of them
        text = _RESERVED.sub(lambda found: _ESCAPE + chr(ord(found[0]) + 4), text)
    if not is_ascii:
        text = _WITHOUT_SPACES.sub(lambda found: _BREAK + _BREAK.join(found[0]) + _BREAK, text)
    return text


def encodable(text: str) -> str:
    """Return a text with `?` for half a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def readable(stored: str) -> str:
    """Return the text that `storable` was given."""
    if _ESCAPE not in stored:
        return stored
    return _STORED.sub(lambda found: "" if found[0] == _BREAK else chr(ord(found[1]) - 4), stored)
