"""The assertions of a written test: the trajectory of the recording, in the parts that a person would write."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...recorder import strict_json
from ..facts import ToolCall
from ..trajectory import Trajectory
from .literals import Code, call, pattern

LONG_TEXT = 160
"""A longer value of a tool's input is expected by the beginning of its first line."""

MOST_INPUTS = 40
"""The most tool calls that are expected with their inputs; of more calls only the names are."""

MOST_PARTS = 4
"""The most parts of texts that are expected."""


def expectations(found: Trajectory, of: str) -> list[str]:
    """Return the source of the expectations of a trajectory; none if the recording has no answer of a model.

    `of` is an expression: the recording that the test reads.
    """
    if not found.turns and not found.ended:
        return []
    arguments: dict[str, Any] = {}
    if found.turns:
        with_inputs = len(found.calls) <= MOST_INPUTS
        arguments["tools"] = [_tool(each) if with_inputs else each.name for each in found.calls]
        arguments |= {"in_order": True} if len(found.calls) > 1 else {}
        arguments |= {"no_others": True, "max_turns": found.turns}
    if parts := parts_of(found.texts):
        arguments["text_contains"] = parts[0] if len(parts) == 1 else parts
    if words := [word for word in found.ended if word not in _OF_THE_RUN]:
        arguments["ended"] = words[0] if len(words) == 1 else words
    return [call(f"retold.trajectory({of}).expect", arguments)] if arguments else []


_OF_THE_RUN = ("completed", "failed", "cancelled", "interrupted", "running")


def _tool(used: ToolCall) -> dict[str, Any]:
    """Return a tool call as `expect` takes it: short values whole, long ones by their beginning."""
    whole: dict[str, Any] = {}
    beginnings: dict[str, Any] = {}
    for key, value in used.input.items():
        if isinstance(value, str) and len(value) > LONG_TEXT:
            beginnings[key] = _beginning(value)
        elif len(strict_json.dumps(value)) <= 4 * LONG_TEXT:
            whole[key] = value
    found: dict[str, Any] = {"name": used.name}
    found |= {"input": whole} if whole else {}
    return found | ({"input_matches": beginnings} if beginnings else {})


def _beginning(text: str) -> Code:
    return pattern(next((line for line in text.split("\n") if line.strip()), "")[:60].rstrip())


# Parts of texts

_TELLING = (
    re.compile(r"`([^`\n]{2,60})`"),  # code
    re.compile(r"\*\*([^*\n]{2,60})\*\*"),  # bold
    re.compile(r"(?<![\w/.])(?:[\w\-]+/)*[\w\-]+\.[a-z]{1,4}\b(?![\w/])"),  # names of files
    re.compile(r"(?<![\w.,])[$€£]?\d[\d.,:]*\d(?:\s?(?:%|[kKMG]?[bB]|[kcm]?m|[mk]?g|s|ms|°[CF]?))?(?!\w)"),  # numbers
)
"""What a text is about, most telling first."""

_SENTENCE = re.compile(r"[^.!?\n]{8,80}[.!?]?")


def parts_of(texts: Sequence[str]) -> list[str]:
    """Return the parts that tests expect in the texts of answers: of the last one, or of each of a few."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        return []
    if len(texts) > MOST_PARTS:
        texts = texts[-1:]
    each = MOST_PARTS // len(texts)
    return list(dict.fromkeys(part for text in texts for part in _parts(text, each)))


def _parts(text: str, most: int) -> list[str]:
    plain = text.strip()
    if len(plain) <= 40 and "\n" not in plain:
        return [plain]
    found = list(dict.fromkeys(part for pattern in _TELLING for part in _found(pattern, text)))[:most]
    if found:
        return found
    lines = [line.strip() for line in plain.split("\n") if line.strip()]
    sentence = _SENTENCE.search(lines[-1]) or _SENTENCE.search(plain)
    return [sentence[0].strip() if sentence is not None else lines[0][:60]]


def _found(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        part = (match[1] if match.re.groups else match[0]).strip()
        if len(part) > 1:
            yield part
